"""One behaviour suite for every fleet store: Postgres and the fake."""

import asyncio
import dataclasses
import datetime as dt

import asyncpg
import pytest
from tests.conformance.fleet_values import (
    DIGITS,
    TENANT,
    deploy,
    place,
    register,
    replica_of,
    revision_of,
    route_all,
    worker_of,
)
from tests.conformance.memory_fleet import EPOCH, ManualClock, MemoryFleetStore

from forestay.chance import SeededChance
from forestay.clock import SystemClock
from forestay.fleet.actions import (
    Decided,
    Effect,
    Freeze,
    LiftStanding,
    Origin,
    PlanRoute,
    SetRoutes,
    SetStanding,
    SettleRoute,
)
from forestay.fleet.apply import ALREADY_SO, Mode
from forestay.fleet.model import ReplicaState, Route
from forestay.fleet.postgres_keys import PostgresKeyStore
from forestay.fleet.postgres_store import PostgresFleetStore
from forestay.fleet.standing import Standing, StandingKind, standing_id_of
from forestay.fleet.store import FleetStore
from forestay.ids import ModelId, ReplicaId, TenantId, WorkerId
from forestay.storage.postgres import Database
from forestay.storage.valkey import LocalWakeups

HUMAN = {"origin": Origin.HUMAN, "actor": "human:k1"}
CAPACITY = {"origin": Origin.CAPACITY, "actor": "loop:capacity"}
ROLLOUT = {"origin": Origin.ROLLOUT, "actor": "loop:rollout"}


@pytest.fixture(params=["memory", "postgres"])
def maybe_database(request: pytest.FixtureRequest) -> Database | None:
    """A database for the adapter that needs one."""
    return request.getfixturevalue("database") if request.param == "postgres" else None


@pytest.fixture
async def store(maybe_database: Database | None) -> FleetStore:
    """Each adapter in turn, with one tenant."""
    if maybe_database is None:
        return MemoryFleetStore(ManualClock())
    database = maybe_database
    keys = PostgresKeyStore(database, SystemClock(), SeededChance(1))
    await keys.create_tenant(TENANT, "Acme", actor="system:test")
    return PostgresFleetStore(database, LocalWakeups())


def effects(decided: list[Decided]) -> list[Effect]:
    """Return the effects alone."""
    return [item.effect for item in decided]


async def test_a_deploy_is_read_back_as_it_was_given(store: FleetStore) -> None:
    """Spec, openapi, bundle and route survive the way through the store, and the version rises."""
    before = await store.version()
    revision = revision_of()
    assert effects(await store.apply(deploy(revision), **HUMAN)) == [Effect.APPLIED, Effect.APPLIED]
    fleet = await store.load()
    assert fleet.version > before
    assert fleet.version == await store.version()
    assert fleet.revisions == {revision.revision_id: revision}
    assert fleet.models[DIGITS].spec == revision.spec
    assert fleet.models[DIGITS].tenant_id == TENANT
    assert fleet.routed(DIGITS, 9_999) == revision.revision_id


async def test_the_same_deploy_again_changes_nothing(store: FleetStore) -> None:
    """Applying twice bumps no version and writes no row."""
    await store.apply(deploy(revision_of()), **HUMAN)
    version, rows = await store.version(), await store.audit_rows(subject=None, before=None, limit=100)
    decided = await store.apply(deploy(revision_of()), **HUMAN)
    assert [item.why for item in decided] == [ALREADY_SO, ALREADY_SO]
    assert await store.version() == version
    assert await store.audit_rows(subject=None, before=None, limit=100) == rows


async def test_a_second_revision_takes_the_routes_over(store: FleetStore) -> None:
    """The old revision stays known; loads after the first one see new revisions too."""
    await store.apply(deploy(revision_of("digits-1")), **HUMAN)
    await store.load()
    await store.apply(deploy(revision_of("digits-2")), **HUMAN)
    fleet = await store.load()
    assert set(fleet.revisions) == {"digits-1", "digits-2"}
    assert fleet.routed(DIGITS, 0) == "digits-2"


