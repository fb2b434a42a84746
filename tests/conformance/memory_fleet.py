"""A fleet store and a key store in memory: adapters of the ports, for tests of whoever uses them.

`apply` runs the same rules as the real store; `tests/conformance/test_fleet_store.py` runs one suite against both.
"""

import asyncio
import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence

from forestay.chance import Chance
from forestay.clock import Clock
from forestay.errors import Unavailable
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
    Proposal,
    Recent,
    Situation,
    decide_effects,
    removal,
    restriction,
    subject_of,
)
from forestay.fleet.audit import AuditEntry, AuditFault, AuditRow, chain, find_fault
from forestay.fleet.keys import (
    IssuedKey,
    Key,
    KeyRequest,
    StoredKey,
    Tenant,
    Unrotatable,
    decide_rotation,
    new_credential,
)
from forestay.fleet.model import (
    Fleet,
    ModelEntry,
    PendingRoute,
    Placement,
    ReplicaReport,
    ReplicaState,
    Route,
    WorkerReport,
)
from forestay.fleet.peppers import NO_PEPPERS, Peppers
from forestay.fleet.routes import whole_route
from forestay.fleet.standing import renews
from forestay.ids import KeyId, ModelId, ReplicaId, TenantId, WorkerId

EPOCH = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)


class ManualClock:
    """A clock that moves only when told; whoever sleeps wakes when it has moved far enough."""

    def __init__(self, now: dt.datetime = EPOCH) -> None:
        self._start = now
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def now(self) -> dt.datetime:
        """Return the told time."""
        return self._start + dt.timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        """Return seconds since the start."""
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Move on, and wake who is due."""
        self._elapsed += seconds
        for until, event in self._sleepers:
            if until <= self._elapsed:
                event.set()
        self._sleepers = [item for item in self._sleepers if not item[1].is_set()]

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has moved by `seconds`."""
        if seconds <= 0:
            return
        event = asyncio.Event()
        self._sleepers.append((self._elapsed + seconds, event))
        await event.wait()


