"""Where windows begin and end."""

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from forestay.slo.model import CalendarUnit, Minute, Window
from forestay.slo.windows import bounds, is_time_zone, length_minutes, longest_minutes

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe")


def at(text: str) -> Minute:
    """Return the minute of an ISO time."""
    return Minute(int(dt.datetime.fromisoformat(text).timestamp() // 60))


def test_a_rolling_window_ends_with_the_present_minute() -> None:
    """An hour holds the present minute and the 59 before it."""
    assert bounds(Window(minutes=60), Minute(1000)) == (941, 1001)


def test_a_month_begins_at_midnight_of_its_time_zone() -> None:
    """The last evening of October in UTC is November in Berlin, an hour later than in summer."""
    window = Window(calendar=CalendarUnit.MONTH, time_zone="Europe/Berlin")
    assert bounds(window, at("2026-10-31T23:30:00+00:00")) == (
        at("2026-11-01T00:00:00+01:00"),
        at("2026-12-01T00:00:00+01:00"),
    )


def test_a_day_on_which_clocks_change_has_23_or_25_hours() -> None:
    """Local days differ in length; the budget knows."""
    window = Window(calendar=CalendarUnit.DAY, time_zone="Europe/Berlin")
    assert length_minutes(window, at("2026-03-29T12:00:00+02:00")) == 23 * 60
    assert length_minutes(window, at("2026-10-25T12:00:00+01:00")) == 25 * 60


def test_only_zones_of_the_database_are_zones() -> None:
    """A name that is no zone, and a path, are told apart from zones."""
    assert is_time_zone("Europe/Berlin")
    assert not is_time_zone("Europe/Atlantis")
    assert not is_time_zone("../etc/passwd")


@given(
    minute=st.integers(min_value=0, max_value=60_000_000),
    unit=st.sampled_from(list(CalendarUnit)),
    zone=st.sampled_from(ZONES),
)
def test_calendar_windows_tile_time(minute: int, unit: CalendarUnit, zone: str) -> None:
    """Every minute lies in its window; where one window ends the next begins; none is longer than is said."""
    window = Window(calendar=unit, time_zone=zone)
    start, end = bounds(window, Minute(minute))
    assert start <= minute < end
    assert end - start <= longest_minutes(window)
    assert bounds(window, end)[0] == end
    assert bounds(window, Minute(start - 1))[1] == start
