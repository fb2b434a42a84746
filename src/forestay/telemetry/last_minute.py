"""What ended and what came in during the last minute, by model. It decides nothing. For `capacity/fal_metrics`."""

import dataclasses
from collections.abc import Mapping
from typing import Protocol, cast

from forestay.ids import ModelId
from forestay.storage.postgres import Database, load_queries

MAX_ROWS = 50_000
_SQL = load_queries("forestay.telemetry", "sql/last_minute.sql")


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """Requests that ended alike: with one status, in the same millisecond's time."""

    model_id: ModelId
    status_code: int
    seconds: float
    requests: int


class LastMinute(Protocol):
    """The last minute."""

    async def ended(self) -> list[Ended]:
        """Return what ended."""
        ...

    async def received(self) -> Mapping[ModelId, int]:
        """Return how many calls of a model were let in."""
        ...


class PostgresLastMinute:
    """LastMinute over the facts database."""

    def __init__(self, facts: Database) -> None:
        self._facts = facts

    async def ended(self) -> list[Ended]:
        """Return what ended."""
        return [
            Ended(ModelId(row["model_id"]), row["status_code"], row["milliseconds"] / 1000.0, row["requests"])
            for row in await self._facts.fetch(_SQL["ended"], MAX_ROWS)
        ]

    async def received(self) -> Mapping[ModelId, int]:
        """Return how many calls of a model were let in."""
        rows = await self._facts.fetch(_SQL["received"])
        return {ModelId(row["model_id"]): cast("int", row["requests"]) for row in rows}
