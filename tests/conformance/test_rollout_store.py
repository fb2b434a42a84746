"""One behaviour suite for every store of rollouts: Postgres and the fake."""

import dataclasses
import datetime as dt

import pytest
from tests.conformance.fleet_values import DIGITS, TENANT, deploy, register, revision_of
from tests.conformance.memory_fleet import ManualClock, MemoryFleetStore
from tests.conformance.memory_rollouts import MemoryRolloutStore

from forestay.chance import SeededChance
from forestay.clock import SystemClock
from forestay.fleet.actions import Effect, Origin, ShiftRoutes
from forestay.fleet.audit import AuditEntry
from forestay.fleet.model import Route
from forestay.fleet.postgres_store import PostgresFleetStore
from forestay.fleet.store import FleetStore
from forestay.ids import BUCKETS, KeyId, ModelId, ReplicaId, RequestId, RevisionId, new_request_id
from forestay.rollouts.canary.evidence import absorb
from forestay.rollouts.canary.model import Evidence, Observation, Policy
from forestay.rollouts.model import Begun, Cursor, JournalEntry, Rollout, RolloutPolicy, Stage, begin
from forestay.rollouts.postgres_store import PostgresRolloutFacts, PostgresRolloutStore
from forestay.rollouts.store import RolloutStore
from forestay.storage.postgres import Database
from forestay.storage.valkey import LocalWakeups
from forestay.telemetry.facts import FactWriter, RequestFact

AT = dt.datetime(2030, 1, 1, 12, tzinfo=dt.UTC)
OLD, NEW = revision_of("digits-1"), revision_of("digits-2")
HUMAN = {"origin": Origin.HUMAN, "actor": "human:k1"}
LOOP = {"origin": Origin.ROLLOUT, "actor": "loop:rollout"}
AUDIT = AuditEntry(AT, "human:k1", "begin_rollout", "rollout:r1", {}, "a test")


def rollout_of(name: str = "r1") -> Rollout:
    """A rollout at its beginning."""
    pair = (OLD.revision_id, NEW.revision_id)
    return begin(name, DIGITS, pair, RolloutPolicy(), Begun(AT, "human:k1", "a test"))


@pytest.fixture(params=["memory", "postgres"])
def maybe_database(request: pytest.FixtureRequest) -> Database | None:
    """A database for the adapter that needs one."""
    return request.getfixturevalue("database") if request.param == "postgres" else None


@pytest.fixture
async def stores(maybe_database: Database | None, wakeups: LocalWakeups) -> tuple[FleetStore, RolloutStore]:
    """Each pair of adapters in turn, with two revisions of which the older has the traffic."""
    if maybe_database is None:
        fleet = MemoryFleetStore(ManualClock())
        await fleet.apply([*deploy(OLD), register(NEW)], **HUMAN)
        return fleet, MemoryRolloutStore(fleet)
    await maybe_database.execute("INSERT INTO tenants (tenant_id, name) VALUES ($1, 'Acme')", TENANT)
    real = PostgresFleetStore(maybe_database, wakeups, writer="test")
    await real.apply([*deploy(OLD), register(NEW)], **HUMAN)
    return real, PostgresRolloutStore(maybe_database, writer="test")


@pytest.fixture
def store(stores: tuple[FleetStore, RolloutStore]) -> RolloutStore:
    """The store of rollouts alone."""
    return stores[1]


async def test_a_model_has_one_rollout_at_a_time(store: RolloutStore) -> None:
    """Another may begin when the first is settled."""
    assert await store.begin(rollout_of(), AUDIT)
    assert not await store.begin(rollout_of("r2"), AUDIT)
    assert [item.rollout_id for item in await store.open()] == ["r1"]
    ended = dataclasses.replace(rollout_of(), stage=Stage.HELD, settled=True, version=2)
    assert await store.save(ended)
    assert await store.open() == []
    assert await store.begin(rollout_of("r2"), AUDIT)
    assert [item.rollout_id for item in await store.newest(DIGITS, 10)] == ["r2", "r1"]
    assert await store.get("r3") is None


