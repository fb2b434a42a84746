"""The fleet in Postgres: the adapter of `fleet/store.FleetStore`.

It decides nothing: `fleet/apply` does. Effects and their audit rows commit together; whoever changes the fleet locks
the one version row first, so changes are serial and each is decided on what it will change. A read is one statement,
hence one snapshot; revisions, which never change, are kept in memory and only new ones travel.
"""

# The driver's pooled connection is partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TypeVar, assert_never, cast

import asyncpg
import msgspec

from forestay.errors import UsageError
from forestay.fleet import postgres_audit, postgres_standings
from forestay.fleet.actions import (
    Action,
    Decided,
    Effect,
    Freeze,
    LiftStanding,
    Origin,
    Place,
    PlanRoute,
    RegisterRevision,
    SetRoutes,
    SetStanding,
    SettleRoute,
    ShiftRoutes,
)
from forestay.fleet.apply import (
    ALREADY_SO,
    Brakes,
    Mode,
    Modes,
    Proposal,
    Recent,
    Situation,
    decide_effects,
    model_of,
    removal,
    restriction,
    subject_of,
)
from forestay.fleet.audit import AuditEntry, AuditFault, AuditRow
from forestay.fleet.model import (
    Fleet,
    ModelEntry,
    PendingRoute,
    Placement,
    ReplicaReport,
    Revision,
    Route,
    WorkerReport,
)
from forestay.fleet.routes import whole_route
from forestay.fleet.standing import Standing
from forestay.ids import ModelId, ReplicaId, RevisionId, WorkerId
from forestay.storage.postgres import Connection, Database, load_queries
from forestay.storage.valkey import Wakeups

T = TypeVar("T")
CHANNEL = "forestay:fleet"
_QUERIES = load_queries("forestay.fleet", "sql/fleet.sql")
_ACTION_NAMES = {
    RegisterRevision: "register_revision",
    SetRoutes: "set_routes",
    PlanRoute: "plan_route",
    SettleRoute: "settle_route",
    ShiftRoutes: "shift_routes",
    Place: "place",
    Freeze: "freeze",
    SetStanding: "set_standing",
    LiftStanding: "lift_standing",
}


