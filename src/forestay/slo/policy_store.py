"""What people took out of error budgets and what budgets demand, in Postgres. Decides nothing.

Adjustments leave an audit row in their own transaction. Decisions are written by the loop that watches SLOs, each only
on the ground that it was made on, and are read by rollouts, which never compute them anew.
"""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from forestay.fleet import postgres_audit
from forestay.fleet.audit import AuditEntry
from forestay.slo.budget import Adjustment
from forestay.slo.budget_policy import BudgetDecision
from forestay.slo.model import BudgetAction, Minute, SloId
from forestay.storage.postgres import Database, Record, load_queries

MOST_IN_FORCE = 10_000
_SQL = load_queries("forestay.slo", "sql/policy.sql")


@dataclasses.dataclass(frozen=True, slots=True)
class Adjusted:
    """An adjustment as it is kept."""

    number: int
    slo_id: str
    first_minute: int
    until_minute: int
    by: str
    reason: str
    at: dt.datetime
    withdrawn_by: str | None
    withdrawn_at: dt.datetime | None
    forgiven: int = 0  # bad events given back; 0: the minutes are out


@dataclasses.dataclass(frozen=True, slots=True)
class Decided:
    """A decision as it is kept."""

    slo_id: str
    subject: str
    action: BudgetAction
    left_ratio: float
    reason: str
    minute: int
    decided_at: dt.datetime


class BudgetPolicies(Protocol):
    """What the loop that watches SLOs reads and writes."""

    async def in_force(self, since: Minute) -> Sequence[Adjustment]:
        """Read the adjustments in force that end after a minute."""
        ...

    async def standing(self) -> Mapping[SloId, BudgetAction]:
        """Read what every SLO demands."""
        ...

    async def decide(self, decided: Sequence[tuple[BudgetDecision, str, BudgetAction]], now: dt.datetime) -> None:
        """Keep decisions, each with its subject and what stood before it; one on stale ground is dropped."""
        ...


class BudgetDemands(Protocol):
    """What others read: the decisions that stand about a subject."""

    async def about(self, subject: str) -> Sequence[Decided]:
        """Read the standing decisions about `model:owner/alias` or another subject, that demand anything."""
        ...


class PostgresBudgetPolicy:
    """BudgetPolicies, BudgetDemands and what the admin API does; `writer` names this process's audit chain."""

    def __init__(self, database: Database, *, writer: str) -> None:
        self._database = database
        self._writer = writer

    async def adjust(self, wanted: Adjustment, audit: AuditEntry) -> int | None:
        """Keep an adjustment with its audit row; returns its number, None when those minutes are out already."""
        async with self._database.transaction() as connection:
            made = await connection.fetchrow(
                _SQL["adjust"], wanted.slo_id, wanted.first, wanted.until, wanted.by, wanted.reason, audit.at,
                wanted.forgiven,
            )  # fmt: skip
            if made is None:
                return None
            await postgres_audit.append(connection, self._writer, [audit])
        return cast("int", made["number"])

    async def withdraw(self, number: int, audit: AuditEntry) -> str | None:
        """Put an adjustment's minutes back, with an audit row; returns its SLO, None when there is none in force."""
        async with self._database.transaction() as connection:
            found = await connection.fetchrow(_SQL["withdraw"], number, audit.actor, audit.at)
            if found is None:
                return None
            slo_id = cast("str", found["slo_id"])
            named = dataclasses.replace(audit, subject=f"slo:{slo_id}")
            await postgres_audit.append(connection, self._writer, [named])
        return slo_id

    async def in_force(self, since: Minute) -> list[Adjustment]:
        """Read the adjustments in force that end after a minute."""
        rows = await self._database.fetch(_SQL["in_force"], since, MOST_IN_FORCE)
        return [
            Adjustment(
                SloId(row["slo_id"]), Minute(row["first_minute"]), Minute(row["until_minute"]), row["by"],
                row["reason"], Minute(int(row["at"].timestamp()) // 60), row["forgiven"],
            )
            for row in rows
        ]  # fmt: skip

    async def adjustments(self, slo_id: str | None, limit: int) -> list[Adjusted]:
        """Read the newest, withdrawn ones too."""
        rows = await self._database.fetch(_SQL["adjustments"], slo_id, limit)
        return [Adjusted(**{field.name: row[field.name] for field in dataclasses.fields(Adjusted)}) for row in rows]

    async def standing(self) -> dict[SloId, BudgetAction]:
        """Read what every SLO demands."""
        rows = await self._database.fetch(_SQL["standing"], None)
        return {SloId(row["slo_id"]): BudgetAction(row["action"]) for row in rows}

    async def about(self, subject: str) -> list[Decided]:
        """Read the standing decisions about a subject that demand anything."""
        found = [_decided(row) for row in await self._database.fetch(_SQL["standing"], subject)]
        return [one for one in found if one.action is not BudgetAction.NONE]

    async def decide(self, decided: Sequence[tuple[BudgetDecision, str, BudgetAction]], now: dt.datetime) -> None:
        """Keep decisions; one on stale ground is dropped."""
        for made, subject, before in decided:
            await self._database.execute(
                _SQL["decide"], made.slo_id, made.at, subject, made.action.value, made.left_ratio, made.reason, now,
                before.value,
            )  # fmt: skip

    async def decisions(self, slo_id: str | None, limit: int) -> list[Decided]:
        """Read the newest first."""
        return [_decided(row) for row in await self._database.fetch(_SQL["decisions"], slo_id, limit)]


def _decided(row: Record) -> Decided:
    return Decided(
        row["slo_id"],
        row["subject"],
        BudgetAction(row["action"]),
        row["left_ratio"],
        row["reason"],
        row["minute"],
        row["decided_at"],
    )
