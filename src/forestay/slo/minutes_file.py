"""Minutes and past incidents from CSV: what an export of roll-ups, or somebody's spreadsheet, hands over.

It decides form only; a fault names file, line and mend. Called by `forestay slo what-if`.
"""

import csv
import datetime as dt
import io
from collections.abc import Iterator

from forestay.fleet.spec_yaml import SpecError
from forestay.slo.model import Counts, Minute
from forestay.slo.replay import PastIncident

MINUTE_COLUMNS = ("minute", "good", "bad")
OTHER_COLUMNS = ("probes_good", "probes_bad", "missing")
INCIDENT_COLUMNS = ("name", "from", "until")
MAX_MINUTES = 600_000
"""A little more than a year."""


def read_minutes(text: str, file_name: str) -> dict[Minute, Counts]:
    """Read `minute,good,bad[,probes_good,probes_bad,missing]`; a minute is an ISO 8601 time with its zone."""
    found: dict[Minute, Counts] = {}
    for line, row in _rows(text, file_name, MINUTE_COLUMNS, OTHER_COLUMNS):
        minute = _minute(file_name, line, "minute", row["minute"])
        good, bad, probes_good, probes_bad, missing = (
            _count(file_name, line, name, row.get(name) or "0") for name in ("good", "bad", *OTHER_COLUMNS)
        )
        found[minute] = found.get(minute, Counts()) + Counts(good, bad, probes_good, probes_bad, missing)
    if found and max(found) - min(found) >= MAX_MINUTES:
        raise SpecError(file_name, [f"1: spans more than {MAX_MINUTES // 1440} days; cut it"])
    return found


def read_incidents(text: str, file_name: str) -> tuple[PastIncident, ...]:
    """Read `name,from,until`, times in ISO 8601 with their zone."""
    found: list[PastIncident] = []
    for line, row in _rows(text, file_name, INCIDENT_COLUMNS, ()):
        first, until = (_minute(file_name, line, name, row[name]) for name in ("from", "until"))
        if until <= first:
            raise SpecError(file_name, [f"{line}: until: must be later than from"])
        found.append(PastIncident(row["name"], first, until))
    return tuple(found)


def _rows(
    text: str, file_name: str, needed: tuple[str, ...], others: tuple[str, ...]
) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(text))
    names = tuple(reader.fieldnames or ())
    if not set(needed) <= set(names) or not set(names) <= {*needed, *others}:
        raise SpecError(file_name, [f"1: the first line must name the columns {', '.join((*needed, *others))}"])
    for row in reader:
        if None in row.values() or None in row:
            raise SpecError(file_name, [f"{reader.line_num}: must have {len(names)} fields"])
        yield reader.line_num, row


def _minute(file_name: str, line: int, column: str, text: str) -> Minute:
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise SpecError(file_name, [f"{line}: {column}: write a time with its zone, such as 2026-11-26T09:00:00Z"])
    return Minute(int(time.timestamp() // 60))


def _count(file_name: str, line: int, column: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise SpecError(file_name, [f"{line}: {column}: must be a whole number from 0 to 999999999"])
    return int(text)
