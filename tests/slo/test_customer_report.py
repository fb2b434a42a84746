"""A customer's report: its arithmetic against counting by hand, and what it says of what it does not count."""

import datetime as dt
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.slo.customers import ANSWERS, DAY, MONTH, Answer, facts_of

from forestay.errors import UsageError
from forestay.slo.budget import Adjustment
from forestay.slo.credits import DEFAULT_CREDITS, credit_ratio
from forestay.slo.customer_report import month_of, report_of
from forestay.slo.model import CreditBand, Minute, SloId

SPANS = st.lists(st.tuples(st.integers(0, 5 * DAY), st.integers(1, DAY)), max_size=3)


def adjusted(spans: list[tuple[int, int]], slo_id: str = "gold-up") -> list[Adjustment]:
    """Stretches that a person took out."""
    return [
        Adjustment(SloId(slo_id), Minute(first), Minute(first + length), "human:ada", "drill", Minute(0))
        for first, length in ((MONTH.first + first, length) for first, length in spans)
    ]


@given(ANSWERS, SPANS)
def test_every_number_is_what_counting_by_hand_gives(answers: list[Answer], spans: list[tuple[int, int]]) -> None:
    """Availability, days, models, the budget and the credit, whatever happened and whatever was taken out."""
    report = report_of(facts_of(answers, adjusted(spans)))
    counted = [one for one in answers if one.end in {"good", "bad"}]
    good, bad = (sum(one.end == end for one in counted) for end in ("good", "bad"))
    assert (report.availability.good, report.availability.bad) == (good, bad)
    assert (sum(day.good for day in report.days), sum(day.bad for day in report.days)) == (good, bad)
    assert len(report.days) == 30
    for day in report.days:
        of_day = [one for one in counted if one.minute // DAY == int(day.date[8:]) - 1]
        assert day.bad == sum(one.end == "bad" for one in of_day)
        assert day.state == ("seen" if of_day else "no_traffic")
    for model in report.models:
        taken = sorted(one.seconds for one in counted if one.model == model.model_id and one.end == "good")
        if taken:
            exact = taken[math.ceil(0.95 * len(taken)) - 1]
            assert model.p95_seconds == pytest.approx(exact, rel=0.016)  # 1 % of the histogram, and three digits
    kept = [one for one in counted if not any(first <= one.minute < first + length for first, length in spans)]
    failed = sum(one.end == "bad" for one in kept)
    assert (report.credit.availability.good, report.credit.availability.bad) == (len(kept) - failed, failed)
    [slo] = report.slos
    assert (slo.events, slo.bad) == (len(kept), failed)
    if kept:
        assert slo.used_ratio == pytest.approx(failed / len(kept) / 0.01)
        share = Fraction(len(kept) - failed, len(kept))
        bands = [(Fraction(999, 1000), 0.1), (Fraction(99, 100), 0.25), (Fraction(95, 100), 1.0)]
        assert report.credit.credit_ratio == max((back for below, back in bands if share < below), default=0.0)
    else:
        assert (slo.used_ratio, slo.left_ratio, report.credit.credit_ratio) == (None, None, 0.0)


@given(ANSWERS)
def test_what_counts_for_nobody_is_written_out_and_is_in_no_other_number(answers: list[Answer]) -> None:
    """Callers' own errors and cancelled requests, refused content, probes."""
    report = report_of(facts_of(answers))
    told = {line.what: line.requests for line in report.exclusions}
    assert told["caller errors"] == sum(one.end == "caller" for one in answers)
    assert told["cancelled"] == sum(one.end == "cancelled" for one in answers)
    assert told["refused content"] == sum(one.end == "safety" for one in answers)
    assert told["probes"] == sum(one.end == "probe" for one in answers)
    total = report.availability.good + report.availability.bad + sum(told.values())
    assert total == len(answers)
    asked = [one for one in answers if one.end != "probe"]
    shares = {line.what: line.share for line in report.exclusions}
    for what, end in (("caller errors", "caller"), ("cancelled", "cancelled"), ("refused content", "safety")):
        share = sum(one.end == end for one in asked) / len(asked) if asked else None
        assert shares[what] == (None if share is None else pytest.approx(share))
    assert shares["probes"] is None


@given(ANSWERS)
def test_what_failed_by_our_fault_is_put_down_to_causes_that_add_up(answers: list[Answer]) -> None:
    """The most frequent first; callers' own errors and cancelled requests are never among them."""
    report = report_of(facts_of(answers))
    assert sum(line.requests for line in report.failures) == report.availability.bad
    assert {line.cause for line in report.failures} <= {"model", "worker"}
    assert [line.requests for line in report.failures] == sorted(
        (one.requests for one in report.failures), reverse=True
    )
    if report.failures:
        assert sum(line.share for line in report.failures) == pytest.approx(1 - (report.availability.ratio or 0))
        assert all(line.means != "it is not known" for line in report.failures)


@given(st.integers(0, 5_000), st.integers(0, 5_000))
def test_a_worse_month_never_gives_back_less(good: int, bad: int) -> None:
    """One more failure gives back as much or more; at the very edge of a band nothing is lost to binary fractions."""
    assert credit_ratio(DEFAULT_CREDITS, good, bad + 1) >= credit_ratio(DEFAULT_CREDITS, good, bad)
    assert credit_ratio(DEFAULT_CREDITS, 999, 1) == 0.0
    assert credit_ratio(DEFAULT_CREDITS, 998, 1) == 0.1


def test_an_adjustment_says_who_why_and_how_much_and_changes_what_is_counted_not_what_was_measured() -> None:
    """A customer sees both."""
    answers = [Answer(10, "acme/cat", "bad", 1.0)] * 5 + [Answer(900, "acme/cat", "good", 1.0)] * 5
    report = report_of(facts_of(answers, adjusted([(0, 60)])))
    assert (report.availability.ratio, report.credit.availability.ratio) == (0.5, 1.0)
    line = report.exclusions[-1]
    assert (line.requests, line.why) == (5, "drill (by human:ada)")
    assert "adjustment of gold-up, 2026-11-01 00:00 UTC to 2026-11-01 01:00 UTC" in line.what


def test_a_table_of_a_file_goes_before_the_default_and_is_named() -> None:
    """An empty table gives nothing back; of two the one that gives back more holds."""
    answers = [Answer(10, "acme/cat", "bad", 1.0), Answer(11, "acme/cat", "good", 1.0)]
    assert report_of(facts_of(answers)).credit.origin == "default"
    none = report_of(facts_of(answers, tables={"gold-up": ()})).credit
    assert (none.credit_ratio, none.origin, none.slo_id) == (0.0, "gold-up.yaml:3", "gold-up")
    two = {"a-up": (CreditBand(0.9, 0.2),), "b-up": (CreditBand(0.9, 0.3),)}
    best = report_of(facts_of(answers, tables=two)).credit
    assert (best.credit_ratio, best.slo_id) == (0.3, "b-up")
    plain = report_of(facts_of(answers, tables={}, slos=False)).credit
    assert (plain.credit_ratio, plain.origin, plain.slo_id) == (1.0, "default", "")


def test_no_traffic_is_neither_good_nor_bad() -> None:
    """No availability, no budget used, nothing given back, and a sentence that says why."""
    report = report_of(facts_of([]))
    assert (report.availability.ratio, report.credit.credit_ratio, report.slos[0].used_ratio) == (None, 0.0, None)
    assert any("neither good nor bad" in note for note in report.notes)


def test_a_month_that_is_not_over_says_so_and_its_budget_allows_for_the_rest() -> None:
    """Ten days of thirty: what was used of the budget is a third of what it would be of these days alone."""
    answers = [Answer(10, "acme/cat", "bad", 1.0)] + [Answer(11, "acme/cat", "good", 1.0)] * 99
    report = report_of(facts_of(answers, seen_minutes=10 * DAY + 30))
    assert not report.finished
    assert [day.state for day in report.days[9:12]] == ["no_traffic", "partial", "unseen"]
    assert any(note.startswith("This month is not over") for note in report.notes)
    assert report.slos[0].used_ratio == pytest.approx((10 * DAY + 30) / (30 * DAY))
    nothing = report_of(facts_of([], seen_minutes=0))
    assert "Nothing of this month is counted yet." in nothing.notes
    assert {day.state for day in nothing.days} == {"unseen"}


def test_a_customer_who_came_within_the_month_is_told_since_when() -> None:
    """Days before that are empty for a reason."""
    report = report_of(facts_of([], since=dt.datetime(2026, 11, 5, 12, tzinfo=dt.UTC)))
    assert "The account exists since 2026-11-05 12:00 UTC." in report.notes


@given(st.integers(1, 9998), st.integers(1, 12))
def test_a_month_is_whole_and_the_next_begins_where_it_ends(year: int, month: int) -> None:
    """Also across a year and a leap day."""
    found = month_of(f"{year:04d}-{month:02d}")
    after = month_of(f"{year + month // 12:04d}-{month % 12 + 1:02d}")
    assert found.until == after.first
    assert 28 * DAY <= found.until - found.first <= 31 * DAY


NO_MONTHS = ["", "2026-13", "2026-1", "26-11", "2026-11-01", "0000-01", "9999-12", "next", "\u0662026-11"]


@pytest.mark.parametrize("text", NO_MONTHS)
def test_what_is_no_month_is_told_by_its_field(text: str) -> None:
    """With one that is."""
    with pytest.raises(UsageError, match=r"^month: "):
        month_of(text)