class PostgresFleetStore:
    """The fleet's state; `writer` names this process's audit chain."""

    def __init__(self, database: Database, wakeups: Wakeups, *, writer: str = "fleet") -> None:
        self._database = database
        self._wakeups = wakeups
        self._writer = writer
        self._revisions: dict[RevisionId, Revision] = {}
        self._used: dict[ReplicaId, dt.datetime] = {}
        self._reported: dict[WorkerId, tuple[WorkerReport, tuple[ReplicaReport, ...]]] = {}

    async def version(self) -> int:
        """Return the number that every change bumps."""
        return int(str(await self._database.fetchval(_QUERIES["version"])))

    async def load(self) -> Fleet:
        """Read everything in one consistent snapshot."""
        return self._fleet_of(await self._database.fetchrow(_QUERIES["load"], list(self._revisions)))

    async def report(self, worker: WorkerReport, replicas: Sequence[ReplicaReport]) -> None:
        """Replace what is known of this worker; one small update when nothing changed since the last report."""
        said = (_without_times(worker), tuple(_still(item) for item in replicas))
        if self._reported.get(worker.worker_id) == said and await self._database.fetchrow(
            _QUERIES["heartbeat"], worker.worker_id
        ):
            await self._note_use(replicas)
            return
        self._reported.pop(worker.worker_id, None)
        async with self._database.transaction() as connection:
            await connection.execute(_QUERIES["lock"])
            await connection.execute(
                _QUERIES["upsert_worker"], worker.worker_id, worker.pool, worker.address,
                worker.devices, worker.memory_mb, worker.state, worker.started_at,
            )  # fmt: skip
            ids = [item.replica_id for item in replicas]
            await connection.execute(_QUERIES["delete_other_replicas"], worker.worker_id, ids)
            await connection.execute(_QUERIES["upsert_replicas"], msgspec.json.encode(replicas).decode())
            await connection.execute(_QUERIES["delete_drained_placements"], worker.worker_id)
            await connection.execute(_QUERIES["forget_served_demand"], worker.worker_id)
            await connection.execute(_QUERIES["bump"])
        self._reported[worker.worker_id] = said
        await self._wakeups.publish(CHANNEL, "")

    async def _note_use(self, replicas: Sequence[ReplicaReport]) -> None:
        """Write the last use of those used since their last report: least-recently-used depends on it."""
        used = {
            item.replica_id: item.last_used_at
            for item in replicas
            if item.last_used_at is not None and item.last_used_at != self._used.get(item.replica_id)
        }
        if used:
            await self._database.execute(_QUERIES["note_use"], list(used), list(used.values()))
        self._used = {item.replica_id: item.last_used_at for item in replicas if item.last_used_at is not None}

    async def touch(self, replica_ids: Sequence[ReplicaId]) -> None:
        """Note that these replicas were just used, without bumping the version."""
        if replica_ids:
            await self._database.execute(_QUERIES["touch"], list(replica_ids))

    async def want(self, model_id: ModelId) -> None:
        """Note that a direct call found no live replica of this model."""
        await self._database.execute(_QUERIES["want"], model_id)

    async def retire_worker(self, worker_id: WorkerId) -> None:
        """Forget a stopped worker with its replicas and placements."""
        self._reported.pop(worker_id, None)
        async with self._database.transaction() as connection:
            await connection.execute(_QUERIES["lock"])
            await connection.execute(_QUERIES["retire_replicas"], worker_id)
            await connection.execute(_QUERIES["retire_placements"], worker_id)
            known = await connection.fetchrow(_QUERIES["retire_worker"], worker_id)
            await connection.execute(_QUERIES["bump"])
        if known is not None:
            await self._wakeups.publish(CHANNEL, "")

    async def brakes(self) -> Brakes:
        """Read the freeze switch and the removal cap."""
        return _read(await self._database.fetchrow(_QUERIES["brakes"]), Brakes)

    async def set_mode(self, loop: str, model_id: ModelId | None, mode: Mode, *, actor: str) -> None:
        """Say how far a loop may go, for one model or (None) for every model without a word of its own."""
        async with self._database.transaction() as connection:
            await connection.execute(_QUERIES["lock"])
            await connection.execute(_QUERIES["set_mode"], loop, model_id or "", mode.value)
            now = cast("dt.datetime", await connection.fetchval("SELECT now()"))
            subject = f"mode:{loop}/{model_id}" if model_id else f"mode:{loop}"
            entry = AuditEntry(now, actor, "set_mode", subject, {"mode": mode.value}, "asked for")
            await postgres_audit.append(connection, self._writer, [entry])

    async def record(self, entry: AuditEntry) -> None:
        """Append an audit row for a person's act that is no fleet action."""
        async with self._database.transaction() as connection:
            await postgres_audit.append(connection, self._writer, [entry])

    async def audit_rows(self, *, subject: str | None, before: dt.datetime | None, limit: int) -> list[AuditRow]:
        """Read audit rows, newest first."""
        return await postgres_audit.read_newest(self._database, subject=subject, before=before, limit=limit)

    async def audit_faults(self) -> list[AuditFault]:
        """Recompute every audit chain; an empty list means that nothing was altered or removed."""
        return await postgres_audit.verify(self._database)

    async def apply(self, actions: Sequence[Action], *, origin: Origin, actor: str) -> list[Decided]:
        """Apply what the brakes and modes let through, with an audit row each, in one transaction."""
        if not actions:
            return []
        async with self._database.transaction() as connection:
            await connection.execute(_QUERIES["lock"])
            situation = await self._situation(connection)
            situation = await _with_steps(connection, situation, actions)
            decided = decide_effects([Proposal(action, origin) for action in actions], situation)
            entries: list[AuditEntry] = []
            for item in decided:
                if _worth_a_row(item, situation.recent):
                    entries.append(_entry(item, situation.fleet, origin, actor))
                    if item.effect is Effect.APPLIED:
                        await _carry_out(connection, item.action, situation.fleet, origin=origin, actor=actor)
            await postgres_audit.append(connection, self._writer, entries)
            changed = any(entry.effect == Effect.APPLIED for entry in entries)
            if changed:
                await connection.execute(_QUERIES["bump"])
        if changed:
            await self._wakeups.publish(CHANNEL, "")
        return decided

    async def _situation(self, connection: Connection) -> Situation:
        fleet = self._fleet_of(await connection.fetchrow(_QUERIES["load"], list(self._revisions)), keep=False)
        brakes = _read(await connection.fetchrow(_QUERIES["brakes"]), Brakes)
        modes: Modes = {
            (str(row["loop"]), str(row["model_id"])): Mode(str(row["mode"]))
            for row in await connection.fetch(_QUERIES["modes"])
        }
        recent = await postgres_audit.read_recent(connection, brakes.window_seconds)
        return Situation(fleet, modes, brakes, recent)

    def _fleet_of(self, row: asyncpg.Record | None, *, keep: bool = True) -> Fleet:
        if row is None:
            message = "the fleet's statement gave no row; the database is missing its migrations: run `forestay doctor`"
            raise RuntimeError(message)
        fresh = {item.revision_id: item for item in _decode(row["revisions"], list[Revision])}
        known = {**self._revisions, **fresh}
        revisions = {RevisionId(name): known[RevisionId(name)] for name in row["revision_ids"]}
        if keep:  # not what a transaction reads that may still be rolled back
            self._revisions = revisions
        return Fleet(
            version=int(row["version"]),
            now=row["now"],
            models={item.model_id: item for item in _decode(row["models"], list[ModelEntry])},
            revisions=revisions,
            routes=tuple(_decode(row["routes"], list[Route])),
            placements=tuple(_decode(row["placements"], list[Placement])),
            pending=_decode(row["pending"], dict[ModelId, PendingRoute]),
            workers={item.worker_id: item for item in _decode(row["workers"], list[WorkerReport])},
            replicas={item.replica_id: item for item in _decode(row["replicas"], list[ReplicaReport])},
            demand=_decode(row["demand"], dict[ModelId, dt.datetime]),
            standings={item.subject: item for item in _decode(row["standings"], list[Standing])},
            pardons=_decode(row["pardons"], dict[str, dt.datetime]),
        )


