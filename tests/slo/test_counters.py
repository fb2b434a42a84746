"""From counters to minutes: resets, gaps, and what nobody saw."""

from hypothesis import given
from hypothesis import strategies as st

from forestay.slo.counters import LONGEST_GAP_MINUTES, Sample, read_counters
from forestay.slo.model import Counts, Minute


def read(samples: dict[int, tuple[int, int] | None]) -> dict[int, Counts]:
    """Read {minute: (total, bad) or None for a failed scrape}."""
    made = {Minute(minute): Sample(*(pair or (None, None))) for minute, pair in samples.items()}
    return {int(minute): counts for minute, counts in read_counters(made).minutes.items()}


def test_a_minute_is_what_the_counters_grew_by() -> None:
    """The first sample tells nothing; then differences."""
    assert read({0: (100, 5), 1: (110, 6)}) == {1: Counts(good=9, bad=1)}


def test_a_counter_that_falls_has_begun_anew() -> None:
    """After a restart the new value is what has been added."""
    assert read({0: (100, 5), 1: (7, 2)}) == {1: Counts(good=5, bad=2)}


def test_what_came_during_a_short_gap_lands_after_it_and_the_gap_is_missing_not_empty() -> None:
    """Minutes that nobody saw are marked; their requests are not lost."""
    found = read({0: (100, 0), 1: None, 3: (130, 3)})
    assert found == {1: Counts(missing_minutes=1), 2: Counts(missing_minutes=1), 3: Counts(good=27, bad=3)}


def test_after_a_long_gap_nothing_is_made_up() -> None:
    """What happened in hours without a sample is unknown; it is not put into one minute."""
    late = LONGEST_GAP_MINUTES + 1
    samples = {Minute(0): Sample(100, 0), Minute(late): Sample(900, 400), Minute(late + 1): Sample(901, 400)}
    reading = read_counters(samples)
    assert reading.lost_gaps == 1
    assert reading.minutes[Minute(late)] == Counts(missing_minutes=1)
    assert reading.minutes[Minute(late + 1)] == Counts(good=1)


@given(
    added=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=60),
    data=st.data(),
)
def test_resets_and_gaps_lose_nothing_that_was_still_counted(added: list[tuple[int, int]], data: st.DataObject) -> None:
    """Whatever scrapes are missed, the sum is what the last sample before each reset and the first after it show."""
    total = bad = 0
    samples: dict[Minute, Sample] = {Minute(0): Sample(0, 0)}
    expected = [0, 0]
    for minute, (good, worse) in enumerate(added, start=1):
        total, bad = total + good + worse, bad + worse
        if data.draw(st.integers(0, 4)) == 0 and minute < len(added):
            samples[Minute(minute)] = Sample(None, None)
            continue
        samples[Minute(minute)] = Sample(total, bad)
        expected = [total, bad]
    found = sum(read_counters(samples).minutes.values(), Counts())
    assert [found.total, found.bad] == expected
