"""Reads what a report on a tenant's month needs: its roll-ups a day at a time, its SLOs, what was adjusted.

It decides how much is read at once, and that every row is the tenant's own. What is made of it, `customer_report` says.
Called by the admin API.
"""

import asyncio
import datetime as dt
from collections.abc import Callable, Sequence
from typing import Protocol

from forestay.slo.budget import Adjustment, Budget
from forestay.slo.customer_report import (
    DAY_MINUTES,
    Customer,
    CustomerReport,
    Month,
    MonthFacts,
    SampleLine,
    month_budget,
    report_of,
)
from forestay.slo.loop import question_of
from forestay.slo.model import Counts, Minute, Slo, SubjectKind
from forestay.slo.standing import Standing, slo_of
from forestay.slo.throughput import settled_minutes
from forestay.telemetry.measures import Measure
from forestay.telemetry.rollup_reader import By, MinuteCounts, ModelCounts, Question

MOST_SLOS = 50  # of one tenant, in one report
_AVAILABILITY = Question(Measure.AVAILABILITY, By.TENANT)


class TenantRollups(Protocol):
    """Roll-ups, as a report reads them."""

    async def complete_until(self) -> int | None:
        """Return the first minute that is not complete yet."""
        ...

    async def counts(self, question: Question, since: int, until: int) -> list[MinuteCounts]:
        """Return the counts of minutes."""
        ...

    async def of_tenant(self, since: int, until: int, tenant_id: str) -> dict[str, ModelCounts]:
        """Return what a tenant asked of each model."""
        ...


class _Reading:
    """One tenant's month, read a day at a time: no statement grows with the month."""

    def __init__(self, rollups: TenantRollups, tenant_id: str, days: Sequence[tuple[int, int]]) -> None:
        self._rollups = rollups
        self._tenant_id = tenant_id
        self._days = days

    async def minutes(self, asked: Question) -> dict[Minute, Counts]:
        """Read one indicator by minute."""
        question = Question(asked.measure, By.TENANT, self._tenant_id, asked.threshold_seconds)
        return {
            Minute(row.minute): Counts(row.good, row.bad, row.probes_good, row.probes_bad, asked=row.asked)
            for since, until in self._days
            for row in await self._rollups.counts(question, since, until)
            if row.subject == self._tenant_id
        }

    async def models(self) -> dict[str, ModelCounts]:
        """Read what was asked of each model."""
        found: dict[str, ModelCounts] = {}
        for since, until in self._days:
            for model_id, counts in (await self._rollups.of_tenant(since, until, self._tenant_id)).items():
                found.setdefault(model_id, ModelCounts()).add(counts)
        return found


async def fetch_report(
    rollups: TenantRollups,
    tenant: Customer,
    month: Month,
    promised: tuple[Sequence[Standing], Sequence[Adjustment]],
    now: Callable[[], dt.datetime],
    sample: SampleLine | None = None,
) -> CustomerReport:
    """Read a tenant's month and return its report; `promised` is every SLO's standing, and adjustments in force.

    `sample` is what was found in outputs of the month that were looked at again.
    """
    complete = await rollups.complete_until()
    seen_until = Minute(max(month.first, min(month.until, complete or month.first)))
    days = [(day, min(day + DAY_MINUTES, seen_until)) for day in range(month.first, seen_until, DAY_MINUTES)]
    reading = _Reading(rollups, tenant.tenant_id, days)
    slos, notes = _slos_of(tenant.tenant_id, promised[0])
    names = {slo.slo_id for slo in slos}
    taken = [
        item for item in promised[1] if item.slo_id in names and item.first < month.until and item.until > month.first
    ]
    budgets: list[tuple[Slo, Budget]] = []
    for slo in slos:
        question = question_of(slo)
        read = {} if question is None else await reading.minutes(question)
        held = await asyncio.to_thread(settled_minutes, slo, read, seen_until)
        budgets.append((slo, await asyncio.to_thread(month_budget, slo, held, (month, seen_until), taken)))
    minutes, models = await reading.minutes(_AVAILABILITY), await reading.models()
    facts = MonthFacts(tenant, month, now(), seen_until, minutes, models, budgets, taken, notes, sample)
    return await asyncio.to_thread(report_of, facts)


def _slos_of(tenant_id: str, standings: Sequence[Standing]) -> tuple[list[Slo], tuple[str, ...]]:
    """Return the tenant's own SLOs, and what must be said of those that are left out."""
    own = [one for one in standings if one.subject == f"{SubjectKind.TENANT}:{tenant_id}"]
    known = [slo for slo in map(slo_of, own) if slo is not None]
    notes = [
        f"{one.slo_id} is left out: the controller that watches it is older than this report; upgrade it"
        for one in own
        if slo_of(one) is None
    ]
    if len(known) > MOST_SLOS:
        notes.append(f"{len(known) - MOST_SLOS} of {len(known)} objectives are left out: a report shows {MOST_SLOS}")
    return known[:MOST_SLOS], tuple(notes)
