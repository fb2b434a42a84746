"""Day partitions of what is done: made ahead, dropped when old.

Finished requests and log lines are partitioned by request id; since an id begins with its time, a day is a range of
ids. It decides names and bounds; two functions in the schema carry them out. The retention loop calls it.
"""

import datetime as dt
from collections.abc import Sequence

from forestay.ids import first_request_id_at
from forestay.storage.postgres import Database, load_queries

TABLES = ("finished_requests", "request_logs")
DAYS_AHEAD = 3
_SQL = load_queries("forestay.queue", "sql/partitions.sql")


def days(now: dt.datetime, ahead: int) -> list[dt.datetime]:
    """Return the midnights (UTC) of today and the `ahead` days after it."""
    today = now.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return [today + dt.timedelta(days=day) for day in range(ahead + 1)]


def suffix_of(day: dt.datetime) -> str:
    """Return how the partition of `day` ends: yyyymmdd."""
    return day.strftime("%Y%m%d")


async def make_partitions(database: Database, now: dt.datetime) -> int:
    """Make the missing partitions of today and the coming days; returns how many were made."""
    made = 0
    for table in TABLES:
        for day in days(now, DAYS_AHEAD):
            low, high = first_request_id_at(day), first_request_id_at(day + dt.timedelta(days=1))
            created = await database.fetchval(_SQL["make"], table, suffix_of(day), "request_id", str(low), str(high))
            made += created is True
    return made


async def drop_partitions(database: Database, before: dt.datetime, tables: Sequence[str] = TABLES) -> list[str]:
    """Drop the partitions whose whole day lies before `before`; returns their names."""
    dropped: list[str] = []
    for table in tables:
        rows = await database.fetch(_SQL["drop"], table, suffix_of(before.astimezone(dt.UTC)))
        dropped += [row[0] for row in rows]
    return dropped