async def raise_step(connection: Connection, model_id: ModelId, step: tuple[str, int]) -> None:
    """Note in a rollout's own transaction which step it has recorded: shifts that older steps ask for come too late."""
    await connection.execute(_QUERIES["raise_step"], model_id, *step)


async def _with_steps(connection: Connection, situation: Situation, actions: Sequence[Action]) -> Situation:
    """Add the recorded steps of the rollouts that want a shift; no further one is recorded until this commits."""
    models = [action.model_id for action in actions if isinstance(action, ShiftRoutes)]
    if not models:
        return situation
    rows = await connection.fetch(_QUERIES["steps"], models)
    return dataclasses.replace(situation, steps={ModelId(row[0]): (str(row[1]), int(row[2])) for row in rows})


async def _carry_out(connection: Connection, action: Action, fleet: Fleet, *, origin: Origin, actor: str) -> None:
    match action:
        case RegisterRevision():
            await _register(connection, action, actor)
        case SetRoutes() | ShiftRoutes():
            await _set_routes(connection, action.model_id, action.routes)
        case PlanRoute():
            await connection.execute(
                _QUERIES["plan_route"], action.model_id, action.revision_id, action.patience_seconds, action.held
            )
        case SettleRoute(model_id=model_id, revision_id=revision_id, switch=True):
            await _set_routes(connection, model_id, [whole_route(model_id, revision_id)])
        case SettleRoute():
            await connection.execute(_QUERIES["give_up_plan"], action.model_id, action.reason)
        case Place():
            await connection.execute(
                _QUERIES["place"], action.worker_id, action.revision_id, action.replicas, action.reason,
                list(action.ending),
            )  # fmt: skip
            if action.replicas == 0:
                await connection.execute(_QUERIES["delete_drained_placements"], action.worker_id)
        case Freeze():
            by, why = (actor, action.reason) if action.frozen else ("", "")
            await connection.execute(_QUERIES["freeze"], action.frozen, by, why)
        case SetStanding() | LiftStanding():
            await postgres_standings.carry_out(connection, action, origin=origin, actor=actor, fleet=fleet)
        case _:
            assert_never(action)


async def _set_routes(connection: Connection, model_id: ModelId, routes: Sequence[Route]) -> None:
    await connection.execute(_QUERIES["drop_plan"], model_id)
    await connection.execute(_QUERIES["delete_routes"], model_id)
    for route in routes:
        await connection.execute(
            _QUERIES["insert_route"], route.model_id, route.revision_id, route.bucket_from, route.bucket_to
        )


