"""Where drills lie, so that workers find them: a port, and its adapter over Postgres. Decides nothing."""

import datetime as dt
from collections.abc import Sequence
from typing import Protocol

import msgspec

from forestay.drills.model import Drill, Sighting
from forestay.storage.postgres import Database, load_queries

MAX_SHOWN = 200
_SQL = load_queries("forestay.drills", "sql/drills.sql")


class DrillStore(Protocol):
    """Drills, and what became of them in replicas."""

    async def start(self, drill: Drill) -> None:
        """Begin one."""
        ...

    async def standing(self, since: dt.datetime) -> list[Drill]:
        """Read those that end after a moment, those begun last first."""
        ...

    async def stop(self, drill_id: str, now: dt.datetime) -> bool:
        """End one; False where it has ended or never was."""
        ...

    async def note(self, seen: Sequence[Sighting]) -> None:
        """Keep what became of drills in replicas."""
        ...

    async def sightings(self, drill_ids: Sequence[str]) -> list[Sighting]:
        """Read what became of these."""
        ...


class PostgresDrills:
    """DrillStore over the tables `drills` and `drill_sightings`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def start(self, drill: Drill) -> None:
        """Begin one."""
        await self._database.execute(
            _SQL["start"], drill.drill_id, drill.fault, drill.model_id, drill.revision_id, drill.worker_id,
            drill.reason, drill.started_by, drill.started_at, drill.ends_at,
        )  # fmt: skip

    async def standing(self, since: dt.datetime) -> list[Drill]:
        """Read those that end after a moment."""
        rows = await self._database.fetch(_SQL["standing"], since, MAX_SHOWN)
        return [msgspec.convert(dict(row), Drill) for row in rows]

    async def stop(self, drill_id: str, now: dt.datetime) -> bool:
        """End one; False where it has ended or never was."""
        return await self._database.fetchrow(_SQL["stop"], drill_id, now) is not None

    async def note(self, seen: Sequence[Sighting]) -> None:
        """Keep what became of drills in replicas."""
        for item in seen:
            await self._database.execute(
                _SQL["note"], item.drill_id, item.replica_id, item.worker_id, item.said, item.at
            )

    async def sightings(self, drill_ids: Sequence[str]) -> list[Sighting]:
        """Read what became of these."""
        rows = await self._database.fetch(_SQL["sightings"], list(drill_ids))
        return [msgspec.convert(dict(row), Sighting) for row in rows]
