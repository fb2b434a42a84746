"""The abuse loop on real stores: from a stored call to a standing, through the door, across restarts."""

import dataclasses
import datetime as dt
import uuid
from collections.abc import Sequence

import msgspec
import pytest
from tests.conformance.memory_fleet import ManualClock

from forestay.abuse.explain import explain, recall
from forestay.abuse.loop import AbuseLoop, AbusePorts
from forestay.abuse.postgres_store import PostgresAbuseStore
from forestay.abuse.refusals import LateRefusals
from forestay.abuse.rules_file import default_text, read_rules
from forestay.chance import SeededChance
from forestay.fleet.actions import LiftStanding, Origin
from forestay.fleet.apply import Mode
from forestay.fleet.keys import Caller, Scope
from forestay.fleet.postgres_standings import PostgresStandings
from forestay.fleet.postgres_store import PostgresFleetStore
from forestay.gateway.fleet_view import FleetView
from forestay.gateway.standing import Standings
from forestay.ids import KeyId, TenantId
from forestay.storage.postgres import Database
from forestay.storage.valkey import LocalWakeups
from forestay.telemetry.call_facts import CallFact, PostgresCalls
from forestay.telemetry.metrics import ABUSE_RULES_BROKEN, Metrics

RULES = """\
version: 1
rules:
  - id: probing
    code: probing
    per: key
    when: {signal: probing.refused, at_least: 3}
    then: {standing: suspend, for: 1h, reason: "{probing.refused} prompts refused"}
"""


@dataclasses.dataclass(slots=True)
class Ground:
    """Stores and a clock of the test's own; the database keeps its time, which is now."""

    database: Database
    clock: ManualClock
    calls: PostgresCalls
    fleet: PostgresFleetStore
    standings: PostgresStandings
    store: PostgresAbuseStore
    metrics: Metrics

    def loop(self) -> AbuseLoop:
        """A controller that has just become the loop's leader."""
        return AbuseLoop(AbusePorts(self.calls, self.fleet, self.standings, self.store, self.clock, self.metrics))

    async def refused(self, numbers: Sequence[int], key: str = "k1") -> None:
        """Distinct refused prompts, a second apart."""
        now = self.clock.now()
        await self.calls.write([refused_fact(number, now + dt.timedelta(seconds=number), key) for number in numbers])


def refused_fact(number: int, at: dt.datetime, key: str) -> CallFact:
    """One call whose prompt was refused."""
    return CallFact(
        at, uuid.uuid5(uuid.NAMESPACE_OID, f"{key}{number}"), "acme", key, "acme/digits", "queue", "submit",
        "203.0.113.0/24", "a1", accepted=False, cause="content_policy_violation", status_code=422,
        predicted_seconds=1.0,
        prompt=(number + 1) * 0x0F0F_1234_5678 - (1 << 62), raw=number + 1, prompt_chars=9,
    )  # fmt: skip


def owners_calls(start: dt.datetime, key: str, days: int = 14) -> list[CallFact]:
    """Two sessions a day, from one place, for one thing."""
    return [
        used_fact(start + dt.timedelta(days=day, hours=hour, minutes=step), key)
        for day in range(days)
        for hour in (0, 6)
        for step in range(4)
    ]


def strangers_calls(at: dt.datetime, key: str) -> list[CallFact]:
    """Another client in another country, for another model."""
    return [
        msgspec.structs.replace(
            used_fact(at + dt.timedelta(seconds=step), key),
            network="198.51.100.0/24",
            agent="b2",
            model_id="acme/dear",
            predicted_seconds=30.0,
        )
        for step in range(6)
    ]


def used_fact(at: dt.datetime, key: str) -> CallFact:
    """One accepted call of the key's owner."""
    return CallFact(
        at, uuid.uuid5(uuid.NAMESPACE_OID, f"{key}{at}"), "acme", key, "acme/digits", "queue", "submit",
        "203.0.113.0/24", "a1", accepted=True, cause="", status_code=200, predicted_seconds=1.0, prompt=77, raw=1,
    )  # fmt: skip


def caller(key: str) -> Caller:
    """Whoever shows the key."""
    return Caller(KeyId(key), TenantId("acme"), frozenset({Scope.API}))


@pytest.fixture
async def ground(database: Database) -> Ground:
    """Everything empty, the loop allowed to act, one rule."""
    now = await database.fetchval("SELECT now()")
    assert isinstance(now, dt.datetime)
    wakeups = LocalWakeups()
    made = Ground(
        database, ManualClock(now), PostgresCalls(database), PostgresFleetStore(database, wakeups),
        PostgresStandings(database, wakeups, SeededChance(1)), PostgresAbuseStore(database), Metrics(),
    )  # fmt: skip
    await made.fleet.set_mode("abuse", None, Mode.ACT, actor="human:test")
    await made.store.set_rules(RULES, actor="human:test")
    return made


