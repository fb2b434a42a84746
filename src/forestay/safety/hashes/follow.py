"""Banks in memory: the index that one process asks, kept true by following the store's changes.

A change made through this process is seen at once, one made elsewhere with the next wake-up or poll. While the store
is away the index goes on answering from what it knows. Merges of the index run in steps on another thread. Decides
nothing about matches. Run by whoever holds a matcher.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from forestay.errors import Unavailable
from forestay.safety.hashes.banks import Bank, Entry, Hint, is_asked, parts_of
from forestay.safety.hashes.index import BUFFER_ROWS, HashIndex
from forestay.safety.hashes.segment import MAX_RADIUS, REMOVED, Rows, words_of
from forestay.safety.hashes.store import CHANNEL, Place
from forestay.storage.valkey import Wakeups
from forestay.telemetry.logs import logger

POLL_SECONDS = 1.0
_FIRST_PAGE = 20_000
_PAGE = 1_000  # of what changed meanwhile: taken over in a few hundredths of a second, in which nobody is answered
_log = logger("safety.hashes")


class Changes(Protocol):
    """The part of `BankStore` that a follower reads."""

    async def changed_banks(self, version: int) -> Sequence[tuple[int, Bank]]:
        """Read the banks that changed after a version."""
        ...

    async def changed_entries(self, after: Place, limit: int) -> Sequence[Entry]:
        """Read a page of changed entries."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Hit:
    """A known hash near a content's, and what its bank says of it."""

    bank: Bank
    entry_id: int
    distance: int
    hint: Hint  # review where flood control has suspended the entry


class Banks:
    """Banks and their hashes, as this process knows them."""

    def __init__(self, changes: Changes, *, buffer_rows: int = BUFFER_ROWS, with_entries: bool = True) -> None:
        """Know nothing yet; without entries only what banks there are, which takes no memory and finds nothing."""
        self._changes = changes
        self._with_entries = with_entries
        self.loaded = False  # whether the entries have been read once: before, nothing may be called unknown
        self._buffer_rows = buffer_rows
        self._index = HashIndex(buffer_rows=buffer_rows)
        self._banks: dict[int, Bank] = {}
        self._bank_version = 0
        self._place = Place()
        self._suspended: set[int] = set()
        self._refreshing = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._index)

    @property
    def banks(self) -> Mapping[int, Bank]:
        """Return the banks by number."""
        return self._banks

    @property
    def size_bytes(self) -> int:
        """Return what the index takes in memory."""
        return self._index.size_bytes

    def find(self, value: int) -> list[Hit]:
        """Return what is known near a hash, in banks that are asked about it, nearest first."""
        hits: list[Hit] = []
        for match in self._index.find(value):
            number, entry_id = parts_of(match.key)
            bank = self._banks.get(number)
            if bank is None or match.distance > bank.threshold or not is_asked(bank, value):
                continue
            hint = Hint.REVIEW if entry_id in self._suspended else bank.hint
            hits.append(Hit(bank, entry_id, match.distance, hint))
        return hits

    def suspend(self, entry_id: int) -> None:
        """Let an entry lead to review from now on; the store tells the others."""
        self._suspended.add(entry_id)

    async def refresh(self) -> int:
        """Take over what has changed; returns how many entries did. Raises Unavailable when the store is away."""
        async with self._refreshing:
            taken = 0
            if self._with_entries:
                taken = await self._take_changes() if self.loaded else await self._load()
            for version, bank in await self._changes.changed_banks(self._bank_version):
                self._banks[bank.bank_number] = bank
                self._bank_version = max(self._bank_version, version)
            self.loaded = self._with_entries
            return taken

    async def _load(self) -> int:
        """Read all entries at once; what breaks off in the middle begins anew the next time."""
        place, pages = Place(), list[Rows]()
        while page := await self._changes.changed_entries(place, _FIRST_PAGE):
            pages.append(_rows_of(page))
            self._note_suspended(page)
            place = Place(page[-1].changed, page[-1].entry_id)
        if pages:
            self._index = await asyncio.to_thread(_built, pages, self._buffer_rows)
        self._place = place
        return sum(len(page.keys) for page in pages)

    async def _take_changes(self) -> int:
        taken = 0
        while page := await self._changes.changed_entries(self._place, _PAGE):
            for entry in page:
                self._apply(entry)
            taken += len(page)
            self._place = Place(page[-1].changed, page[-1].entry_id)
        return taken

    async def run(self, wakeups: Wakeups, poll_seconds: float = POLL_SECONDS) -> None:
        """Follow until cancelled: at every wake-up and every `poll_seconds`, and merge what is due."""
        async with wakeups.subscribe(CHANNEL) as messages:
            waiting = asyncio.Event()

            async def listen() -> None:
                async for _ in messages:
                    waiting.set()

            async with asyncio.TaskGroup() as group:
                group.create_task(listen())
                merging = group.create_task(self.merge())
                while True:
                    waiting.clear()
                    await self._once()
                    if merging.done():  # beside what changes meanwhile: a merge of millions takes its time
                        merging = group.create_task(self.merge())
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(poll_seconds):
                            await waiting.wait()

    async def merge(self) -> None:
        """Merge what is due, each step on another thread, so that questions go on being answered."""
        while (merge := self._index.begin_merge()) is not None:
            index, steps = self._index, merge.steps()
            while await asyncio.to_thread(next, steps, _DONE) is not _DONE:
                pass
            index.finish_merge(merge)

    async def _once(self) -> None:
        try:
            await self.refresh()
        except Unavailable as error:
            _log.warning("hashes.not_followed", reason=str(error))

    def _apply(self, entry: Entry) -> None:
        if entry.removed:
            self._index.remove(entry.key, entry.value)
        else:
            self._index.add(entry.key, entry.value, _threshold(entry))
        self._note_suspended([entry])

    def _note_suspended(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.suspended_reason is None or entry.removed:
                self._suspended.discard(entry.entry_id)
            else:
                self._suspended.add(entry.entry_id)


_DONE = object()


def _threshold(entry: Entry) -> int:
    return MAX_RADIUS if entry.threshold is None else entry.threshold


def _rows_of(entries: Sequence[Entry]) -> Rows:
    """Return entries as rows: a page of a first load is small as rows, and large as objects."""
    words = np.array([words_of(entry.value) for entry in entries], np.uint64)
    keys = np.array([entry.key for entry in entries], np.int64)
    thresholds = [REMOVED if entry.removed else _threshold(entry) for entry in entries]
    return Rows(words, keys, np.array(thresholds, np.int8))


def _built(pages: Sequence[Rows], buffer_rows: int) -> HashIndex:
    """Build the index of a first load at once; of an entry that changed meanwhile the last word counts."""
    keys = np.concatenate([page.keys for page in pages])
    thresholds = np.concatenate([page.thresholds for page in pages])
    _, last = np.unique(keys[::-1], return_index=True)
    kept = len(keys) - 1 - last
    kept = kept[thresholds[kept] != REMOVED]
    words = np.concatenate([page.words for page in pages])
    return HashIndex(Rows(words[kept], keys[kept], thresholds[kept]), buffer_rows=buffer_rows)
