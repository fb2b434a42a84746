"""What every kind of process opens at its start: its settings' stores, its name, its line to the supervisor.

It decides which adapter stands behind each port that several kinds share. Imports wait until they are needed, so that a
gateway does not carry a worker's weight. Called by the wiring and by `control_loops`.
"""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import functools
import os
import pathlib
import platform
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from forestay.chance import Chance, SystemChance
from forestay.clock import Clock, SystemClock
from forestay.errors import UsageError
from forestay.metrics_port import metrics_port
from forestay.processes import (
    SupervisorLink,
    address_of,
    attach_supervisor,
    bind,
    inherited_listeners,
    keep_memory_private,
    stop_on_signals,
)
from forestay.settings import Settings
from forestay.telemetry.logs import configure
from forestay.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from forestay.artefacts.admission import Admission
    from forestay.fleet.anchor import AuditAnchor
    from forestay.fleet.postgres_store import PostgresFleetStore
    from forestay.limits.valkey_counters import ValkeyCounters
    from forestay.media.postgres_store import PostgresMediaStore
    from forestay.quality.evidence_loop import EvidencePorts
    from forestay.queue.postgres_store import PostgresQueueStore
    from forestay.safety.chain import ChainFault
    from forestay.safety.guard import Guard
    from forestay.safety.hashes.cases import CaseOpener
    from forestay.safety.policies import Policies
    from forestay.safety.postgres_store import PostgresSafetyStore
    from forestay.safety.records import PostgresVerdicts
    from forestay.safety.review.desk import ReviewDesk
    from forestay.safety.routed import RoutedDetectors
    from forestay.storage.objects import ObjectStore
    from forestay.storage.postgres import Database
    from forestay.storage.valkey import Wakeups


@dataclasses.dataclass(frozen=True, slots=True)
class Stores:
    """The adapters that every kind of process shares."""

    database: "Database"
    facts_database: "Database"
    queue: "PostgresQueueStore"
    fleet: "PostgresFleetStore"
    objects: "ObjectStore"
    media: "PostgresMediaStore"
    wakeups: "Wakeups"


@dataclasses.dataclass(frozen=True, slots=True)
class Process:
    """What a process has from its start: time, chance, its settings, its line to the supervisor, its sockets."""

    kind: str
    settings: Settings
    clock: Clock
    chance: Chance
    metrics: Metrics
    link: SupervisorLink
    listeners: Mapping[str, socket.socket]
    stop: asyncio.Event


def start_process(kind: str, settings: Settings, environment: Mapping[str, str]) -> Process:
    """Make the running process what it shall be; call it on the event loop, before anything is opened."""
    require_stores(settings)
    return begin_process(kind, settings, environment)


def begin_process(kind: str, settings: Settings, environment: Mapping[str, str]) -> Process:
    """Do the same for a process that has no stores."""
    configure(kind)
    keep_memory_private()
    metrics = Metrics(silent=not settings.observe.telemetry)
    _drain_logs(settings, metrics)
    return Process(
        kind=kind,
        settings=settings,
        clock=SystemClock(),
        chance=SystemChance(),
        metrics=metrics,
        link=attach_supervisor(environment),
        listeners=inherited_listeners(environment),
        stop=stop_on_signals(asyncio.get_running_loop()),
    )


def _drain_logs(settings: Settings, metrics: Metrics) -> None:
    """Send what this process logs to the drain, where one is named."""
    observe = settings.observe
    if not observe.log_drain_url:
        return
    from forestay.telemetry.drain import Drain
    from forestay.telemetry.logs import tap
    from forestay.telemetry.metrics import LINES_DRAINED

    drain = Drain(
        observe.log_drain_url,
        form=observe.log_drain_format,
        secret=settings.secrets.log_drain_secret,
        service=observe.trace_service,
        count=lambda fate, lines: metrics.add(LINES_DRAINED, fate, amount=lines),
    )
    drain.start()
    tap(drain.take)


def require_stores(settings: Settings) -> None:
    """Raise UsageError naming the first variable that a process cannot do without."""
    needed = {
        "FORESTAY_DATABASE_URL": (settings.storage.database_url, "postgresql://user:password@host/database"),
        "FORESTAY_OBJECT_STORE": (settings.storage.object_store, "file:///folder, s3://bucket, gs://bucket or az://"),
        "FORESTAY_INTERNAL_KEY": (settings.secrets.internal_key, "a long random text, the same for all processes"),
    }
    for variable, (value, form) in needed.items():
        if not value:
            raise UsageError(variable, f"is not set; expected {form}. `forestay up` sets all of this by itself")


