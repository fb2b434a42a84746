"""One life of one loaded revision: setup -> ready -> draining -> stopped, its slots, its health.

It decides when this life ends: the process ended, the health check failed, a time limit passed, or it was drained and
nothing runs any more. It does not decide whether another replica takes its place (`reconcile`), nor what becomes of the
requests that ran on it (`attempt`). Never raises for anything that a model does.
"""

import asyncio
import contextlib
import dataclasses
import datetime as dt
from collections import deque
from collections.abc import Callable
from typing import Protocol

from forestay.clock import Clock
from forestay.fleet.model import ReplicaReport, ReplicaState, Revision
from forestay.ids import KeyId, ReplicaId, RequestId, TenantId, WorkerId
from forestay.queue.model import Options
from forestay.settings import Worker as WorkerSettings
from forestay.telemetry.logs import logger
from forestay.worker.hosts.host import Description, Host, StartFailed
from forestay.worker.turns import Lane, Share, Turns, may_take

log = logger("worker")
MAX_DETAIL_CHARS = 2_000
TURN_SECONDS = 0.25  # a direct call without a slot waits here so long, then its gateway looks elsewhere
NO_KEY = KeyId("")
DIRECT_ATTEMPT = 0  # marks calls of the direct lane


@dataclasses.dataclass(frozen=True, slots=True)
class Running:
    """One call that occupies a slot; `attempt` 0 marks the direct lane."""

    request_id: RequestId
    attempt: int
    tenant_id: TenantId
    alone: bool = False  # it has lost two leases: nothing else may run beside it
    object_lifetime_seconds: int | None = None
    upload_policy: str | None = None  # the caller's own bucket
    risk: float = 1.0  # of the prompt, where it was judged
    guarded: bool = False  # a direct call whose files must be judged before anybody may have them
    # Of a direct call, so that its caller may appeal what the guard stops:
    key_id: KeyId = NO_KEY
    endpoint: str = ""
    options: Options = dataclasses.field(default_factory=Options)
    predicted_seconds: float = 1.0
    probe: bool = False  # a canary of ours: no use of the replica


class MakeHost(Protocol):
    """Makes the host of a replica, see `worker/loading.py`."""

    async def __call__(self, replica: "Replica") -> Host:
        """Return a host that has not been started; StartFailed when what it needs is not to be had."""
        ...


