"""Output facts: one append-only row for each file of an answer whose numbers were taken, for those who watch quality.

Written in batches by workers, read in order of commit by a cursor. A row holds numbers, and digests under the
deployment's key; never content. It decides nothing about what they mean (that is `quality`).
"""

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Protocol

import msgspec

from forestay.clock import Clock
from forestay.storage.day_partitions import keep_days
from forestay.storage.postgres import Database, Record, load_queries

LATEST = dt.timedelta(hours=1)  # a worker keeps what it cannot write no longer than this
_SQL = load_queries("forestay.telemetry", "sql/output_facts.sql")


class OutputFact(msgspec.Struct, frozen=True, gc=False):
    """One file of one answer. Digests are 63 bits under the deployment's key; 0: there is none."""

    at: dt.datetime
    request_id: uuid.UUID
    attempt: int  # 0 on the direct lane
    place: int  # of the file in its answer
    tenant_id: str
    model_id: str
    endpoint: str
    revision_id: str
    replica_id: str
    worker_id: str
    device: str
    kind: str  # image | video | audio
    parameters: str = ""  # size, steps and adapters in short: "512x512 20 steps"
    cluster: int = -1  # of the prompt
    failed: str = ""  # the check by which it failed; empty: whole
    features: list[float] = []  # as `media/measures` names them; empty where the file does not open
    likeness: int = 0  # of the picture's perceptual hash
    content: int = 0  # of the bytes
    prompt: int = 0  # of the words that were asked for
    seed: int = 0  # of the seed that was asked for
    fingerprint: str = ""  # of what it was made with; empty: nothing is known
    described: str = ""  # JSON, where the writer has not told of this fingerprint lately; it is kept once
    position: int = 0  # given by the store


class FingerprintRow(msgspec.Struct, frozen=True):
    """What outputs were made with. `described` is JSON."""

    model_id: str
    revision_id: str
    fingerprint: str
    described: str
    worker_id: str
    first_at: dt.datetime
    last_at: dt.datetime


class OutputSink(Protocol):
    """Where workers write what was measured."""

    async def write(self, batch: Sequence[OutputFact]) -> None:
        """Write them all or none; raises Unavailable. Writing one twice keeps one."""
        ...


class OutputSource(Protocol):
    """Where watchers read it."""

    async def after(self, position: int, since: dt.datetime, limit: int) -> list[OutputFact]:
        """Read what was written after `position`, in order; nothing from before `since` is looked for."""
        ...

    async def of_revision(self, revision_id: str, kind: str, since: dt.datetime, limit: int) -> list[OutputFact]:
        """Read the newest of a revision and a kind of medium, in order."""
        ...


class PostgresOutputs:
    """OutputSink and OutputSource over the facts database."""

    def __init__(self, facts: Database) -> None:
        self._facts = facts

    async def write(self, batch: Sequence[OutputFact]) -> None:
        """Write them all or none; writers take turns, so that a cursor misses nothing."""
        rows = msgspec.json.encode(list(batch)).decode()
        async with self._facts.transaction() as connection:
            await connection.execute(_SQL["take_turn"])
            await connection.execute(_SQL["keep"], rows)
        if told := [item for item in batch if item.described]:
            await self._facts.execute(_SQL["describe"], msgspec.json.encode(told).decode())

    async def fingerprints(self, model_id: str, limit: int) -> list[FingerprintRow]:
        """Read what outputs of a model were made with, the newest first."""
        rows = await self._facts.fetch(_SQL["fingerprints"], model_id, limit)
        return [msgspec.convert(dict(row), FingerprintRow) for row in rows]

    async def fingerprints_of(self, request_id: uuid.UUID, at: dt.datetime) -> list[FingerprintRow]:
        """Read what the outputs of a request were made with; `at` is when it was made, within a day."""
        day = dt.timedelta(days=1)
        rows = await self._facts.fetch(_SQL["fingerprints_of"], request_id, at - day, at + day * 8)
        return [msgspec.convert(dict(row), FingerprintRow) for row in rows]

    async def after(self, position: int, since: dt.datetime, limit: int) -> list[OutputFact]:
        """Read what was written after `position`, in order."""
        return [_fact(row) for row in await self._facts.fetch(_SQL["after"], position, since, limit)]

    async def of_revision(self, revision_id: str, kind: str, since: dt.datetime, limit: int) -> list[OutputFact]:
        """Read the newest of a revision and a kind of medium, in order."""
        return [_fact(row) for row in await self._facts.fetch(_SQL["of_revision"], revision_id, kind, since, limit)]


async def keep_partitions(facts: Database, clock: Clock, retention_seconds: float) -> int:
    """Make the partitions of the coming days and drop those past their time; the controller's loop calls it."""
    await facts.execute(_SQL["forget_fingerprints"], clock.now() - dt.timedelta(seconds=retention_seconds))
    return await keep_days(facts, _SQL, clock.now(), retention_seconds)


def _fact(row: Record) -> OutputFact:
    return msgspec.convert(dict(row), OutputFact)
