"""Conditions of judging: content that nobody can judge, and finished outputs that wait for a verdict.

`conditions_of` is pure: thresholds on what `safety/health` and `queue/health` read.
"""

import dataclasses
import datetime as dt
from collections.abc import Sequence

from forestay.alerts.catalogue import SAFETY
from forestay.alerts.model import Condition, Severity
from forestay.queue.health import Withheld, read_withheld
from forestay.safety.health import Judged, read_judged
from forestay.storage.postgres import Database

WINDOW = dt.timedelta(minutes=5)
LEAST_JUDGED = 5  # fewer judgements say nothing about a share
TICKET_RATIO = 0.05
PAGE_RATIO = 0.5
TICKET_SECONDS = 900.0
PAGE_SECONDS = 3_600.0


def conditions_of(judged: Judged, withheld: Withheld, now: dt.datetime) -> list[Condition]:
    """Return what holds."""
    found: list[Condition] = []
    ratio = judged.unjudged_ratio
    if judged.judged >= LEAST_JUDGED and ratio >= TICKET_RATIO:
        found.append(
            Condition(
                source=SAFETY,
                subject="platform",
                name="safety_unjudged",
                severity=Severity.PAGE if ratio >= PAGE_RATIO else Severity.TICKET,
                since=judged.first_at or now,
                summary=(
                    f"{judged.unjudged} of {judged.judged} judgements of the last 5 minutes ({ratio:.0%}) could not be "
                    f"made: callers of {judged.models} models ({judged.tenants} tenants) do not get what was not judged"
                ),
                facts={"unjudged": judged.unjudged, "judged": judged.judged, "models": judged.models},
                magnitude=ratio,
            )
        )
    if withheld.requests and withheld.seconds >= TICKET_SECONDS:
        minutes = withheld.seconds / 60
        found.append(
            Condition(
                source=SAFETY,
                subject="platform",
                name="outputs_withheld",
                severity=Severity.PAGE if withheld.seconds >= PAGE_SECONDS else Severity.TICKET,
                since=now - dt.timedelta(seconds=withheld.seconds),
                summary=f"{withheld.requests} outputs are withheld; the oldest request is {minutes:.0f} min old",
                facts={"withheld": withheld.requests, "oldest_seconds": round(withheld.seconds)},
                magnitude=withheld.requests,
            )
        )
    return found


@dataclasses.dataclass(frozen=True, slots=True)
class SafetySource:
    """Asks the facts and the queue."""

    database: Database
    facts: Database

    @property
    def name(self) -> str:
        """Return the source's name."""
        return SAFETY

    async def conditions(self, now: dt.datetime) -> Sequence[Condition]:
        """Return what holds now."""
        judged = await read_judged(self.facts, now - WINDOW)
        return conditions_of(judged, await read_withheld(self.database), now)