async def test_a_planned_route_is_read_back_settled_and_dropped(store: FleetStore) -> None:
    """Planned by a person, carried out by a loop even in advise mode; setting routes drops what was planned."""
    first, second = revision_of("digits-1"), revision_of("digits-2")
    plan = PlanRoute(DIGITS, second.revision_id, 60.0, "test")
    await store.apply([*deploy(first), register(second)], **HUMAN)
    assert effects(await store.apply([plan], **HUMAN)) == [Effect.APPLIED]
    assert (await store.apply([plan], **HUMAN))[0].why == ALREADY_SO
    planned = (await store.load()).pending[DIGITS]
    assert (planned.revision_id, planned.given_up) == ("digits-2", "")
    assert (planned.until - planned.since).total_seconds() == 60.0
    await store.apply([SettleRoute(DIGITS, second.revision_id, switch=False, reason="slow")], **ROLLOUT)
    assert (await store.load()).pending[DIGITS].given_up == "slow"
    await store.apply([plan], **HUMAN)
    settle = SettleRoute(DIGITS, second.revision_id, switch=True, reason="ready")
    assert effects(await store.apply([settle], **ROLLOUT)) == [Effect.APPLIED]
    fleet = await store.load()
    assert (fleet.pending, fleet.routed(DIGITS, 0)) == ({}, "digits-2")
    assert effects(await store.apply([settle], **ROLLOUT)) == [Effect.REFUSED]
    await store.apply([PlanRoute(DIGITS, first.revision_id, 60.0, "test")], **HUMAN)
    assert effects(await store.apply([route_all(second)], **HUMAN)) == [Effect.APPLIED]
    assert (await store.load()).pending == {}


async def test_a_plan_without_a_route_to_fall_back_on_is_refused(store: FleetStore) -> None:
    """Nothing could go on meanwhile."""
    await store.apply([register(revision_of())], **HUMAN)
    plan = PlanRoute(DIGITS, revision_of().revision_id, 60.0, "test")
    assert effects(await store.apply([plan], **HUMAN)) == [Effect.REFUSED]


async def test_routes_with_a_hole_are_refused_and_nothing_changes(store: FleetStore) -> None:
    """The audit row tells of the refusal."""
    await store.apply(deploy(revision_of()), **HUMAN)
    half = SetRoutes(DIGITS, (Route(DIGITS, revision_of().revision_id, 0, 5_000),), "half")
    [decided] = await store.apply([half], **HUMAN)
    assert decided.effect is Effect.REFUSED
    assert (await store.load()).routed(DIGITS, 9_999) is not None
    [row] = await store.audit_rows(subject=f"routes:{DIGITS}", before=None, limit=1)
    assert (row.entry.effect, row.entry.actor) == ("refused", "human:k1")


async def test_a_report_shows_and_an_equal_one_bumps_nothing(store: FleetStore) -> None:
    """Only changes raise the version; the time of the last sign of life moves on regardless."""
    revision = revision_of()
    await store.apply(deploy(revision), **HUMAN)
    await store.report(worker_of(), [replica_of(revision)])
    version, fleet = await store.version(), await store.load()
    assert fleet.workers[WorkerId("w1")].devices == 1
    [replica] = fleet.replicas.values()
    assert dataclasses.replace(replica, seen_at=replica_of(revision).seen_at) == replica_of(revision)
    await store.report(worker_of(), [replica_of(revision)])
    assert await store.version() == version
    await store.report(worker_of(), [replica_of(revision, state=ReplicaState.DRAINING)])
    assert await store.version() > version


async def test_a_report_without_a_replica_forgets_it(store: FleetStore) -> None:
    """The report replaces what was known of the worker."""
    revision = revision_of()
    await store.apply(deploy(revision), **HUMAN)
    await store.report(worker_of(), [replica_of(revision)])
    await store.report(worker_of("w2"), [replica_of(revision, "w2", name="r2")])
    await store.report(worker_of(), [])
    assert set((await store.load()).replicas) == {"r2"}


async def test_a_worker_that_was_retired_and_reports_again_is_back(store: FleetStore) -> None:
    """An unchanged report after a retirement is not mistaken for a heartbeat."""
    await store.report(worker_of(), [])
    await store.retire_worker(WorkerId("w1"))
    assert (await store.load()).workers == {}
    await store.report(worker_of(), [])
    assert set((await store.load()).workers) == {"w1"}


async def test_a_touch_moves_the_last_use_without_a_bump(store: FleetStore) -> None:
    """Least-recently-used sees it; caches are not disturbed; an older report does not undo it."""
    revision = revision_of()
    await store.apply(deploy(revision), **HUMAN)
    await store.report(worker_of(), [replica_of(revision)])
    version = await store.version()
    await store.touch([replica_of(revision).replica_id])
    used = (await store.load()).replicas[replica_of(revision).replica_id].last_used_at
    assert used is not None
    assert await store.version() == version
    await store.report(worker_of(), [replica_of(revision, state=ReplicaState.DRAINING)])
    assert (await store.load()).replicas[replica_of(revision).replica_id].last_used_at == used


