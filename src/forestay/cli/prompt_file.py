"""A file of prompts with labels: CSV or CSV.gz, read row by row, every fault told by option, row and mend.

A file is read twice: once to see that all of it can be read and how its rows are labelled, then for its texts, so that
a long one needs no memory. Which texts are harmful it does not decide. No text is ever part of an error. Called by
`forestay safety evaluate` and `forestay rollout replay-safety`.
"""

import csv
import gzip
import io
import itertools
import math
import pathlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import cast

from forestay.errors import UsageError

MAX_ROWS = 1_000_000
MAX_CHARS = 1 << 30  # of the whole file, unpacked: what a small gzip may hide
LONGEST_CHARS = 16 << 20  # of one line and of one cell
_DELIMITERS = (",", "\t", ";", "|")  # the first under which the header has the column of texts
_YES = frozenset({"1", "true", "yes", "y", "t", "unsafe", "harmful", "positive", "toxic"})
_NO = frozenset({"0", "false", "no", "n", "f", "safe", "harmless", "negative", "benign"})
_UNRATED = frozenset({"nan", "none", "null", "na", "n/a", "<na>"})
_NONE: list[str] = []
_SHOWN = 10  # names of columns or labels in an error


@dataclass(frozen=True, slots=True)
class Asked:
    """What to read, and how labels are meant."""

    dataset: pathlib.Path
    text_column: str
    label: str
    positive: str
    at_least: float | None


@dataclass(slots=True)
class Contents:
    """What stands in a file, but its texts."""

    truth: list[bool | None] = field(default_factory=list[bool | None])  # of each row; None: it has no label
    uneven: int = 0  # rows with more or fewer cells than the header
    first_uneven: int = 0

    def take(self, number: int, harmful: bool | None, *, even: bool) -> None:
        """Count one row."""
        self.truth.append(harmful)
        if not even:
            self.uneven += 1
            self.first_uneven = self.first_uneven or number


@dataclass(frozen=True, slots=True)
class _Row:
    number: int  # from 1, as people count them
    text: str
    label: str
    even: bool


def look_over(asked: Asked) -> Contents:
    """Read the whole file once and return what it holds; raises UsageError naming option, row and mend."""
    if asked.positive and asked.at_least is not None:
        raise UsageError("--positive-at-least", "leave out --positive: a label is either a word or a number")
    if asked.at_least is not None and math.isnan(asked.at_least):
        raise UsageError("--positive-at-least", "must be a number")
    if not asked.label and (asked.positive or asked.at_least is not None):
        raise UsageError("--label-column", "name the column that --positive or --positive-at-least is about")
    found, words = Contents(), dict[str, None]()
    for row in _rows(asked):
        found.take(row.number, _truth(row.label, asked, row.number) if asked.label else None, even=row.even)
        if len(words) < _SHOWN and row.label.strip():
            words[row.label.strip()] = None
    if not found.truth:
        raise UsageError("--dataset", f"{asked.dataset} has no rows below its header")
    if asked.positive and not any(found.truth):
        said = ", ".join(_shown(word) for word in words) or "nothing"
        raise UsageError("--positive", f"no row of {asked.label!r} says {asked.positive!r}; its rows say: {said}")
    return found


def texts_of(asked: Asked) -> Iterator[str]:
    """Return the text of each row, in order; an empty cell is an empty text."""
    return (row.text for row in _rows(asked))


def read_dataset(asked: Asked) -> tuple[list[str], list[bool | None]]:
    """Return texts and labels, None where a label is blank; raises UsageError naming option, row and mend."""
    found = look_over(asked)
    return list(texts_of(asked)), found.truth


class _Lines:
    """Lines of a source with its bounds. `ended` tells a row whose quotes were never closed: it comes after the end."""

    def __init__(self, source: io.TextIOBase) -> None:
        self._source = source
        self._chars = 0
        self.ended = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._source.readline(LONGEST_CHARS + 1)
        self._chars += len(line)
        if not line:
            self.ended = True
            raise StopIteration
        if len(line) > LONGEST_CHARS:
            raise csv.Error(f"a line is longer than {LONGEST_CHARS:,} characters")
        if self._chars > MAX_CHARS:
            raise csv.Error(f"it holds more than {MAX_CHARS:,} characters; score a part of it")
        return line


