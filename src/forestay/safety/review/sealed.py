"""The sealed store: content that a review or the law needs, encrypted, read only with a name and a reason.

Small copies lie in Postgres, large ones in the object store below `sealed/`, both under `seal`. Every reading is
noted, in the access log and in the audit log, and the note is committed before the content is given out: whoever
cannot be noted reads nothing. Copies are forgotten after `FORESTAY_SEALED_RETENTION`, unless they are held or a
decision about them is still owed. Decides nothing about who may read. Called by `opening` (put), `carrying` and the
admin API (read), the loop (forget) and reports (hold).
"""

# The driver's pooled connection is partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import dataclasses
import datetime as dt
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from typing import Literal, cast

from forestay.clock import Clock
from forestay.errors import Refused
from forestay.fleet import postgres_audit
from forestay.fleet.audit import AuditEntry
from forestay.safety.review.seal import ContentSeal
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database, load_queries

INLINE_BYTES = 64 * 1024  # larger copies lie in the object store
MAX_READ_BYTES = 64 * 1024 * 1024  # read whole at most
_CHUNK = 1024 * 1024
_SQL = load_queries("forestay.safety.review", "sql/sealed.sql")
Kind = Literal["input", "output", "media"]
How = Literal["text", "blurred", "clear", "carried_out", "report"]


@dataclasses.dataclass(frozen=True, slots=True)
class Label:
    """What stands on a copy: enough to find and to forget it."""

    kind: Kind
    request_id: str
    tenant_id: str
    place: str = ""
    held: bool = False

    @property
    def sealed_id(self) -> str:
        """Return the copy's id: the same content of the same request has the same copy."""
        said = f"{self.kind}\n{self.request_id}\n{self.place}"
        return "sealed_" + hashlib.sha256(said.encode()).hexdigest()[:32]


@dataclasses.dataclass(frozen=True, slots=True)
class Reader:
    """Who reads, for which item, how, and why."""

    actor: str
    how: How
    reason: str
    item_id: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """One line of the access log."""

    read_id: int
    sealed_id: str
    item_id: str
    actor: str
    how: str
    reason: str
    at: dt.datetime


class SealedStore:
    """Copies under seal; `writer` names this process's audit chain."""

    def __init__(
        self, database: Database, objects: ObjectStore, seal: ContentSeal, clock: Clock, writer: str = "sealed"
    ) -> None:
        self._database = database
        self._objects = objects
        self._seal = seal
        self._clock = clock
        self._writer = writer

    async def put(self, label: Label, data: bytes) -> str:
        """Keep a copy and return its id; the same label twice keeps the first one."""
        if len(data) > INLINE_BYTES:
            return await self.put_stream(label, _pieces(data))
        sealed_id, seal = label.sealed_id, self._seal
        await self._database.execute(
            _SQL["put_small"], sealed_id, seal.key_name, label.kind, label.request_id, label.tenant_id,
            seal.close(sealed_id, data), len(data), label.held,
        )  # fmt: skip
        return sealed_id

    async def put_stream(self, label: Label, data: AsyncIterable[bytes]) -> str:
        """Keep a large copy; it is there once all of it is."""
        sealed_id, seal = label.sealed_id, self._seal
        known = await self._database.fetchval(
            _SQL["announce"], sealed_id, seal.key_name, label.kind, label.request_id, label.tenant_id, label.held
        )
        if cast("int", known) >= 0:
            return sealed_id
        counted = _Counted(data)
        await self._objects.put(_object_key(sealed_id), self._closed(sealed_id, counted))
        await self._database.execute(_SQL["arrived"], sealed_id, counted.size_bytes, seal.key_name)
        return sealed_id

    async def read(self, sealed_id: str, reader: Reader) -> bytes | None:
        """Note who reads, then give the copy out whole; None when there is none. Refused when it is too large."""
        row = await self._database.fetchrow(_SQL["find"], sealed_id)
        if row is None:
            return None
        if int(row["size_bytes"]) > MAX_READ_BYTES:
            raise Refused(f"copy {sealed_id} is larger than {MAX_READ_BYTES} bytes")
        await self._note(sealed_id, reader)
        stored = row["data"]
        sealed = bytes(stored) if stored is not None else await self._objects.get(_object_key(sealed_id))
        return None if sealed is None else self._seal.open(sealed_id, str(row["key_name"]), sealed)

    async def has(self, sealed_id: str) -> bool:
        """Tell whether there is such a copy, which is no reading of it."""
        return bool(sealed_id) and await self._database.fetchrow(_SQL["find"], sealed_id) is not None

    async def of_request(self, request_id: str, kind: Kind) -> Sequence[str]:
        """List the copies of a request."""
        return [str(row["sealed_id"]) for row in await self._database.fetch(_SQL["of_request"], request_id, kind)]

    async def hold(self, request_id: str) -> int:
        """Keep every copy of a request from being forgotten; returns how many were not held yet."""
        return len(await self._database.fetch(_SQL["hold"], request_id))

    async def readings(self, item_id: str | None, before: int, limit: int) -> Sequence[Reading]:
        """List the access log, newest first; `before` is the last id of the page before, 0 for the first."""
        rows = await self._database.fetch(_SQL["reads"], item_id, before, limit)
        return [Reading(**dict(row)) for row in rows]

    async def forget(self, older_than_seconds: float, limit: int) -> int:
        """Delete copies that are old and not held, at most `limit`; returns how many."""
        rows = await self._database.fetch(_SQL["forget"], older_than_seconds, limit)
        await self._objects.delete([_object_key(str(row["sealed_id"])) for row in rows if row["elsewhere"]])
        return len(rows)

    async def _note(self, sealed_id: str, reader: Reader) -> None:
        detail = {"item_id": reader.item_id, "how": reader.how}
        subject = f"sealed:{sealed_id}"
        entry = AuditEntry(self._clock.now(), reader.actor, "read_sealed", subject, detail, reader.reason, "observed")
        async with self._database.transaction() as connection:
            await connection.execute(_SQL["read"], sealed_id, reader.item_id, reader.actor, reader.how, reader.reason)
            await postgres_audit.append(connection, self._writer, [entry])

    async def _closed(self, sealed_id: str, data: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        closing = self._seal.closing(sealed_id)
        async for piece in data:
            for frame in closing.add(piece):
                yield frame
        for frame in closing.end():
            yield frame


class _Counted:
    """Counts the bytes that pass."""

    def __init__(self, source: AsyncIterable[bytes]) -> None:
        self._source = source
        self.size_bytes = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._source:
            self.size_bytes += len(piece)
            yield piece


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), _CHUNK):
        yield data[start : start + _CHUNK]


def _object_key(sealed_id: str) -> str:
    return f"sealed/{sealed_id}"
