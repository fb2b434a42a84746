"""How everything that we released looks, in Postgres: kept by the picture, found by likeness or by watermark.

A fingerprint is a PDQ hash with request, model, revision, media and time: no picture, prompt or caller. It holds when
manifest and watermark are gone, as after a screenshot. The search is exact within 31 bits by the same pigeonhole as
the index of banks, inside the database: no memory is taken elsewhere. Called by `stamp` and `made`.
"""

# The driver's pooled connection is partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import dataclasses
from collections.abc import Sequence

from forestay.errors import UsageError
from forestay.safety.hashes.pdq import Hash
from forestay.safety.hashes.segment import MAX_RADIUS
from forestay.safety.provenance.manifest import Made
from forestay.storage.postgres import Database, Record, load_queries

_SQL = load_queries("forestay.safety.provenance", "sql/fingerprints.sql")
_PARTS, _PART_BITS = 16, 16
MOST = 20


@dataclasses.dataclass(frozen=True, slots=True)
class Fingerprint:
    """How one picture, or one frame of a film, looks."""

    made: Made
    hash: Hash
    place: str = ""  # "" for a picture, "frame 12" of a film
    mark_id: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Alike:
    """Something that we released, and how far it is from what was asked about."""

    made: Made
    place: str
    distance: int
    quality: int


class PostgresFingerprints:
    """Fingerprints over the table of that name."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, fingerprints: Sequence[Fingerprint]) -> None:
        """Keep them, all or none; what is kept already stays as it is."""
        await self._database.executemany(
            _SQL["insert"],
            [
                (
                    one.hash.value.to_bytes(32), one.hash.quality, one.made.request_id, one.made.model_id,
                    one.made.revision_id, one.made.media_id, one.place, one.mark_id, one.made.made_at,
                )
                for one in fingerprints
            ],
        )  # fmt: skip

    async def near(self, value: int, radius: int = MAX_RADIUS) -> Sequence[Alike]:
        """Return the twenty nearest within `radius` bits (0 to 31)."""
        if not 0 <= radius <= MAX_RADIUS:
            raise UsageError("radius", f"must be 0 to {MAX_RADIUS} bits")
        rows = await self._database.fetch(_SQL["near"], value.to_bytes(32), tokens_near(value), radius, MOST)
        return [_alike(row) for row in rows]

    async def by_mark(self, mark_id: int) -> Sequence[Alike]:
        """Return what was released with a watermark."""
        return [_alike(row) for row in await self._database.fetch(_SQL["by_mark"], mark_id, MOST)]

    async def forget(self, older_than_seconds: float, limit: int) -> int:
        """Delete what was made longer ago than that, at most `limit`; returns how many."""
        return len(await self._database.fetch(_SQL["forget"], older_than_seconds, limit))


def tokens_near(value: int) -> list[int]:
    """Return each of the sixteen parts of a hash with at most one bit turned, named as the index names them."""
    octets = value.to_bytes(32)
    parts = [int.from_bytes(octets[2 * place : 2 * place + 2]) for place in range(_PARTS)]
    turns = [0, *(1 << bit for bit in range(_PART_BITS))]
    return [place << _PART_BITS | part ^ turn for place, part in enumerate(parts) for turn in turns]


def _alike(row: Record) -> Alike:
    made = Made(
        str(row["request_id"]), str(row["model_id"]), str(row["revision_id"]), str(row["media_id"]), row["made_at"]
    )
    return Alike(made, str(row["place"]), int(row["distance"]), int(row["quality"]))
