"""One behaviour suite for every store of shadows: Postgres and the fake."""

import dataclasses
import datetime as dt
import uuid

import pytest
from tests.conformance.fleet_values import DIGITS, revision_of
from tests.conformance.memory_shadow import MemoryShadowStore

from forestay.fleet.audit import AuditEntry
from forestay.ids import ModelId, RequestId
from forestay.rollouts.model import Begun, RolloutPolicy, begin
from forestay.rollouts.postgres_store import PostgresRolloutStore
from forestay.rollouts.shadow.model import Offered, Outcome, Pair
from forestay.rollouts.shadow.postgres_store import MOST_OFFERS, PostgresShadowStore
from forestay.rollouts.shadow.store import ShadowStore
from forestay.storage.postgres import Database

AT = dt.datetime(2030, 1, 1, 12, tzinfo=dt.UTC)
OLD, NEW = revision_of("digits-1"), revision_of("digits-2")


def offered(number: int, stratum: str = "/", model_id: ModelId = DIGITS) -> Offered:
    """What a worker offers, each a second later than the one before."""
    at = AT + dt.timedelta(seconds=number)
    name = RequestId(uuid.UUID(int=number))
    return Offered(name, model_id, OLD.revision_id, "/", stratum, b'{"seed":1}', b"{}", 0.5, at)


def pair_of(number: int) -> Pair:
    """A pair whose copies are under way."""
    ids = [RequestId(uuid.UUID(int=1000 * number + part)) for part in range(3)]
    return Pair(ids[0], "/", "/", ids[1], ids[2], b'{"seed":1}', b"{}", AT)


@pytest.fixture(params=["memory", "postgres"])
def maybe_database(request: pytest.FixtureRequest) -> Database | None:
    """A database for the adapter that needs one."""
    return request.getfixturevalue("database") if request.param == "postgres" else None


@pytest.fixture
async def store(maybe_database: Database | None) -> ShadowStore:
    """Each adapter in turn, with a rollout that it may write of."""
    if maybe_database is None:
        return MemoryShadowStore()
    rollout = begin("r1", DIGITS, (OLD.revision_id, NEW.revision_id), RolloutPolicy(), Begun(AT, "human:k1", "a test"))
    audit = AuditEntry(AT, "human:k1", "begin_rollout", "rollout:r1", {}, "a test")
    assert await PostgresRolloutStore(maybe_database, writer="test").begin(rollout, audit)
    return PostgresShadowStore(maybe_database)


async def test_offers_are_read_newest_first_and_one_stratum_cannot_fill_the_store(store: ShadowStore) -> None:
    """A second offer of the same request changes nothing."""
    for number in range(MOST_OFFERS + 5):
        await store.offer(offered(number))
    await store.offer(offered(500, "/edit"))
    await store.offer(offered(501, model_id=ModelId("forestay/other")))
    await store.offer(dataclasses.replace(offered(0), body=b"another"))
    found = await store.offers(DIGITS, 100)
    assert len(found) == MOST_OFFERS + 1
    assert found[0] == offered(500, "/edit")
    assert found[-1] == offered(0)
    assert len(await store.offers(DIGITS, 3)) == 3


async def test_what_a_revision_before_has_left_takes_no_place_from_the_one_that_serves(store: ShadowStore) -> None:
    """Else the rollout that follows a promotion within the hour would find nothing to mirror."""
    for number in range(MOST_OFFERS):
        await store.offer(offered(number))
    follows = dataclasses.replace(offered(100), revision_id=NEW.revision_id)
    await store.offer(follows)
    assert (await store.offers(DIGITS, 10))[0] == follows


async def test_a_pair_is_begun_once_and_its_first_end_stands_without_the_callers_input(store: ShadowStore) -> None:
    """Whoever ends it again changes nothing; order is that of the beginnings."""
    first, second = pair_of(2), pair_of(1)
    assert await store.begin("r1", first)
    assert await store.begin("r1", second)
    assert not await store.begin("r1", first)
    outcome = Outcome({"level": 0.0}, {"level": 0.5}, ((1.0, 2.0), (1.5, 2.5)), "image", "shadow/r1/x.png")
    await store.end("r1", dataclasses.replace(first, outcome=outcome, device_seconds=2.0))
    await store.end("r1", dataclasses.replace(first, skipped="too late"))
    found = await store.pairs("r1")
    assert [item.request_id for item in found] == [first.request_id, second.request_id]
    assert (found[0].outcome, found[0].skipped, found[0].device_seconds) == (outcome, "", 2.0)
    assert found[0].body == found[0].answer == b""
    assert found[1] == second
    assert await store.pairs("another") == []


async def test_what_is_old_is_forgotten_and_its_pictures_are_named(store: ShadowStore) -> None:
    """Inputs go within the hour, verdicts later."""
    await store.offer(offered(0))
    await store.offer(offered(100))
    await store.begin("r1", pair_of(1))
    await store.begin("r1", pair_of(2))
    await store.end("r1", dataclasses.replace(pair_of(1), outcome=Outcome({}, {}, sheet_key="shadow/r1/x.png")))
    assert list(await store.forget(AT + dt.timedelta(seconds=50), AT)) == []
    assert [item.request_id for item in await store.offers(DIGITS, 10)] == [offered(100).request_id]
    assert list(await store.forget(AT, AT + dt.timedelta(seconds=1))) == ["shadow/r1/x.png"]
    assert await store.pairs("r1") == []
