"""One worker process: its parts, their order at start, and how it goes.

It decides the order: replicas and claims begin once the worker can be reached; at SIGTERM nothing new is claimed,
running requests may end within the drain time, the rest is queued again free of charge, and then the replicas are
stopped with their grace. Called by the wiring with the ports filled in.
"""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import os
import pathlib
import socket
from collections.abc import Callable, Mapping, Sequence

from forestay.artefacts.admission import Admission
from forestay.artefacts.caller_weights import check_weights
from forestay.chance import Chance
from forestay.clock import Clock
from forestay.drills.store import DrillStore
from forestay.errors import Unavailable
from forestay.fleet.devices import DeviceSource, DeviceStore
from forestay.fleet.model import WorkerReport
from forestay.fleet.store import FleetStore
from forestay.ids import WorkerId
from forestay.media.bucket import Bucket, BucketLimits
from forestay.media.decode import Decoder, limits_of
from forestay.media.fetch import Fetcher, FetchLimits
from forestay.media.store import MediaStore
from forestay.quality.canary_store import CanaryStore
from forestay.quality.findings import FindingStore
from forestay.quality.scorers.file import ScorerEntry, read_scorers
from forestay.queue.store import QueueStore
from forestay.rollouts.shadow.store import OfferStore
from forestay.safety.classifiers.provider_file import heard_bytes
from forestay.safety.guard import Guard
from forestay.safety.policies import Policies
from forestay.safety.provenance.stamp import Stamps
from forestay.safety.review.opening import Opener
from forestay.settings import Settings
from forestay.storage.objects import ObjectStore
from forestay.storage.valkey import Wakeups
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import Metrics
from forestay.telemetry.output_facts import OutputSink
from forestay.worker.admitting import FileCheck
from forestay.worker.attempt import AttemptParts, OutputCheck
from forestay.worker.bucket_outputs import BucketOutputs
from forestay.worker.canaries import CanaryRunner
from forestay.worker.canary_looks import CanaryLooks
from forestay.worker.canary_round import CanaryPorts
from forestay.worker.cancels import CancelWatch
from forestay.worker.claiming import Claimer, Situation
from forestay.worker.desk import Desk
from forestay.worker.device_watch import DevicePorts, DeviceWatch
from forestay.worker.direct import DirectLane
from forestay.worker.direct_judging import DirectJudging
from forestay.worker.direct_server import listen, serve
from forestay.worker.drilling import Drilling
from forestay.worker.finding_book import FindingBook
from forestay.worker.input_judging import InputJudge, QueueInputs
from forestay.worker.inputs import InputPorts, Inputs
from forestay.worker.judging import OutputJudge
from forestay.worker.keeping import ReplicaKeeper
from forestay.worker.lease_keeper import LeaseKeeper, QueueOpener
from forestay.worker.line_judging import LineJudge
from forestay.worker.loading import Folders, Loader, folders_of
from forestay.worker.logs import LogBook
from forestay.worker.looks import Looks
from forestay.worker.mirroring import Mirror
from forestay.worker.opening import MEDIA, JudgingPorts
from forestay.worker.output_check import SafetyCheck
from forestay.worker.output_notes import OutputNotes, notes_key
from forestay.worker.output_quality import OutputQuality, QualityPorts
from forestay.worker.patience import Patience
from forestay.worker.scorer_process import ScorerPlace, ScorerProcess
from forestay.worker.scoring import Scoring, ScoringPorts
from forestay.worker.slot_blocks import SlotBlocks
from forestay.worker.stamping import Stamping
from forestay.worker.stopped import StoppedContent

