"""The alert loop: asks every source, decides, writes what follows with its notifications in one transaction.

It decides nothing by itself (`decide` does) and sends nothing (`notify` does). A source that fails or does not answer
in time is silent: its alerts stay as they are. The file of routes is read anew when it changes; a broken one is an
alert, and the former stays in force. Called by the controller under the loop's lease; a decision on stale ground is
not written.
"""

import asyncio
import collections
import dataclasses
import datetime as dt
from collections.abc import Callable, Sequence

from forestay.alerts.actions import Action, Notify, applied
from forestay.alerts.body import message_of
from forestay.alerts.decide import decide_alerts
from forestay.alerts.model import AlertState, Condition, Observed, Severity, State
from forestay.alerts.postgres_store import PostgresAlerts
from forestay.alerts.receivers import Routing
from forestay.alerts.rules_file import faults_of, file_stamp, load_routing
from forestay.alerts.sources import Source
from forestay.alerts.sources.own import OwnSource
from forestay.alerts.store import Message
from forestay.clock import Clock
from forestay.errors import ForestayError, UsageError
from forestay.storage.valkey import Wakeups
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import ALERT_ACTIONS, ALERT_SOURCE_FAILURES, ALERTS_OPEN, Metrics

CHANNEL = "forestay:alerts"  # something waits to be sent
SOURCE_SECONDS = 10.0
_log = logger("alerts")


class Routes:
    """The routing in force, read anew when its file changes."""

    def __init__(self, path: str, check: Callable[[Routing], None]) -> None:
        self._path = path
        self._check = check
        self._stamp = file_stamp(path)
        self.current = load_routing(path)  # raises UsageError: a controller does not start on a broken file
        check(self.current)

    def follow(self) -> str | None:
        """Read the file if it changed; returns what is wrong with it, empty when it is good, None when unchanged."""
        stamp = file_stamp(self._path)
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        try:
            routing = load_routing(self._path)
            self._check(routing)
        except UsageError as error:
            return "; ".join(faults_of(error))[:400]
        self.current = routing
        return ""

    def newest(self) -> Routing:
        """Return the routing in force, after a look at the file."""
        self.follow()
        return self.current


@dataclasses.dataclass(frozen=True, slots=True)
class AlertPorts:
    """What the loop may use of the world."""

    store: PostgresAlerts
    sources: Sequence[Source]
    own: OwnSource
    routes: Routes
    wakeups: Wakeups
    clock: Clock
    metrics: Metrics
    runbook_base: str = ""


class AlertLoop:
    """One controller's look at its sources."""

    def __init__(self, ports: AlertPorts) -> None:
        self._ports = ports
        self._told_routes = False

    async def run_once(self) -> int:
        """Look, decide and write once; returns how many actions were written."""
        ports = self._ports
        await self._follow_routes()
        observed = await self._observe()
        now = ports.clock.now()
        held = await ports.store.load(now)
        rules = ports.routes.current.rules
        actions = decide_alerts(held.state, observed, held.silences, rules, now)
        messages = messages_of(actions, ports.runbook_base)
        if not await ports.store.commit(held, actions, messages, now):
            _log.warning("alerts.overtaken", version=held.version)
            return 0
        self._tell(actions, applied(held.state, actions))
        if messages:
            await ports.wakeups.publish(CHANNEL, "due")
        return len(actions)

    async def _follow_routes(self) -> None:
        said = self._ports.routes.follow()
        if said is not None:
            self._ports.own.broken_file = said
            self._told_routes = False
            _log.info("alerts.routes_read", broken=bool(said))
        if not self._told_routes:
            await self._ports.store.tell_routes(self._ports.routes.current.shown())
            self._told_routes = True

    async def _observe(self) -> Observed:
        now = self._ports.clock.now()
        everyone = [*self._ports.sources, self._ports.own]
        answers = await asyncio.gather(*(self._ask(source, now) for source in everyone))
        found: list[Condition] = []
        silent: set[str] = set()
        for source, answer in zip(everyone, answers, strict=True):
            if answer is None:
                silent.add(source.name)
                self._ports.own.silent_since.setdefault(source.name, now)
            else:
                self._ports.own.silent_since.pop(source.name, None)
                found += answer
        return Observed(tuple(found), frozenset(silent))

    async def _ask(self, source: Source, now: dt.datetime) -> Sequence[Condition] | None:
        try:
            async with asyncio.timeout(SOURCE_SECONDS):
                found = await source.conditions(now)
        except TimeoutError:
            reason = f"no answer within {SOURCE_SECONDS:g} s"
        except ForestayError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 - a defect in one source must not silence the others
            _log.error("alerts.source_failed", source=source.name, exc_info=error)
            reason = type(error).__name__
        else:
            return [dataclasses.replace(item, source=source.name) for item in found]
        self._ports.metrics.add(ALERT_SOURCE_FAILURES, source.name)
        _log.warning("alerts.source_silent", source=source.name, reason=reason)
        return None

    def _tell(self, actions: Sequence[Action], state: State) -> None:
        metrics = self._ports.metrics
        for action in actions:
            what = type(action).__name__.lower()
            metrics.add(ALERT_ACTIONS, what)
            subject = action.group.key if isinstance(action, Notify) else action.alert.alert_id
            _log.info(f"alert.{what}", subject=subject, reason=action.reason)
        firing = (item.condition.severity for item in state.alerts.values() if item.state is AlertState.FIRING)
        counts = collections.Counter(firing)
        for severity in Severity:
            metrics.set(ALERTS_OPEN, counts[severity], severity.value)


def messages_of(actions: Sequence[Action], runbook_base: str) -> list[Message]:
    """Return what actions have sent, in order."""
    return [
        message_of(notification, runbook_base=runbook_base)
        for action in actions
        if isinstance(action, Notify)
        for notification in action.notifications
    ]
