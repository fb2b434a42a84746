"""Tables cut by day: partitions of the coming days are made, those past their time are dropped whole.

Which table, and what its statements say, is its owner's; so is the rhythm. Called by the facts of calls, of outputs and
of verdicts.
"""

import datetime as dt
from collections.abc import Mapping

from forestay.storage.postgres import Database

DAYS_AHEAD = 3


async def keep_days(database: Database, queries: Mapping[str, str], now: dt.datetime, retention_seconds: float) -> int:
    """Run a table's `drop_partitions` (before a day) and `make_partition` (a day, bounds); return how many changed."""
    now = now.astimezone(dt.UTC)
    before = (now - dt.timedelta(seconds=retention_seconds)).strftime("%Y%m%d")
    changed = len(await database.fetch(queries["drop_partitions"], before))
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    for offset in range(DAYS_AHEAD + 1):
        day = today + dt.timedelta(days=offset)
        bounds = (day.isoformat(), (day + dt.timedelta(days=1)).isoformat())
        changed += await database.fetchval(queries["make_partition"], day.strftime("%Y%m%d"), *bounds) is True
    return changed
