"""How the queue stands, for alerting: how long the first request of each model waits, and what is withheld. Read-only.

Decides nothing; it is cheap however long the queue is. Called by alerting.
"""

import dataclasses

from forestay.ids import ModelId
from forestay.storage.postgres import Database, load_queries

_SQL = load_queries("forestay.queue", "sql/health.sql")


@dataclasses.dataclass(frozen=True, slots=True)
class Waiting:
    """The queue of one model: how long its first request waits, and how many wait (counted up to 1,000)."""

    model_id: ModelId
    seconds: float
    requests: int


@dataclasses.dataclass(frozen=True, slots=True)
class Withheld:
    """Outputs that nobody could judge: how many, and how long ago the oldest was submitted."""

    requests: int
    seconds: float


async def read_waiting(database: Database) -> list[Waiting]:
    """Read the queues of all models that have one."""
    rows = await database.fetch(_SQL["waiting"])
    return [Waiting(ModelId(row["model_id"]), float(row["seconds"]), int(row["waiting"])) for row in rows]


async def read_withheld(database: Database) -> Withheld:
    """Read what is withheld."""
    row = await database.fetchrow(_SQL["withheld"])
    return Withheld(0, 0.0) if row is None else Withheld(int(row["requests"]), float(row["seconds"]))
