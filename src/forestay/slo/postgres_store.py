"""How SLOs stand, in Postgres: written by the loop that watches them, read by people and alerting. Decides nothing."""

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import Protocol, cast

import msgspec

from forestay.slo.slo_folder import FileRead
from forestay.slo.standing import Standing
from forestay.storage.postgres import Database, Record, load_queries

MAX_STANDINGS = 10_000
_SQL = load_queries("forestay.slo", "sql/standings.sql")


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """A standing and when it was written."""

    standing: Standing
    kept_at: dt.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class FileTold:
    """What was last told of a file of SLOs."""

    name: str
    slos: int
    faults: tuple[str, ...]
    read_at: dt.datetime


class SloReader(Protocol):
    """Where people read how SLOs stand."""

    async def all(self) -> list[Kept]:
        """Read all of them, in order of their ids."""
        ...

    async def one(self, slo_id: str) -> Kept | None:
        """Read one of them; None where there is none."""
        ...

    async def files(self) -> list[FileTold]:
        """Read what is told of the files of SLOs, in order of their names."""
        ...


class SloStandings(Protocol):
    """Where standings are kept."""

    async def keep(self, standings: Sequence[Standing], now: dt.datetime) -> None:
        """Replace all of them."""
        ...


class PostgresSloStandings:
    """SloStandings, SloReader and SloFilesTold over the tables `slo_standings` and `slo_files`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, standings: Sequence[Standing], now: dt.datetime) -> None:
        """Replace all of them."""
        await self._database.execute(_SQL["keep"], msgspec.json.encode(standings).decode(), now)

    async def all(self) -> list[Kept]:
        """Read all of them, in order of their ids."""
        return [_kept(row) for row in await self._database.fetch(_SQL["all"], MAX_STANDINGS)]

    async def one(self, slo_id: str) -> Kept | None:
        """Read one of them; None where there is none."""
        row = await self._database.fetchrow(_SQL["one"], slo_id)
        return None if row is None else _kept(row)

    async def tell_files(self, files: Sequence[FileRead]) -> None:
        """Replace what is told of files."""
        told = [{"name": file.name, "slos": len(file.slos), "faults": list(file.faults)} for file in files]
        await self._database.execute(_SQL["tell_files"], msgspec.json.encode(told).decode())

    async def files(self) -> list[FileTold]:
        """Read what is told of the files of SLOs, in order of their names."""
        return [
            FileTold(
                cast("str", row["name"]),
                cast("int", row["slos"]),
                tuple(cast("list[str]", row["faults"])),
                cast("dt.datetime", row["read_at"]),
            )
            for row in await self._database.fetch(_SQL["files"])
        ]


def _kept(row: Record) -> Kept:
    standing = msgspec.json.decode(cast("str", row["standing"]), type=Standing)
    return Kept(standing, cast("dt.datetime", row["kept_at"]))