log = logger("worker")
LAST_REPORT_SECONDS = 3.0
KILL_SECONDS = 6.0
CLAIM_SECONDS = 3.0
POLICIES_SECONDS = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerPorts:
    """Everything a worker may use of the world."""

    queue: QueueStore
    open_queue: QueueOpener  # a second way to the queue, opened and used by the lease keeper's own thread and loop
    fleet: FleetStore
    objects: ObjectStore
    media: MediaStore
    wakeups: Wakeups
    settings: Settings
    clock: Clock
    chance: Chance
    metrics: Metrics
    artefacts: Admission
    environment: Mapping[str, str]  # the process's own; model processes get a few names of it, see hosts/fal_app
    guard: Guard
    policies: Policies
    stamps: Callable[[Decoder], Stamps]
    offers: OfferStore
    checks: Sequence[OutputCheck] = ()  # beside the guard's
    findings: FindingStore | None = None  # without it nothing is kept of what is found wrong with replicas
    opener: Opener | None = None  # of items that people look at; without it nobody is told of what is stopped
    drills: DrillStore | None = None  # faults that are put in on purpose; without it none ever is
    outputs: OutputSink | None = None  # where notes of outputs go; without it none are taken
    canaries: CanaryStore | None = None  # goldens and rounds; without it no canary is played
    devices: DeviceSource | None = None  # GPUs; without it none are told apart
    device_store: DeviceStore | None = None


async def run_worker(ports: WorkerPorts, stop: asyncio.Event, on_ready: Callable[[str], None]) -> None:
    """Work until `stop`, then drain. `on_ready` gets the address on which gateways reach this worker."""
    worker = _Worker(ports)
    await worker.folders.prepare()
    listener = listen(ports.settings.worker.host, ports.settings.worker.port)
    async with asyncio.TaskGroup() as group:
        worker.keeper.start(worker.cancels.take_away)
        background = [
            group.create_task(serve(worker.lane, listener)),
            group.create_task(worker.desk.run()),
            group.create_task(worker.log_book.run()),
            group.create_task(worker.findings.run()),
            group.create_task(worker.drilling.run()),
            group.create_task(worker.mirror.run()),
            group.create_task(worker.notes.run()),
            group.create_task(worker.scoring.run()),
            *([group.create_task(worker.canaries.run())] if worker.canaries is not None else []),
            group.create_task(worker.devices.run()),
            group.create_task(ports.policies.run()),
            group.create_task(ports.guard.run()),
            group.create_task(worker.log_book.keep_flushing()),
            group.create_task(worker.replicas.run(group)),
            group.create_task(worker.replicas.listen(ports.wakeups)),
            group.create_task(worker.listen_for_work()),
            group.create_task(worker.replicas.report_for_ever(worker.describe)),
            group.create_task(
                worker.cancels.run(ports.queue, ports.wakeups, ports.settings.worker.cancel_poll_seconds)
            ),
        ]
        worker.address = f"http://{_shown(listener)}"
        # Who has a policy of their own is known before the first call.
        await ports.policies.wait_known(POLICIES_SECONDS)
        claiming = group.create_task(worker.claimer.run(group))
        on_ready(worker.address)
        try:
            await stop.wait()
            worker.claimer.stop()
            await asyncio.wait({claiming}, timeout=CLAIM_SECONDS)  # a claim on its way still brings leases to give back
            await worker.drain()
        finally:
            claiming.cancel()
            worker.claimer.abandon_rest()
            for task in background:
                task.cancel()
            await worker.keeper.stop()
            await worker.decoder.close()