class MemoryKeyStore:
    """Keys and tenants in memory; `lookups` and `flushes` count calls, `silent` makes it unavailable."""

    def __init__(self, clock: Clock, chance: Chance, peppers: Peppers = NO_PEPPERS) -> None:
        self._clock = clock
        self._chance = chance
        self._peppers = peppers
        self._changed: dict[KeyId, dt.datetime] = {}
        self._tenants: dict[TenantId, Tenant] = {}
        self._keys: dict[KeyId, StoredKey] = {}
        self.lookups = 0
        self.flushes = 0
        self.silent = False
        self.refuses_writes = False

    async def create_tenant(self, tenant_id: TenantId, name: str, *, actor: str) -> Tenant | None:
        """Add a tenant; None when the id is taken."""
        assert actor
        if tenant_id in self._tenants:
            return None
        self._tenants[tenant_id] = Tenant(tenant_id, name, self._clock.now())
        return self._tenants[tenant_id]

    async def tenants(self) -> list[Tenant]:
        """List tenants."""
        return [self._tenants[tenant_id] for tenant_id in sorted(self._tenants)]

    async def tenant(self, tenant_id: TenantId) -> Tenant | None:
        """Read one tenant."""
        return self._tenants.get(tenant_id)

    async def create(self, wanted: KeyRequest, *, actor: str) -> IssuedKey | None:
        """Issue a key; None when there is no such tenant."""
        assert actor
        return self._insert(wanted, None)

    def _insert(self, wanted: KeyRequest, successor_of: KeyId | None) -> IssuedKey | None:
        if wanted.tenant_id not in self._tenants:
            return None
        key_id, secret = new_credential(self._chance)
        key = Key(
            key_id,
            wanted.tenant_id,
            wanted.name,
            wanted.scopes,
            self._clock.now(),
            wanted.expires_at,
            grants=wanted.grants,
            networks=wanted.networks,
            privileges=wanted.privileges,
            successor_of=successor_of,
        )
        self._keys[key_id] = StoredKey(key, self._peppers.hash(secret), self._peppers.form)
        return IssuedKey(key, secret)

    async def keys(self, tenant_id: TenantId | None = None) -> list[Key]:
        """List keys, newest first."""
        found = [item.key for item in self._keys.values() if tenant_id in (None, item.key.tenant_id)]
        return sorted(found, key=lambda key: (key.created_at, key.key_id), reverse=True)

    async def revoke(self, key_id: KeyId, *, actor: str, reason: str) -> Key | None:
        """Revoke for good, idempotently; None when there is no such key."""
        assert actor
        assert reason
        stored = self._keys.get(key_id)
        if stored is None:
            return None
        if stored.key.revoked_at is None:
            key = dataclasses.replace(stored.key, revoked_at=self._clock.now())
            self._keys[key_id] = dataclasses.replace(stored, key=key)
        return self._keys[key_id].key

    async def rotate(self, key_id: KeyId, overlap_seconds: float, *, actor: str) -> IssuedKey | Unrotatable:
        """Issue the key's successor, its equal, and let the key itself expire after the overlap."""
        assert actor
        stored, now = self._keys.get(key_id), self._clock.now()
        taken = any(item.key.successor_of == key_id and not item.key.revoked_at for item in self._keys.values())
        wanted = decide_rotation(stored.key if stored else None, now, has_successor=taken)
        if isinstance(wanted, Unrotatable):
            return wanted
        issued = self._insert(wanted, key_id)
        assert issued is not None
        assert stored is not None
        end = now + dt.timedelta(seconds=overlap_seconds)
        key = dataclasses.replace(stored.key, expires_at=min(end, stored.key.expires_at or end))
        self._keys[key_id] = dataclasses.replace(stored, key=key)
        self._changed[key_id] = now
        return issued

    async def find(self, key_id: KeyId) -> StoredKey | None:
        """Read one key."""
        self._answer()
        self.lookups += 1
        return self._keys.get(key_id)

    async def changed_within(self, seconds: float) -> set[KeyId]:
        """Name the keys revoked or changed in the last `seconds`."""
        self._answer()
        since = self._clock.now() - dt.timedelta(seconds=seconds)
        revoked = {key_id for key_id, item in self._keys.items() if item.key.revoked_at and item.key.revoked_at > since}
        return revoked | {key_id for key_id, at in self._changed.items() if at > since}

    async def rehash(self, stored: StoredKey, secret_hash: bytes, secret_form: str) -> None:
        """Replace the hash of a key's secret, unless it was replaced since it was read."""
        self._answer()
        if self.refuses_writes:
            raise Unavailable("the key store takes no writes, as the test asked")
        now = self._keys[stored.key.key_id]
        if now.secret_hash == stored.secret_hash:
            self._keys[stored.key.key_id] = dataclasses.replace(now, secret_hash=secret_hash, secret_form=secret_form)

    async def mark_used(self, used: Mapping[KeyId, dt.datetime]) -> None:
        """Note when keys were last used."""
        self.flushes += 1
        for key_id, at in used.items():
            if key_id in self._keys:
                stored = self._keys[key_id]
                latest = max(at, stored.key.last_used_at or at)
                self._keys[key_id] = dataclasses.replace(
                    stored, key=dataclasses.replace(stored.key, last_used_at=latest)
                )

    def _answer(self) -> None:
        if self.silent:
            raise Unavailable("the key store is silent, as the test asked")