async def test_a_report_of_use_alone_is_kept_without_a_bump(store: FleetStore) -> None:
    """A worker that only says when it last ran something is believed, at the price of one small update."""
    revision = revision_of()
    await store.apply(deploy(revision), **HUMAN)
    await store.report(worker_of(), [replica_of(revision)])
    version = await store.version()
    for seconds in (1, 2):
        moment = EPOCH + dt.timedelta(seconds=seconds)
        await store.report(worker_of(), [replica_of(revision, last_used_at=moment)])
        assert (await store.load()).replicas[replica_of(revision).replica_id].last_used_at == moment
    assert await store.version() == version


async def test_demand_is_noted_for_known_models_only(store: FleetStore) -> None:
    """A caller cannot fill the table with names."""
    await store.apply(deploy(revision_of()), **HUMAN)
    await store.want(DIGITS)
    await store.want(DIGITS)
    await store.want(ModelId("nobody/nothing"))
    assert set((await store.load()).demand) == {DIGITS}


async def test_demand_is_forgotten_once_a_replica_is_ready(store: FleetStore) -> None:
    """An old wish must not load the model again after it was unloaded."""
    revision = revision_of()
    await store.apply(deploy(revision), **HUMAN)
    await store.want(DIGITS)
    await store.report(worker_of(), [replica_of(revision, state=ReplicaState.SETUP)])
    assert set((await store.load()).demand) == {DIGITS}
    await store.report(worker_of(), [replica_of(revision)])
    assert (await store.load()).demand == {}


async def test_a_placement_is_written_and_zero_forgets_it_once_drained(store: FleetStore) -> None:
    """Zero stays as long as a replica is there to be drained."""
    revision = revision_of()
    await store.apply(deploy(revision), **HUMAN)
    await store.report(worker_of(), [])
    await store.apply([place("w1", revision)], **CAPACITY)
    await store.report(worker_of(), [replica_of(revision)])
    await store.apply([place("w1", revision, 0)], **CAPACITY)
    [placement] = (await store.load()).placements
    assert placement.replicas == 0
    await store.report(worker_of(), [])
    assert (await store.load()).placements == ()


async def test_a_placement_names_the_replicas_that_end_until_it_is_written_anew(store: FleetStore) -> None:
    """As many are wanted as before, without those."""
    revision = revision_of()
    await store.apply(deploy(revision), **HUMAN)
    await store.report(worker_of(devices=2), [])
    await store.apply([place("w1", revision, 2)], **HUMAN)
    ending = (ReplicaId("r1"), ReplicaId("r2"))
    await store.apply([dataclasses.replace(place("w1", revision, 2), ending=ending)], **HUMAN)
    [placement] = (await store.load()).placements
    assert (placement.replicas, placement.ending) == (2, ending)
    await store.apply([place("w1", revision, 1)], **HUMAN)
    [placement] = (await store.load()).placements
    assert (placement.replicas, placement.ending) == (1, ())


async def test_a_placement_that_never_loaded_is_forgotten_at_once(store: FleetStore) -> None:
    """Nothing needs to be drained."""
    revision = revision_of()
    await store.apply(deploy(revision), **HUMAN)
    await store.report(worker_of(), [])
    await store.apply([place("w1", revision)], **CAPACITY)
    await store.apply([place("w1", revision, 0)], **CAPACITY)
    assert (await store.load()).placements == ()


async def test_a_freeze_stops_loops_and_not_people(store: FleetStore) -> None:
    """The refusal names who froze the fleet and why; it is logged once, not every second."""
    revision = revision_of()
    await store.apply(deploy(revision), **HUMAN)
    await store.report(worker_of(), [])
    await store.apply([Freeze(frozen=True, reason="incident 7")], **HUMAN)
    assert (await store.brakes()).frozen_why == "incident 7"
    for _ in range(2):
        [decided] = await store.apply([place("w1", revision)], **CAPACITY)
        assert decided.effect is Effect.REFUSED
        assert "incident 7" in decided.why
    rows = await store.audit_rows(subject="placement:w1/digits-1", before=None, limit=10)
    assert len(rows) == 1
    assert effects(await store.apply([place("w1", revision)], **HUMAN)) == [Effect.APPLIED]
    await store.apply([Freeze(frozen=False, reason="over")], **HUMAN)
    assert not (await store.brakes()).frozen


