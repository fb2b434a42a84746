"""Banks of known hashes, as values: who says that something is known, as what, and what a match should lead to.

Decides what a valid bank is, how a match is named in the index, and whether a bank is asked about a content. A bank
hints at what a match means; the policy decides. Pure. Called by the store, the follower, the matcher and the routes.
"""

import dataclasses
import datetime as dt
import enum
import hashlib
import re

from forestay.errors import UsageError
from forestay.safety.hashes.segment import MAX_RADIUS
from forestay.safety.taxonomy import Category

MAX_ENTRIES_A_CALL = 10_000
MAX_NOTE = 200
MAX_SOURCE = 200
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,58}[a-z0-9])?")
_ENTRY_BITS = 40  # of a key; the bank's number lies above them


class Hint(enum.StrEnum):
    """What a match should lead to, if the policy agrees."""

    BLOCK = "block"
    REVIEW = "review"
    REPORT = "report"  # block, preserve and report: the law asks for it


@dataclasses.dataclass(frozen=True, slots=True)
class NewBank:
    """A bank as it is asked for, checked by `checked`."""

    bank_id: str
    source: str
    category: Category
    threshold: int = MAX_RADIUS
    hint: Hint = Hint.BLOCK
    enabled_ratio: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Bank:
    """A bank as it is kept."""

    bank_number: int
    bank_id: str
    source: str
    category: Category
    threshold: int  # bits that may differ
    hint: Hint
    enabled_ratio: float  # share of contents that it is asked about: 0 is off, 1 all
    added_by: str
    added_at: dt.datetime
    entries: int = 0
    suspended: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class NewEntry:
    """A hash to add: 256 bits, a narrower distance than the bank's where given, and a word about it."""

    value: int
    note: str = ""
    threshold: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A hash in a bank."""

    entry_id: int
    bank_number: int
    value: int
    threshold: int | None
    note: str
    added_by: str
    added_at: dt.datetime
    removed: bool
    suspended_reason: str | None
    changed: int

    @property
    def key(self) -> int:
        """Return what the index calls it."""
        return key_of(self.bank_number, self.entry_id)


def key_of(bank_number: int, entry_id: int) -> int:
    """Return the index's name of an entry, in which its bank can be read."""
    return bank_number << _ENTRY_BITS | entry_id


def parts_of(key: int) -> tuple[int, int]:
    """Return the bank's number and the entry's id."""
    return key >> _ENTRY_BITS, key & ((1 << _ENTRY_BITS) - 1)


def checked(bank: NewBank) -> NewBank:
    """Return a bank that may be made; UsageError names the field that is wrong."""
    if not _NAME.fullmatch(bank.bank_id):
        raise UsageError("bank", "must be 1 to 60 of a-z, 0-9 and -, and begin and end with a letter or digit")
    if not 1 <= len(bank.source.strip()) <= MAX_SOURCE or not bank.source.isprintable():
        raise UsageError("source", f"must be one line of 1 to {MAX_SOURCE} characters: who says that these are known")
    if not 0 <= bank.threshold <= MAX_RADIUS:
        raise UsageError("threshold", f"must be 0 to {MAX_RADIUS} bits")
    check_ratio(bank.enabled_ratio)
    return bank


def check_ratio(ratio: float) -> None:
    """Raise UsageError unless the share lies in [0, 1]."""
    if not 0.0 <= ratio <= 1.0:
        raise UsageError("enabled_ratio", "must be a number from 0 (off) to 1 (every content)")


def check_entry(entry: NewEntry) -> None:
    """Raise UsageError unless the entry may be added."""
    if not 0 <= entry.value < 1 << 256:
        raise UsageError("hash", "must have 256 bits")
    if entry.threshold is not None and not 0 <= entry.threshold <= MAX_RADIUS:
        raise UsageError("threshold", f"must be 0 to {MAX_RADIUS} bits")
    if len(entry.note) > MAX_NOTE or not entry.note.isprintable():
        raise UsageError("note", f"must be one line of at most {MAX_NOTE} characters")


def is_asked(bank: Bank, value: int) -> bool:
    """Tell whether a bank is asked about a content with this hash: the same content always gets the same answer."""
    if bank.enabled_ratio >= 1.0:
        return True
    digest = hashlib.sha256(bank.bank_id.encode() + value.to_bytes(32)).digest()
    return int.from_bytes(digest[:8]) / 2**64 < bank.enabled_ratio
