"""What is wrong with an SLO that can be read."""

import dataclasses

import pytest
from tests.slo.objectives import slo

from forestay.slo.lint import Surroundings, lint_slos
from forestay.slo.model import (
    Alerting,
    CalendarUnit,
    Measure,
    Part,
    Series,
    Sli,
    SliKind,
    Slo,
    SloId,
    Subject,
    SubjectKind,
    Window,
)

LATENCY = Sli(SliKind.THRESHOLD, Measure.LATENCY, threshold_seconds=2.0)
SLICES = Sli(SliKind.TIME_SLICE, Measure.AVAILABILITY, slice_minutes=720, slice_objective=0.9)


def checks(found: Slo, known: Surroundings | None = None) -> set[str]:
    """Return the names of what is wrong."""
    return {flaw.check for flaw in lint_slos([found], known or Surroundings())}


def test_a_sound_slo_has_no_flaw() -> None:
    """At traffic that bears its rules, with counts kept long enough."""
    assert checks(slo(), Surroundings(3_000, 40 * 1440)) == set()


@pytest.mark.parametrize(
    ("found", "known", "check"),
    [
        (slo(0.9999), Surroundings(requests_per_hour=1), "unreachable"),
        (slo(0.99, sli=SLICES), Surroundings(), "unreachable"),
        (slo(0.9), Surroundings(), "capped"),
        (slo(), Surroundings(requests_per_hour=30), "held"),
        (slo(0.99, Window(minutes=120)), Surroundings(), "short_window"),
        (slo(), Surroundings(retention_minutes=7 * 1440), "retention"),
        (slo(sli=LATENCY), Surroundings(histogram_buckets_seconds=(1.0, 2.5)), "no_bucket"),
        (slo(alerting=Alerting(page=False, ticket=False)), Surroundings(), "silent"),
        (
            slo(sli=dataclasses.replace(LATENCY, series=Series("a", good='b_bucket{le="2.5"}'))),
            Surroundings(),
            "other_bucket",
        ),
    ],
)
def test_a_flaw_is_found_and_says_its_mend(found: Slo, known: Surroundings, check: str) -> None:
    """Each of them by its own check."""
    assert check in checks(found, known)


def test_a_composite_of_unlike_windows_or_of_a_part_that_is_there_twice_is_told() -> None:
    """Each part counts over its own window, which the composite's cannot change."""
    parts = tuple(Part(SloId(name)) for name in ("digits", "digits", "other"))
    whole = dataclasses.replace(slo(), slo_id=SloId("all"), subject=Subject(SubjectKind.COMPOSITE), parts=parts)
    month = Window(calendar=CalendarUnit.MONTH, time_zone="Europe/Berlin")
    found = lint_slos([slo(), dataclasses.replace(slo(window=month), slo_id=SloId("other")), whole])
    told = {flaw.check: flaw.says for flaw in found if flaw.slo_id == "all"}
    assert set(told) == {"twice", "other_window"}
    assert "digits is there 2 times" in told["twice"]
    assert "30 days, and that of the part other a calendar month (Europe/Berlin)" in told["other_window"]


def test_a_target_out_of_reach_names_one_in_reach() -> None:
    """720 requests in the window: 99.86 % is what one bad request leaves."""
    [flaw] = [item for item in lint_slos([slo(0.9999)], Surroundings(1)) if item.check == "unreachable"]
    assert "99.86 %" in flaw.says
