"""Where the quality loop keeps its state, and what it holds back: ports, and their adapter over Postgres.

It decides nothing. A hold says that a worker runs no replica of a revision, or no more than it has left;
`capacity/placement` reads holds, `loop` and a person write them, a passed self-test or a person lifts them.
"""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from forestay.ids import ModelId, ReplicaId, RevisionId, WorkerId
from forestay.storage.postgres import Database, load_queries

_SQL = load_queries("forestay.quality", "sql/watch.sql")


@dataclasses.dataclass(frozen=True, slots=True)
class Hold:
    """A worker that gets no replica of a revision until a self-test has passed; `alone`: it keeps those that it has.

    One without a finding was asked for by a person, and ends by a person's word alone.
    """

    worker_id: WorkerId
    revision_id: RevisionId
    model_id: ModelId
    replica_id: ReplicaId  # the one that was found bad
    finding_id: str
    reason: str
    held_at: dt.datetime
    lifted_at: dt.datetime | None = None
    lifted_for: str = ""
    alone: bool = False  # of this replica alone: its siblings on the worker serve on
    replicas: int = 1  # how many were taken away
    given_back: bool = False  # they are wanted again

    @property
    def by_person(self) -> bool:
        """Tell whether a person drained it: no self-test ends what a person wants."""
        return not self.finding_id


class WatchStore(Protocol):
    """State in parts."""

    async def load(self) -> Mapping[str, bytes]:
        """Read all parts; empty when there are none."""
        ...

    async def meta(self) -> bytes | None:
        """Read the part that says how far the state goes."""
        ...

    async def save(self, parts: Mapping[str, bytes], gone: Sequence[str]) -> None:
        """Write parts and remove others, all or none."""
        ...


class HoldStore(Protocol):
    """What is held back."""

    async def holds(self, since: dt.datetime | None = None) -> list[Hold]:
        """Read what is held back now, and what was lifted at `since` or later."""
        ...

    async def hold(self, hold: Hold) -> None:
        """Hold a replica, or all of a revision on a worker, back."""
        ...

    async def give_back(self, worker_id: WorkerId, revision_id: RevisionId) -> None:
        """Note that what was held back there, and is not any more, is wanted again."""
        ...

    async def lift(self, worker_id: WorkerId, revision_id: RevisionId, now: dt.datetime, reason: str) -> bool:
        """End it; False where nothing was held back."""
        ...


class PostgresWatch:
    """WatchStore and HoldStore over the tables `quality_watch` and `quality_holds`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> Mapping[str, bytes]:
        """Read all parts."""
        return {str(row["part"]): bytes(row["data"]) for row in await self._database.fetch(_SQL["load"])}

    async def meta(self) -> bytes | None:
        """Read the part that says how far the state goes."""
        row = await self._database.fetchrow(_SQL["meta"])
        return None if row is None else bytes(row["data"])

    async def save(self, parts: Mapping[str, bytes], gone: Sequence[str]) -> None:
        """Write parts and remove others, all or none."""
        async with self._database.transaction() as connection:
            await connection.executemany(_SQL["save"], sorted(parts.items()))
            if gone:
                await connection.execute(_SQL["drop"], list(gone))

    async def holds(self, since: dt.datetime | None = None) -> list[Hold]:
        """Read what is held back now, and what was lifted at `since` or later."""
        latest = since or dt.datetime.max.replace(tzinfo=dt.UTC)
        return [msgspec.convert(dict(row), Hold) for row in await self._database.fetch(_SQL["holds"], latest)]

    async def hold(self, hold: Hold) -> None:
        """Hold a replica, or all of a revision on a worker, back."""
        await self._database.execute(
            _SQL["hold"], hold.worker_id, hold.revision_id, hold.model_id, hold.replica_id, hold.finding_id,
            hold.reason, hold.held_at, hold.alone, hold.replicas,
        )  # fmt: skip

    async def give_back(self, worker_id: WorkerId, revision_id: RevisionId) -> None:
        """Note that what was held back there, and is not any more, is wanted again."""
        await self._database.execute(_SQL["give_back"], worker_id, revision_id)

    async def lift(self, worker_id: WorkerId, revision_id: RevisionId, now: dt.datetime, reason: str) -> bool:
        """End it; False where nothing was held back."""
        return await self._database.fetchrow(_SQL["lift"], worker_id, revision_id, now, reason) is not None

    async def forget(self, before: dt.datetime) -> None:
        """Remove what was lifted before then."""
        await self._database.execute(_SQL["forget_holds"], before)
