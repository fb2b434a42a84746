"""A customer's month for tests: single answers, added up as roll-ups do."""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence

from hypothesis import strategies as st

from forestay.slo.budget import Adjustment
from forestay.slo.customer_report import DAY_MINUTES, Customer, MonthFacts, month_budget, month_of
from forestay.slo.model import Counts, CreditBand, Measure, Minute, Sli, SliKind, Slo, SloId, Subject, SubjectKind
from forestay.telemetry.histogram import bin_of
from forestay.telemetry.rollup_reader import ModelCounts

DAY = DAY_MINUTES
MONTH = month_of("2026-11")
NOW = dt.datetime(2026, 12, 3, 9, tzinfo=dt.UTC)
SLO = Slo(
    SloId("gold-up"),
    Subject(SubjectKind.TENANT, "gold"),
    0.99,
    Sli(SliKind.RATIO, Measure.AVAILABILITY),
    "sales",
    origin="slos.yaml:3",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """One request: in which minute of the month it ended, and how."""

    minute: int
    model: str
    end: str  # good | bad | caller | cancelled | safety | probe
    seconds: float


ANSWERS = st.lists(
    st.builds(
        Answer,
        minute=st.integers(0, 30 * DAY - 1) | st.integers(0, 5 * DAY),
        model=st.sampled_from(["acme/cat", "acme/dog"]),
        end=st.sampled_from(["good", "good", "good", "bad", "caller", "cancelled", "safety", "probe"]),
        seconds=st.floats(0.01, 500),
    ),
    max_size=60,
)


def facts_of(
    answers: Sequence[Answer],
    adjustments: Sequence[Adjustment] = (),
    *,
    tables: Mapping[str, tuple[CreditBand, ...]] | None = None,
    slos: bool = True,
    seen_minutes: int = 30 * DAY,
    since: dt.datetime = dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
) -> MonthFacts:
    """Add answers up."""
    minutes: dict[Minute, Counts] = {}
    models: dict[str, ModelCounts] = {}
    for one in answers:
        models.setdefault(one.model, ModelCounts()).add(_counted(one))
        if one.end in {"good", "bad"}:
            minute = Minute(MONTH.first + one.minute)
            minutes[minute] = minutes.get(minute, Counts()) + Counts(good=one.end == "good", bad=one.end == "bad")
    held = [SLO] if tables is None else [_with(name, bands) for name, bands in tables.items()]
    seen_until = Minute(MONTH.first + seen_minutes)
    pairs = [(slo, month_budget(slo, minutes, (MONTH, seen_until), adjustments)) for slo in held] if slos else []
    customer = Customer("gold", "Gold & Sons", since)
    return MonthFacts(customer, MONTH, NOW, seen_until, minutes, models, pairs, adjustments)


def _with(name: str, bands: tuple[CreditBand, ...]) -> Slo:
    return dataclasses.replace(SLO, slo_id=SloId(name), credits=bands, origin=f"{name}.yaml:3")


def _counted(one: Answer) -> ModelCounts:
    match one.end:
        case "good":
            return ModelCounts(good=1, latency={bin_of(one.seconds): 1})
        case "bad":
            return ModelCounts(bad=1, failed={"worker" if one.seconds < 1 else "model": 1})
        case "cancelled":
            return ModelCounts(excluded={"caller": 1}, cancelled=1)
        case "probe":
            return ModelCounts(probes=1)
        case cause:
            return ModelCounts(excluded={cause: 1})
