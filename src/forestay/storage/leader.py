"""Leader leases: one controller runs a loop at a time, with a term that rises at every change of hand.

It decides who may run a loop now, by the database's clock. The controller's wiring asks before every run; a loop whose
actions could outlive a lease checks its term where it writes.
"""

import dataclasses

from forestay.storage.postgres import Database, load_queries

_SQL = load_queries("forestay.storage", "sql/leader.sql")


@dataclasses.dataclass(frozen=True, slots=True)
class Leadership:
    """The right to run a loop until its lease ends."""

    loop: str
    holder: str
    term: int


class LoopLeaders:
    """Takes and renews the leases of one controller process."""

    def __init__(self, database: Database, holder: str) -> None:
        self._database = database
        self._holder = holder

    async def lead(self, loop: str, lease_seconds: float) -> Leadership | None:
        """Take or renew the lease of `loop`; None while another controller holds it."""
        term = await self._database.fetchval(_SQL["lead"], loop, self._holder, lease_seconds)
        return Leadership(loop, self._holder, term) if isinstance(term, int) else None

    async def resign(self, leadership: Leadership) -> None:
        """Give the lease back at once, so that another controller need not wait for its end."""
        await self._database.execute(_SQL["resign"], leadership.loop, leadership.holder, leadership.term)


async def leaderless(database: Database, seconds: float) -> dict[str, float]:
    """Return the loops that nobody has led for so long, with the seconds since; for alerting."""
    rows = await database.fetch(_SQL["leaderless"], seconds)
    return {str(row["loop"]): float(row["seconds"]) for row in rows}
