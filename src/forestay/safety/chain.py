"""Sealing verdict records: runs of rows are closed by a digest over them and over the seal before.

A changed, missing or added row breaks its seal, a missing seal breaks the next one. A row's digest covers all that it
says and its salt. Records that retention has dropped leave their seals, which still follow one another. Pure but for
`Sealer` and `verify`, which read and write. Run by the controller's loop; verified by `forestay safety verify`.
"""

import dataclasses
import datetime as dt
import hashlib
from collections.abc import Sequence
from typing import cast

import asyncpg
import msgspec

from forestay.clock import Clock
from forestay.safety.records import VerdictRecord, record_of
from forestay.storage.postgres import Database, load_queries

BATCH = 1_000
PAGE = 100
MOST_SEALS = 100_000
AGE = dt.timedelta(days=2)  # nothing older than this is still written: which partitions to look at
_SQL = load_queries("forestay.safety", "sql/verdicts.sql")
_LATER = ("beside",)  # fields that records got later: one that is empty is not covered, so that older seals hold
_LABEL = b"forestay verdict seal 1\n"


@dataclasses.dataclass(frozen=True, slots=True)
class Seal:
    """One closed run of records; positions are both included."""

    sequence: int
    sealed_at: dt.datetime
    first_position: int
    last_position: int
    rows: int
    root: bytes
    previous: bytes
    hash: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class ChainFault:
    """Where the log does not hold what was sealed."""

    sequence: int
    what: str


def digest_of(record: VerdictRecord) -> bytes:
    """Return the SHA-256 of everything that a record says, its position and its salt included."""
    said = cast(
        "dict[str, object]", msgspec.to_builtins(msgspec.structs.replace(record, at=record.at.astimezone(dt.UTC)))
    )
    for name in _LATER:
        if not said[name]:
            del said[name]
    return hashlib.sha256(msgspec.json.encode(said, order="sorted")).digest()


def seal(last: Seal | None, records: Sequence[VerdictRecord], now: dt.datetime) -> Seal:
    """Close a run of records, in order and at least one, after the newest seal."""
    root = hashlib.sha256(b"".join(digest_of(record) for record in records)).digest()
    made = Seal(
        sequence=1 if last is None else last.sequence + 1,
        sealed_at=now,
        first_position=records[0].position,
        last_position=records[-1].position,
        rows=len(records),
        root=root,
        previous=b"" if last is None else last.hash,
        hash=b"",
    )
    return dataclasses.replace(made, hash=_hash(made))


def faults_of(before: Seal | None, sealed: Seal, records: Sequence[VerdictRecord] | None) -> list[ChainFault]:
    """Compare a seal with the one before and with its records; None: retention has dropped them."""
    found: list[ChainFault] = []
    if sealed.hash != _hash(sealed):
        found.append(ChainFault(sealed.sequence, "the seal itself was changed"))
    if before is not None and (sealed.sequence, sealed.previous) != (before.sequence + 1, before.hash):
        found.append(ChainFault(sealed.sequence, f"it does not continue seal {before.sequence}"))
    if before is None and sealed.sequence == 1 and sealed.previous:
        found.append(ChainFault(sealed.sequence, "the first seal continues something"))
    if before is None and sealed.sequence > 1:
        found.append(ChainFault(sealed.sequence, "the seals before it are missing"))
    if records is not None:
        root = hashlib.sha256(b"".join(digest_of(record) for record in records)).digest()
        if len(records) != sealed.rows:
            found.append(ChainFault(sealed.sequence, f"{sealed.rows} records were sealed, {len(records)} are there"))
        elif root != sealed.root:
            found.append(ChainFault(sealed.sequence, "a record was changed"))
    return found


class Sealer:
    """The loop's run."""

    def __init__(self, facts: Database, clock: Clock) -> None:
        self._facts = facts
        self._clock = clock

    async def run_once(self) -> int:
        """Seal what was written since the last seal; returns how many records."""
        row = await self._facts.fetchrow(_SQL["last_seal"])
        last = None if row is None else _seal_of(row)
        now = self._clock.now()
        position = 0 if last is None else last.last_position
        rows = await self._facts.fetch(_SQL["unsealed"], position, BATCH, now - AGE)
        if not rows:
            return 0
        made = seal(last, [record_of(found) for found in rows], now)
        await self._facts.fetch(_SQL["seal"], *dataclasses.astuple(made))
        return len(rows)


async def verify(facts: Database, kept_since: dt.datetime, limit: int = MOST_SEALS) -> tuple[int, list[ChainFault]]:
    """Check every seal and the records below it, at most `limit` seals; returns how many were checked.

    Of what was sealed before `kept_since` retention may have dropped records; of the rest every one must be there.
    """
    oldest = cast("int | None", await facts.fetchval(_SQL["oldest"]))
    before: Seal | None = None
    faults: list[ChainFault] = []
    checked = 0
    while checked < limit:
        rows = await facts.fetch(_SQL["seals"], 0 if before is None else before.sequence, PAGE)
        for row in rows:
            sealed = _seal_of(row)
            gone = sealed.sealed_at < kept_since and (oldest is None or oldest > sealed.first_position)
            faults += faults_of(before, sealed, None if gone else await _records_of(facts, sealed))
            before, checked = sealed, checked + 1
        if len(rows) < PAGE:
            break
    return checked, faults


async def _records_of(facts: Database, sealed: Seal) -> list[VerdictRecord]:
    rows = await facts.fetch(_SQL["sealed_rows"], sealed.first_position, sealed.last_position)
    return [record_of(row) for row in rows]


def _hash(sealed: Seal) -> bytes:
    said = (
        sealed.sequence,
        sealed.sealed_at.astimezone(dt.UTC).isoformat(),
        sealed.first_position,
        sealed.last_position,
        sealed.rows,
        sealed.root.hex(),
        sealed.previous.hex(),
    )
    return hashlib.sha256(_LABEL + msgspec.json.encode(said)).digest()


def _seal_of(row: asyncpg.Record) -> Seal:
    return Seal(**{name: row[name] for name in Seal.__dataclass_fields__})