class _Worker:
    """The parts, put together."""

    def __init__(self, ports: WorkerPorts) -> None:
        settings, clock = ports.settings, ports.clock
        self._ports = ports
        self._started_at: dt.datetime = clock.now()
        self._state = "ready"
        self.address = ""
        self.worker_id = WorkerId(settings.worker.worker_id or f"{socket.gethostname()}-{os.getpid()}")
        self.folders = folders_of(settings, self.worker_id)
        self.log_book = LogBook(ports.queue, clock, ports.metrics, LineJudge(ports.guard, ports.metrics))
        self.desk = Desk(ports.queue, ports.wakeups, clock)
        self.keeper = LeaseKeeper(self.worker_id, ports.open_queue, settings.queue.lease_seconds)
        self.decoder = Decoder(
            limits_of(settings.ingress), at_a_time=settings.ingress.decoders, on_start=_tell_isolation
        )
        fetcher = Fetcher(allow_private=settings.worker.allow_private_inputs, limits=_fetch_limits(settings))
        inputs = _inputs(ports, fetcher, self.decoder, self.folders.scratch)
        outputs = _outputs(ports, self.folders.scratch)
        looks = Looks(self.decoder, heard_bytes(settings.safety.providers_file))
        judging_ports = _judging_ports(ports, fetcher, looks, self.decoder, self.folders.scratch)
        self.findings = FindingBook(ports.findings, clock, ports.metrics)
        self.notes = OutputNotes(ports.outputs, clock, ports.metrics, settings.worker.device_name or self.worker_id)
        self.scoring = _scoring(self.worker_id, ports, (self.findings, self.notes), self.folders)
        books = self.findings, self.notes, self.scoring
        quality = OutputQuality(_quality_ports(ports, looks, self.folders.scratch, books))
        judge, input_judge = OutputJudge(judging_ports), InputJudge(judging_ports)
        patience, stopped = Patience(clock, settings.safety.patience_seconds), _stopped(ports)
        self.replicas = self._replica_keeper(ports, outputs)
        self.drilling = Drilling(self.worker_id, ports.drills, self.replicas.all_replicas, clock)
        self.devices = _devices(self.worker_id, ports, self.findings, self.replicas)
        self.replicas.choose_devices = self.devices.choose
        self.mirror = Mirror(ports.offers, self.replicas.held, clock)
        parts = AttemptParts(
            queue=ports.queue,
            desk=self.desk,
            keeper=self.keeper,
            inputs=inputs,
            outputs=outputs,
            log_book=self.log_book,
            settings=settings,
            clock=clock,
            chance=ports.chance,
            metrics=ports.metrics,
            input_check=QueueInputs(input_judge, patience, stopped),
            quality=quality,
            mirror=self.mirror,
            device_bytes=self.devices.bytes_of,
            checks=(SafetyCheck(judge, patience, stopped), *ports.checks),
        )
        situation = Situation(self.replicas.all_replicas, self.replicas.routes, self.replicas.held)
        self.canaries = self._canary_runner(ports, inputs)
        self.claimer = Claimer(self.worker_id, situation, parts)
        self.replicas.on_change = self.claimer.wake
        self.cancels = CancelWatch(self.worker_id, self.claimer.attempts, self.desk, clock, ports.metrics)
        blocks = SlotBlocks(clock, self.claimer.wake)
        judging = DirectJudging(judge, input_judge, quality, outputs, ports.metrics, stopped)
        self.lane = DirectLane(self.replicas.replica, inputs, settings.secrets.internal_key, clock, blocks, judging)
        self.lane.mirror = self.mirror

    def _canary_runner(self, ports: WorkerPorts, inputs: Inputs) -> CanaryRunner | None:
        """Return what plays canary rounds; none where nothing keeps them."""
        if ports.canaries is None:
            return None
        return CanaryRunner(self._canary_ports(ports, ports.canaries, inputs), self.replicas, self.worker_id)

    def _replica_keeper(self, ports: WorkerPorts, outputs: BucketOutputs) -> ReplicaKeeper:
        """Return what loads, drains and unloads replicas."""
        keeper = ReplicaKeeper(
            self.worker_id,
            fleet=ports.fleet,
            make_host=_loader(ports, outputs, self.log_book, self.folders),
            settings=ports.settings,
            clock=ports.clock,
            chance=ports.chance,
            metrics=ports.metrics,
        )
        keeper.backlog = ports.queue.backlog
        return keeper

    def _canary_ports(self, ports: WorkerPorts, store: CanaryStore, inputs: Inputs) -> CanaryPorts:
        """Return what playing canaries may use."""
        settings = ports.settings
        return CanaryPorts(
            store=store,
            findings=ports.findings,
            found=self.findings.take,
            objects=ports.objects,
            inputs=inputs,
            looks=CanaryLooks(ports.media, self.decoder, self.folders.scratch, settings.ingress.total_seconds),
            replicas=self.replicas.all_replicas,
            placed=self.replicas.placed,
            device=settings.worker.device_name or self.worker_id,
            clock=ports.clock,
            chance=ports.chance,
            metrics=ports.metrics,
        )

    def describe(self) -> WorkerReport:
        """Say what this worker is."""
        worker = self._ports.settings.worker
        return WorkerReport(
            worker_id=self.worker_id,
            pool=worker.pool,
            address=self.address,
            devices=worker.devices,
            memory_mb=worker.memory_mb or _machine_memory_mb(),
            state=self._state,
            started_at=self._started_at,
            seen_at=self._ports.clock.now(),
        )

    async def listen_for_work(self) -> None:
        """Look at the queue at once when a model that is loaded here has new requests."""
        async with self._ports.wakeups.subscribe("forestay:queue") as messages:
            async for _, message in messages:
                named = set(message.split())
                wanted = [item for item in self.replicas.all_replicas() if item.revision.model_id in named]
                for replica in wanted:
                    replica.turns.want_queue()
                if wanted:
                    self.claimer.wake()

    async def drain(self) -> None:
        """Go in good order."""
        seconds = self._ports.settings.worker.drain_seconds
        self._state = "draining"
        self.replicas.drain_all("the worker is stopping")
        log.info("worker.draining", running=len(self.claimer.attempts))
        await self._report()
        if not await self.claimer.settled(seconds):
            await self._give_the_rest_back()
        await self._end_replicas()
        with contextlib.suppress(
            Unavailable, TimeoutError
        ):  # told as far as possible; the store forgets silent workers
            async with asyncio.timeout(LAST_REPORT_SECONDS):
                await self.log_book.ship()
                await self.findings.ship()
                await self.notes.flush()
                await self._ports.fleet.retire_worker(self.worker_id)

    async def _give_the_rest_back(self) -> None:
        left = list(self.claimer.attempts.values())
        log.info("worker.giving_back", requests=len(left))
        for replica in self.replicas.all_replicas():
            replica.condemned = replica.condemned or "the worker is stopping"
        try:
            async with asyncio.timeout(LAST_REPORT_SECONDS), asyncio.TaskGroup() as group:
                for attempt in left:
                    group.create_task(attempt.give_back("the worker is stopping"))
        except TimeoutError:
            log.warning("worker.not_given_back", requests=len(left))  # their leases run out

    async def _end_replicas(self) -> None:
        live = self.replicas.all_replicas()
        for replica in live:
            replica.hurry()
        grace = max([replica.revision.spec.limits.termination_grace_seconds for replica in live], default=0.0)
        deadline = self._ports.clock.monotonic() + grace + KILL_SECONDS
        while self.replicas.all_replicas() and self._ports.clock.monotonic() < deadline:
            await self._ports.clock.sleep(0.02)
        await self.claimer.settled(1.0)

    async def _report(self) -> None:
        await self.replicas.report(self.describe())


