"""Getting a slot on a live replica, or the reason why not; and keeping the leased blocks of slots.

A model that is loaded nowhere is wanted at once (`forestay:demand`) and waited for; a busy one is waited for in line,
until the caller's own limit, the model's start limit or the ceiling of the settings. Blocks in use are renewed, idle
ones given back. Called by the direct lane and realtime; `asgi` runs the keeper.
"""

import asyncio
import dataclasses
from collections.abc import Mapping

from forestay.errors import Unavailable
from forestay.gateway.bodies import Sentinels
from forestay.gateway.content import ContentGate
from forestay.gateway.direct_facts import DirectFacts
from forestay.gateway.fleet_view import FleetView
from forestay.gateway.guards import Target
from forestay.gateway.limits import LimitGate
from forestay.gateway.options import Choices
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.prediction import Predictions
from forestay.gateway.responses import Reply, bad_request, request_error, start_timeout
from forestay.gateway.slots import IDLE_SECONDS, LEASE_SECONDS, RENEW_SECONDS, SUSPECT_SECONDS, Pool, Slots
from forestay.gateway.upstream import Call, Failed, Need, Upstream
from forestay.gateway.validation import Contracts
from forestay.handshake import KEY_HEADER, STORE_HEADER, TENANT_HEADER
from forestay.queue.model import ErrorType
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import DIRECT_SLOTS
from forestay.values import hot_value

UNSEEN = (
    "Your tenant's policy judges every call, and this model answers direct calls without a worker that could; "
    "submit to its queue, or ask its owner to name a policy in its spec"
)
WANT_SECONDS = 5.0  # a model that is still waited for is wanted again
_LOG = logger("gateway")


@dataclasses.dataclass(frozen=True, slots=True)
class DirectParts:
    """What the direct lane shares with the rest of the gateway."""

    ports: GatewayPorts
    fleet: FleetView
    contracts: Contracts
    slots: Slots
    upstream: Upstream
    facts: DirectFacts
    predictions: Predictions
    limits: LimitGate
    content: ContentGate
    sentinels: Sentinels = dataclasses.field(default_factory=Sentinels)
    probe_tenants: frozenset[str] = frozenset()  # whose calls are synthetic


@hot_value
class Work:
    """A call that passed its guards."""

    target: Target
    call: Call
    choices: Choices
    lane: str  # direct | stream | realtime
    predicted_seconds: float = 1.0  # device-seconds
    features: Mapping[str, float] = dataclasses.field(default_factory=dict[str, float])


def for_workers(target: Target, choices: Choices) -> dict[str, str]:
    """Return what our workers alone are told of a call: whose it is; `upstream` keeps it from foreign servers."""
    caller = target.caller
    kept = "1" if choices.options.store_io else "0"
    return {TENANT_HEADER: caller.tenant_id, KEY_HEADER: caller.key_id, STORE_HEADER: kept}


async def acquire(parts: DirectParts, work: Work, deadline: float) -> Pool | Reply:
    """Return a taken slot; or the answer, when none came free before the deadline to start (`start_deadline`).

    Nor is there one where the caller's own policy judges every call and no worker stands between us and the model.
    """
    pool = await _take(parts, work, deadline)
    if isinstance(pool, Reply) or not pool.in_blocks or not parts.content.must_see(work.target):
        return pool
    parts.slots.give_back(pool)
    return bad_request(UNSEEN)


async def _take(parts: DirectParts, work: Work, deadline: float) -> Pool | Reply:
    slots, revision = parts.slots, work.target.revision
    hint = work.choices.options.hint
    if not slots.waiting(revision.revision_id):
        pool = slots.take(revision.revision_id, hint)
        if pool is not None:
            return pool
    clock = parts.ports.clock
    wanted_at: float | None = None
    while (left := deadline - clock.monotonic()) > 0:
        block = slots.askable(revision.revision_id)
        if not parts.fleet.live(revision.revision_id):
            if wanted_at is None or clock.monotonic() - wanted_at >= WANT_SECONDS:
                wanted_at = clock.monotonic()
                await want(parts.ports, work)
            await parts.fleet.wait_change(min(left, WANT_SECONDS))
        elif block is not None:
            await lease_block(slots, parts.upstream, block, waiting=slots.waiting(revision.revision_id) + 1)
        else:
            await slots.wait(revision.revision_id, left)
        pool = slots.take(revision.revision_id, hint)
        if pool is not None:
            return pool
    return _not_started(parts, work)