async def subjects(ground: Ground) -> set[str]:
    """Who stands under something."""
    return set((await ground.fleet.load()).standings)


async def test_stored_calls_become_a_standing_with_its_evidence(ground: Ground) -> None:
    """Fact, signal, rule, door: suspended, and the row says why and by which facts."""
    loop = ground.loop()
    await ground.refused(range(2))
    assert await loop.run_once() == 2
    assert await subjects(ground) == set()
    await ground.refused(range(2, 4))
    assert await loop.run_once() == 2
    assert await subjects(ground) == {"key:k1"}
    [row] = await ground.standings.rows(subject="key:k1", ended=False, limit=1)
    assert row.standing.reason == "4 prompts refused"
    assert row.standing.origin == "abuse"
    assert row.standing.evidence["probing.refused"] == 4.0
    assert row.standing.evidence["facts"]
    assert await loop.run_once() == 0


@pytest.mark.threat("API2:2023", "AML.T0012")
async def test_a_stolen_key_is_refused_at_the_gateway_and_its_neighbours_are_not(ground: Ground) -> None:
    """By the rules that come along: weeks of its owner's calls, then a stranger's."""
    await ground.store.set_rules("", actor="human:test")
    loop, view = ground.loop(), Standings(ground.clock, 1.0)
    fleet = FleetView(ground.fleet, ground.clock, view)
    start = ground.clock.now() - dt.timedelta(days=20)
    for key in ("k1", "k2"):
        await ground.calls.write(owners_calls(start, key))
    while await loop.run_once():
        continue
    await fleet.refresh()
    assert view.refuse_call(caller("k1")) is None
    await ground.calls.write(strangers_calls(ground.clock.now(), "k1"))
    await ground.calls.write(owners_calls(ground.clock.now() - dt.timedelta(hours=1), "k2", days=1))
    await loop.run_once()
    await fleet.refresh()
    refused = view.refuse_call(caller("k1"))
    assert refused is not None
    assert (refused.status_code, refused.cause) == (401, "step_up_required")
    assert b'"code":"key_leak"' in refused.body
    assert view.refuse_call(caller("k2")) is None
    [row] = await ground.standings.rows(subject="key:k1", ended=False, limit=1)
    assert row.standing.rule == "stranger"
    assert row.standing.evidence["stranger.calls"] == 6.0


@pytest.mark.threat("ML01:2023", "AML.T0054")
async def test_queued_prompts_that_the_model_refuses_are_judged_like_those_refused_at_once(ground: Ground) -> None:
    """The request's fact finds its call, even one that is written later; what failed otherwise is no refusal."""
    loop, refusals = ground.loop(), LateRefusals(ground.calls, ground.clock)
    accepted = [
        msgspec.structs.replace(refused_fact(number, ground.clock.now(), "k1"), accepted=True, cause="")
        for number in range(4)
    ]
    await ground.calls.write(accepted[:3])
    ended = [request_fact(fact, "content_policy_violation") for fact in accepted]
    await refusals.settle(None, [*ended, request_fact(accepted[0], "request_timeout")], ())
    assert await loop.run_once() == 6
    assert await subjects(ground) == {"key:k1"}
    await ground.calls.write(accepted[3:])
    await refusals.settle(None, (), ())
    await refusals.settle(None, (), ())
    assert await loop.run_once() == 2
    [row] = await ground.standings.rows(subject="key:k1", ended=False, limit=1)
    assert row.standing.reason == "3 prompts refused"


def request_fact(call: CallFact, error_type: str) -> dict[str, object]:
    """What the queue says of a request that has ended, as the outbox holds it."""
    ended = call.at + dt.timedelta(seconds=2)
    return {
        "lane": "queue", "attempts": 1, "request_id": str(call.call_id), "error_type": error_type, "status_code": 422,
        "submitted_at": call.at.isoformat(), "finished_at": ended.isoformat(),
    }  # fmt: skip


async def test_until_somebody_lets_it_act_it_only_advises_and_says_so_once(ground: Ground) -> None:
    """The wish is recorded with its evidence; it is not repeated every half second."""
    await ground.fleet.set_mode("abuse", None, Mode.ADVISE, actor="human:test")
    loop = ground.loop()
    for start in range(0, 12, 4):
        await ground.refused(range(start, start + 4))
        await loop.run_once()
    assert await subjects(ground) == set()
    [advised] = await ground.standings.advised(limit=10)
    assert advised["subject"] == "standing:key:k1"


