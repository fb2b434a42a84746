"""How delivery of webhooks stands: what was given up lately, and how long the oldest one is overdue. Read-only.

Decides nothing. Called by alerting.
"""

import dataclasses
import datetime as dt
from typing import cast

from forestay.storage.postgres import Database, load_queries

_SQL = load_queries("forestay.delivery", "sql/health.sql")


@dataclasses.dataclass(frozen=True, slots=True)
class DeliveryHealth:
    """Counts and ages; `dead` and `tenants` of what was made within the asked time."""

    dead: int
    tenants: int
    overdue_seconds: float


async def read_health(database: Database, since: dt.datetime) -> DeliveryHealth:
    """Read how webhooks made since then, and those that wait, stand."""
    row = await database.fetchrow(_SQL["health"], since)
    if row is None:
        return DeliveryHealth(0, 0, 0.0)
    oldest = cast("dt.datetime | None", row["oldest_due_at"])
    overdue = 0.0 if oldest is None else max(0.0, (row["now"] - oldest).total_seconds())
    return DeliveryHealth(int(row["dead"]), int(row["tenants"]), overdue)
