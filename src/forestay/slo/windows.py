"""Where a window begins and ends: rolling ones move with every minute, calendar ones stand still in their time zone.

It decides bounds only. Called by the budget, by the checks of a file and by the export.
"""

import datetime as dt
import zoneinfo

from forestay.slo.model import CalendarUnit, Minute, Window

_MONTHS = {CalendarUnit.MONTH: 1, CalendarUnit.QUARTER: 3, CalendarUnit.YEAR: 12}
_LONGEST = {
    CalendarUnit.DAY: 25 * 60,  # a day on which clocks are put back
    CalendarUnit.WEEK: 7 * 1440 + 60,
    CalendarUnit.MONTH: 31 * 1440 + 60,
    CalendarUnit.QUARTER: 92 * 1440 + 60,
    CalendarUnit.YEAR: 366 * 1440,
}


def is_time_zone(name: str) -> bool:
    """Tell whether `name` is a time zone of the IANA database."""
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def bounds(window: Window, now: Minute) -> tuple[Minute, Minute]:
    """Return the first minute of the window that holds `now` and the first one after it.

    A rolling window ends with `now`; a calendar window ends where its unit ends, which may lie ahead.
    """
    if window.calendar is None:
        return Minute(now + 1 - window.minutes), Minute(now + 1)
    zone = zoneinfo.ZoneInfo(window.time_zone)
    day = dt.datetime.fromtimestamp(now * 60, zone).date()
    first = _first_day(window.calendar, day)
    return _midnight(first, zone), _midnight(_next_first_day(window.calendar, first), zone)


def length_minutes(window: Window, now: Minute) -> int:
    """Return how many minutes the window has that holds `now`."""
    start, end = bounds(window, now)
    return end - start


def words_of_window(window: Window) -> str:
    """Return a window in words: `30 days`, `12 hours`, `a calendar month (Europe/Berlin)`."""
    if window.calendar is not None:
        return f"a calendar {window.calendar} ({window.time_zone})"
    days, hours = window.minutes / 1440, window.minutes / 60
    return f"{days:g} days" if days >= 2 else f"{hours:.4g} hours"


def longest_minutes(window: Window) -> int:
    """Return the most minutes that such a window can have."""
    return window.minutes if window.calendar is None else _LONGEST[window.calendar]


def _first_day(unit: CalendarUnit, day: dt.date) -> dt.date:
    if unit is CalendarUnit.DAY:
        return day
    if unit is CalendarUnit.WEEK:
        return day - dt.timedelta(days=day.weekday())
    months = _MONTHS[unit]
    return dt.date(day.year, (day.month - 1) // months * months + 1, 1)


def _next_first_day(unit: CalendarUnit, first: dt.date) -> dt.date:
    if unit is CalendarUnit.DAY:
        return first + dt.timedelta(days=1)
    if unit is CalendarUnit.WEEK:
        return first + dt.timedelta(days=7)
    month = first.month - 1 + _MONTHS[unit]
    return dt.date(first.year + month // 12, month % 12 + 1, 1)


def _midnight(day: dt.date, zone: zoneinfo.ZoneInfo) -> Minute:
    return Minute(int(dt.datetime.combine(day, dt.time(), zone).timestamp() // 60))
