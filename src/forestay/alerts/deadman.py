"""The dead-man's switch: tells an outside watcher that alerting works, while it does. Its silence is the alarm.

It speaks only when alerts were decided within the last few beats and nothing due has waited unsent: the loop that
decides and the loop that sends both live, and the database answers. Called by the controller; the watcher, which pages
when it hears nothing, must not run on what it watches.
"""

import dataclasses
import datetime as dt

from forestay.alerts.postgres_outbox import PostgresOutbox
from forestay.alerts.postgres_store import PostgresAlerts
from forestay.alerts.senders.http import poster
from forestay.clock import Clock
from forestay.delivery.decide import Responded
from forestay.settings import Alerts
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import DEADMAN, Metrics

_BEATS = 4  # decisions that may be missing
_LEAST_SECONDS = 15.0
_UNSENT_SECONDS = 60.0
_log = logger("alerts.deadman")


@dataclasses.dataclass(frozen=True, slots=True)
class Signs:
    """The signs of life: when alerts were last decided, and how much is due that nobody has tried to send."""

    decided_at: dt.datetime | None
    unsent: int


@dataclasses.dataclass(frozen=True, slots=True)
class Speak:
    """Tell the watcher that all is well."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Keep:
    """Say nothing: the watcher shall notice."""

    reason: str


def decide_heartbeat(signs: Signs, beat_seconds: float, now: dt.datetime) -> Speak | Keep:
    """Decide whether alerting works."""
    most = max(_LEAST_SECONDS, _BEATS * beat_seconds)
    if signs.decided_at is None:
        return Keep("alerts were never decided")
    age = (now - signs.decided_at).total_seconds()
    if age > most:
        return Keep(f"alerts were last decided {age:.0f} s ago, more than {most:.0f} s")
    if signs.unsent:
        return Keep(f"{signs.unsent} notifications are due for more than {_UNSENT_SECONDS:.0f} s and were never tried")
    return Speak(f"alerts were decided {max(age, 0.0):.0f} s ago, nothing is stuck")


@dataclasses.dataclass(frozen=True, slots=True)
class Deadman:
    """Speaks to one watcher."""

    store: PostgresAlerts
    outbox: PostgresOutbox
    settings: Alerts
    clock: Clock
    metrics: Metrics

    async def run_once(self) -> int:
        """Look, and speak if all is well; returns whether the watcher heard it."""
        now = self.clock.now()
        stuck = await self.outbox.stuck(now - dt.timedelta(seconds=_UNSENT_SECONDS))
        decided = decide_heartbeat(Signs(await self.store.decided_at(), stuck), self.settings.beat_seconds, now)
        if isinstance(decided, Keep):
            self.metrics.add(DEADMAN, "kept")
            _log.error("deadman.silent", reason=decided.reason)
            return 0
        async with poster(self.clock, self.settings.timeout_seconds) as posting:
            outcome = await posting.post(self.settings.deadman_url, b'{"status":"alive"}', {})
        heard = isinstance(outcome, Responded) and 200 <= outcome.status_code < 300
        self.metrics.add(DEADMAN, "heard" if heard else "unheard")
        if not heard:
            said = f"answered {outcome.status_code}" if isinstance(outcome, Responded) else outcome.reason
            _log.warning("deadman.unheard", reason=said)
        return int(heard)