async def test_a_loop_that_only_advises_changes_nothing_until_it_may_act(store: FleetStore) -> None:
    """Modes are kept per loop and model."""
    first, second = revision_of("digits-1"), revision_of("digits-2")
    await store.apply([register(first), register(second)], **HUMAN)
    [decided] = await store.apply([route_all(second)], **ROLLOUT)
    assert decided.effect is Effect.ADVISED
    await store.set_mode("rollout", None, Mode.OBSERVE, actor="human:k1")
    [decided] = await store.apply([route_all(second)], **ROLLOUT)
    assert decided.effect is Effect.OBSERVED
    await store.set_mode("rollout", DIGITS, Mode.ACT, actor="human:k1")
    [decided] = await store.apply([route_all(second)], **ROLLOUT)
    assert decided.effect is Effect.APPLIED
    assert (await store.load()).routed(DIGITS, 0) == "digits-2"


async def test_another_tenants_model_is_not_taken_over(store: FleetStore) -> None:
    """A revision for a model of someone else is refused."""
    await store.apply(deploy(revision_of()), **HUMAN)
    [decided] = await store.apply([register(revision_of("digits-2"), TenantId("other"))], **HUMAN)
    assert decided.effect is Effect.REFUSED
    assert "another tenant" in decided.why


async def test_the_audit_chain_of_everything_above_verifies(store: FleetStore) -> None:
    """What was written is what is read."""
    await store.apply(deploy(revision_of()), **HUMAN)
    await store.apply([Freeze(frozen=True, reason='odd "reason" \u00e9 1e22')], **HUMAN)
    assert await store.audit_faults() == []
    assert len(await store.audit_rows(subject=None, before=None, limit=10)) >= 3


async def test_concurrent_changes_are_serial(database: Database) -> None:
    """Two writers never decide on the same past: one freeze is applied, its twin finds it so already."""
    stores = [PostgresFleetStore(database, LocalWakeups(), writer=f"w{number}") for number in range(4)]
    decided = await asyncio.gather(
        *(item.apply([Freeze(frozen=True, reason="all at once")], **HUMAN) for item in stores)
    )
    assert sorted(item.why == ALREADY_SO for [item] in decided) == [False, True, True, True]
    assert await stores[0].audit_faults() == []


async def test_an_unchanged_report_costs_one_small_update(database: Database) -> None:
    """The heartbeat touches the worker's row and nothing else."""
    store, revision = PostgresFleetStore(database, LocalWakeups()), revision_of()
    await PostgresKeyStore(database, SystemClock(), SeededChance(1)).create_tenant(TENANT, "Acme", actor="system:test")
    await store.apply(deploy(revision), **HUMAN)
    await store.report(worker_of(), [replica_of(revision)])
    written = "SELECT array_agg(xmin::text) FROM (SELECT xmin FROM replicas UNION ALL SELECT xmin FROM fleet_version)"
    before = await database.fetchval(written)
    await store.report(worker_of(), [replica_of(revision)])
    assert await database.fetchval(written) == before


async def test_the_audit_log_refuses_change(database: Database) -> None:
    """Even the owner of the table must first switch the guard off."""
    store = PostgresFleetStore(database, LocalWakeups())
    await store.apply([Freeze(frozen=True, reason="x")], **HUMAN)
    for statement in ("UPDATE audit_log SET actor = 'x'", "DELETE FROM audit_log", "TRUNCATE audit_log"):
        with pytest.raises(asyncpg.RaiseError, match="append-only"):
            await database.execute(statement)


@pytest.mark.parametrize(
    ("tamper", "what"),
    [
        ("UPDATE audit_log SET actor = 'human:nobody' WHERE sequence = 2", "not what was sealed"),
        ("UPDATE audit_log SET detail = '{\"frozen\": 1}' WHERE sequence = 2", "not what was sealed"),
        ("DELETE FROM audit_log WHERE sequence = 2", "missing"),
        ("DELETE FROM audit_log WHERE sequence = 3", "missing at the end"),
        ("DELETE FROM audit_log", "missing at the end"),
        ("DELETE FROM audit_heads", "head is missing"),
    ],
)
async def test_tampering_is_found(database: Database, tamper: str, what: str) -> None:
    """An altered row, a missing row and a cut tail are each named."""
    store = PostgresFleetStore(database, LocalWakeups())
    for frozen in (True, False, True):
        await store.apply([Freeze(frozen=frozen, reason="x")], **HUMAN)
    assert await store.audit_faults() == []
    await database.execute("ALTER TABLE audit_log DISABLE TRIGGER audit_log_append_only")
    await database.execute(tamper)
    faults = await store.audit_faults()
    assert faults
    assert what in faults[0].what


