"""Policies, stages and waivers as they are kept, and as gateways and workers see them."""

import datetime as dt
import uuid

import pytest

from forestay.chance import SeededChance
from forestay.clock import SystemClock
from forestay.errors import Unavailable, UsageError
from forestay.ids import RequestId, TenantId, new_request_id
from forestay.safety.policies import Policies
from forestay.safety.policy import UNGUARDED
from forestay.safety.policy_file import STANDARD, standard_policy, standard_text
from forestay.safety.postgres_store import PostgresSafetyStore
from forestay.safety.sealing import PolicySeal
from forestay.safety.staging import Staging
from forestay.safety.store import SafetyState, Waiver
from forestay.storage.postgres import Database
from forestay.storage.valkey import LocalWakeups

SEAL = PolicySeal("a long random text")
NOW = dt.datetime(2026, 11, 26, tzinfo=dt.UTC)


@pytest.fixture
def store(database: Database) -> PostgresSafetyStore:
    """The adapter on a database of its own."""
    return PostgresSafetyStore(database, LocalWakeups(), SEAL)


def a_request() -> RequestId:
    """Some request."""
    return new_request_id(NOW, 0, SeededChance(7))


async def test_whether_a_mark_is_asked_for_follows_from_the_versions_that_decide(store: PostgresSafetyStore) -> None:
    """Not from a shadow; from a candidate as soon as it decides for some; of the named policies and of tenants' own."""
    seen = seen_by(store)
    marked = standard_text().replace("\nrules:", "\nprovenance: [manifest]\nrules:")
    assert marked != standard_text()
    await store.propose("mine", marked, actor="ann", reason="a try")

    async def asked(*names: str) -> bool:
        await seen.refresh()
        return seen.asks_for("manifest", names)

    assert not await asked("mine", STANDARD, UNGUARDED.policy_id)
    await store.advance("mine", 10.0, actor="ann", reason="a few")
    assert await asked("mine")
    assert not await asked(STANDARD)
    assert not seen.asks_for("watermark", ("mine",))
    await store.strengthen(TenantId("acme"), "mine", actor="ann", reason="their wish")
    assert await asked(STANDARD)


def seen_by(store: PostgresSafetyStore) -> Policies:
    """The policies as a process with our key sees them."""
    return Policies(store, SEAL, SystemClock())


async def test_a_version_goes_from_shadow_to_all_and_back(store: PostgresSafetyStore, database: Database) -> None:
    """Each step is seen by readers, and each has its row in the audit log."""
    seen = seen_by(store)
    made = await store.propose("mine", standard_text(), actor="ann", reason="a try")
    assert made.version == 1
    await seen.refresh()
    found = seen.of("mine", a_request())
    assert (found.deciding, found.shadow and found.shadow.version) == (None, 1)
    assert await store.advance("mine", 100.0, actor="ann", reason="it holds") == Staging("mine", 1)
    await seen.refresh()
    found = seen.of("mine", a_request())
    assert (found.deciding and found.deciding.version, found.shadow) == (1, None)
    await store.propose("mine", standard_text() + "# stricter\n", actor="ann", reason="again")
    await store.advance("mine", 100.0, actor="ann", reason="too soon")
    assert await store.roll_back("mine", 1, actor="bob", reason="false alarms") == Staging("mine", 1)
    assert [stored.version for stored in await store.versions("mine", 10)] == [2, 1]
    acts = [row[0] for row in await database.fetch("SELECT action FROM audit_log ORDER BY sequence")]
    assert acts == ["propose_policy", "stage_policy", "propose_policy", "stage_policy", "roll_back_policy"]


async def test_a_version_that_was_never_set_cannot_come_back(store: PostgresSafetyStore) -> None:
    """With the version named."""
    with pytest.raises(UsageError, match="no version 9"):
        await store.roll_back("mine", 9, actor="ann", reason="a slip")


@pytest.mark.threat("API8:2023")
async def test_a_policy_written_past_us_is_not_used(store: PostgresSafetyStore, database: Database) -> None:
    """Who can write rows but has not the platform's key sets nothing: what it should judge is not released."""
    await store.propose("mine", standard_text(), actor="ann", reason="a try")
    await store.advance("mine", 100.0, actor="ann", reason="a try")
    await database.execute("UPDATE safety_policies SET text = replace(text, 'block_at: 0.8', 'block_at: 0.99')")
    seen = seen_by(store)
    await seen.refresh()
    assert seen.of("mine", a_request()).deciding is None


async def test_before_the_first_read_nothing_is_judged(store: PostgresSafetyStore) -> None:
    """A stricter version may be in force: `standard` as it came along must not stand in for it."""
    seen = seen_by(store)
    assert seen.of(STANDARD, a_request()).deciding is None
    assert seen.of(UNGUARDED.policy_id, a_request()).deciding == UNGUARDED
    await seen.refresh()
    assert seen.of(STANDARD, a_request()).deciding == standard_policy()


async def test_a_database_that_is_away_changes_nothing(store: PostgresSafetyStore) -> None:
    """Judging goes on by what was read last."""

    class Away(PostgresSafetyStore):
        async def state(self) -> SafetyState:
            raise Unavailable("away")

    seen = seen_by(store)
    await seen.refresh()
    seen._store = Away(store._database, LocalWakeups(), SEAL)
    with pytest.raises(Unavailable):
        await seen.refresh()
    assert seen.of(STANDARD, a_request()).deciding == standard_policy()


async def test_broken_glass_ends_by_itself_or_by_hand(store: PostgresSafetyStore) -> None:
    """A waiver holds for its model until its time, or until somebody ends it."""
    now = SystemClock().now()
    running = Waiver(uuid.UUID(int=1), "nsfw@1", "acme/film", "judge is down", now + dt.timedelta(hours=1), "ann")
    over = Waiver(uuid.UUID(int=2), "nsfw@2", "", "over", now - dt.timedelta(seconds=1), "ann")
    await store.waive(running)
    await store.waive(over)
    seen = seen_by(store)
    await seen.refresh()
    assert seen.waived("acme/film") == {"nsfw@1"}
    assert seen.waived("acme/other") == frozenset()
    assert await store.end_waiver(running.waiver_id, actor="bob", reason="it is back")
    assert not await store.end_waiver(running.waiver_id, actor="bob", reason="it is back")
    await seen.refresh()
    assert seen.waived("acme/film") == frozenset()
