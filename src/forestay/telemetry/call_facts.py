"""Call facts: one append-only row for each call of a model and each refused credential, for the judges of misuse.

Written in batches by gateways, read in order of commit by a cursor. A row holds no prompt, no address and no
credential: hashes under the deployment's key and truncated networks. It decides nothing about what calls mean (that
is `abuse`).
"""

import dataclasses
import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Protocol

import asyncpg
import msgspec

from forestay.clock import Clock
from forestay.storage.day_partitions import keep_days
from forestay.storage.postgres import Database, load_queries

REFUSED_LATER = "refused_later"  # the verb of a call that is noted again: its content was found wanting after it came
CONTENT_THROTTLED = "content_throttled"  # the cause of an accepted call that counts like a refused one
LATEST = dt.timedelta(days=1)  # a gateway keeps what it cannot write no longer than this
_SQL = load_queries("forestay.telemetry", "sql/call_facts.sql")


class CallFact(msgspec.Struct, frozen=True, gc=False):
    """One call. `prompt` and `shape` are 64 bits, `raw` and `tried` 63; as Postgres keeps them, signed."""

    at: dt.datetime
    call_id: uuid.UUID
    tenant_id: str
    key_id: str
    model_id: str
    lane: str
    verb: str
    network: str
    agent: str
    accepted: bool
    cause: str
    status_code: int
    predicted_seconds: float
    prompt: int | None = None
    raw: int = 0
    prompt_chars: int = 0
    meaning: bytes | None = None
    shape: int = 0
    claimed: str = ""
    tried: int = 0
    position: int = 0  # given by the store


@dataclasses.dataclass(frozen=True, slots=True)
class LateRefusal:
    """A request whose content was refused, or counts as if it were, after its call was accepted."""

    request_id: str
    submitted_at: dt.datetime
    finished_at: dt.datetime
    cause: str
    status_code: int


class CallSink(Protocol):
    """Where gateways write calls."""

    async def write(self, batch: Sequence[CallFact]) -> None:
        """Write them all or none; raises Unavailable. Writing one twice keeps one."""
        ...


class CallSource(Protocol):
    """Where judges read calls."""

    async def after(self, position: int, since: dt.datetime, limit: int) -> list[CallFact]:
        """Read what was written after `position`, in order; nothing from before `since` is looked for."""
        ...

    async def between(self, since: dt.datetime, until: dt.datetime, position: int, limit: int) -> list[CallFact]:
        """Read what happened between two moments and was written after `position`, in order."""
        ...


class PostgresCalls:
    """CallSink and CallSource over the facts database."""

    def __init__(self, facts: Database) -> None:
        self._facts = facts

    async def write(self, batch: Sequence[CallFact]) -> None:
        """Write them all or none; writers take turns, so that a cursor misses nothing."""
        rows = msgspec.json.encode(list(batch)).decode()  # bytes as base64
        async with self._facts.transaction() as connection:
            await connection.execute(_SQL["take_turn"])
            await connection.execute(_SQL["keep"], rows)

    async def refuse(self, batch: Sequence[LateRefusal]) -> set[str]:
        """Note calls again, as refused, each once; returns the request ids whose call was found."""
        async with self._facts.transaction() as connection:
            await connection.execute(_SQL["take_turn"])
            rows = await connection.fetch(_SQL["refuse"], msgspec.json.encode(batch).decode())
        return {str(row["call_id"]) for row in rows}

    async def after(self, position: int, since: dt.datetime, limit: int) -> list[CallFact]:
        """Read what was written after `position`, in order."""
        return [_fact(row) for row in await self._facts.fetch(_SQL["after"], position, since, limit)]

    async def between(self, since: dt.datetime, until: dt.datetime, position: int, limit: int) -> list[CallFact]:
        """Read what happened between two moments and was written after `position`, in order."""
        return [_fact(row) for row in await self._facts.fetch(_SQL["between"], since, until, position, limit)]


async def keep_partitions(facts: Database, clock: Clock, retention_seconds: float) -> int:
    """Make the partitions of the coming days and drop those past their time; the controller's loop calls it."""
    return await keep_days(facts, _SQL, clock.now(), retention_seconds)


def moment_of(value: object) -> dt.datetime:
    """Return a moment as a fact of the outbox holds it: ISO 8601 in text."""
    return value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(str(value))


def _fact(row: asyncpg.Record) -> CallFact:
    return msgspec.convert(dict(row), CallFact)
