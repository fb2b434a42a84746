"""Cases that must be reported, in Postgres: opened once, worked off under a lease, every step in the audit log."""

# The driver's pooled connection is partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import cast

from forestay.clock import Clock
from forestay.fleet import postgres_audit
from forestay.fleet.audit import AuditEntry
from forestay.safety.hashes.report import Case, CaseState, NewCase, Step
from forestay.storage.postgres import Connection, Database, Record, load_queries

_SQL = load_queries("forestay.safety.hashes", "sql/reports.sql")
_MAX_PROBLEM = 500


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """A case as people see it."""

    case: Case
    proof: Mapping[str, object] | None
    problem: str


class PostgresReports:
    """Cases; `writer` names this process's audit chain."""

    def __init__(self, database: Database, clock: Clock, writer: str = "reports") -> None:
        self._database = database
        self._clock = clock
        self._writer = writer

    async def open(self, case: NewCase) -> bool:
        """Open a case; False when this match has one already."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                _SQL["open_case"], case.case_id, case.entry_id, case.bank_id, case.category, case.distance,
                case.request_id, case.tenant_id, case.place, case.matched_at,
            )  # fmt: skip
            if row is None:
                return False
            await self._audit(
                connection, "open_case", case.case_id, {"entry_id": case.entry_id}, "a known hash matched"
            )
        return True

    async def claim(self, count: int, lease_seconds: float) -> Sequence[Case]:
        """Take due cases; each is hidden from others for the lease."""
        return [_case(row) for row in await self._database.fetch(_SQL["claim"], count, lease_seconds)]

    async def settle(self, case: Case, step: Step) -> bool:
        """Write what a step came to; False when another has taken over."""
        name, problem = case.opened.case_id, "" if step.state != case.state else step.reason[:_MAX_PROBLEM]
        proof = None if step.proof is None else json.dumps(step.proof)
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                _SQL["settle"], name, case.tries, case.state, step.state, step.due_at, problem, step.sealed_id, proof
            )
            if row is None:
                return False
            if step.state != case.state:
                detail = {"from": case.state, "to": step.state, "proof": step.proof or {}}
                await self._audit(connection, "move_case", name, detail, step.reason)
        return True

    async def cases(self, state: CaseState | None, limit: int) -> Sequence[Kept]:
        """List cases, newest first."""
        rows = await self._database.fetch(_SQL["select_cases"], state, limit)
        return [
            Kept(_case(row), cast("Mapping[str, object] | None", row["proof"]), str(row["problem"])) for row in rows
        ]

    async def try_again(self, case_id: str, *, actor: str, reason: str) -> bool:
        """Let an undelivered case be told anew; False when it is not undelivered."""
        async with self._database.transaction() as connection:
            if await connection.fetchrow(_SQL["try_again"], case_id) is None:
                return False
            await self._audit(connection, "try_case_again", case_id, {}, reason, actor)
        return True

    async def _audit(
        self,
        connection: Connection,
        action: str,
        case_id: str,
        detail: Mapping[str, object],
        reason: str,
        actor: str = "loop:reports",
    ) -> None:
        entry = AuditEntry(self._clock.now(), actor, action, f"case:{case_id}", detail, reason)
        await postgres_audit.append(connection, self._writer, [entry])


def _case(row: Record) -> Case:
    opened = NewCase(
        case_id=str(row["case_id"]),
        entry_id=int(row["entry_id"]),
        bank_id=str(row["bank_id"]),
        category=str(row["category"]),
        distance=int(row["distance"]),
        request_id=str(row["request_id"]),
        tenant_id=str(row["tenant_id"]),
        place=str(row["place"]),
        matched_at=row["matched_at"],
    )
    return Case(opened, CaseState(row["state"]), row["due_at"], str(row["sealed_id"]), int(row["tries"]))
