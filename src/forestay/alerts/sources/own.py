"""Conditions of alerting itself: sources that cannot be asked, a broken file of routes, receivers that are dead.

What alerting cannot say of itself, because it does not run, an outside dead-man's switch says (`deadman`).
"""

import datetime as dt
from collections.abc import Mapping, Sequence

from forestay.alerts.catalogue import ALERTS
from forestay.alerts.model import Condition, Severity
from forestay.alerts.postgres_outbox import PostgresOutbox

WINDOW = dt.timedelta(hours=1)
SILENT_SECONDS = 120.0


class OwnSource:
    """Knows what the alert loop noted, and asks the outbox."""

    def __init__(self, outbox: PostgresOutbox) -> None:
        self._outbox = outbox
        self.silent_since: dict[str, dt.datetime] = {}  # source -> since when it cannot be asked
        self.broken_file = ""  # what is wrong with the file of routes; the last good one is in force

    @property
    def name(self) -> str:
        """Return the source's name."""
        return ALERTS

    async def conditions(self, now: dt.datetime) -> Sequence[Condition]:
        """Return what holds now."""
        dead = await self._outbox.dead_since(now - WINDOW)
        return conditions_of(self.silent_since, self.broken_file, dead, now)


def conditions_of(
    silent_since: Mapping[str, dt.datetime], broken_file: str, dead: Mapping[str, int], now: dt.datetime
) -> list[Condition]:
    """Return what holds."""
    found = [
        Condition(
            source=ALERTS, subject=f"source:{source}", name="alert_source_silent", severity=Severity.TICKET,
            since=since,
            summary=f"nothing is known of {source} since {since:%H:%M} UTC: its alerts neither open nor end",
        )
        for source, since in sorted(silent_since.items())
        if (now - since).total_seconds() >= SILENT_SECONDS
    ]  # fmt: skip
    if broken_file:
        found.append(Condition(
            source=ALERTS, subject="platform", name="alert_routes_broken", severity=Severity.TICKET, since=now,
            summary=f"the file of routes cannot be read, the former one stays in force: {broken_file}",
        ))  # fmt: skip
    found += [
        Condition(
            source=ALERTS, subject=f"receiver:{receiver}", name="notifications_dead", severity=Severity.TICKET,
            since=now,
            summary=f"{count} notifications to {receiver} were given up within the hour: its readers were not told",
            facts={"dead": count}, magnitude=count,
        )
        for receiver, count in sorted(dead.items())
    ]  # fmt: skip
    return found
