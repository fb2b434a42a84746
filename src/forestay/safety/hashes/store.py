"""The port of banks: what safety keeps about known hashes, and how readers follow its changes.

Every change leaves an audit row in its own transaction. Changes carry versions that become visible in their order, so
that a reader who asks for what came after a version misses nothing.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from forestay.safety.hashes.banks import Bank, Entry, NewBank, NewEntry

CHANNEL = "forestay:hashes"  # wake-ups: banks or entries have changed


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """How far a reader has come: the version of a change, and the last entry of it that was seen."""

    version: int = 0
    entry_id: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Near:
    """An entry near a hash, as a person is told of it."""

    entry_id: int
    bank_id: str
    category: str
    hint: str
    hash: str
    distance: int
    suspended_reason: str | None


class BankStore(Protocol):
    """Banks and their entries."""

    async def create(self, bank: NewBank, *, actor: str) -> Bank | None:
        """Make a bank; None when there is one of that name."""
        ...

    async def banks(self, bank_id: str | None = None) -> Sequence[Bank]:
        """List banks by name with the number of their entries, or the one that is named."""
        ...

    async def set_ratio(self, bank_id: str, ratio: float, *, actor: str, reason: str) -> Bank | None:
        """Set the share of contents that a bank is asked about; None when there is no such bank."""
        ...

    async def add(self, bank_id: str, entries: Sequence[NewEntry], *, actor: str, reason: str) -> int | None:
        """Add hashes, at most 10,000; returns how many are new, None when there is no such bank."""
        ...

    async def remove(self, bank_id: str, values: Sequence[int], *, actor: str, reason: str) -> int | None:
        """Take hashes out; returns how many there were, None when there is no such bank."""
        ...

    async def entries(self, bank_id: str, after: int, limit: int) -> Sequence[Entry]:
        """Read a page of a bank's living entries, those with ids above `after`."""
        ...

    async def suspend(self, entry_id: int, *, actor: str, reason: str) -> bool:
        """Keep an entry from blocking; False when it is so already."""
        ...

    async def restore(self, entry_id: int, *, actor: str, reason: str) -> bool:
        """Let a suspended entry block again; False when it was not suspended."""
        ...

    async def changed_banks(self, version: int) -> Sequence[tuple[int, Bank]]:
        """Read the banks that changed after a version, each with the version of its change."""
        ...

    async def changed_entries(self, after: Place, limit: int) -> Sequence[Entry]:
        """Read a page of entries that changed after a place, removed ones too, in the order of changes."""
        ...

    async def match(self, value: int) -> Sequence[Near]:
        """Return the living entries of enabled banks near a hash, nearest first; reads every row."""
        ...