def _devices(worker_id: WorkerId, ports: WorkerPorts, book: FindingBook, replicas: ReplicaKeeper) -> DeviceWatch:
    """Return the watch over this worker's devices, which also hands them out."""
    shown = ports.environment.get("CUDA_VISIBLE_DEVICES")
    used = DevicePorts(ports.devices, ports.device_store, book.take, replicas.all_replicas, ports.clock, ports.metrics)
    return DeviceWatch(worker_id, ports.settings.worker.pool, shown, used)


def _scoring(
    worker_id: WorkerId, ports: WorkerPorts, books: tuple[FindingBook, OutputNotes], folders: Folders
) -> Scoring:
    """Return what scores outputs, with the scorers that the operator's file names."""
    settings = ports.settings
    secrets = settings.worker.secrets_dir
    kept = (folders.bundles, folders.environments, folders.scratch, folders.runs)
    hidden = (*kept, *((pathlib.Path(secrets).absolute(),) if secrets else ()))

    def process(entry: ScorerEntry) -> ScorerProcess:
        place = folders.runs / f"scorer-{entry.scorer_id}"
        return ScorerProcess(entry, ScorerPlace(place, ports.environment, hidden, settings.worker.allow_unisolated))

    used = ScoringPorts(
        media=ports.media,
        notes=books[1],
        found=books[0].take,
        clock=ports.clock,
        metrics=ports.metrics,
        worker_id=worker_id,
        key=notes_key(settings.secrets.internal_key),
        process=process,
    )
    return Scoring(read_scorers(settings.quality.scorers_file), used)