async def want(ports: GatewayPorts, work: Work) -> None:
    """Say that a model is called which is loaded nowhere; placement is woken."""
    model_id = work.target.model.model_id
    try:
        await ports.fleet.want(model_id)
    except Unavailable as error:
        _LOG.warning("gateway.want_not_written", model_id=model_id, reason=str(error))
    await ports.wakeups.publish("forestay:demand", model_id)


async def lease_block(slots: Slots, upstream: Upstream, pool: Pool, *, waiting: int) -> None:
    """Ask a worker for a block as large as what is used and awaited needs; `waiting` calls have no slot yet."""
    await _ask(slots, upstream, pool, pool.wanted(waiting), waiting)


async def _ask(slots: Slots, upstream: Upstream, pool: Pool, wanted: int, waiting: int) -> None:
    told = untold = pool.returned
    pool.asking = True
    try:
        need = Need(wanted, LEASE_SECONDS, pool.used + waiting, told)
        block = await upstream.lease_slots(pool.replica, need)
        pool.returned -= told
        untold = 0
        slots.grant(pool, block.granted, block.seconds, block.recalled)
    except (Failed, TimeoutError) as error:
        slots.close(pool, SUSPECT_SECONDS)
        _LOG.warning("gateway.slots_not_leased", replica_id=pool.replica.report.replica_id, reason=str(error))
    finally:
        pool.asking = False
        if pool.returned > untold:  # more came back meanwhile
            slots.some_returned.set()


def start_deadline(ports: GatewayPorts, work: Work) -> float:
    """Return until when (monotonic) a call that begins to wait now may wait for its slot, refusals included."""
    limits, ceiling = work.target.revision.spec.limits, ports.settings.gateway.run_timeout_seconds
    own = work.choices.start_seconds or limits.request_start_timeout_seconds
    return ports.clock.monotonic() + min(ceiling, limits.startup_timeout_seconds if own is None else own)


def _not_started(parts: DirectParts, work: Work) -> Reply:
    model_id = work.target.model.model_id
    if work.choices.start_seconds is not None:
        return start_timeout(f"{model_id} did not start within X-Fal-Request-Timeout", by_caller=True)
    if not parts.fleet.live(work.target.revision.revision_id):
        return request_error(ErrorType.STARTUP_TIMEOUT, f"{model_id} did not become ready in time")
    return start_timeout(f"{model_id} had no free slot in time", by_caller=False)


class BlockKeeper:
    """Renews the blocks that are used, gives idle ones back, and recalled slots as they come free."""

    def __init__(self, parts: DirectParts) -> None:
        self._parts = parts

    async def run(self) -> None:
        """Keep for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell_of_returned())
            while True:
                await self._parts.ports.clock.sleep(RENEW_SECONDS)
                await self.keep()

    async def _tell_of_returned(self) -> None:
        """Tell workers at once which recalled slots are free: a queued request waits for each."""
        slots = self._parts.slots
        while True:
            await slots.some_returned.wait()
            slots.some_returned.clear()
            async with asyncio.TaskGroup() as group:
                for pool in slots.with_returned():
                    group.create_task(_ask(slots, self._parts.upstream, pool, pool.granted, self._waiting(pool)))

    def _waiting(self, pool: Pool) -> int:
        return self._parts.slots.waiting(pool.replica.report.revision_id)

    async def keep(self) -> None:
        """Renew or give back every block once."""
        slots, now = self._parts.slots, self._parts.ports.clock.monotonic()
        for pool in slots.leased():
            if pool.asking:
                continue
            if pool.used > 0 or now - pool.used_at < IDLE_SECONDS:
                await lease_block(slots, self._parts.upstream, pool, waiting=self._waiting(pool))
            else:
                await self._return(pool)
        granted, used = slots.totals()
        self._parts.ports.metrics.set(DIRECT_SLOTS, granted, "granted")
        self._parts.ports.metrics.set(DIRECT_SLOTS, used, "used")

    async def give_all_back(self) -> None:
        """Return every block: this gateway is stopping."""
        for pool in self._parts.slots.leased():
            await self._return(pool)

    async def _return(self, pool: Pool) -> None:
        pool.granted, pool.recalled, pool.expires_at = 0, 0, 0.0
        try:
            await self._parts.upstream.lease_slots(pool.replica, Need(0, LEASE_SECONDS))
        except (Failed, TimeoutError) as error:
            replica_id = pool.replica.report.replica_id
            _LOG.info("gateway.slots_not_returned", replica_id=replica_id, reason=str(error))