@contextlib.asynccontextmanager
async def open_stores(process: Process, name: str) -> AsyncGenerator[Stores]:
    """Open every store, close them backwards; raises Unavailable naming the one that does not answer."""
    from forestay.fleet.postgres_store import PostgresFleetStore
    from forestay.media.postgres_store import PostgresMediaStore
    from forestay.queue.postgres_store import open_queue_store
    from forestay.storage.objects import open_object_store
    from forestay.storage.valkey import connect_wakeups

    storage = process.settings.storage
    async with contextlib.AsyncExitStack() as opened:
        database = await _database(opened, storage.database_url, process, name)
        facts = database if not storage.facts_url else await _database(opened, storage.facts_url, process, name)
        wakeups = await connect_wakeups(storage.valkey_url)
        opened.push_async_callback(wakeups.close)
        objects = open_object_store(storage.object_store)
        in_flight = process.settings.limits.default_in_flight
        queue = open_queue_store(database, objects, process.settings.queue, process.chance, in_flight)
        yield Stores(
            database=database,
            facts_database=facts,
            queue=await opened.enter_async_context(queue),
            fleet=PostgresFleetStore(database, wakeups, writer=name),
            objects=objects,
            media=PostgresMediaStore(database, objects, process.chance),
            wakeups=wakeups,
        )


async def _database(
    opened: contextlib.AsyncExitStack, url: str, process: Process, name: str, *, pool_size: int = 0
) -> "Database":
    from forestay.storage.postgres import Database

    storage = process.settings.storage
    database = await Database.connect(
        url,
        pool_size=pool_size or storage.pool_size,
        statement_timeout_seconds=storage.statement_timeout_seconds,
        application_name=f"forestay {name}",
    )
    opened.push_async_callback(database.close)
    return database


@contextlib.asynccontextmanager
async def second_queue(process: Process, name: str) -> AsyncGenerator["PostgresQueueStore"]:
    """Open the queue once more, with a connection of its own, on the loop of the thread that keeps the leases."""
    from forestay.queue.postgres_store import open_queue_store
    from forestay.storage.objects import open_object_store

    objects = open_object_store(process.settings.storage.object_store)
    async with contextlib.AsyncExitStack() as opened:
        database = await _database(opened, process.settings.storage.database_url, process, name, pool_size=1)
        queue = open_queue_store(database, objects, process.settings.queue, process.chance)
        yield await opened.enter_async_context(queue)


@contextlib.asynccontextmanager
async def serve_metrics(process: Process) -> AsyncGenerator[str]:
    """Serve the metrics port while the block runs; yields its address."""
    own = process.settings.gateway
    listener = process.listeners.get("metrics") or bind(own.host, own.metrics_port, what="FORESTAY_METRICS_PORT")
    async with metrics_port(listener, process.metrics, lambda: not process.stop.is_set()):
        yield address_of(listener)


def own_name(kind: str) -> str:
    """Return a name that no other live process has: kind, machine and process id."""
    return f"{kind}@{platform.node()}:{os.getpid()}"


def limit_counters(process: Process) -> "ValkeyCounters | None":
    """Return the counters that all gateways share; None without a Valkey."""
    from forestay.limits.valkey_counters import ValkeyCounters

    url, limits = process.settings.storage.valkey_url, process.settings.limits
    return ValkeyCounters(url, process.clock, limits.counter_timeout_ms / 1000) if url else None


@dataclasses.dataclass(frozen=True, slots=True)
class Guarding:
    """What judges content in a gateway or a worker."""

    guard: "Guard"
    detectors: "RoutedDetectors"
    policies: "Policies"
    store: "PostgresSafetyStore"
    verdicts: "PostgresVerdicts"
    verify: "Callable[[dt.datetime], Awaitable[tuple[int, list[ChainFault]]]]"


def _case_opener(process: Process, stores: Stores, name: str) -> "CaseOpener":
    from forestay.safety.hashes.cases import CaseOpener
    from forestay.safety.hashes.postgres_reports import PostgresReports

    return CaseOpener(PostgresReports(stores.database, process.clock, name), process.clock, process.metrics)


