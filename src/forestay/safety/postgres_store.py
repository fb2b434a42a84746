"""Policies, stages and waivers in Postgres: the adapter of `safety/store.SafetyStore`."""

# The driver's pooled connection is partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import datetime as dt
import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar, cast

import msgspec

from forestay.errors import UsageError
from forestay.fleet import postgres_audit
from forestay.fleet.audit import AuditEntry
from forestay.ids import TenantId
from forestay.safety import staging
from forestay.safety.sealing import PolicySeal
from forestay.safety.staging import Staging
from forestay.safety.store import SafetyState, StoredPolicy, TenantPolicy, Waiver
from forestay.storage.postgres import Connection, Database, Record, load_queries
from forestay.storage.valkey import Wakeups

CHANNEL = "forestay:safety"
_SQL = load_queries("forestay.safety", "sql/policies.sql")
_Kind = TypeVar("_Kind")


class PostgresSafetyStore:
    """Policies, stages and waivers; `writer` names this process's audit chain."""

    def __init__(self, database: Database, wakeups: Wakeups, seal: PolicySeal, *, writer: str = "safety") -> None:
        self._database = database
        self._wakeups = wakeups
        self._seal = seal
        self._writer = writer

    async def state(self) -> SafetyState:
        """Read what is in force now, from one snapshot of the database."""
        async with self._database.transaction() as connection:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            policies = await connection.fetch(_SQL["in_force"])
            stages = await connection.fetch(_SQL["stages"])
            waivers = await connection.fetch(_SQL["waivers"])
            tenants = await connection.fetch(_SQL["tenants"])
        return SafetyState(
            tuple(_read(row, StoredPolicy) for row in policies),
            tuple(_read(row, Staging) for row in stages),
            tuple(_read(row, Waiver) for row in waivers),
            tuple(_read(row, TenantPolicy) for row in tenants),
        )

    async def versions(self, policy_id: str, limit: int) -> Sequence[StoredPolicy]:
        """Read the versions of a policy, newest first."""
        return [_read(row, StoredPolicy) for row in await self._database.fetch(_SQL["versions"], policy_id, limit)]

    async def propose(self, policy_id: str, text: str, *, actor: str, reason: str) -> StoredPolicy:
        """Add a checked version and let it judge in shadow."""
        async with self._database.transaction() as connection:
            current = await self._locked(connection, policy_id, actor)
            version = cast("int", await connection.fetchval(_SQL["newest"], policy_id)) + 1
            sealed = self._seal.make(policy_id, version, text)
            row = await connection.fetchrow(_SQL["add"], policy_id, version, text, sealed, reason, actor)
            await self._write(connection, staging.propose(current, version), actor)
            made = _read(cast("Record", row), StoredPolicy)
            detail = {"version": version, "sha256": hashlib.sha256(text.encode()).hexdigest()}
            entry = AuditEntry(made.set_at, actor, "propose_policy", f"policy:{policy_id}", detail, reason)
            await postgres_audit.append(connection, self._writer, [entry])
        await self._wakeups.publish(CHANNEL, policy_id)
        return made

    async def advance(self, policy_id: str, percent: float, *, actor: str, reason: str) -> Staging:
        """Let the candidate decide for a share of requests; 100: for all."""
        return await self._restage(policy_id, lambda now: staging.advance(now, percent), "stage_policy", actor, reason)

    async def roll_back(self, policy_id: str, version: int | None, *, actor: str, reason: str) -> Staging:
        """Drop the candidate, or put an earlier version in force."""
        if version and not await self._database.fetchval(_SQL["has"], policy_id, version):
            raise UsageError("version", f"policy {policy_id} has no version {version}")
        step: Callable[[Staging], Staging] = lambda now: staging.roll_back(now, version)  # noqa: E731 - one of two steps
        return await self._restage(policy_id, step, "roll_back_policy", actor, reason)

    async def strengthen(self, tenant_id: TenantId, policy_id: str | None, *, actor: str, reason: str) -> bool:
        """Have a tenant's calls judged by a further policy, or (None) by models' own alone; tells if it changed."""
        async with self._database.transaction() as connection:
            if policy_id is None:
                row = await connection.fetchrow(_SQL["weaken"], tenant_id)
            else:
                row = await connection.fetchrow(_SQL["strengthen"], tenant_id, policy_id, reason, actor)
            if row is None:
                return False
            action = "drop_tenant_policy" if policy_id is None else "set_tenant_policy"
            entry = AuditEntry(row["at"], actor, action, f"tenant:{tenant_id}", {"policy_id": policy_id}, reason)
            await postgres_audit.append(connection, self._writer, [entry])
        await self._wakeups.publish(CHANNEL, tenant_id)
        return True

    async def waive(self, waiver: Waiver) -> None:
        """Break glass for a while."""
        async with self._database.transaction() as connection:
            values = (waiver.waiver_id, waiver.detector_id, waiver.model_id, waiver.reason, waiver.until, waiver.set_by)
            at = cast("dt.datetime", await connection.fetchval(_SQL["waive"], *values))
            detail = {
                "waiver_id": str(waiver.waiver_id),
                "model_id": waiver.model_id,
                "until": waiver.until.isoformat(),
            }
            subject = f"detector:{waiver.detector_id}"
            entry = AuditEntry(at, waiver.set_by, "break_glass", subject, detail, waiver.reason)
            await postgres_audit.append(connection, self._writer, [entry])
        await self._wakeups.publish(CHANNEL, waiver.detector_id)

    async def end_waiver(self, waiver_id: uuid.UUID, *, actor: str, reason: str) -> bool:
        """End a waiver before its time; False when there is none that runs."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_SQL["end_waiver"], waiver_id)
            if row is None:
                return False
            subject, detail = f"detector:{row['detector_id']}", {"waiver_id": str(waiver_id)}
            entry = AuditEntry(row["ended_at"], actor, "end_break_glass", subject, detail, reason)
            await postgres_audit.append(connection, self._writer, [entry])
        await self._wakeups.publish(CHANNEL, str(waiver_id))
        return True

    async def _restage(
        self, policy_id: str, step: Callable[[Staging], Staging], action: str, actor: str, reason: str
    ) -> Staging:
        async with self._database.transaction() as connection:
            before = await self._locked(connection, policy_id, actor)
            after = step(before)
            at = await self._write(connection, after, actor)
            detail: Mapping[str, object] = {"before": _said(before), "after": _said(after)}
            entry = AuditEntry(at, actor, action, f"policy:{policy_id}", detail, reason)
            await postgres_audit.append(connection, self._writer, [entry])
        await self._wakeups.publish(CHANNEL, policy_id)
        return after

    async def _locked(self, connection: Connection, policy_id: str, actor: str) -> Staging:
        return _read(cast("Record", await connection.fetchrow(_SQL["lock"], policy_id, actor)), Staging)

    async def _write(self, connection: Connection, after: Staging, actor: str) -> dt.datetime:
        values = (after.policy_id, after.live, after.candidate, after.percent, actor)
        return cast("dt.datetime", await connection.fetchval(_SQL["stage"], *values))


def _read(row: Record, kind: type[_Kind]) -> _Kind:
    return msgspec.convert(dict(row), kind)


def _said(stage: Staging) -> dict[str, object]:
    return {"live": stage.live, "candidate": stage.candidate, "percent": stage.percent}
