"""SLOs and minutes for tests."""

from collections.abc import Mapping

from forestay.slo.model import (
    Alerting,
    Counts,
    Measure,
    Minute,
    Sli,
    SliKind,
    Slo,
    SloId,
    Subject,
    SubjectKind,
    Window,
)
from forestay.slo.standing import Standing
from forestay.slo.watching import Watching

AVAILABILITY = Sli(SliKind.RATIO, Measure.AVAILABILITY)
MODEL = Subject(SubjectKind.MODEL, "acme/digits")


def slo(
    objective: float = 0.999, window: Window | None = None, sli: Sli = AVAILABILITY, alerting: Alerting | None = None
) -> Slo:
    """Return an SLO of a model."""
    return Slo(
        SloId("digits"), MODEL, objective, sli, "vision", window=window or Window(), alerting=alerting or Alerting()
    )


def burning(start: int = 29_000_000) -> Standing:
    """Return how an SLO stands after 290 good minutes of 50 requests and ten minutes of an outage."""
    watching = Watching([slo()], Minute(start), Minute(start))
    for minute in range(300):
        watching.take({SloId("digits"): Counts(good=50) if minute < 290 else Counts(bad=50)})
    [standing] = watching.standings()
    return standing


def minutes(counts: Mapping[int, tuple[int, int]]) -> dict[Minute, Counts]:
    """Return minutes from {minute: (good, bad)}."""
    return {Minute(minute): Counts(good=good, bad=bad) for minute, (good, bad) in counts.items()}
