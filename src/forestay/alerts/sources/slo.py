"""Conditions of SLOs: what burns so that somebody must know, in the words of the decision that found it.

`conditions_of` is pure. Whether an SLO burns was decided by the loop that watches them; where that has not run for long
this source is silent, so that nobody takes a burning SLO for a kept one. A composite names in a label the burning part
that hurts it most, among those that ask for as much of people: while that one is told, the composite is held back
(`rules.PART_FIRST`), since it is the same harm.
"""

import datetime as dt
from collections.abc import Mapping, Sequence

from forestay.alerts.catalogue import SLO
from forestay.alerts.model import Condition, Severity
from forestay.errors import Unavailable
from forestay.slo.decide import Kind
from forestay.slo.model import SubjectKind
from forestay.slo.postgres_store import Kept, PostgresSloStandings
from forestay.slo.standing import Standing
from forestay.storage.postgres import Database

STALE_SECONDS = 600.0
_MINUTE_SECONDS = 60.0


def conditions_of(kept: Sequence[Kept], now: dt.datetime) -> list[Condition]:
    """Return what holds."""
    burning = {one.standing.slo_id: said.kind for one in kept if (said := one.standing.urgent) is not None}
    return [made for one in kept if (made := _condition(one, now, burning)) is not None]


def _condition(kept: Kept, now: dt.datetime, burning: Mapping[str, str]) -> Condition | None:
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
        labels={"slo": standing.slo_id, "measure": standing.measure, **_hurting(standing, said.kind, burning)},
        facts=facts,
        magnitude=said.burn_rate,
        part=standing.slo_id,
    )


def _hurting(standing: Standing, kind: str, burning: Mapping[str, str]) -> dict[str, str]:
    """Return the SLO whose harm it is: its own, or of a composite that of the burning part which hurts it most."""
    if standing.subject != SubjectKind.COMPOSITE:
        return {"hurting": standing.slo_id}
    as_bad = {Kind.PAGE.value} if kind == Kind.PAGE else {Kind.PAGE.value, Kind.TICKET.value}
    found = [part.slo_id for part in standing.parts if burning.get(part.slo_id) in as_bad]
    return {"hurting": found[0]} if found else {}


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
