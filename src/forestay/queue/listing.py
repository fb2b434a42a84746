"""Lists requests for a person: newest first, live and finished together. Read-only, and never on a caller's path.

It decides nothing. Called by the gateway's admin API.
"""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from forestay.ids import KeyId, ModelId, ReplicaId, RequestId, RevisionId, TenantId
from forestay.queue.model import State
from forestay.storage.postgres import Database, load_queries

_SQL = load_queries("forestay.queue", "sql/listing.sql")


@dataclasses.dataclass(frozen=True, slots=True)
class ListedRequest:
    """One line of the list."""

    request_id: RequestId
    tenant_id: TenantId
    key_id: KeyId
    model_id: ModelId
    endpoint: str
    state: State
    attempt: int
    submitted_at: dt.datetime
    revision_id: RevisionId | None
    replica_id: ReplicaId | None
    error: str | None
    error_type: str | None
    tags: Mapping[str, str] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class KeptInput:
    """An ended request that may be looked at again, and what it asked, where that is kept."""

    request_id: RequestId
    tenant_id: TenantId
    body: bytes | None


class RequestList(Protocol):
    """Requests by model, state and tags."""

    async def newest(
        self, model_id: ModelId | None, states: Sequence[State], limit: int, tags: Mapping[str, str]
    ) -> list[ListedRequest]:
        """List at most `limit` requests that carry all of `tags`, newest first; no states means any."""
        ...


class PostgresRequestList:
    """RequestList over the queue's tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(
        self, model_id: ModelId | None, states: Sequence[State], limit: int, tags: Mapping[str, str]
    ) -> list[ListedRequest]:
        """List at most `limit` requests that carry all of `tags`, newest first; no states means any."""
        named = [state.value for state in states] or None
        rows = await self._database.fetch(_SQL["newest"], model_id, named, limit, dict(tags) or None)
        return [msgspec.convert(dict(row), ListedRequest) for row in rows]

    async def inputs(self, request_ids: Sequence[RequestId]) -> list[KeptInput]:
        """Read what ended requests asked; those whose callers forbade that anything is kept are left out."""
        rows = await self._database.fetch(_SQL["inputs"], list(request_ids))
        return [msgspec.convert(dict(row), KeptInput) for row in rows]
