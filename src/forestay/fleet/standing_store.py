"""The port of standings and appeals: what people read and ask about them. Setting and lifting go through `fleet/apply`.

An appeal is made by the caller (or by a person for them) and decided by another: a person with an ADMIN key. It
decides nothing. Called by the admin API, the caller's own routes and the abuse loop.
"""

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import Protocol

from forestay.fleet.standing import Standing


@dataclasses.dataclass(frozen=True, slots=True)
class Ending:
    """How a standing ended."""

    at: dt.datetime
    how: str  # expired | replaced | lifted
    by: str
    why: str


@dataclasses.dataclass(frozen=True, slots=True)
class StandingRow:
    """A standing with its end, None while it is in force."""

    standing: Standing
    ending: Ending | None


@dataclasses.dataclass(frozen=True, slots=True)
class Appeal:
    """A caller's word against a standing."""

    appeal_id: str
    standing_id: str
    subject: str
    made_at: dt.datetime
    made_by: str  # caller:<key id> | human:<key id>
    words: str
    state: str  # open | granted | denied | moot
    decided_at: dt.datetime | None = None
    decided_by: str | None = None
    decision: str | None = None


class StandingStore(Protocol):
    """Standings as people read them."""

    async def rows(self, *, subject: str | None, ended: bool, limit: int) -> list[StandingRow]:
        """Read standings, newest first; with `ended` those that are over too."""
        ...

    async def find(self, standing_id: str) -> StandingRow | None:
        """Read one."""
        ...

    async def advised(self, *, limit: int) -> Sequence[dict[str, object]]:
        """Read what automation would have set, or was held from setting, newest first."""
        ...

    async def appeal(self, standing_id: str, words: str, *, actor: str) -> Appeal | None:
        """Make an appeal; the one that is open already is returned as it is; None when the standing is over."""
        ...

    async def appeals(self, *, state: str | None, standing_id: str | None, limit: int) -> list[Appeal]:
        """Read appeals, newest first; None means in every state, against every standing."""
        ...

    async def deny(self, appeal_id: str, decision: str, *, actor: str) -> Appeal | None:
        """Turn an open appeal down; None when there is none. Granting one is lifting the standing."""
        ...

    async def expire(self) -> int:
        """End the standings whose time is over; returns how many."""
        ...