def _stopped(ports: WorkerPorts) -> StoppedContent | None:
    """Return who tells people of what was stopped."""
    return None if ports.opener is None else StoppedContent(ports.opener, ports.queue, ports.guard)


def _inputs(ports: WorkerPorts, fetcher: Fetcher, decoder: Decoder, folder: pathlib.Path) -> Inputs:
    """Return what brings the files of inputs; `folder` is for scratch files."""
    return Inputs(
        InputPorts(
            media=ports.media,
            fetcher=fetcher,
            opener=decoder,
            check_weights=check_weights,
            folder=folder,
            settings=ports.settings.ingress,
            clock=ports.clock,
            metrics=ports.metrics,
        )
    )


def _outputs(ports: WorkerPorts, folder: pathlib.Path) -> BucketOutputs:
    """Return the way of outputs into callers' buckets."""
    delivery = ports.settings.delivery
    bucket = Bucket(
        ports.clock,
        ports.chance,
        allow_private=delivery.allow_private_buckets,
        limits=BucketLimits(delivery.bucket_timeout_seconds, delivery.bucket_tries),
    )
    return BucketOutputs(ports.media, bucket, folder, delivery.allow_private_buckets, ports.metrics)


def _judging_ports(
    ports: WorkerPorts, fetcher: Fetcher, looks: Looks, decoder: Decoder, folder: pathlib.Path
) -> JudgingPorts:
    """Return what those who judge inputs and outputs may use."""
    return JudgingPorts(
        guard=ports.guard,
        media=ports.media,
        fetcher=fetcher,
        viewer=looks,
        folder=folder,
        clock=ports.clock,
        file_seconds=ports.settings.ingress.total_seconds,
        stamping=Stamping(ports.stamps(decoder), ports.media, folder, ports.clock, ports.metrics),
    )


def _quality_ports(
    ports: WorkerPorts, looks: Looks, folder: pathlib.Path, books: tuple[FindingBook, OutputNotes, Scoring]
) -> QualityPorts:
    """Return what holding outputs against their contracts may use."""
    return QualityPorts(
        media=ports.media,
        looks=looks,
        folder=folder,
        clock=ports.clock,
        metrics=ports.metrics,
        file_seconds=ports.settings.ingress.total_seconds,
        found=books[0].take,
        guard_looks=lambda policy_id, tenant_id, request_id: bool(
            ports.guard.modalities(policy_id, tenant_id, request_id) & MEDIA
        ),
        notes=books[1],
        score=books[2].offer,
        key=notes_key(ports.settings.secrets.internal_key),
    )


def _fetch_limits(settings: Settings) -> FetchLimits:
    ingress = settings.ingress
    return FetchLimits(ingress.max_bytes, ingress.fetch_seconds, ingress.connect_seconds, ingress.max_redirects)


def _tell_isolation(pid: int, isolation: Mapping[str, object]) -> None:
    """Say what the child that opens media was denied; what is false here is a boundary that this machine lacks."""
    log.info("decoder.started", pid=pid, **isolation)


def _loader(ports: WorkerPorts, outputs: BucketOutputs, log_book: LogBook, folders: Folders) -> Loader:
    return Loader(
        objects=ports.objects,
        media=ports.media,
        outputs=outputs,
        log_book=log_book,
        settings=ports.settings,
        clock=ports.clock,
        environment=ports.environment,
        folders=folders,
        files=FileCheck(ports.artefacts, ports.clock, ports.metrics),
    )


def _machine_memory_mb() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1024 * 1024)


def _shown(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