def _rows(asked: Asked) -> Generator[_Row]:
    """Return the rows below the header; empty lines are none."""
    csv.field_size_limit(LONGEST_CHARS)
    if asked.dataset.exists() and not asked.dataset.is_file():
        raise UsageError("--dataset", f"{asked.dataset} is no file; give a CSV or CSV.gz file")
    try:
        with _opened(asked.dataset) as source:
            yield from _read(_Lines(source), asked)
    except UnicodeDecodeError:
        mend = f"convert it first, such as with: iconv -f {_guessed(asked.dataset)} -t UTF-8"
        raise UsageError("--dataset", f"{asked.dataset} is not UTF-8; {mend}") from None
    except (OSError, EOFError, csv.Error) as error:
        why = getattr(error, "strerror", None) or str(error) or "it breaks off"
        raise UsageError("--dataset", f"{asked.dataset} cannot be read: {why}") from None


def _opened(file: pathlib.Path) -> io.TextIOBase:
    with file.open("rb") as source:
        packed = source.read(2) == b"\x1f\x8b"  # whatever the file is called
    if packed:
        return cast("io.TextIOBase", gzip.open(file, "rt", encoding="utf-8-sig", newline=""))
    return file.open(encoding="utf-8-sig", newline="")


def _guessed(file: pathlib.Path) -> str:
    """Return what a file that is not UTF-8 may be, by its first bytes."""
    with file.open("rb") as source:
        return "UTF-16" if source.read(2) in {b"\xff\xfe", b"\xfe\xff"} else "ISO-8859-1"


def _read(lines: _Lines, asked: Asked) -> Iterator[_Row]:
    head = next(lines, "")
    named = (sign for sign in _DELIMITERS if asked.text_column in next(csv.reader([head], delimiter=sign), _NONE))
    reader = csv.reader(itertools.chain([head], lines), delimiter=next(named, ","))
    columns = next(reader, _NONE)
    text, label = _column("--text-column", asked.text_column, columns, asked), -1
    if asked.label:
        label = _column("--label-column", asked.label, columns, asked)
    number = 0
    for cells in reader:
        if not cells:
            continue
        number += 1
        if lines.ended:
            raise csv.Error(f"the quotes that open in row {number} are never closed")
        if number > MAX_ROWS:
            raise csv.Error(f"it has more than {MAX_ROWS:,} rows; score a sample")
        said = cells[label] if 0 <= label < len(cells) else ""
        yield _Row(number, cells[text] if text < len(cells) else "", said, len(cells) == len(columns))


def _column(option: str, name: str, columns: list[str], asked: Asked) -> int:
    """Return where a column stands; raises UsageError with the columns that there are."""
    if not columns:
        raise UsageError("--dataset", f"{asked.dataset} has no header; its first line must name the columns")
    if columns.count(name) > 1:
        raise UsageError(option, f"{asked.dataset} has {columns.count(name)} columns {name!r}; give each its own name")
    if name not in columns:
        has = ", ".join(_shown(column) for column in columns[:_SHOWN])
        more = f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
        raise UsageError(option, f"{asked.dataset} has no column {name!r}; it has: {has}{more}")
    return columns.index(name)


def _truth(cell: str, asked: Asked, number: int) -> bool | None:
    word = cell.strip().lower()
    if not word:
        return None
    if asked.positive:
        return word == asked.positive.strip().lower()
    if word in _UNRATED:
        return None
    if asked.at_least is not None:
        try:
            return float(word) >= asked.at_least
        except ValueError:
            raise UsageError(
                "--label-column", f"row {number}: {_shown(word)} is no number; use --positive VALUE"
            ) from None
    if word in _YES | _NO:
        return word in _YES
    if _number(word) in {0.0, 1.0}:
        return _number(word) == 1.0
    mend = "say which value means harmful with --positive VALUE, or --positive-at-least NUMBER"
    raise UsageError("--label-column", f"row {number}: {_shown(word)} is neither yes nor no; {mend}")


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _shown(word: str) -> str:
    """Return a cell as it may stand in an error: what looks like a text is not shown."""
    return repr(word) if len(word) <= 30 and len(word.split()) <= 3 else f"(one of {len(word)} characters)"
