"""Conditions of SLOs: what burns so that somebody must know, in the words of the decision that found it.

`conditions_of` is pure. Whether an SLO burns was decided by the loop that watches them; where that has not run for long
this source is silent, so that nobody takes a burning SLO for a kept one.
"""

import datetime as dt
from collections.abc import Sequence

from forestay.alerts.catalogue import SLO
from forestay.alerts.model import Condition, Severity
from forestay.errors import Unavailable
from forestay.slo.decide import Kind
from forestay.slo.postgres_store import Kept, PostgresSloStandings
from forestay.storage.postgres import Database

STALE_SECONDS = 600.0
_MINUTE_SECONDS = 60.0


def conditions_of(kept: Sequence[Kept], now: dt.datetime) -> list[Condition]:
    """Return what holds."""
    return [made for one in kept if (made := _condition(one, now)) is not None]


def _condition(kept: Kept, now: dt.datetime) -> Condition | None:
    standing, said = kept.standing, kept.standing.urgent
    if said is None:
        return None
    since = now if standing.since is None else dt.datetime.fromtimestamp(standing.since * _MINUTE_SECONDS, dt.UTC)
    facts = {"burn_rate": round(said.burn_rate, 3), "events": standing.events, "bad": standing.bad}
    facts |= {} if standing.left_ratio is None else {"budget_left": round(standing.left_ratio, 4)}
    facts |= {} if standing.minutes_to_empty is None else {"minutes_to_empty": round(standing.minutes_to_empty)}
    return Condition(
        source=SLO,
        subject=standing.subject,
        name="slo_burns",
        severity=Severity.PAGE if said.kind == Kind.PAGE else Severity.TICKET,
        since=since,
        summary=said.reason,
        owner=standing.owner,
        labels={"slo": standing.slo_id, "measure": standing.measure},
        facts=facts,
        magnitude=said.burn_rate,
        part=standing.slo_id,
    )


class SloSource:
    """Reads what the loop has kept."""

    def __init__(self, database: Database) -> None:
        self._standings = PostgresSloStandings(database)

    @property
    def name(self) -> str:
        """Return the source's name."""
        return SLO

    async def conditions(self, now: dt.datetime) -> Sequence[Condition]:
        """Return what holds now; raises Unavailable when the SLOs have not been looked at for long."""
        kept = await self._standings.all()
        newest = max((one.kept_at for one in kept), default=None)
        if newest is not None and (now - newest).total_seconds() > STALE_SECONDS:
            raise Unavailable(f"no SLO has been looked at since {newest:%H:%M} UTC")
        return conditions_of(kept, now)
