"""One attempt from claim to finish: inputs, judged -> host -> conclusion -> output checks -> finish or requeue.

It decides nothing itself: `conclude` does. It makes sure that every claimed lease ends in exactly one of finish,
requeue or abandon, that the slot is held until the model has let go, and that a replica under suspicion is asked before
the request goes back. Called by `worker/claiming.py`, one task per lease.
"""

import asyncio
import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from forestay.chance import Chance
from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.fleet.spec import EndpointSpec, HostKind, ModelSpec
from forestay.quality.decide import Budget, decide_broken
from forestay.quality.findings import Where
from forestay.quality.probes import PROBE_HEADER, asks_adapters
from forestay.queue.model import Answer, AttemptReport, Finish, Lease, Outcome, Requeue, State, predicted_work
from forestay.queue.retry import Retry, RetryPolicy
from forestay.queue.store import QueueStore
from forestay.settings import Settings
from forestay.telemetry import tracing
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import ATTEMPT_SECONDS, ATTEMPTS, Metrics
from forestay.worker.answer_files import parsed_or_none
from forestay.worker.bucket_outputs import FAILED_DEPENDENCY, BucketOutputs
from forestay.worker.conclude import Conclusion, Publish, ReplicaStep, Rules, decide_conclusion
from forestay.worker.desk import Desk
from forestay.worker.hosts.host import Answered, Broken, CallRequest, CallResult, Host, UpstreamFailed
from forestay.worker.inputs import Inputs
from forestay.worker.lease_keeper import LeaseKeeper
from forestay.worker.logs import LogBook
from forestay.worker.memory_watch import DeviceBytes, LocalHost, PeakMemory, is_watched, no_devices
from forestay.worker.mirroring import Mirror
from forestay.worker.output_notes import Made
from forestay.worker.output_quality import Output, OutputQuality, has_files
from forestay.worker.replica import Replica, Running

log = logger("worker")
# A model that has not yet taken the request up does not know it when the cancel arrives: it is told again, four times.
CANCEL_PAUSES_SECONDS = (0.1, 0.2, 0.4, 0.8)


class OutputCheck(Protocol):
    """Judges an output before it may leave; the seam for safety, integrity and provenance."""

    def concerns(self, lease: Lease, spec: ModelSpec) -> bool:
        """Tell whether it judges this request at all."""
        ...

    async def judge(self, lease: Lease, spec: ModelSpec, answer: Answer) -> Publish | None:
        """Return None to allow, or what is published instead: the answer as judged, BLOCKED or WITHHELD."""
        ...

    async def error(self, lease: Lease, spec: ModelSpec, answer: Answer) -> Answer:
        """Return an error that the model answered with, as it may leave."""
        ...

    async def moved(self, lease: Lease, spec: ModelSpec, answer: Answer) -> Publish | None:
        """Return None when an allowed answer may leave as it reads with its files elsewhere, or what instead."""
        ...


class InputCheck(Protocol):
    """Judges the media of an input before the model is called."""

    async def check(self, lease: Lease, spec: ModelSpec, endpoint: EndpointSpec, body: bytes) -> Publish | None:
        """Return None when the model may be called with this body, or how the request ends instead."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class AttemptParts:
    """What every attempt of a worker shares."""

    queue: QueueStore
    desk: Desk
    keeper: LeaseKeeper
    inputs: Inputs
    outputs: BucketOutputs
    log_book: LogBook
    settings: Settings
    clock: Clock
    chance: Chance
    metrics: Metrics
    input_check: InputCheck
    quality: OutputQuality
    mirror: Mirror | None = None
    device_bytes: DeviceBytes = no_devices
    checks: Sequence[OutputCheck] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class AttemptNotes:
    """The notes of one attempt, in the queue's row."""

    lease: Lease
    queue: QueueStore

    async def read(self) -> str | None:
        """Return what earlier attempts left."""
        if self.lease.attempt == 1:
            return None
        try:
            return await self.queue.carried(self.lease)
        except Unavailable as error:
            log.warning("attempt.notes_not_read", request=str(self.lease.request_id), reason=str(error))
            return None

    async def write(self, text: str) -> None:
        """Leave this instead."""
        try:
            kept = await self.queue.carry(self.lease, text)
            reason = "" if kept else "the lease is lost"
        except Unavailable as error:
            reason = str(error)
        if reason:
            log.warning("attempt.notes_not_kept", request=str(self.lease.request_id), reason=reason)


