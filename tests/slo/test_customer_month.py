"""What a customer's report reads: a day at a time, one tenant, and what it leaves out is said."""

import dataclasses
import datetime as dt

import msgspec
from tests.slo.customers import DAY, MONTH, NOW, SLO

from forestay.slo.budget import DataState
from forestay.slo.customer_month import MOST_SLOS, fetch_report
from forestay.slo.customer_report import Customer, CustomerReport, month_budget
from forestay.slo.model import Measure, Minute, SliKind, Subject, SubjectKind
from forestay.slo.standing import Standing, slo_of, standing_of
from forestay.telemetry.rollup_reader import MinuteCounts, ModelCounts, Question

GOLD = Customer("gold", "Gold", dt.datetime(2026, 1, 1, tzinfo=dt.UTC))


@dataclasses.dataclass(slots=True)
class Rollups:
    """One good request of gold and one bad of tin at the beginning of each day that is read; notes what was asked."""

    complete: int | None = MONTH.until + 5
    asked: list[tuple[int, int]] = dataclasses.field(default_factory=list[tuple[int, int]])

    async def complete_until(self) -> int | None:
        """Say how far roll-ups go."""
        return self.complete

    async def counts(self, question: Question, since: int, until: int) -> list[MinuteCounts]:
        """Answer for both tenants, as a reader that does not look at the name would."""
        assert question.name == "gold"
        self.asked.append((since, until))
        return [MinuteCounts(since, "gold", good=1), MinuteCounts(since, "tin", bad=1)]

    async def of_tenant(self, since: int, until: int, tenant_id: str) -> dict[str, ModelCounts]:
        """Answer for one model."""
        assert tenant_id == "gold"
        self.asked.append((since, until))
        return {"acme/cat": ModelCounts(good=1, latency={5: 1})}


def standing(name: str = "gold-up", tenant: str = "gold") -> Standing:
    """How an SLO of a tenant stands."""
    slo = dataclasses.replace(SLO, slo_id=name, subject=Subject(SubjectKind.TENANT, tenant))
    return standing_of(slo, Minute(1), month_budget(slo, {}, (MONTH, MONTH.first), ()), ())


async def report(rollups: Rollups, *standings: Standing) -> CustomerReport:
    """Read gold's month."""
    return await fetch_report(rollups, GOLD, MONTH, (standings, ()), lambda: NOW)


async def test_a_month_is_read_a_day_at_a_time_and_counts_its_own_tenant_alone() -> None:
    """No statement grows with the month; another tenant's rows and SLOs change nothing."""
    rollups = Rollups()
    found = await report(rollups, standing(), standing("tin-up", "tin"), standing("goldfish", "goldfish"))
    assert all(until - since <= DAY for since, until in rollups.asked)
    assert {since for since, _ in rollups.asked} == set(range(MONTH.first, MONTH.until, DAY))
    assert (found.availability.good, found.availability.bad) == (30, 0)
    assert [(slo.slo_id, slo.events, slo.bad) for slo in found.slos] == [("gold-up", 30, 0)]
    assert [(model.model_id, model.good) for model in found.models] == [("acme/cat", 30)]


async def test_minutes_that_are_not_complete_are_not_read() -> None:
    """Nor anything at all before the first minute is rolled up."""
    rollups = Rollups(complete=MONTH.first + DAY + 10)
    assert not (await report(rollups, standing())).finished
    assert max(until for _, until in rollups.asked) == MONTH.first + DAY + 10
    for nothing in (Rollups(complete=None), Rollups(complete=MONTH.first - 100)):
        found = await report(nothing, standing())
        assert (nothing.asked, found.covers_until, found.finished) == ([], found.covers_from, False)


async def test_objectives_that_are_left_out_are_told() -> None:
    """Those of an older controller, and those beyond what a report shows."""
    old = msgspec.structs.replace(standing("old-up"), sli_kind="")
    many = [standing(f"gold-{number:03d}") for number in range(MOST_SLOS + 2)]
    found = await report(Rollups(complete=MONTH.first + 1), old, *many)
    assert len(found.slos) == MOST_SLOS
    assert any(note.startswith("old-up is left out") for note in found.notes)
    assert any(note.startswith(f"2 of {MOST_SLOS + 2} objectives are left out") for note in found.notes)


def test_a_standing_says_which_slo_it_is_of() -> None:
    """Everything that a budget is counted by comes back, also of one that an older version kept without it: nothing."""
    sliced = dataclasses.replace(
        SLO, sli=dataclasses.replace(SLO.sli, kind=SliKind.TIME_SLICE, slice_minutes=5, slice_objective=0.9), credits=()
    )
    timed = dataclasses.replace(
        SLO, sli=dataclasses.replace(SLO.sli, kind=SliKind.THRESHOLD, measure=Measure.LATENCY, threshold_seconds=2.5)
    )
    for slo in (SLO, sliced, timed):
        kept = standing_of(slo, Minute(1), month_budget(slo, {}, (MONTH, MONTH.first), ()), ())
        again = slo_of(msgspec.json.decode(msgspec.json.encode(kept), type=Standing))
        assert again is not None
        assert (again.slo_id, again.subject, again.objective, again.sli) == (
            slo.slo_id, slo.subject, slo.objective, slo.sli,
        )  # fmt: skip
        assert again.credits == slo.credits
    assert slo_of(msgspec.structs.replace(standing(), sli_kind="")) is None
    assert month_budget(SLO, {}, (MONTH, MONTH.first), ()).state is DataState.NO_DATA