async def _register(connection: Connection, action: RegisterRevision, actor: str) -> None:
    revision = action.revision
    spec = msgspec.json.encode(revision.spec).decode()
    openapi = None if revision.openapi is None else msgspec.json.encode(revision.openapi).decode()
    try:
        await connection.execute(_QUERIES["upsert_model"], revision.model_id, spec, action.visibility, action.tenant_id)
    except asyncpg.ForeignKeyViolationError:
        message = f"{action.tenant_id!r} is not known; create it with `forestay tenant create`"
        raise UsageError("tenant", message) from None
    await connection.execute(
        _QUERIES["insert_revision"], revision.revision_id, revision.model_id, revision.digest, spec,
        revision.bundle_key, openapi, revision.created_at, actor,
    )  # fmt: skip


def _worth_a_row(item: Decided, recent: Sequence[Recent]) -> bool:
    """Tell whether the log gains by it: not what was so already, nor what was refused for the same reason just now."""
    if item.why == ALREADY_SO:
        return False
    if item.effect is Effect.APPLIED:
        return True
    subject = subject_of(item.action)
    return not any((seen.subject, seen.effect, seen.why) == (subject, item.effect, item.why) for seen in recent)


def _entry(item: Decided, fleet: Fleet, origin: Origin, actor: str) -> AuditEntry:
    pool, removed = removal(item.action, fleet)
    detail: dict[str, object] = {
        "origin": origin.name.lower(),
        "why": item.why,
        "pool": pool,
        "removed_devices": removed,
        "restricted": restriction(item.action, fleet),
        **_what(item.action, fleet),
    }
    action, subject = _ACTION_NAMES[type(item.action)], subject_of(item.action)
    return AuditEntry(fleet.now, actor, action, subject, detail, item.action.reason, item.effect.value)


def _what(action: Action, fleet: Fleet) -> Mapping[str, object]:  # noqa: PLR0911 - one return a kind
    match action:
        case RegisterRevision():
            revision = action.revision
            return {"model_id": revision.model_id, "digest": revision.digest, "tenant_id": action.tenant_id}
        case SetRoutes() | ShiftRoutes():
            before = [item for item in fleet.routes if item.model_id == action.model_id]
            return {"model_id": action.model_id, "before": _shares(before), "after": _shares(action.routes)}
        case PlanRoute():
            return {"model_id": action.model_id, "to": action.revision_id, "patience_seconds": action.patience_seconds}
        case SettleRoute():
            before = [item for item in fleet.routes if item.model_id == action.model_id]
            return {"model_id": action.model_id, "before": _shares(before), "to": action.revision_id}
        case Place():
            before = [item.replicas for item in fleet.placements if subject_of(_as_place(item)) == subject_of(action)]
            ending = {"ending": list(action.ending)} if action.ending else {}
            return {"model_id": model_of(action, fleet), "before": sum(before), "after": action.replicas, **ending}
        case Freeze():
            return {"frozen": action.frozen}
        case SetStanding(standing=standing):
            before = fleet.standings.get(standing.subject)
            return {
                "standing_id": standing.standing_id,
                "kind": standing.kind,
                "rule": standing.rule,
                "expires_at": standing.expires_at.isoformat(),
                "before": before.kind if before else "",
                "evidence": standing.evidence,
            }
        case LiftStanding():
            before = fleet.standings.get(action.subject)
            return {"standing_id": before.standing_id if before else "", "pardon_until": _iso(action.pardon_until)}
        case _:
            assert_never(action)


def _iso(moment: dt.datetime | None) -> str:
    return moment.isoformat() if moment else ""


def _as_place(placement: Placement) -> Place:
    return Place(placement.worker_id, placement.revision_id, placement.replicas, placement.reason)


def _shares(routes: Sequence[Route]) -> list[dict[str, object]]:
    return [
        {"revision_id": route.revision_id, "from": route.bucket_from, "to": route.bucket_to}
        for route in sorted(routes, key=lambda item: item.bucket_from)
    ]


def _without_times(worker: WorkerReport) -> WorkerReport:
    return dataclasses.replace(worker, seen_at=worker.started_at)


def _still(replica: ReplicaReport) -> ReplicaReport:
    """Return the replica without the times that change all the time."""
    return dataclasses.replace(replica, seen_at=replica.started_at, last_used_at=None)


def _decode(text: object, kind: type[T]) -> T:
    return msgspec.json.decode(str(text), type=kind)


def _read(row: asyncpg.Record | None, kind: type[T]) -> T:
    return msgspec.convert(dict(row) if row is not None else {}, kind)