class MemoryFleetStore:
    """The fleet in memory, by the same rules as the real store."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._fleet = Fleet(1, clock.now(), {}, {}, (), (), {}, {}, {})
        self._brakes = Brakes()
        self._modes: dict[tuple[str, str], Mode] = {}
        self._recent: list[Recent] = []
        self.steps: dict[ModelId, tuple[str, int]] = {}  # the last recorded step of each model's rollout
        self._rows: list[AuditRow] = []

    async def version(self) -> int:
        """Return the number that every change bumps."""
        return self._fleet.version

    async def load(self) -> Fleet:
        """Read everything in one consistent snapshot."""
        return self._seen()

    def _seen(self) -> Fleet:
        """Return the fleet as a read now shows it: only standings and pardons in force."""
        now, fleet = self._clock.now(), self._fleet
        standings = {key: item for key, item in fleet.standings.items() if item.expires_at > now}
        pardons = {key: until for key, until in fleet.pardons.items() if until > now}
        return dataclasses.replace(fleet, now=now, standings=standings, pardons=pardons)

    async def report(self, worker: WorkerReport, replicas: Sequence[ReplicaReport]) -> None:
        """Replace what is known of this worker and its replicas."""
        now = self._clock.now()
        before = self._fleet
        worker = dataclasses.replace(worker, seen_at=now)
        old = {key: item for key, item in before.replicas.items() if item.worker_id == worker.worker_id}
        new = {item.replica_id: dataclasses.replace(item, seen_at=now) for item in replicas}
        kept = {key: item for key, item in before.replicas.items() if item.worker_id != worker.worker_id}
        for key, item in new.items():
            used = [moment for moment in (item.last_used_at, old[key].last_used_at if key in old else None) if moment]
            new[key] = dataclasses.replace(item, last_used_at=max(used, default=None))
        held = {item.revision_id for item in replicas}
        placements = tuple(
            item
            for item in before.placements
            if item.worker_id != worker.worker_id or item.replicas > 0 or item.revision_id in held
        )
        changed = (
            placements != before.placements
            or _still(old) != _still(new)
            or _seen_apart(before.workers.get(worker.worker_id)) != _seen_apart(worker)
        )
        self._fleet = dataclasses.replace(
            before,
            version=before.version + changed,
            workers={**before.workers, worker.worker_id: worker},
            replicas={**kept, **new},
            placements=placements,
            demand={
                model_id: moment
                for model_id, moment in before.demand.items()
                if not any(item.model_id == model_id and item.state is ReplicaState.READY for item in replicas)
            },
        )

    async def touch(self, replica_ids: Sequence[ReplicaId]) -> None:
        """Note that these replicas were just used."""
        replicas = dict(self._fleet.replicas)
        for replica_id in replica_ids:
            if replica_id in replicas:
                replicas[replica_id] = dataclasses.replace(replicas[replica_id], last_used_at=self._clock.now())
        self._fleet = dataclasses.replace(self._fleet, replicas=replicas)

    async def want(self, model_id: ModelId) -> None:
        """Note that a direct call found no live replica of this model."""
        if model_id in self._fleet.models:
            demand = {**self._fleet.demand, model_id: self._clock.now()}
            self._fleet = dataclasses.replace(self._fleet, demand=demand)

    async def retire_worker(self, worker_id: WorkerId) -> None:
        """Forget a stopped worker with its replicas and placements."""
        fleet = self._fleet
        self._change(
            workers={key: item for key, item in fleet.workers.items() if key != worker_id},
            replicas={key: item for key, item in fleet.replicas.items() if item.worker_id != worker_id},
            placements=tuple(item for item in fleet.placements if item.worker_id != worker_id),
        )

    async def brakes(self) -> Brakes:
        """Read the freeze switch and the removal cap."""
        return self._brakes

    async def set_mode(self, loop: str, model_id: ModelId | None, mode: Mode, *, actor: str) -> None:
        """Say how far a loop may go."""
        self._modes[loop, model_id or ""] = mode
        detail = {"mode": mode.value}
        await self.record(AuditEntry(self._clock.now(), actor, "set_mode", f"mode:{loop}", detail, "asked for"))

    async def record(self, entry: AuditEntry) -> None:
        """Append an audit row."""
        previous = self._rows[-1].hash if self._rows else b""
        self._rows.extend(chain("fleet", len(self._rows), previous, [entry]))

    async def audit_rows(self, *, subject: str | None, before: dt.datetime | None, limit: int) -> list[AuditRow]:
        """Read audit rows, newest first."""
        found = [
            row
            for row in reversed(self._rows)
            if subject in (None, row.entry.subject) and (before is None or row.entry.at < before)
        ]
        return found[:limit]

    async def audit_faults(self) -> list[AuditFault]:
        """Recompute the chain."""
        faults: list[AuditFault] = []
        sequence, previous = 0, b""
        for row in self._rows:
            fault = find_fault(row, sequence, previous)
            faults.extend([fault] if fault else [])
            sequence, previous = row.sequence, row.hash
        return faults

    async def apply(self, actions: Sequence[Action], *, origin: Origin, actor: str) -> list[Decided]:
        """Apply what the brakes and modes let through, with an audit row each."""
        now = self._clock.now()
        since = now - dt.timedelta(seconds=self._brakes.window_seconds)
        recent = [item for item in self._recent if item.at > since]
        situation = Situation(self._seen(), self._modes, self._brakes, recent, self.steps)
        decided = decide_effects([Proposal(action, origin) for action in actions], situation)
        for item in decided:
            subject = subject_of(item.action)
            twin = any((seen.subject, seen.effect, seen.why) == (subject, item.effect, item.why) for seen in recent)
            if item.why == ALREADY_SO or (item.effect is not Effect.APPLIED and twin):
                continue
            pool, removed = removal(item.action, self._fleet)
            restricted = restriction(item.action, self._seen())
            self._recent.append(Recent(now, origin, subject, item.effect, item.why, pool, removed, restricted))
            await self.record(AuditEntry(now, actor, type(item.action).__name__, subject, {}, item.why, item.effect))
            if item.effect is Effect.APPLIED:
                self._act(item.action, origin, actor)
        return decided

    def _act(self, action: Action, origin: Origin, actor: str) -> None:
        match action:
            case RegisterRevision(revision=revision):
                entry = ModelEntry(revision.model_id, action.tenant_id, action.visibility, revision.spec)
                self._change(
                    models={**self._fleet.models, revision.model_id: entry},
                    revisions={revision.revision_id: revision, **self._fleet.revisions},
                )
            case SetRoutes(model_id=model_id, routes=routes) | ShiftRoutes(model_id=model_id, routes=routes):
                self._set_routes(model_id, tuple(routes))
            case PlanRoute(model_id=model_id, revision_id=revision_id, patience_seconds=seconds, held=held):
                now = self._clock.now()
                plan = PendingRoute(model_id, revision_id, now, now + dt.timedelta(seconds=seconds), held=held)
                self._change(pending={**self._fleet.pending, model_id: plan})
            case SettleRoute(model_id=model_id, revision_id=revision_id, switch=switch, reason=reason):
                if switch:
                    self._set_routes(model_id, (whole_route(model_id, revision_id),))
                else:
                    plan = dataclasses.replace(self._fleet.pending[model_id], given_up=reason)
                    self._change(pending={**self._fleet.pending, model_id: plan})
            case Place():
                self._place(action)
            case Freeze(frozen=frozen, reason=reason):
                by, why = (actor, reason) if frozen else ("", "")
                self._brakes = dataclasses.replace(self._brakes, frozen=frozen, frozen_by=by, frozen_why=why)
                self._change()
            case SetStanding(standing=wanted):
                current = self._seen().standings.get(wanted.subject)
                name = current.standing_id if current is not None and renews(wanted, current) else wanted.standing_id
                made = dataclasses.replace(wanted, standing_id=name, origin=origin.name.lower(), evidence={})
                self._change(standings={**self._fleet.standings, wanted.subject: made})
            case LiftStanding(subject=subject, pardon_until=until):
                standings = {key: item for key, item in self._fleet.standings.items() if key != subject}
                pardons = dict(self._fleet.pardons) if until is None else {**self._fleet.pardons, subject: until}
                self._change(standings=standings, pardons=pardons)

    def _place(self, action: Place) -> None:
        key = (action.worker_id, action.revision_id)
        held = any((item.worker_id, item.revision_id) == key for item in self._fleet.replicas.values())
        others = tuple(item for item in self._fleet.placements if (item.worker_id, item.revision_id) != key)
        placed = Placement(action.worker_id, action.revision_id, action.replicas, action.reason, action.ending)
        self._change(placements=(*others, placed) if action.replicas or held else others)

    def _set_routes(self, model_id: ModelId, routes: tuple[Route, ...]) -> None:
        others = tuple(route for route in self._fleet.routes if route.model_id != model_id)
        pending = {key: plan for key, plan in self._fleet.pending.items() if key != model_id}
        self._change(routes=others + routes, pending=pending)

    def _change(self, **fields: object) -> None:
        self._fleet = dataclasses.replace(self._fleet, version=self._fleet.version + 1, **fields)  # type: ignore[arg-type]


def _seen_apart(worker: WorkerReport | None) -> WorkerReport | None:
    return dataclasses.replace(worker, seen_at=EPOCH) if worker else None


def _still(replicas: Mapping[ReplicaId, ReplicaReport]) -> list[ReplicaReport]:
    """Return the replicas without the times that change all the time."""
    return [dataclasses.replace(replicas[key], seen_at=EPOCH, last_used_at=None) for key in sorted(replicas)]