class Replica:
    """A host with its slots. All methods run on the worker's event loop."""

    def __init__(
        self, identity: tuple[ReplicaId, WorkerId], revision: Revision, settings: WorkerSettings, clock: Clock
    ) -> None:
        self.replica_id, self.worker_id = identity
        self.revision = revision
        self.state = ReplicaState.SETUP
        self.detail = "starting"
        self.description = Description(openapi=None, slots=0)
        self.started_at = clock.now()
        self.ready_at: dt.datetime | None = None
        self.last_used_at: dt.datetime | None = None
        self.running: dict[RequestId, Running] = {}
        self.turns = Turns(clock)
        self.lent_slots = 0  # lent to gateways that speak to the model's server themselves
        self.condemned = ""  # why we ended the process ourselves: its calls did not crash the model
        self.start_failure = ""  # why it never became ready
        self.answered = 0
        self.broken = 0  # outputs in a row that failed their contract
        self.adapter_at: dt.datetime | None = None  # a request that loaded an adapter ended
        self.drained = False  # its end was asked for
        self.over = False  # it serves no more; only its process has yet to end
        self.on_change: Callable[[], None] = _nothing
        self.host: Host | None = None
        self.devices: tuple[str, ...] | None = None  # UUIDs; None: none is handed out here, it sees what there is
        self._settings = settings
        self._clock = clock
        self._line: deque[asyncio.Future[None]] = deque()  # direct calls that wait here for their turn
        self._ending = asyncio.Event()
        self._stop_grace_seconds = revision.spec.limits.termination_grace_seconds
        self._verifying = False

    # What others ask

    @property
    def free_slots(self) -> int:
        """Slots on which nothing runs, whoever's turn it is."""
        if self.state is not ReplicaState.READY or self._ending.is_set():
            return 0
        if any(call.alone for call in self.running.values()):
            return 0
        return max(0, self.description.slots - len(self.running) - self.lent_slots)

    def open_slots(self, lane: Lane) -> int:
        """Slots that a lane may fill now (`worker/turns.py`)."""
        free = self.free_slots
        if lane is Lane.DIRECT and self.turns.queue_wants:
            free -= self.turns.offered  # promised to a claim that is on its way
        return max(0, min(free, may_take(self.share(), lane)))

    def share(self) -> Share:
        """Describe who holds its slots and who wants more."""
        direct = sum(call.attempt == DIRECT_ATTEMPT for call in self.running.values())
        return Share(
            total=self.description.slots,
            queued=len(self.running) - direct,
            direct=direct + self.lent_slots,
            queue_wants=self.turns.queue_wants,
            direct_wants=self.turns.direct_wants,
            odd_to=self.turns.odd_to,
        )

    @property
    def idle(self) -> bool:
        """Whether nothing runs on it."""
        return not self.running and not self.lent_slots

    @property
    def device(self) -> str:
        """What facts call the devices that it runs on: their UUIDs, else as the operator says, else the worker."""
        return ",".join(self.devices or ()) or self._settings.device_name or self.worker_id

    def report(self, failures: int) -> ReplicaReport:
        """Describe it for the fleet."""
        return ReplicaReport(
            replica_id=self.replica_id,
            worker_id=self.worker_id,
            revision_id=self.revision.revision_id,
            model_id=self.revision.model_id,
            state=self.state,
            slots=self.description.slots,
            devices=self.revision.spec.resources.devices,
            direct_url=self.description.direct_url,
            hints=tuple(plain_text(hint) for hint in self.description.hints),
            detail=plain_text(self.detail),
            failures=failures,
            started_at=self.started_at,
            ready_at=self.ready_at,
            last_used_at=self.last_used_at,
            seen_at=self._clock.now(),
        )

    # Slots

    def take(self, call: Running) -> bool:
        """Occupy a slot; False when there is none (for a direct call: none in its turn), or when it runs here already.

        A claimed request takes any free slot: its turn was when the slot was offered.
        """
        lane = Lane.DIRECT if call.attempt == DIRECT_ATTEMPT else Lane.QUEUE
        free = self.open_slots(lane) if lane is Lane.DIRECT else self.free_slots
        if free < 1 or call.request_id in self.running:
            return False
        self.running[call.request_id] = call
        self.turns.took(lane, self.share().held(lane), self.description.slots)
        if lane is Lane.DIRECT:
            self.turns.want_direct("", more=bool(self._line))
        self.last_used_at = self._clock.now()
        return True

    def take_spare(self, call: Running) -> bool:
        """Occupy a slot for a canary; False unless one is free that no user waits for and no claim may fill."""
        waited_for = self.turns.queue_wants or self.turns.direct_wants or bool(self._line)
        if waited_for or self.free_slots <= self.turns.offered or call.request_id in self.running:
            return False
        self.running[call.request_id] = call
        return True

    async def take_in_turn(self, call: Running) -> bool:
        """Occupy a slot for a direct call, waiting a moment for its turn; False when none came in that moment."""
        if not self._line and self.take(call):
            return True
        self.turns.want_direct("", more=True)
        if self.state is not ReplicaState.READY or len(self._line) >= self.description.slots:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TURN_SECONDS):
                while True:
                    await self._wait_in_line()
                    if self.take(call):
                        return True
        return False

    async def _wait_in_line(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            await turn
        finally:
            if turn in self._line:
                self._line.remove(turn)

    def call_next(self) -> None:
        """Let the direct call that has waited longest look whether it is its turn."""
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def release(self, call: Running) -> None:
        """Free the slot."""
        if self.running.get(call.request_id) is call:
            del self.running[call.request_id]
        if not call.probe:
            self.last_used_at = self._clock.now()
        self._end_when_drained()
        self.call_next()
        self.on_change()

    def lend(self, slots: int) -> None:
        """Set how many slots gateways hold by themselves."""
        more, self.lent_slots = slots > self.lent_slots, slots
        if more:
            self.turns.took(Lane.DIRECT, self.share().direct, self.description.slots)
        else:
            self.call_next()
        self._end_when_drained()

    def learn_hints(self, header: str | None) -> None:
        """Remember what the model says is warm in it (`X-Fal-Runner-Hints` of an answer)."""
        if header is None:
            return
        hints = tuple(hint.strip()[:256] for hint in header.split(",") if hint.strip())[:64]
        if hints != self.description.hints:
            self.description = dataclasses.replace(self.description, hints=hints)
            self.on_change()

    def tell(self, detail: str) -> None:
        """Say what is going on, for people."""
        self.detail = detail
        log.info("replica.preparing", replica=self.replica_id, detail=detail)
        self.on_change()

    # The end

    def drain(self, reason: str) -> None:
        """Take nothing new; end once nothing runs."""
        if self.state in {ReplicaState.SETUP, ReplicaState.READY}:
            self.drained = True
            if self.state is ReplicaState.SETUP:
                self._ending.set()
            self._become(ReplicaState.DRAINING, reason)
            self._end_when_drained()

    def condemn(self, reason: str) -> None:
        """End it now, whatever runs on it: it hangs, or its device is unfit."""
        if not self.condemned and not self._ending.is_set():
            self.condemned = reason
            self._stop_grace_seconds = 0.0
            self.detail = reason
            log.warning("replica.condemned", replica=self.replica_id, reason=reason)
            self._ending.set()

    def hurry(self) -> None:
        """End it now with its ordinary grace: the worker itself is going."""
        self.condemned = self.condemned or "the worker is stopping"
        self._ending.set()

    async def verify(self, suspicion: str) -> bool:
        """Ask the model, as often as its health check allows, whether it is fit; condemn it when it never says so."""
        host, check = self.host, self.description.health_check
        if host is None or self._verifying or self._ending.is_set():
            return not self._ending.is_set()
        self._verifying = True
        try:
            for _ in range(check.failure_threshold if check else 3):
                if await host.healthy(check):
                    return True
        finally:
            self._verifying = False
        self.condemn(f"unhealthy: no answer to its health check after {suspicion}")
        return False

    def owner_of(self, request_id: RequestId | None) -> Running | None:
        """Return the running call of this id; without an id, the only one that runs."""
        if request_id is not None:
            return self.running.get(request_id)
        return next(iter(self.running.values())) if len(self.running) == 1 else None

    async def run(self, make_host: MakeHost) -> None:
        """Live one life."""
        try:
            async with asyncio.TaskGroup() as group:
                starting, ending = group.create_task(self._start(make_host)), group.create_task(self._ending.wait())
                await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
                starting.cancel()
                ending.cancel()
            if self.ready_at is not None and self.host is not None:
                await self._serve(self.host)
        except Exception as error:
            self.start_failure = self.start_failure or f"{type(error).__name__}: {error}"
            raise
        finally:
            self.over = True
            self.state = ReplicaState.DRAINING
            self.on_change()
            if self.host is not None:
                await self.host.stop(self._stop_grace_seconds)
            self._become(ReplicaState.STOPPED, self.start_failure or self.condemned or self.detail)

    async def _start(self, make_host: MakeHost) -> None:
        limit_seconds = self.revision.spec.limits.startup_timeout_seconds
        try:
            async with asyncio.timeout(limit_seconds):
                self.host = await make_host(self)
                described = await self.host.start()
        except StartFailed as failure:
            self.start_failure = failure.reason
            return
        except TimeoutError:
            self.start_failure = f"not ready within startup_timeout ({limit_seconds:g} s)"
            return
        if self._ending.is_set():
            return
        self.description = described
        self.ready_at = self._clock.now()
        self._become(ReplicaState.READY, "ready")

    async def _serve(self, host: Host) -> None:
        async with asyncio.TaskGroup() as group:
            watchers = [group.create_task(self._watch_exit(host)), group.create_task(self._watch_health(host))]
            await self._ending.wait()
            for watcher in watchers:
                watcher.cancel()

    async def _watch_exit(self, host: Host) -> None:
        ended = await host.exited()
        self.detail = f"the model's process {ended}"
        log.warning("replica.exited", replica=self.replica_id, code=ended.code, memory=ended.memory)
        self._ending.set()

    async def _watch_health(self, host: Host) -> None:
        check = self.description.health_check
        if check is None or not check.call_regularly:
            return
        # fal raises a start period that is shorter than the startup time-out; a first success ends it.
        patience = max(check.start_period_seconds, self.revision.spec.limits.startup_timeout_seconds)
        started, failures, succeeded = self._clock.monotonic(), 0, False
        while True:
            await self._clock.sleep(self._settings.health_seconds)
            if await host.healthy(check):
                failures, succeeded = 0, True
            elif succeeded or self._clock.monotonic() - started > patience:
                failures += 1
            if failures >= check.failure_threshold:
                self.condemn(f"unhealthy: {failures} failed health checks in a row")

    def _end_when_drained(self) -> None:
        if self.state is ReplicaState.DRAINING and self.idle:
            self._ending.set()

    def _become(self, state: ReplicaState, detail: str) -> None:
        self.state, self.detail = state, detail
        log.info("replica.state", replica=self.replica_id, state=state, detail=detail)
        self.on_change()


def plain_text(detail: str) -> str:
    """Return words of a model as a text that every store can keep, cut to its length."""
    return detail[:MAX_DETAIL_CHARS].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _nothing() -> None:
    """Stand in until someone listens."""