class Attempt:
    """One lease on one replica."""

    def __init__(self, lease: Lease, replica: Replica, running: Running, parts: AttemptParts) -> None:
        self.lease = lease
        self.replica = replica
        self.running = running
        self.lost = False  # the request was taken away; the model may still be at it
        self._parts = parts
        self._leased_at = parts.clock.now()
        self._started_at = self._leased_at
        self._started_monotonic = parts.clock.monotonic()
        self._checked_at: dt.datetime | None = None
        self._called = False
        self._checking = False
        self._answered = asyncio.Event()
        self._probe: str | None = None  # what the probes in the pipeline say
        self._work: Mapping[str, float] = predicted_work(lease.predicted_seconds, lease.options.features)

    async def run(self) -> None:
        """Run to its end; whatever happens, the slot is freed and the lease no longer renewed."""
        try:
            await self._run()
        except Unavailable as error:  # nothing could be told to the queue: the lease runs out and the queue rescues it
            log.warning("attempt.unreported", request=str(self.lease.request_id), reason=str(error))
        finally:
            fence = (self.lease.request_id, self.lease.attempt)
            self._parts.keeper.drop(fence)
            self._parts.log_book.forget(self.running)
            self.replica.release(self.running)

    async def take_away(self) -> None:
        """The request is no longer ours: tell the model, which may go on until it returns or its limit kills it."""
        if self.lost:
            return
        self.lost = True
        host = self.replica.host
        if host is None or not self._called:
            return
        for pause_seconds in CANCEL_PAUSES_SECONDS:
            await host.cancel(self.lease.request_id, self.lease.endpoint)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_seconds):
                    await self._answered.wait()
            if self._answered.is_set():
                return

    async def give_back(self, reason: str) -> None:
        """Requeue free of charge: the worker is stopping. The fence makes sure that this happens at most once."""
        self._parts.keeper.drop((self.lease.request_id, self.lease.attempt))
        await self._requeue(Retry("", 0.0, reason), self._report(Outcome.PLATFORM), crashed=False)

    async def _run(self) -> None:
        host, lease = self.replica.host, self.lease
        if host is None:
            await self.give_back("the replica ended before the request began")
            return
        if (aside := self._parts.quality.aside(lease)) is not None:
            await self._end(aside, Outcome.PLATFORM, crashed=False)
            return
        body = await self._parts.inputs.prepare(lease.body, self._endpoint())
        if isinstance(body, Answer):
            await self._end(Publish(State.FAILED, body), Outcome.CALLER_ERROR, crashed=False)
            return
        refused = await self._parts.input_check.check(lease, self._spec(), self._endpoint(), body)
        if refused is not None:
            await self._end(refused, Outcome.SAFETY, crashed=False)
            return
        result = await self._call(host, body)
        sizes = {"input_bytes": float(len(lease.body)), "output_bytes": float(len(getattr(result, "body", b"")))}
        self._work = {**self._work, **sizes}
        conclusion = self._conclude(result)
        await self._treat_replica(conclusion)
        step = conclusion.step
        if isinstance(step, Publish) and step.state is State.FAILED and isinstance(result, Answered | UpstreamFailed):
            step = await self._error_judged(step)
        await self._end(step, conclusion.outcome, crashed=conclusion.crashed)

    async def _call(self, host: Host, body: bytes) -> CallResult:
        lease = self.lease
        request = CallRequest(
            request_id=lease.request_id,
            attempt=lease.attempt,
            endpoint=lease.endpoint,
            headers=model_headers(lease),
            body=body,
            timeout_seconds=self._spec().limits.request_timeout_seconds,
            notes=AttemptNotes(lease, self._parts.queue) if self._spec().host.kind is HostKind.PROVIDER else None,
        )
        self._started_at, self._started_monotonic = self._parts.clock.now(), self._parts.clock.monotonic()
        self._called = True
        if self.lost:
            return Broken("the request was taken away before it began")
        memory = self._memory_of(host)
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(self._tell_start())]
            if memory is not None:
                beside.append(group.create_task(memory.run()))
            result = await host.call(request)
            self._answered.set()
            for task in beside:
                task.cancel()
        if memory is not None:
            self._work = {**self._work, **memory.found()}
        headers: Mapping[str, str] = getattr(result, "headers", {})
        self.replica.learn_hints(headers.get("x-fal-runner-hints"))
        self._probe = headers.get(PROBE_HEADER)
        if self._spec().quality.canaries.inputs and asks_adapters(parsed_or_none(body)):
            self.replica.adapter_at = self._parts.clock.now()
        return result

    def _memory_of(self, host: Host) -> PeakMemory | None:
        """Return what watches the replica's memory, where that is wanted and its processes run here."""
        if not is_watched(self.lease.options.tags) or not isinstance(host, LocalHost):
            return None
        return PeakMemory(host.processes, self._parts.device_bytes, self._parts.clock)

    async def _tell_start(self) -> None:
        if not await self._parts.desk.start(self.lease):
            await self.take_away()

    def _conclude(self, result: CallResult) -> Conclusion:
        rules = Rules(self._spec().retry, self._policy(), self._jitter())
        return decide_conclusion(result, self.lease, rules, self.replica.condemned)

    def _policy(self) -> RetryPolicy:
        queue = self._parts.settings.queue
        return RetryPolicy(queue.max_attempts, queue.poison_replicas, queue.retry_base_seconds, queue.retry_cap_seconds)

    def _jitter(self) -> float:
        return self._parts.chance.uniform(0.0, 1.0)

    async def _treat_replica(self, conclusion: Conclusion) -> None:
        match conclusion.replica:
            case ReplicaStep.KEEP:
                self.replica.answered += conclusion.outcome is Outcome.SUCCEEDED
            case ReplicaStep.VERIFY:
                await self.replica.verify(f"{conclusion.outcome.value} of request {self.lease.request_id}")
            case ReplicaStep.DRAIN:
                self.replica.drain("the model asked to be stopped (x-fal-stop-runner)")
            case ReplicaStep.KILL:
                self.replica.condemn(f"request {self.lease.request_id} exceeded request_timeout")

    async def _end(self, step: Publish | Retry, outcome: Outcome, *, crashed: bool) -> None:
        await self._parts.log_book.flush(self.running)
        report = self._report(outcome)
        if isinstance(step, Publish) and step.state is State.SUCCEEDED:
            step, outcome = await self._whole(step, outcome)
            report = dataclasses.replace(report, outcome=outcome)
        if isinstance(step, Retry):
            held = await self._requeue(step, report, crashed=crashed)
        else:
            state, answer = await self._delivered(*await self._judged(step))
            outcome = _outcome_of(state, step.state, outcome)
            report = dataclasses.replace(report, outcome=outcome, checked_at=self._checked_at, work=self._work)
            held = await self._parts.desk.finish(Finish(self.lease, state, answer, report))
            if held and state is State.SUCCEEDED and self._parts.mirror is not None:
                self._parts.mirror.offer(self.lease, answer, report)
        if not held:
            await self._abandon(report)
        self._parts.metrics.add(ATTEMPTS, self.lease.model_id, outcome.value if held else "taken_away")
        self._parts.metrics.observe(ATTEMPT_SECONDS, report.device_seconds, self.lease.model_id)

    async def _error_judged(self, step: Publish) -> Publish:
        """Return a model's error in the form in which every check lets it go."""
        answer = step.answer
        for check in self._checks():
            answer = await check.error(self.lease, self._spec(), answer)
        return Publish(step.state, answer)

    def _checks(self) -> list[OutputCheck]:
        return [check for check in self._parts.checks if check.concerns(self.lease, self._spec())]

    async def _whole(self, step: Publish, outcome: Outcome) -> tuple[Publish | Retry, Outcome]:
        """Hold an output against its contract: what is broken is tried again elsewhere, and never a success."""
        spec, quality = self._spec(), self._parts.quality
        if not spec.quality.looks:
            return step, outcome
        if has_files(step.answer):
            await self._begin_checking()
        lease = self.lease
        where = Where(lease.model_id, lease.revision_id, lease.worker_id, lease.replica_id, self.replica.device)
        risk, made = lease.options.risk, Made(lease.attempt, lease.endpoint)
        output = Output(
            lease.request_id, lease.tenant_id, spec, step.answer, lease.body, risk, where, self._probe, made
        )
        row = await quality.broken_by(output)
        self._checked_at = self._parts.clock.now() if self._checking else None
        self.replica.broken = 0 if row is None else self.replica.broken + 1
        if row is None:
            return step, outcome
        decided = decide_broken(row, lease, spec.quality, Budget(spec.retry, self._policy(), self._jitter()))
        if isinstance(decided, Answer):
            return Publish(State.FAILED, decided), Outcome.BROKEN_OUTPUT
        quality.broke(lease)
        return decided, Outcome.BROKEN_OUTPUT

    async def _begin_checking(self) -> None:
        """Free the device and note that the output is being judged; once, however many look at it."""
        if not self._checking:
            self._checking = True
            self.replica.release(self.running)
            await self._parts.desk.checking(self.lease)

    async def _judged(self, step: Publish) -> tuple[State, Answer]:
        spec, checks = self._spec(), self._checks()
        if step.state is State.SUCCEEDED and checks:
            await self._begin_checking()
            for check in checks:
                step = await check.judge(self.lease, spec, step.answer) or step
                self._work = {**self._work, **step.work}
                if step.state is not State.SUCCEEDED:
                    break
            self._checked_at = self._parts.clock.now()
        return step.state, step.answer

    async def _delivered(self, state: State, answer: Answer) -> tuple[State, Answer]:
        """Move the files of an allowed output to the caller's own bucket, if any; the slot is free meanwhile."""
        policy = self.lease.options.upload_policy
        if policy is None or state is not State.SUCCEEDED:
            return state, answer
        self.replica.release(self.running)  # somebody else's storage must not keep a device waiting
        moved = await self._parts.outputs.deliver(policy, answer, (self.lease.request_id,))
        if moved.status_code == FAILED_DEPENDENCY:
            return State.FAILED, moved
        for check in self._checks() if moved.body != answer.body else ():
            instead = await check.moved(self.lease, self._spec(), moved)
            if instead is not None:
                return instead.state, instead.answer
        return state, moved

    async def _requeue(self, step: Retry, report: AttemptReport, *, crashed: bool) -> bool:
        item = Requeue(self.lease, step.condition, step.delay_seconds, crashed, step.reason, report)
        log.info("attempt.requeued", request=str(self.lease.request_id), reason=step.reason)
        return await self._parts.desk.requeue(item)

    async def _abandon(self, report: AttemptReport) -> None:
        """Record the fact of work for a request that was taken away, with the cause."""
        snapshots = await self._parts.queue.snapshots([self.lease.request_id])
        snapshot = snapshots.get(self.lease.request_id)
        states = {State.CANCELLED: Outcome.CANCELLED, State.EXPIRED: Outcome.EXPIRED}
        outcome = states.get(snapshot.state, Outcome.WORKER_LOST) if snapshot else Outcome.WORKER_LOST
        log.info("attempt.refused", request=str(self.lease.request_id), attempt=self.lease.attempt, outcome=outcome)
        await self._parts.queue.abandon(self.lease, dataclasses.replace(report, outcome=outcome))

    def _report(self, outcome: Outcome) -> AttemptReport:
        seconds = self._parts.clock.monotonic() - self._started_monotonic if self._called else 0.0
        return AttemptReport(
            outcome=outcome,
            leased_at=self._leased_at,
            started_at=self._started_at if self._called else None,
            finished_at=self._parts.clock.now(),
            device_seconds=seconds * self._spec().resources.devices,
            work=self._work,
            device=self.replica.device,
        )

    def _spec(self) -> ModelSpec:
        return self.replica.revision.spec

    def _endpoint(self) -> EndpointSpec:
        return endpoint_of(self._spec(), self.lease.endpoint)


def _outcome_of(state: State, wanted: State, outcome: Outcome) -> Outcome:
    """Return how the attempt ended, where the output was blocked or the caller's own bucket refused it."""
    if state is State.BLOCKED:
        return Outcome.SAFETY
    return Outcome.CALLER_ERROR if state is State.FAILED is not wanted else outcome


def endpoint_of(spec: ModelSpec, path: str) -> EndpointSpec:
    """Return what the spec says of an endpoint; one that it does not name has no media inputs."""
    return next((endpoint for endpoint in spec.endpoints if endpoint.path == path), EndpointSpec(path))


def model_headers(lease: Lease) -> dict[str, str]:
    """Return the headers that the model sees: what the caller may pass on, the ids, the trace below the caller's."""
    return {
        "content-type": "application/json",
        **lease.options.forward_headers,
        "x-fal-request-id": str(lease.request_id),
        "x-fal-endpoint": lease.endpoint,
        "traceparent": tracing.for_model(lease.options.traceparent, lease.request_id, lease.attempt),
    }