async def test_a_person_who_lifts_is_not_overruled(ground: Ground) -> None:
    """The pardon holds against the loop, whatever it sees."""
    loop = ground.loop()
    await ground.refused(range(4))
    await loop.run_once()
    lift = LiftStanding("key:k1", "a tester of ours", ground.clock.now() + dt.timedelta(days=7))
    await ground.fleet.apply([lift], origin=Origin.HUMAN, actor="human:analyst")
    await ground.refused(range(4, 9))
    await loop.run_once()
    assert await subjects(ground) == set()


async def test_a_restart_forgets_nothing_and_counts_nothing_twice(ground: Ground) -> None:
    """What was written down is gone on from; what came after it is read again."""
    first = ground.loop()
    await ground.refused(range(2))
    await first.run_once()
    await first.save()
    second = ground.loop()
    assert await second.run_once() == 0
    await ground.refused(range(2, 3))
    assert await second.run_once() == 1
    [row] = await ground.standings.rows(subject="key:k1", ended=False, limit=1)
    assert row.standing.evidence["probing.refused"] == 3.0


async def test_a_controller_that_leads_again_takes_what_the_other_one_learnt(ground: Ground) -> None:
    """Two controllers in turn: the memory is the newer one."""
    first, second = ground.loop(), ground.loop()
    await ground.refused(range(1))
    await first.run_once()
    await first.save()
    await ground.refused(range(1, 2))
    await second.run_once()
    await second.save()
    await ground.refused(range(2, 3))
    assert await first.run_once() == 1
    assert await subjects(ground) == {"key:k1"}


async def test_without_a_readable_snapshot_it_learns_anew_and_judges_only_what_is_fresh(ground: Ground) -> None:
    """Yesterday's calls teach, and nobody is suspended for them today."""
    loop = ground.loop()
    await ground.refused(range(2))
    await loop.run_once()
    await loop.save()
    await ground.database.execute("UPDATE abuse_state SET data = '\\x00' WHERE part = 'meta'")
    old = ground.clock.now() - dt.timedelta(hours=5)
    await ground.calls.write([refused_fact(number, old, "k2") for number in range(20, 26)])
    again = ground.loop()
    assert await again.run_once() == 8
    assert await subjects(ground) == set()
    await ground.refused(range(26, 27), "k2")
    await again.run_once()
    assert await subjects(ground) == {"key:k2"}


async def test_what_is_known_of_one_subject_is_recalled_up_to_the_last_call(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the snapshot and the calls after it, or from the calls alone; too many of them are told."""
    loop, now = ground.loop(), ground.clock.now()
    rules = read_rules(RULES, "rules")
    await ground.refused(range(2))
    alone = await recall("key:k1", rules, ground.store, ground.calls, now)
    await loop.run_once()
    await loop.save()
    await ground.refused(range(2, 3))
    later = await recall("key:k1", rules, ground.store, ground.calls, now)
    found = [explain(item, "key:k1", rules, None, now).signals["probing.refused"] for item in (alone, later)]
    assert found == [2.0, 3.0]
    assert explain(later, "key:k1", rules, None, now).rules[0].holds
    assert explain(later, "key:k2", rules, None, now).signals["probing.refused"] == 0.0
    monkeypatch.setattr("forestay.abuse.explain.PAGE", 1)
    monkeypatch.setattr("forestay.abuse.explain.MAX_PAGES", 1)
    await ground.refused(range(3, 6))
    assert not (await recall("key:k1", rules, ground.store, ground.calls, now)).complete


async def test_new_rules_are_followed_and_broken_ones_leave_the_old_in_force(ground: Ground) -> None:
    """Nobody is left unguarded by a slip in the store."""
    loop = ground.loop()
    await loop.run_once()
    await ground.store.set_rules("version: 7", actor="human:test")
    ground.clock.advance(3)
    await ground.refused(range(4))
    await loop.run_once()
    assert ground.metrics.value(ABUSE_RULES_BROKEN) == 1
    assert await subjects(ground) == {"key:k1"}
    await ground.store.set_rules(RULES.replace("at_least: 3", "at_least: 90"), actor="human:test")
    ground.clock.advance(3)
    await ground.refused(range(10, 16), "k2")
    await loop.run_once()
    assert await subjects(ground) == {"key:k1"}


async def test_the_rules_that_come_along_survive_the_store(ground: Ground) -> None:
    """Set, read back, audited."""
    made = await ground.store.set_rules(default_text(), actor="human:analyst")
    assert (await ground.store.rules()).text == default_text()
    assert made.set_by == "human:analyst"
    [newest, *_] = await ground.fleet.audit_rows(subject="abuse:rules", before=None, limit=5)
    assert newest.entry.action == "set_abuse_rules"
    assert await ground.fleet.audit_faults() == []