# Standings ----------------------------------------------------------------------------------------------------------
ABUSE = {"origin": Origin.ABUSE, "actor": "loop:abuse"}


def standing_of(now: dt.datetime, kind: StandingKind = StandingKind.SUSPEND, *, hours: int = 1) -> SetStanding:
    """A standing of one key, which counts from the store's own now."""
    name = standing_id_of("key:k1", "leak", now)
    ends = now + dt.timedelta(hours=hours)
    return SetStanding(Standing(name, "key:k1", kind, "key_leak", "leak", "nine networks", now, ends))


async def test_a_standing_shows_in_the_fleet_and_a_renewal_keeps_its_id(store: FleetStore) -> None:
    """Gateways read it with the fleet; the version moves; a longer one is the same standing, so its appeal holds."""
    await store.set_mode("abuse", None, Mode.ACT, actor="human:k1")
    before = await store.load()
    assert effects(await store.apply([standing_of(before.now)], **ABUSE)) == [Effect.APPLIED]
    fleet = await store.load()
    assert fleet.version > before.version
    [standing] = fleet.standings.values()
    assert (standing.subject, standing.kind, standing.origin) == ("key:k1", StandingKind.SUSPEND, "abuse")
    later = standing_of(before.now + dt.timedelta(seconds=1), hours=2)
    await store.apply([later], **ABUSE)
    [renewed] = (await store.load()).standings.values()
    assert (renewed.standing_id, renewed.expires_at) == (standing.standing_id, later.standing.expires_at)


async def test_a_graver_standing_takes_the_place_of_a_milder_one(store: FleetStore) -> None:
    """One subject has one standing."""
    await store.set_mode("abuse", None, Mode.ACT, actor="human:k1")
    now = (await store.load()).now
    await store.apply([standing_of(now, StandingKind.WATCH)], **ABUSE)
    await store.apply([standing_of(now + dt.timedelta(seconds=1), StandingKind.SUSPEND)], **ABUSE)
    [standing] = (await store.load()).standings.values()
    assert standing.kind is StandingKind.SUSPEND
    assert effects(await store.apply([standing_of(now, StandingKind.WATCH)], **ABUSE)) == [Effect.REFUSED]


async def test_a_lift_frees_the_subject_and_pardons_it(store: FleetStore) -> None:
    """What a person lifted is not set again by automation until the pardon is over; by a person it is."""
    await store.set_mode("abuse", None, Mode.ACT, actor="human:k1")
    now = (await store.load()).now
    await store.apply([standing_of(now)], **ABUSE)
    lift = LiftStanding("key:k1", "confirmed by telephone", now + dt.timedelta(days=1))
    assert effects(await store.apply([lift], **HUMAN)) == [Effect.APPLIED]
    fleet = await store.load()
    assert fleet.standings == {}
    assert set(fleet.pardons) == {"key:k1"}
    again = standing_of(now + dt.timedelta(seconds=1))
    assert effects(await store.apply([again], **ABUSE)) == [Effect.REFUSED]
    assert effects(await store.apply([again], **HUMAN)) == [Effect.APPLIED]
    assert [item.why for item in await store.apply([LiftStanding("key:k9", "none there")], **HUMAN)] == [ALREADY_SO]


async def test_the_cap_on_restrictions_holds_across_calls(store: FleetStore) -> None:
    """The audit log is what the brake remembers by."""
    await store.set_mode("abuse", None, Mode.ACT, actor="human:k1")
    now, cap = (await store.load()).now, (await store.brakes()).standing_cap
    for number in range(cap + 2):
        wanted = dataclasses.replace(
            standing_of(now).standing, subject=f"key:x{number}", standing_id=f"st_{number:016x}"
        )
        [decided] = await store.apply([SetStanding(wanted)], **ABUSE)
        assert decided.effect is (Effect.APPLIED if number < cap else Effect.REFUSED)
    assert len((await store.load()).standings) == cap
