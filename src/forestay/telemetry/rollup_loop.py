"""Rolls facts up by minute, once each minute is over and again when facts of it come late. Run by the controller.

Whole minutes are made anew from their facts in one transaction, so running twice, or after a crash, changes nothing. It
decides which minutes are due (`decide_complete` and the notes in `rollup_open`); what is counted is in `rollups`. A
minute is complete once it is over, its facts have left the outbox, and no earlier minute is open.
"""

import asyncio
import dataclasses
import datetime as dt
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import cast

import msgspec

from forestay.clock import Clock
from forestay.storage.postgres import Connection, Database, load_queries
from forestay.telemetry.measures import Fact
from forestay.telemetry.metrics import ROLLUP_LAG_SECONDS, Metrics
from forestay.telemetry.rollups import (
    Tallies,
    add_attempts,
    add_deliveries,
    add_judgements,
    add_polls,
    add_requests,
    add_submits,
    minute_of,
)

BATCH = 60  # minutes of one run
SETTLE_SECONDS = 3.0  # what gateways keep for their next round is written within a second
_PAGE = 5_000
_READER = "rollups"
_SOURCES = (("facts", _READER), ("calls", "rollups_calls"), ("verdicts", "rollups_verdicts"))
_MINUTE = dt.timedelta(minutes=1)
_SQL = load_queries("forestay.telemetry", "sql/rollups.sql")
_NOTHING = uuid.UUID(int=0)


@dataclasses.dataclass(frozen=True, slots=True)
class OutboxState:
    """What waits in the outbox at a moment of its database's clock."""

    now: dt.datetime
    oldest: int | None
    newest: int | None


def decide_complete(before: OutboxState | None, current: OutboxState) -> dt.datetime | None:
    """Decide until when everything that ended has left the outbox; None when that cannot be told yet.

    An empty outbox says: until now. Otherwise what was in it at an earlier look has gone if only younger batches are
    left, and everything is there that ended before that look.
    """
    if current.oldest is None:
        return current.now
    if before is not None and (before.newest is None or current.oldest > before.newest):
        return before.now
    return None


class RollupLoop:
    """One run after another over the facts database; `main` is where the outbox is."""

    def __init__(self, main: Database, facts: Database, clock: Clock, metrics: Metrics) -> None:
        self._main = main
        self._facts = facts
        self._clock = clock
        self._metrics = metrics
        self._before: OutboxState | None = None

    async def run_once(self) -> int:
        """Roll up what is due; returns how many minutes."""
        complete = await self._complete()
        async with self._facts.transaction() as connection:
            for source, reader in _SOURCES:
                await self._note_fresh(connection, source, reader)
            due = await connection.fetch(_SQL["due"], minute_of(complete), BATCH)
            minutes = sorted(cast("dt.datetime", row["minute"]) for row in due)
            for minute in minutes:
                await _roll(connection, minute)
            until = minute_of(complete) if len(minutes) < BATCH else minutes[-1] + _MINUTE
            await self._note_complete(connection, until)
        return len(minutes)

    async def reopen(self, since: dt.datetime, until: dt.datetime) -> None:
        """Have the minutes between two moments rolled up again, for facts that were written before roll-ups were."""
        await self._facts.execute(_SQL["reopen"], since, until)

    async def _complete(self) -> dt.datetime:
        """Return until when everything that ended is written; far back when that cannot be told yet."""
        row = await self._main.fetchrow(_SQL["outbox_state"])
        if row is None:
            raise ValueError("an aggregate without a group gave no row")
        current = OutboxState(row["now"], row["oldest"], row["newest"])
        complete = decide_complete(self._before, current)
        if complete is None:
            self._before = self._before or current
            return dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
        self._before = current
        return complete - dt.timedelta(seconds=SETTLE_SECONDS)

    async def _note_fresh(self, connection: Connection, source: str, reader: str) -> None:
        """Open the minutes of what was written since the last run."""
        place = await connection.fetchrow(_SQL["reader"], reader)
        head = await connection.fetchval(_SQL[f"head_of_{source}"])
        position = 0 if place is None else cast("int", place["position"])
        if isinstance(head, int) and head > position:
            await connection.execute(_SQL[f"open_of_{source}"], position, head)
            await connection.execute(_SQL["moved"], reader, head)

    async def _note_complete(self, connection: Connection, until: dt.datetime) -> None:
        """Move the mark on, never back; once a minute, so that an idle platform writes little."""
        place = await connection.fetchrow(_SQL["reader"], _READER)
        known = None if place is None else cast("dt.datetime | None", place["complete_until"])
        if until.year > 1970 and (known is None or until > known):
            await connection.execute(_SQL["complete"], _READER, until)
            known = until
        if known is not None:
            self._metrics.set(ROLLUP_LAG_SECONDS, (self._clock.now() - known).total_seconds())


async def _roll(connection: Connection, minute: dt.datetime) -> None:
    """Make one minute anew from its facts."""
    tallies: Tallies = {}
    async for page in _pages(connection, "requests", minute):
        found = await connection.fetch(_SQL["judged"], [fact["request_id"] for fact in page])
        await asyncio.to_thread(add_requests, tallies, page, frozenset(row[0] for row in found))
    adders: Sequence[tuple[str, Callable[[Tallies, Sequence[Fact]], None]]] = (
        ("attempts", add_attempts),
        ("deliveries", add_deliveries),
        ("submits", add_submits),
        ("polls", add_polls),
        ("judgements", add_judgements),
    )
    for query, add in adders:
        async for page in _pages(connection, query, minute):
            await asyncio.to_thread(add, tallies, page)
    rows = [tally.row(group) for group, tally in sorted(tallies.items())]
    await connection.execute(_SQL["forget_minute"], minute)
    if rows:
        await connection.execute(_SQL["keep"], msgspec.json.encode(rows).decode())
    await connection.execute(_SQL["rolled"], minute)


async def _pages(connection: Connection, query: str, minute: dt.datetime) -> AsyncGenerator[Sequence[Fact]]:
    at, key = minute - dt.timedelta(microseconds=1), _NOTHING
    while True:
        page = cast("list[Fact]", await connection.fetch(_SQL[query], minute, minute + _MINUTE, at, key, _PAGE))
        if page:
            yield page
        if len(page) < _PAGE:
            return
        at, key = cast("dt.datetime", page[-1]["finished_at"]), cast("uuid.UUID", page[-1]["request_id"])


async def keep_partitions(facts: Database, clock: Clock, retention_seconds: float) -> int:
    """Make the partitions of this month and the next, drop those past their time; the controller's loop calls it."""
    now = clock.now().astimezone(dt.UTC)
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    old = (now - dt.timedelta(seconds=retention_seconds)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    changed = len(await facts.fetch(_SQL["drop_partitions"], old.strftime("%Y%m%d")))
    await facts.execute(_SQL["forget_minutes"], old)
    for _ in range(2):
        after = (first + dt.timedelta(days=32)).replace(day=1)
        made = await facts.fetchval(
            _SQL["make_partition"], first.strftime("%Y%m%d"), first.isoformat(), after.isoformat()
        )
        changed += made is True
        first = after
    return changed
