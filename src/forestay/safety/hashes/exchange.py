"""Lists of hashes as exchanges write them, read and written.

Read are, told apart by their first line:
  CSV with a header, as `threatexchange dataset --print-signals --csv` writes it: signal_type, signal_str, collab,
      category, tags. Rows of another signal type than pdq, and rows that are not of the positive class (disputed,
      investigation seeds, known good), are counted and left out.
  JSON: an object with `data`, or a list, of indicators as the Graph API and Hasher-Matcher-Actioner give them: `type`
      HASH_PDQ with `indicator` or `raw_indicator`, or `signals` with `pdq`.
  Lines: a hash each, or `pdq` and a hash, as python-threatexchange's local file exchange reads them.
Source: github.com/facebook/ThreatExchange, python-threatexchange 1.2 (cli/dataset_cmd.py, exchanges/impl/file_api.py)
and hasher-matcher-actioner's bank routes. A faulty line is told with its number and stops nothing. Pure.
"""

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Sequence
from typing import cast

from forestay.errors import UsageError
from forestay.safety.hashes.banks import MAX_NOTE, Entry, NewEntry
from forestay.safety.hashes.pdq import HEX_DIGITS, read_hex

COLUMNS = ("signal_type", "signal_str", "collab", "category", "tags")
POSITIVE = "POSITIVE_CLASS"
MAX_FAULTS = 100
_PDQ_NAMES = frozenset({"pdq", "hash_pdq"})


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """A line (or item) that could not be read."""

    line: int
    what: str


@dataclasses.dataclass(frozen=True, slots=True)
class Read:
    """What a list holds."""

    entries: tuple[NewEntry, ...]
    faults: tuple[Fault, ...]  # the first hundred
    left_out: int  # of another kind, or not of the positive class


def read_list(text: str) -> Read:
    """Read a list in any of the three forms; UsageError when it is in none."""
    text = text.removeprefix("\ufeff")
    first = text.lstrip()[:1]
    if not first:
        raise UsageError("FILE", "is empty: it should hold hashes, one a line, or a CSV or JSON list of them")
    if first in "[{":
        return _read_json(text)
    head = text.split("\n", 1)[0]
    if "signal_str" in head and "," in head:
        return _read_csv(text)
    return _read_lines(text)


def write_csv(entries: Iterable[Entry], bank_id: str) -> str:
    """Return a bank in the columns of python-threatexchange."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in entries:
        writer.writerow(("pdq", f"{entry.value:0{HEX_DIGITS}x}", bank_id, POSITIVE, entry.note))
    return out.getvalue()


def write_json(entries: Iterable[Entry], bank_id: str) -> str:
    """Return a bank as indicators."""
    data = [
        {
            "id": str(entry.entry_id),
            "indicator": f"{entry.value:0{HEX_DIGITS}x}",
            "type": "HASH_PDQ",
            "tags": [bank_id],
            "description": entry.note,
            "creation_time": entry.added_at.isoformat(),
        }
        for entry in entries
    ]
    return json.dumps({"data": data}, indent=1) + "\n"


class _Reading:
    """What has been read so far."""

    def __init__(self) -> None:
        self._entries: dict[int, NewEntry] = {}
        self._faults: list[Fault] = []
        self.left_out = 0

    def add(self, line: int, text: str, note: str = "") -> None:
        """Take a hash over, or its fault."""
        try:
            value = read_hex(text)
        except UsageError as error:
            self.fault(line, str(error))
            return
        self._entries.setdefault(value, NewEntry(value, "".join(filter(str.isprintable, note))[:MAX_NOTE]))

    def fault(self, line: int, what: str) -> None:
        """Remember a fault, unless there are very many."""
        if len(self._faults) < MAX_FAULTS:
            self._faults.append(Fault(line, what))

    def done(self) -> Read:
        """Return all of it."""
        return Read(tuple(self._entries.values()), tuple(self._faults), self.left_out)


def _read_csv(text: str) -> Read:
    reading, rows = _Reading(), csv.DictReader(io.StringIO(text))
    missing = [name for name in ("signal_type", "signal_str") if name not in (rows.fieldnames or ())]
    if missing:
        raise UsageError("FILE", f"line 1 lacks the column {missing[0]}: expected {','.join(COLUMNS)}")
    try:
        for row in rows:
            category = row.get("category") or POSITIVE
            if (row["signal_type"] or "").lower() not in _PDQ_NAMES or category != POSITIVE:
                reading.left_out += 1
                continue
            reading.add(rows.line_num, row["signal_str"] or "", row.get("tags") or "")
    except csv.Error as error:
        reading.fault(rows.line_num, str(error))
    return reading.done()


def _read_lines(text: str) -> Read:
    reading = _Reading()
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) == 1:
            reading.add(number, words[0])
        elif words[0].lower() in _PDQ_NAMES:
            reading.add(number, words[1], " ".join(words[2:]))
        elif len(words[0]) == HEX_DIGITS:
            reading.add(number, words[0], " ".join(words[1:]))
        else:
            reading.left_out += 1
    return reading.done()


def _read_json(text: str) -> Read:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError("FILE", f"is no JSON that can be read: {error}") from None
    items = cast("dict[str, object]", found).get("data") if isinstance(found, dict) else found
    if not isinstance(items, list):
        raise UsageError("FILE", "should be a list of indicators, or an object whose `data` is one")
    reading = _Reading()
    for number, item in enumerate(cast("Sequence[object]", items), 1):
        _read_item(reading, number, item)
    return reading.done()


def _read_item(reading: _Reading, number: int, item: object) -> None:
    if isinstance(item, str):
        reading.add(number, item)
        return
    if not isinstance(item, dict):
        reading.fault(number, "is neither a hash nor an object")
        return
    fields = cast("dict[str, object]", item)
    signals = fields.get("signals")
    if isinstance(signals, dict) and "pdq" in signals:
        reading.add(number, str(cast("dict[str, object]", signals)["pdq"]), str(fields.get("id", "")))
        return
    kind = str(fields.get("type", fields.get("signal_type", ""))).lower()
    if kind not in _PDQ_NAMES:
        reading.left_out += 1
        return
    text = fields.get("indicator") or fields.get("raw_indicator") or fields.get("signal_str") or ""
    reading.add(number, str(text), str(fields.get("description", "")))