@contextlib.asynccontextmanager
async def open_guard(process: Process, stores: Stores, name: str) -> AsyncGenerator[Guarding]:
    """Open the way to the judge, and close it behind the block."""
    from forestay.safety import chain
    from forestay.safety.classifiers.lexicon import DETECTOR_ID, LexiconDetectors
    from forestay.safety.classifiers.transcriber import behind_http
    from forestay.safety.guard import Guard, GuardPorts
    from forestay.safety.hashes.follow import Banks
    from forestay.safety.hashes.matcher import DETECTOR_ID as HASHES
    from forestay.safety.hashes.matcher import FloodWatch, HashMatcher
    from forestay.safety.hashes.postgres_store import PostgresBankStore
    from forestay.safety.judge.client import JudgeClient
    from forestay.safety.policies import Policies
    from forestay.safety.postgres_store import PostgresSafetyStore
    from forestay.safety.records import PostgresVerdicts
    from forestay.safety.routed import RoutedDetectors
    from forestay.safety.sealing import PolicySeal

    socket_path = process.settings.judge.socket
    judge = JudgeClient(pathlib.Path(socket_path), process.clock) if socket_path else None
    seal = PolicySeal(process.settings.secrets.internal_key)
    store = PostgresSafetyStore(stores.database, stores.wakeups, seal, writer=name)
    policies, verdicts = Policies(store, seal, process.clock), PostgresVerdicts(stores.facts_database)
    providers = behind_http(process.settings.safety.providers_file, judge, process.clock)
    bank_store = PostgresBankStore(stores.database, stores.wakeups, process.clock, name)
    banks = Banks(
        bank_store,
        with_entries=process.kind == "worker",  # gateways judge no pictures; millions of hashes take their memory
    )
    own = {DETECTOR_ID: LexiconDetectors(process.clock), HASHES: HashMatcher(banks, process.clock)}
    detectors = RoutedDetectors({**own, **providers}, judge)
    watch = FloodWatch(banks, bank_store, process.clock, process.metrics)
    cases = _case_opener(process, stores, name)
    ports = GuardPorts(detectors, policies, verdicts, process.clock, process.chance, process.metrics, watch, cases)
    try:
        verify = functools.partial(chain.verify, stores.facts_database)
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(work) for work in (banks.run(stores.wakeups), watch.run(), cases.run())]
            yield Guarding(Guard(ports), detectors, policies, store, verdicts, verify)
            for task in beside:
                task.cancel()
    finally:
        if judge is not None:
            await judge.close()
        for provider in providers.values():
            await provider.close()


def reviewing(process: Process, stores: Stores, name: str) -> "ReviewDesk":
    """Return where people look again at what the guard stopped."""
    from forestay.safety.records import PostgresVerdicts
    from forestay.safety.review.wiring import ReviewGround, desk_of
    from forestay.worker.releasing import ReleasingGround, releasing_of

    ground = ReleasingGround(
        stores.database, stores.media, process.settings, process.clock, process.chance, process.metrics
    )
    return desk_of(
        ReviewGround(
            database=stores.database,
            objects=stores.objects,
            queue=stores.queue,
            media=stores.media,
            verdicts=PostgresVerdicts(stores.facts_database),
            wakeups=stores.wakeups,
            settings=process.settings,
            clock=process.clock,
            chance=process.chance,
            metrics=process.metrics,
            finisher=releasing_of(ground),
            writer=name,
        )
    )


def admission(process: Process, stores: Stores, name: str) -> "Admission":
    """Return who admits files of models."""
    from forestay.artefacts.admission import Admission
    from forestay.artefacts.postgres_store import PostgresArtefactStore

    store = PostgresArtefactStore(stores.database, process.clock, name)
    required = process.settings.artefacts.require_signatures
    return Admission(store, stores.objects, process.clock, signatures_required=required)


def audit_anchor(process: Process, stores: Stores) -> "AuditAnchor":
    """Return who signs the audit log's heads."""
    from forestay.delivery.signing import load_or_create_keys
    from forestay.fleet.anchor import AuditAnchor

    keys = load_or_create_keys(pathlib.Path(process.settings.secrets.signing_key_file))
    return AuditAnchor(stores.database, stores.objects, keys, process.clock)


def sealing(process: Process, stores: Stores) -> "EvidencePorts":
    """Return what opens evidence for findings: a sample of their outputs, under the seal of reviews."""
    from forestay.quality.evidence_loop import EvidencePorts
    from forestay.quality.postgres_evidence import PostgresEvidence
    from forestay.quality.postgres_findings import PostgresFindings
    from forestay.queue.listing import PostgresRequestList
    from forestay.telemetry.output_facts import PostgresOutputs
    from forestay.worker.evidence_sealing import EvidenceSealer

    kept = process.settings.safety.sealed_retention_seconds
    sealed, requests = reviewing(process, stores, own_name("controller")).sealed, PostgresRequestList(stores.database)
    return EvidencePorts(
        findings=PostgresFindings(stores.database),
        outputs=PostgresOutputs(stores.facts_database),
        evidence=PostgresEvidence(stores.database),
        sealer=EvidenceSealer(sealed, stores.media, requests, kept),
        clock=process.clock,
        retention_seconds=kept,
    )
