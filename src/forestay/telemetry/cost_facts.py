"""Reads what requests took, in the order in which they ended, for whoever learns costs.

It decides which facts say something of a cost: those of attempts and direct calls that succeeded. It decides nothing
about what is learned. Called by `capacity/learn`.
"""

import dataclasses
import datetime as dt
import uuid
from collections.abc import Mapping
from typing import cast

from forestay.ids import ModelId, RequestId, RevisionId, TenantId
from forestay.storage.postgres import Database, Record, load_queries

SETTLED_SECONDS = 5.0  # facts are shipped within about a second; later ones are not waited for
_FEATURE = "x_"
_SQL = load_queries("forestay.telemetry", "sql/cost_facts.sql")


@dataclasses.dataclass(frozen=True, slots=True)
class Cursor:
    """The last fact that was read."""

    finished_at: dt.datetime
    request_id: RequestId


@dataclasses.dataclass(frozen=True, slots=True)
class CostFact:
    """What one request asked for and took."""

    cursor: Cursor
    tenant_id: TenantId
    model_id: ModelId
    revision_id: RevisionId
    endpoint: str
    features: Mapping[str, float]
    device_seconds: float  # where a model has no device, the seconds that a slot was busy


class PostgresCostFacts:
    """Facts of costs over the facts database."""

    def __init__(self, facts: Database, settled_seconds: float = SETTLED_SECONDS) -> None:
        self._facts = facts
        self._settled_seconds = settled_seconds

    async def after(self, cursor: Cursor, limit: int) -> list[CostFact]:
        """Read at most `limit` facts after the cursor; raises Unavailable."""
        records = await self._facts.fetch(
            _SQL["costs_after"], cursor.finished_at, cursor.request_id, self._settled_seconds, limit
        )
        return [_fact(record) for record in records]


def first_cursor(since: dt.datetime) -> Cursor:
    """Return the cursor before everything that ended at `since` or later."""
    return Cursor(since, RequestId(uuid.UUID(int=0)))


def _fact(record: Record) -> CostFact:
    finished_at = cast("dt.datetime", record["finished_at"])
    busy = (finished_at - cast("dt.datetime", record["started_at"])).total_seconds()
    work = cast("Mapping[str, object]", record["work"])
    return CostFact(
        cursor=Cursor(finished_at, RequestId(record["request_id"])),
        tenant_id=TenantId(record["tenant_id"]),
        model_id=ModelId(record["model_id"]),
        revision_id=RevisionId(record["revision_id"]),
        endpoint=record["endpoint"],
        features={
            name.removeprefix(_FEATURE): float(value)
            for name, value in work.items()
            if name.startswith(_FEATURE) and isinstance(value, int | float)
        },
        device_seconds=cast("float", record["device_seconds"]) or busy,
    )
