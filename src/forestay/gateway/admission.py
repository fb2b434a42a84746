"""The guard before the commit: a request that cannot start (or end) in time is told so now, with when to come back.

The rule is `capacity/admission`'s. What is here is the view that it is asked with: one read of the queue's pressure
shared by all submits, at most every quarter of a second and never for more than a twentieth of the time, plus what
this gateway has admitted since. A read that fails or is too old lets everything pass, and is counted: the deadline
itself still holds. A model that is refused because it is loaded nowhere is wanted all the same, or it would never be.
Called by `queue_routes`.
"""

import asyncio
import dataclasses
import datetime as dt
import math
from collections.abc import Mapping

from forestay.capacity.admission import Ask, Refuse, Rules, Snapshot, by_model, decide_admission, with_admitted
from forestay.capacity.inflow import Inflow
from forestay.capacity.serving import slots_of
from forestay.errors import Unavailable
from forestay.gateway.fleet_view import FleetView
from forestay.gateway.guards import Target
from forestay.gateway.lanes import WANT_SECONDS
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.prediction import Predictions
from forestay.gateway.responses import Reply, request_error
from forestay.ids import ModelId, TenantId
from forestay.queue.model import ErrorType, Priority, Submission
from forestay.queue.pressure import Pressure, Turn
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import ADMISSIONS, GUARD_OPEN

FRESH_SECONDS = 0.25
USABLE_SECONDS = 5.0  # an older view says nothing
PATIENCE_SECONDS = 1.0  # how long a submit may wait where there is no usable view
DUTY = 20.0  # a read is followed by a pause of so many times its own duration
MOST_PAUSE_SECONDS = 2.0  # ... but a view stays usable while the next one is read
_MAX_ADMITTED = 20_000
_LOG = logger("gateway")


@dataclasses.dataclass(frozen=True, slots=True)
class _View:
    began: float  # monotonic, when its read began
    models: Mapping[ModelId, list[Pressure]]
    turns: Mapping[tuple[str, TenantId], Turn]


class AdmissionDesk:
    """What this gateway knows of the queue, and the answers that follow from it."""

    def __init__(self, ports: GatewayPorts, fleet: FleetView, predictions: Predictions) -> None:
        self._ports = ports
        self._fleet = fleet
        self._predictions = predictions
        self._view: _View | None = None
        self._admitted: list[tuple[float, Ask]] = []
        self._inflow = Inflow()
        self._wanted_at: dict[ModelId, float] = {}
        self._wanted = asyncio.Event()
        self._refreshed = asyncio.Event()

    async def run(self) -> None:
        """Read the queue's pressure whenever a submit has asked for it; errors are raised to `keep_running`."""
        clock = self._ports.clock
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            began = clock.monotonic()
            await self.refresh()
            took = clock.monotonic() - began
            await clock.sleep(min(max(FRESH_SECONDS - took, took * DUTY), MOST_PAUSE_SECONDS))

    async def refresh(self) -> None:
        """Read the queue's pressure now; raises Unavailable."""
        began = self._ports.clock.monotonic()
        pressure, turns = await self._ports.queue.pressure(), await self._ports.queue.turns()
        self._view = _View(began, by_model(pressure), turns)
        self._admitted = [item for item in self._admitted if item[0] >= began]
        self._refreshed.set()
        self._refreshed = asyncio.Event()

    async def check(self, target: Target, submission: Submission) -> Reply | None:
        """Return the 503 for a request that cannot be served in time, None when it may be queued."""
        now = self._ports.clock.monotonic()
        model_id = target.model.model_id
        self._inflow.add(model_id, submission.tenant_id, submission.predicted_seconds, now)
        options = submission.options
        if options.start_deadline is None and options.total_deadline is None:
            return None
        view = await self._usable()
        if view is None:
            self._ports.metrics.add(GUARD_OPEN, "admission")
            return None
        ask = self._ask(target, submission, view)
        rules = Rules(
            self._ports.settings.queue.starvation_bound_seconds,
            self._predictions.view.spread(target.revision, target.endpoint),
        )
        slots = slots_of(self._fleet.current, model_id)
        decided = decide_admission(ask, self._snapshot(view, target), slots, rules)
        self._ports.metrics.add(ADMISSIONS, model_id, "refused" if isinstance(decided, Refuse) else "admitted")
        if isinstance(decided, Refuse):
            if slots.count == 0:
                await self._want(model_id)
            retry_after = (b"retry-after", b"%d" % decided.retry_after_seconds)
            return request_error(ErrorType.RUNNER_SCHEDULING_FAILURE, decided.reason, retry_after)
        if len(self._admitted) < _MAX_ADMITTED:
            self._admitted.append((self._ports.clock.monotonic(), ask))
        return None

    async def _usable(self) -> _View | None:
        """Return a usable view at once, a new one on its way; only where there is none, wait for the read all share."""
        clock = self._ports.clock
        view = self._view
        age = math.inf if view is None else clock.monotonic() - view.began
        if age >= FRESH_SECONDS:
            self._wanted.set()
        if age <= USABLE_SECONDS:
            return view
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._refreshed.wait()
        except TimeoutError:
            pass
        view = self._view
        return view if view is not None and clock.monotonic() - view.began <= USABLE_SECONDS else None

    def _ask(self, target: Target, submission: Submission, view: _View) -> Ask:
        options = submission.options
        foretold = self._predictions.view.interval(target.revision, target.endpoint, options.features)
        own = view.turns.get((target.revision.spec.resources.pool, submission.tenant_id))
        return Ask(
            model_id=target.model.model_id,
            tenant_id=submission.tenant_id,
            predicted_seconds=submission.predicted_seconds,
            low_seconds=min(foretold.low, submission.predicted_seconds),
            start_within=_within(options.start_deadline, target.now),
            end_within=_within(options.total_deadline, target.now),
            low=options.priority is Priority.LOW,
            weight=1.0 if own is None else own.weight,
        )

    def _snapshot(self, view: _View, target: Target) -> Snapshot:
        model_id, pool = target.model.model_id, target.revision.spec.resources.pool
        since = [ask for _, ask in self._admitted if ask.model_id == model_id]
        leads = {tenant_id: turn.lead for (name, tenant_id), turn in view.turns.items() if name == pool}
        pressure = with_admitted(view.models.get(model_id, []), since)
        return Snapshot(pressure, leads, self._inflow.rates(model_id, self._ports.clock.monotonic()))

    async def _want(self, model_id: ModelId) -> None:
        """Say that a model is asked for which is loaded nowhere; refusals in number write this once in a while."""
        now = self._ports.clock.monotonic()
        if now - self._wanted_at.get(model_id, -WANT_SECONDS) < WANT_SECONDS:
            return
        self._wanted_at[model_id] = now
        try:
            await self._ports.fleet.want(model_id)
        except Unavailable as error:
            _LOG.warning("gateway.want_not_written", model_id=model_id, reason=str(error))
        await self._ports.wakeups.publish("forestay:demand", model_id)


def _within(deadline: dt.datetime | None, now: dt.datetime) -> float | None:
    return None if deadline is None else (deadline - now).total_seconds()
