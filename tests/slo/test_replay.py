"""History under other SLOs."""

import pytest
from tests.slo.objectives import slo

from forestay.fleet.spec_yaml import SpecError
from forestay.slo.burn_rules import Severity
from forestay.slo.minutes_file import read_incidents, read_minutes
from forestay.slo.model import Counts, Measure, Minute, Sli, SliKind
from forestay.slo.replay import PastIncident, catches, replay

START = 29_700_000


def history() -> dict[Minute, Counts]:
    """Return nine hours of 5 requests a minute, of which one hour fails."""
    return {Minute(START + minute): Counts(bad=5) if 420 <= minute < 480 else Counts(good=5) for minute in range(540)}


def test_a_stricter_slo_speaks_where_a_laxer_one_is_silent() -> None:
    """The same history under 99.9 % and under 50 %."""
    strict, lax = replay([slo(0.999), slo(0.5)], history())
    assert [episode.severity for episode in strict.episodes if episode.severity is Severity.PAGE] == [Severity.PAGE]
    assert strict.worst_spent_ratio > 1
    assert lax.worst_spent_ratio < 1


def test_past_incidents_are_caught_or_not_and_when() -> None:
    """The hour that failed is caught within two minutes; an hour that only somebody noticed is not."""
    [found] = replay([slo(0.999)], history())
    incidents = [
        PastIncident("outage", Minute(START + 420), Minute(START + 480)),
        PastIncident("rumour", Minute(START + 60), Minute(START + 90)),
    ]
    (outage, rumour), others = catches(found, incidents)
    assert outage.severity is Severity.PAGE
    assert outage.after_minutes in {0, 1}
    assert rumour.severity is None
    assert others == ()
    assert len(catches(found, incidents[1:])[1]) == 1


def test_slices_of_time_are_replayed_as_slices() -> None:
    """One request in ten fails for hours: mild of an objective of 90 % of requests, but every slice misses its 95 %."""
    sliced = Sli(SliKind.TIME_SLICE, Measure.AVAILABILITY, slice_minutes=5, slice_objective=0.95)
    minutes = {Minute(START + one): Counts(good=9 if one > 600 else 10, bad=one > 600) for one in range(900)}
    by_request, by_slice = replay([slo(0.9), slo(0.9, sli=sliced)], minutes)
    assert by_request.episodes == ()
    assert Severity.PAGE in {episode.severity for episode in by_slice.episodes}
    assert by_slice.last_spent_ratio == pytest.approx(60 / 180 / 0.1, rel=0.05)


def test_what_the_history_lacks_is_said() -> None:
    """Minutes that nobody saw, and a history that is shorter than the window."""
    [found] = replay([slo()], {**history(), Minute(START + 540): Counts(missing_minutes=1)})
    assert found.says == (
        "1 minutes were not seen: they are neither good nor bad",
        "the history has 9.017 hours, and the window is 30 days: a budget is told of what there is",
    )


def test_nothing_kept_says_nothing() -> None:
    """An empty history has no episodes and no spending."""
    [found] = replay([slo()], {})
    assert (found.episodes, found.last_spent_ratio) == ((), 0.0)


def test_minutes_and_incidents_are_read_from_csv() -> None:
    """Times carry their zone; a minute that is written twice is added."""
    text = "minute,good,bad,missing\n2026-11-26T09:00:00Z,5,1,0\n2026-11-26T10:00:30+01:00,1,0,1\n"
    [(_, counts)] = read_minutes(text, "minutes.csv").items()
    assert counts == Counts(good=6, bad=1, missing_minutes=1)
    [incident] = read_incidents("name,from,until\nfire,2026-11-26T09:00Z,2026-11-26T10:00Z\n", "past.csv")
    assert incident.until - incident.first == 60


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("minute,good\n", "minutes.csv:1: the first line must name the columns minute, good, bad"),
        ("minute,good,bad\n2026-11-26T09:00:00,1,2\n", "minutes.csv:2: minute: write a time with its zone"),
        ("minute,good,bad\n2026-11-26T09:00:00Z,1,-2\n", "minutes.csv:2: bad: must be a whole number"),
        ("minute,good,bad\n2026-11-26T09:00:00Z,1\n", "minutes.csv:2: must have 3 fields"),
        ("minute,good,bad\n2020-01-01T00:00Z,1,1\n2026-01-01T00:00Z,1,1\n", "spans more than"),
    ],
)
def test_a_wrong_line_is_told_with_its_number(text: str, told: str) -> None:
    """File, line and mend."""
    with pytest.raises(SpecError) as caught:
        read_minutes(text, "minutes.csv")
    assert told in caught.value.faults[0]