async def test_everything_is_read_back_as_it_was_written(store: RolloutStore) -> None:
    """Evidence and all, to the last digit."""
    seen = [Observation(number % 7 == 0, 0.1, {"failed": 0.0, "seconds": 1.5}, ("endpoint /",)) for number in range(90)]
    evidence = absorb(Evidence(), seen, Policy())
    assert await store.begin(rollout_of(), AUDIT)
    saved = dataclasses.replace(rollout_of(), version=2, evidence=evidence, weight=12.34, unsure=(5.0,))
    assert await store.save(saved)
    assert await store.get("r1") == saved


async def test_a_write_that_has_seen_an_older_version_is_refused(store: RolloutStore) -> None:
    """And leaves neither state nor journal."""
    assert await store.begin(rollout_of(), AUDIT)
    first = dataclasses.replace(rollout_of(), version=2, weight=5.0)
    line = JournalEntry(2, AT, "loop:rollout", Stage.CANARY, 5.0, "a step")
    assert await store.save(first, line)
    late = dataclasses.replace(rollout_of(), version=2, weight=50.0)
    assert not await store.save(late, dataclasses.replace(line, weight=50.0))
    assert (await store.get("r1")) == first
    assert [entry.weight for entry in await store.journal("r1")] == [0.0, 5.0]


async def test_routes_move_only_for_the_last_recorded_step(stores: tuple[FleetStore, RolloutStore]) -> None:
    """A controller that slept through a step, or through a person's change, moves nothing."""
    fleet, store = stores
    whole = (Route(DIGITS, OLD.revision_id, 0, BUCKETS),)
    split = (Route(DIGITS, NEW.revision_id, 0, 500), Route(DIGITS, OLD.revision_id, 500, BUCKETS))
    await store.begin(rollout_of(), AUDIT)
    await store.save(dataclasses.replace(rollout_of(), version=2, weight=5.0))
    [late] = await fleet.apply([ShiftRoutes(DIGITS, split, whole, ("r1", 1), "late")], **LOOP)
    assert late.effect is Effect.REFUSED
    [now] = await fleet.apply([ShiftRoutes(DIGITS, split, whole, ("r1", 2), "now")], **LOOP)
    assert now.effect is Effect.APPLIED
    [blind] = await fleet.apply([ShiftRoutes(DIGITS, whole, whole, ("r1", 2), "blind")], **LOOP)
    assert blind.effect is Effect.REFUSED
    assert "changed" in blind.why
    assert (await fleet.load()).routed(DIGITS, 0) == NEW.revision_id


async def test_finished_requests_are_read_in_order_and_once(database: Database) -> None:
    """After the cursor, of one model; sessions, which last as their callers like, are left out."""
    facts = PostgresRolloutFacts(database, settled_seconds=0.0)
    now = SystemClock().now() - dt.timedelta(seconds=5)
    chance = SeededChance(3)

    def fact(seconds: float, lane: str = "direct", model: ModelId = DIGITS) -> RequestFact:
        at = now + dt.timedelta(seconds=seconds)
        return RequestFact(
            new_request_id(at, 0, chance), lane, TENANT, KeyId("k"), model, "/", RevisionId("digits-1"), ReplicaId("r"),
            1, "SUCCEEDED", "succeeded", 200, None, at, at, at, 0.5, {"x_pixels": 4096.0},
        )  # fmt: skip

    first, second = fact(0.0), fact(1.0)
    await FactWriter(database).write(
        [second, first, fact(0.5, lane="realtime"), fact(0.5, model=ModelId("acme/other"))]
    )
    start = Cursor(now - dt.timedelta(seconds=1), RequestId(first.request_id))
    found = await facts.after(DIGITS, start, 10)
    assert [item.request_id for item in found] == [first.request_id, second.request_id]
    assert found[0].work["x_pixels"] == 4096.0
    later = await facts.after(DIGITS, Cursor(found[0].finished_at, found[0].request_id), 10)
    assert [item.request_id for item in later] == [second.request_id]
