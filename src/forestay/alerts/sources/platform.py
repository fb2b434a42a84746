"""Conditions of the platform: queues that stand, workers and loops that are lost, webhooks that do not go.

`conditions_of` is pure: thresholds on one reading of the platform.
"""

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping, Sequence

from forestay.alerts.catalogue import PLATFORM
from forestay.alerts.model import Condition, Severity
from forestay.alerts.sources import workers
from forestay.alerts.sources.workers import WorkerView, WorkerWatch
from forestay.delivery.health import DeliveryHealth, read_health
from forestay.fleet.model import Fleet
from forestay.fleet.store import FleetStore
from forestay.queue.health import Waiting, read_waiting
from forestay.storage.leader import leaderless
from forestay.storage.postgres import Database
from forestay.telemetry.metrics import LOOP_FAILURES, LOOP_RUNS, Metrics

WINDOW = dt.timedelta(hours=1)
PAGE_FACTOR = 3.0  # a queue this many times over its threshold pages
WEBHOOK_TICKET_SECONDS = 300.0
WEBHOOK_PAGE_SECONDS = 1_800.0
LEADERLESS_SECONDS = 120.0
FAILURES = 5  # runs in a row that failed


@dataclasses.dataclass(frozen=True, slots=True)
class Thresholds:
    """From when on something is worth a word; seconds."""

    queue_seconds: float
    worker_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """One reading of the platform; `stopped` are loops with why they count as stopped."""

    fleet: Fleet
    workers: WorkerView
    waiting: Sequence[Waiting]
    webhooks: DeliveryHealth
    stopped: Mapping[str, str]


def conditions_of(reading: Reading, thresholds: Thresholds, now: dt.datetime) -> list[Condition]:
    """Return what holds."""
    return [
        *workers.conditions_of(reading.workers, now),
        *(_of_queue(reading.fleet, item, thresholds, now) for item in reading.waiting
          if item.seconds >= thresholds.queue_seconds),
        *_of_webhooks(reading.webhooks, now),
        *(_of_loop(name, why, now) for name, why in sorted(reading.stopped.items())),
    ]  # fmt: skip


def _of_queue(fleet: Fleet, item: Waiting, thresholds: Thresholds, now: dt.datetime) -> Condition:
    entry = fleet.models.get(item.model_id)
    many = "1,000 requests or more" if item.requests >= 1_000 else f"{item.requests} requests"
    page = item.seconds >= PAGE_FACTOR * thresholds.queue_seconds
    return Condition(
        source=PLATFORM, subject=f"model:{item.model_id}", name="queue_age",
        severity=Severity.PAGE if page else Severity.TICKET,
        since=now - dt.timedelta(seconds=item.seconds), owner="" if entry is None else entry.spec.owner_team,
        summary=f"{many} of {item.model_id} wait, the first for {item.seconds / 60:.0f} min",
        facts={"waiting": item.requests, "oldest_seconds": round(item.seconds)}, magnitude=item.seconds,
    )  # fmt: skip


def _of_webhooks(health: DeliveryHealth, now: dt.datetime) -> list[Condition]:
    found: list[Condition] = []
    if health.dead:
        found.append(Condition(
            source=PLATFORM, subject="platform", name="webhook_dead_letters", severity=Severity.TICKET, since=now,
            summary=f"{health.dead} webhooks of the last hour were given up: {health.tenants} tenants were not told "
            "that their requests are done",
            facts={"dead": health.dead, "tenants": health.tenants}, magnitude=health.dead,
        ))  # fmt: skip
    if health.overdue_seconds >= WEBHOOK_TICKET_SECONDS:
        page = health.overdue_seconds >= WEBHOOK_PAGE_SECONDS
        found.append(Condition(
            source=PLATFORM, subject="platform", name="webhook_backlog",
            severity=Severity.PAGE if page else Severity.TICKET,
            since=now - dt.timedelta(seconds=health.overdue_seconds),
            summary=f"webhooks are {health.overdue_seconds / 60:.0f} min overdue: callers hear late that they are done",
            facts={"overdue_seconds": round(health.overdue_seconds)}, magnitude=health.overdue_seconds,
        ))  # fmt: skip
    return found


def _of_loop(name: str, why: str, now: dt.datetime) -> Condition:
    return Condition(
        source=PLATFORM, subject=f"loop:{name}", name="control_loop_stopped", severity=Severity.PAGE, since=now,
        summary=f"the control loop {name} does nothing: {why}",
    )  # fmt: skip


class PlatformSource:
    """Asks the stores, and this controller's own metrics about the loops that it runs."""

    def __init__(
        self,
        database: Database,
        fleet: FleetStore,
        metrics: Metrics,
        thresholds: Thresholds,
        loops: Callable[[], Sequence[str]],
    ) -> None:
        self._database = database
        self._fleet = fleet
        self._metrics = metrics
        self._thresholds = thresholds
        self._loops = loops
        self._workers = WorkerWatch(thresholds.worker_seconds)
        self._good: dict[str, tuple[float, float]] = {}  # loop -> runs when last looked at, failures at the last run

    @property
    def name(self) -> str:
        """Return the source's name."""
        return PLATFORM

    async def conditions(self, now: dt.datetime) -> Sequence[Condition]:
        """Return what holds now."""
        fleet = await self._fleet.load()
        reading = Reading(
            fleet=fleet,
            workers=self._workers.look(fleet),
            waiting=await read_waiting(self._database),
            webhooks=await read_health(self._database, now - WINDOW),
            stopped=await self._stopped(),
        )
        return conditions_of(reading, self._thresholds, now)

    async def _stopped(self) -> dict[str, str]:
        known = self._loops()
        orphans = await leaderless(self._database, LEADERLESS_SECONDS)
        found = {
            name: f"no controller has led it for {seconds:.0f} s" for name, seconds in orphans.items() if name in known
        }
        for name in known:
            runs, failures = self._metrics.value(LOOP_RUNS, name), self._metrics.value(LOOP_FAILURES, name)
            before = self._good.get(name)
            if before is None or runs != before[0]:
                self._good[name] = (runs, failures)
            elif failures - before[1] >= FAILURES:
                found[name] = f"its last {failures - before[1]:.0f} runs failed; the controller's log says why"
        return found
