"""Verdict records: one append-only row for each judgement, what anyone later reads of what was released and why.

A record holds the policy's version, the detectors with their digests, scores, thresholds and timings, and digests of
what was judged; never content. The record of an output is committed before the output can be read; records of allowed
inputs go in batches. Decides nothing. Written by `guard`, sealed by `chain`, read by the admin API and replays.
"""

import datetime as dt
import enum
import uuid
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import asyncpg
import msgspec

from forestay.clock import Clock
from forestay.safety.decide import Check, Judgement
from forestay.storage.day_partitions import keep_days
from forestay.storage.postgres import Database, load_queries

LEAST_SCORE = 0.001  # smaller ones are not kept
Touch = tuple[uuid.UUID, dt.datetime]  # a request that counts against its caller, and when that was judged
_SQL = load_queries("forestay.safety", "sql/verdicts.sql")


class Point(enum.StrEnum):
    """Where content was judged."""

    INPUT = "input"  # its text, and what comes in through a realtime session
    INPUT_MEDIA = "input_media"  # its pictures, films and sound
    OUTPUT = "output"
    PIECE = "piece"  # of a stream or a realtime session
    LINES = "lines"  # what model code prints; recorded where it is more than allowed


class CheckRecord(msgspec.Struct, frozen=True, gc=False):
    """One check of a judgement."""

    detector: str
    digest: str  # of its weights and settings, as it declared them
    where: str
    modality: str
    category: str | None
    score: float | None
    threshold: float
    action: str
    trouble: str | None
    seconds: float
    scores: dict[str, float] = {}  # everything that the detector said, for replays


class VerdictRecord(msgspec.Struct, frozen=True, gc=False):
    """One judgement. `place` is the field or place that led to it."""

    at: dt.datetime
    verdict_id: uuid.UUID
    request_id: uuid.UUID
    attempt: int  # 0 for an input and on the direct lane
    point: str
    tenant_id: str
    key_id: str
    model_id: str
    revision_id: str
    policy_id: str
    policy_version: int
    policy_digest: str
    shadow: bool  # judged by a candidate policy: recorded, without effect
    verdict: str
    action: str
    category: str | None
    place: str
    reason: str
    checks: list[CheckRecord]
    judged: list[str]  # "sha256:<hex>" of each body or file that the judgement is about
    seconds: float
    salt: bytes  # 16 bytes of chance: a digest in the chain gives nothing of a deleted row away
    beside: str = ""  # "strict@3": the tenant's own policy that judged too; the more severe of the two decided
    position: int = 0  # given by the store


class VerdictSink(Protocol):
    """Where verdict records are written."""

    async def write(self, batch: Sequence[VerdictRecord]) -> None:
        """Commit them all or none; raises Unavailable. Writing one twice keeps one."""
        ...


class VerdictSource(Protocol):
    """Where verdict records are read."""

    async def of_request(self, request_id: uuid.UUID, limit: int) -> list[VerdictRecord]:
        """Read the records of one request, in order."""
        ...

    async def between(self, since: dt.datetime, until: dt.datetime, position: int, limit: int) -> list[VerdictRecord]:
        """Read what was judged between two moments and written after `position`, in order."""
        ...


def check_records(judgement: Judgement, digests: Mapping[str, str]) -> list[CheckRecord]:
    """Return the rows of a judgement's checks."""
    return [_check_record(check, digests) for check in judgement.checks]


def shadowed(record: VerdictRecord) -> VerdictRecord:
    """Return the record of a judgement without effect."""
    return msgspec.structs.replace(record, shadow=True)


def _check_record(check: Check, digests: Mapping[str, str]) -> CheckRecord:
    return CheckRecord(
        detector=check.detector_id,
        digest=digests.get(check.detector_id, ""),
        where=check.where,
        modality=check.modality.value,
        category=None if check.category is None else check.category.value,
        score=None if check.score is None else round(check.score, 6),
        threshold=check.threshold,
        action=check.action.value,
        trouble=None if check.trouble is None else check.trouble.value,
        seconds=round(check.seconds, 6),
        scores={category.value: round(score, 6) for category, score in check.scores.items() if score >= LEAST_SCORE},
    )


class PostgresVerdicts:
    """VerdictSink and VerdictSource over the facts database."""

    def __init__(self, facts: Database) -> None:
        self._facts = facts

    async def write(self, batch: Sequence[VerdictRecord]) -> None:
        """Commit them all or none; writers take turns, so that the chain seals them in the order of their positions."""
        rows = msgspec.json.encode(list(batch)).decode()
        async with self._facts.transaction() as connection:
            await connection.execute(_SQL["take_turn"])
            await connection.execute(_SQL["keep"], rows)

    async def of_request(self, request_id: uuid.UUID, limit: int) -> list[VerdictRecord]:
        """Read the records of one request, in order."""
        return [record_of(row) for row in await self._facts.fetch(_SQL["of_request"], request_id, limit)]

    async def of_requests(self, request_ids: Sequence[uuid.UUID], model_id: str, limit: int) -> list[VerdictRecord]:
        """Read the records of these requests of a model that had effect, in order."""
        rows = await self._facts.fetch(_SQL["of_requests"], list(request_ids), model_id, limit)
        return [record_of(row) for row in rows]

    async def between(self, since: dt.datetime, until: dt.datetime, position: int, limit: int) -> list[VerdictRecord]:
        """Read what was judged between two moments and written after `position`, in order."""
        return [record_of(row) for row in await self._facts.fetch(_SQL["between"], since, until, position, limit)]

    async def throttled(self, after: int | None, since: dt.datetime, limit: int) -> tuple[list[Touch], int | None]:
        """Read what counts against its caller and was written after a position; and where to go on.

        Without a position it begins with what was judged from `since` on; nothing older is looked for.
        """
        if after is None:
            first = await self._facts.fetchval(_SQL["first_since"], since)
            after = None if first is None else cast("int", first) - 1
        head = await self._facts.fetchval(_SQL["newest"])
        if after is None or head is None:
            return [], cast("int | None", head)
        rows = await self._facts.fetch(_SQL["throttled"], after, head, since, limit)
        reached = cast("int", rows[-1]["position"] if len(rows) == limit else head)
        return [(row["request_id"], row["at"]) for row in rows], max(after, reached)


async def keep_partitions(facts: Database, clock: Clock, retention_seconds: float) -> int:
    """Make the partitions of the coming days and drop those past their time; the controller's loop calls it."""
    return await keep_days(facts, _SQL, clock.now(), retention_seconds)


def record_of(row: asyncpg.Record) -> VerdictRecord:
    """Read a row."""
    values = dict(row)
    if isinstance(values["checks"], str):
        values["checks"] = msgspec.json.decode(values["checks"])
    return msgspec.convert(values, VerdictRecord)
