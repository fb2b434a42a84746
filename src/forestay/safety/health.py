"""How judging stands, for alerting: how many judgements were made of late, and how many could not be. Read-only.

Decides nothing. Called by alerting.
"""

import dataclasses
import datetime as dt
from typing import cast

from forestay.storage.postgres import Database, load_queries

_SQL = load_queries("forestay.safety", "sql/health.sql")


@dataclasses.dataclass(frozen=True, slots=True)
class Judged:
    """Judgements since a moment; `models` and `tenants` are those that an inconclusive one was about."""

    judged: int
    unjudged: int
    models: int
    tenants: int
    first_at: dt.datetime | None

    @property
    def unjudged_ratio(self) -> float:
        """Return the share that could not be made, 0 where nothing was judged."""
        return self.unjudged / self.judged if self.judged else 0.0


async def read_judged(facts: Database, since: dt.datetime) -> Judged:
    """Count the judgements since then."""
    row = await facts.fetchrow(_SQL["judged"], since)
    if row is None:
        return Judged(0, 0, 0, 0, None)
    first = cast("dt.datetime | None", row["first_at"])
    return Judged(int(row["judged"]), int(row["unjudged"]), int(row["models"]), int(row["tenants"]), first)
