"""Settings -> adapters -> processes: one function for each kind of process, and nothing else knows them all.

It decides which adapter stands behind each port and in which order a process starts and ends. Imports wait until their
process runs, so that a gateway does not carry a worker's weight. Called by the command line.
"""

import asyncio
import contextlib
import dataclasses
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
from forestay.telemetry.logs import configure, logger
from forestay.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from forestay.abuse.loop import AbuseLoop
    from forestay.abuse.meaning import Embedder
    from forestay.artefacts.admission import Admission
    from forestay.capacity.learn import LearningLoop
    from forestay.capacity.shed_loop import SheddingLoop
    from forestay.controller import Loop
    from forestay.delivery.outbox import PostgresOutbox
    from forestay.fleet.anchor import AuditAnchor
    from forestay.fleet.postgres_store import PostgresFleetStore
    from forestay.gateway.caller_address import Tunnels
    from forestay.gateway.ports import AdminReaders, GatewayPorts
    from forestay.limits.valkey_counters import ValkeyCounters
    from forestay.media.postgres_store import PostgresMediaStore
    from forestay.queue.postgres_store import PostgresQueueStore
    from forestay.servers import Listener
    from forestay.storage.objects import ObjectStore
    from forestay.storage.postgres import Database
    from forestay.storage.valkey import Wakeups

_GATEWAY_GRACE_SECONDS = 15.0

_log = logger("wiring")


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
    configure(kind)
    keep_memory_private()
    return Process(
        kind=kind,
        settings=settings,
        clock=SystemClock(),
        chance=SystemChance(),
        metrics=Metrics(),
        link=attach_supervisor(environment),
        listeners=inherited_listeners(environment),
        stop=stop_on_signals(asyncio.get_running_loop()),
    )


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
async def _second_queue(process: Process, name: str) -> AsyncGenerator["PostgresQueueStore"]:
    """Open the queue once more, with a connection of its own, on the loop of the thread that keeps the leases."""
    from forestay.queue.postgres_store import open_queue_store
    from forestay.storage.objects import open_object_store

    objects = open_object_store(process.settings.storage.object_store)
    async with contextlib.AsyncExitStack() as opened:
        database = await _database(opened, process.settings.storage.database_url, process, name, pool_size=1)
        queue = open_queue_store(database, objects, process.settings.queue, process.chance)
        yield await opened.enter_async_context(queue)


@contextlib.asynccontextmanager
async def _metrics(process: Process) -> AsyncGenerator[str]:
    """Serve the metrics port while the block runs; yields its address."""
    gateway = process.settings.gateway
    wanted = gateway.metrics_port if process.kind == "gateway" else 0
    listener = process.listeners.get("metrics") or bind(gateway.host, wanted, what="FORESTAY_METRICS_PORT")
    async with metrics_port(listener, process.metrics, lambda: not process.stop.is_set()):
        yield address_of(listener)


def _own_name(kind: str) -> str:
    """Return a name that no other live process has: kind, machine and process id."""
    return f"{kind}@{platform.node()}:{os.getpid()}"


async def run_gateway(settings: Settings, environment: Mapping[str, str], *, server: str) -> None:
    """Run one gateway until SIGTERM: plain HTTP, TLS, metrics and the CONNECT proxy."""
    process = start_process("gateway", settings, environment)
    from forestay.gateway.asgi import build_gateway
    from forestay.gateway.caller_address import trusted_networks
    from forestay.servers import lifespan, serve

    trusted_networks(settings.gateway.trusted_proxies)  # what is no network is told now, not at the first call
    async with (
        open_stores(process, _own_name("gateway")) as stores,
        _metrics(process) as metrics,
        _embedder(process) as embedder,
    ):
        ports = _gateway_ports(process, stores, embedder)
        application = build_gateway(ports)
        listeners = _gateway_listeners(process, ports.tunnels)
        async with lifespan(application), _connect_proxy(process, listeners, ports.tunnels):
            shown = {name: address_of(one.listener) for name, one in listeners.items() if name != "tunnel"}
            process.link.ready({"metrics": metrics, **shown})
            _log.info("gateway.ready", server=server, metrics=metrics, **shown)
            ended = await serve(
                application, list(listeners.values()), process.stop, server=server, grace_seconds=_GATEWAY_GRACE_SECONDS
            )
            _log.info("gateway.stopped", calls_cut=not ended)


def _gateway_ports(process: Process, stores: Stores, embedder: "Embedder | None") -> "GatewayPorts":
    from forestay.abuse.postgres_store import PostgresAbuseStore
    from forestay.capacity.postgres_costs import PostgresCostStore
    from forestay.fleet.key_ring import KeyRing
    from forestay.fleet.peppers import Peppers
    from forestay.fleet.postgres_keys import PostgresKeyStore
    from forestay.fleet.postgres_people import PostgresPeopleStore, PostgresSignInStore
    from forestay.fleet.postgres_standings import PostgresStandings
    from forestay.gateway.guesses import Guesses
    from forestay.gateway.oidc_provider import OidcProvider
    from forestay.gateway.password_desk import PasswordDesk
    from forestay.gateway.ports import AbuseDesk, GatewayPorts, LimitPorts
    from forestay.gateway.standing import Standings
    from forestay.limits.postgres_store import PostgresLimitStore
    from forestay.telemetry.call_facts import PostgresCalls
    from forestay.telemetry.facts import FactWriter

    settings, writer = process.settings, _own_name("gateway")
    peppers = Peppers(settings.secrets.key_pepper, settings.secrets.old_key_peppers.split())
    key_store = PostgresKeyStore(stores.database, process.clock, process.chance, writer, peppers)
    calls = PostgresCalls(stores.facts_database)
    return GatewayPorts(
        queue=stores.queue,
        fleet=stores.fleet,
        keys=KeyRing(key_store, process.clock, peppers=peppers),
        key_store=key_store,
        objects=stores.objects,
        media=stores.media,
        wakeups=stores.wakeups,
        facts=FactWriter(stores.facts_database),
        settings=settings,
        clock=process.clock,
        chance=process.chance,
        metrics=process.metrics,
        costs=PostgresCostStore(stores.database),
        admin=_admin_readers(stores),
        people=PostgresPeopleStore(stores.database, process.clock, process.chance, writer),
        sign_ins=PostgresSignInStore(stores.database),
        desk=PasswordDesk(process.chance),
        anchor=_anchor(process, stores) if settings.secrets.signing_key_file else None,
        oidc=OidcProvider(settings.identity, process.clock) if settings.identity.oidc_issuer else None,
        calls=calls,
        embedder=embedder,
        abuse=AbuseDesk(PostgresAbuseStore(stores.database, writer=writer), calls),
        standings=Standings(process.clock, settings.gateway.throttled_rate),
        guesses=Guesses(process.clock, settings.gateway.guesses, settings.gateway.guess_pause_seconds),
        standing_store=PostgresStandings(stores.database, stores.wakeups, process.chance, writer=writer),
        limits=LimitPorts(
            store=PostgresLimitStore(stores.database, stores.wakeups, process.clock, writer),
            counters=_limit_counters(process),
        ),
        artefacts=_admission(process, stores, writer),
    )


def _admin_readers(stores: Stores) -> "AdminReaders":
    from forestay.delivery.dead_letters import PostgresDeadLetters
    from forestay.gateway.ports import AdminReaders
    from forestay.queue.claiming import PostgresTurns
    from forestay.queue.listing import PostgresRequestList
    from forestay.telemetry.fact_reader import PostgresFactReader

    return AdminReaders(
        requests=PostgresRequestList(stores.database),
        facts=PostgresFactReader(stores.facts_database),
        webhooks=PostgresDeadLetters(stores.database),
        turns=PostgresTurns(stores.database),
    )


@contextlib.asynccontextmanager
async def _embedder(process: Process) -> "AsyncGenerator[Embedder | None]":
    """Keep the program that embeds prompts while the block runs, where the operator wants it."""
    if process.settings.gateway.meanings_per_second <= 0:
        yield None
        return
    from forestay.abuse.minilm_child import MiniLm, missing

    if missing():
        raise UsageError(
            "FORESTAY_MEANINGS_PER_SECOND", f"needs {missing()}; install forestay[embeddings], or set it to 0"
        )
    child = MiniLm(process.clock)
    try:
        yield child
    finally:
        await child.close()


def _limit_counters(process: Process) -> "ValkeyCounters | None":
    """Return the counters that all gateways share; None without a Valkey."""
    from forestay.limits.valkey_counters import ValkeyCounters

    url, limits = process.settings.storage.valkey_url, process.settings.limits
    return ValkeyCounters(url, process.clock, limits.counter_timeout_ms / 1000) if url else None


def _admission(process: Process, stores: Stores, name: str) -> "Admission":
    from forestay.artefacts.admission import Admission
    from forestay.artefacts.postgres_store import PostgresArtefactStore

    store = PostgresArtefactStore(stores.database, process.clock, name)
    required = process.settings.artefacts.require_signatures
    return Admission(store, stores.objects, process.clock, signatures_required=required)


def _gateway_listeners(process: Process, tunnels: "Tunnels") -> "dict[str, Listener]":
    """Return the sockets to serve on: inherited from the supervisor, else bound here by the settings.

    `tunnel` is the CONNECT proxy's own way in, on loopback.
    """
    from forestay.servers import Certificate, Listener
    from forestay.tls import ensure_tls

    gateway = process.settings.gateway
    plain = process.listeners.get("http") or bind(gateway.host, gateway.port, what="FORESTAY_PORT")
    found = {"http": Listener(plain)}
    if gateway.tls_port >= 0 and gateway.tls_dir:
        files = ensure_tls(pathlib.Path(gateway.tls_dir), process.clock.now(), (gateway.host,))
        secured = process.listeners.get("tls") or bind(gateway.host, gateway.tls_port, what="FORESTAY_TLS_PORT")
        certificate = Certificate(files.certificate, files.key)
        found["tls"] = Listener(secured, certificate)
        if gateway.connect_port >= 0:
            found["tunnel"] = Listener(bind("127.0.0.1", 0, what="CONNECT proxy"), certificate)
            tunnels.listener_port = found["tunnel"].listener.getsockname()[1]
    for name, port in (("run", gateway.run_port), ("queue", gateway.queue_port)):
        if port > 0:  # answers as that one of fal's hosts, without a prefix
            found[name] = Listener(bind(gateway.host, port, what=f"FORESTAY_{name.upper()}_PORT"))
    return found


@contextlib.asynccontextmanager
async def _connect_proxy(
    process: Process, listeners: "Mapping[str, Listener]", tunnels: "Tunnels"
) -> AsyncGenerator[None]:
    """Serve the CONNECT proxy while the block runs, where there is a TLS listener for it to lead to."""
    gateway = process.settings.gateway
    if "tunnel" not in listeners:
        yield
        return
    from forestay.gateway.connect_proxy import ProxyTarget, serve_connect_proxy

    listener = process.listeners.get("connect") or bind(
        gateway.host, gateway.connect_port, what="FORESTAY_CONNECT_PORT"
    )
    host, port = listeners["tunnel"].listener.getsockname()[:2]
    own, own_port = listeners["tls"].listener, listeners["tls"].listener.getsockname()[1]
    target = ProxyTarget(host, port, (address_of(own), f"localhost:{own_port}"), tunnels)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve_connect_proxy(listener, target, process.stop, lambda _port: None, process.metrics))
        yield


async def run_worker(settings: Settings, environment: Mapping[str, str]) -> None:
    """Run one worker until SIGTERM, then drain."""
    process = start_process("worker", settings, environment)
    from forestay.worker.process import WorkerPorts
    from forestay.worker.process import run_worker as work

    name = f"worker {settings.worker.worker_id}".strip()
    async with open_stores(process, name) as stores, _metrics(process) as metrics:
        ports = WorkerPorts(
            queue=stores.queue,
            open_queue=lambda: _second_queue(process, f"{name} leases"),
            fleet=stores.fleet,
            objects=stores.objects,
            media=stores.media,
            wakeups=stores.wakeups,
            settings=settings,
            clock=process.clock,
            chance=process.chance,
            metrics=process.metrics,
            artefacts=_admission(process, stores, name),
            environment=environment,
        )

        def ready(address: str) -> None:
            process.link.ready({"metrics": metrics, "address": address})
            _log.info("worker.ready", address=address, metrics=metrics)

        await work(ports, process.stop, ready)
        _log.info("worker.stopped")


async def run_controller(settings: Settings, environment: Mapping[str, str]) -> None:
    """Run every control loop, each under its leader's lease, until SIGTERM."""
    process = start_process("controller", settings, environment)
    from forestay.controller import ControllerPorts, run_loops
    from forestay.storage.leader import LoopLeaders

    name = _own_name("controller")
    async with open_stores(process, name) as stores, _metrics(process) as metrics:
        loops = _loops(process, stores)
        ports = ControllerPorts(LoopLeaders(stores.database, name), stores.wakeups, process.clock, process.metrics)
        process.link.ready({"metrics": metrics})
        _log.info("controller.ready", loops=[loop.name for loop in loops], metrics=metrics)
        await run_loops(loops, ports, process.stop)
        _log.info("controller.stopped")


def _loops(process: Process, stores: Stores) -> "list[Loop]":
    """List the control loops with their beats; each is `run_once` of its domain."""
    from forestay.abuse.loop import BATCH as ABUSE_BATCH
    from forestay.capacity import learn
    from forestay.capacity.loop import PlacementLoop
    from forestay.controller import Loop
    from forestay.delivery import retention as old_webhooks
    from forestay.fleet.postgres_people import PostgresPeopleStore
    from forestay.media import retention as old_media
    from forestay.queue import claiming, expire, rescue
    from forestay.queue import retention as old_requests
    from forestay.rollouts.loop import RolloutLoop
    from forestay.telemetry import call_facts, facts

    queue, settings = stores.queue, process.settings
    people = PostgresPeopleStore(stores.database, process.clock, process.chance)
    kept = settings.queue.retention_seconds
    outbox = _outbox(stores)
    rescue_beat = max(0.1, min(1.0, settings.queue.lease_seconds / 8))  # an orphan runs again within 1.5 leases
    return [
        Loop("rescue", rescue_beat, lambda: rescue.run_once(queue, stores.wakeups)),
        Loop("expire", 0.5, lambda: expire.run_once(queue, stores.wakeups)),
        Loop(
            "placement",
            1.0,
            PlacementLoop(stores.fleet, queue).run_once,
            wakes_on=("forestay:demand", "forestay:fleet", "forestay:queue"),
        ),
        Loop("rollout", 1.0, RolloutLoop(stores.fleet).run_once, wakes_on=("forestay:fleet",)),
        Loop("webhooks", 1.0, _deliver(process, stores, outbox), wakes_on=("forestay:webhooks",)),
        *_settlement_loops(process, stores),
        Loop("turns", 1.0, lambda: claiming.run_once(stores.database)),
        Loop("shed", 1.0, _shedder(process, stores).run_once),
        Loop("costs", 2.0, _learner(process, stores).run_once, batch=learn.BATCH),
        Loop(
            "retention",
            60.0,
            lambda: old_requests.run_once(queue, stores.database, stores.objects, process.clock, kept),
        ),
        Loop("media_retention", 60.0, lambda: old_media.run_once(stores.media), batch=old_media.BATCH),
        Loop("audit_anchor", 60.0, _sign_heads(process, stores)),
        Loop("sign_in_retention", 600.0, people.forget_old),
        Loop("webhook_retention", 60.0, lambda: old_webhooks.run_once(outbox, kept), batch=old_webhooks.BATCH),
        Loop(
            "fact_partitions",
            3600.0,
            lambda: facts.keep_partitions(stores.facts_database, process.clock, settings.queue.facts_retention_seconds),
        ),
        Loop(
            "call_fact_partitions",
            3600.0,
            lambda: call_facts.keep_partitions(
                stores.facts_database, process.clock, settings.queue.call_facts_retention_seconds
            ),
        ),
        Loop("abuse", 0.5, _abuse(process, stores).run_once, batch=ABUSE_BATCH),
    ]


def _abuse(process: Process, stores: Stores) -> "AbuseLoop":
    from forestay.abuse.loop import AbuseLoop, AbusePorts
    from forestay.abuse.postgres_store import PostgresAbuseStore
    from forestay.fleet.postgres_standings import PostgresStandings
    from forestay.telemetry.call_facts import PostgresCalls

    name = _own_name("controller")
    return AbuseLoop(
        AbusePorts(
            calls=PostgresCalls(stores.facts_database),
            fleet=stores.fleet,
            standings=PostgresStandings(stores.database, stores.wakeups, process.chance, writer=name),
            store=PostgresAbuseStore(stores.database, writer=name),
            clock=process.clock,
            metrics=process.metrics,
        )
    )


def _shedder(process: Process, stores: Stores) -> "SheddingLoop":
    from forestay.capacity.admission import Rules
    from forestay.capacity.shed_loop import SheddingLoop

    rules = Rules(process.settings.queue.starvation_bound_seconds)
    return SheddingLoop(stores.queue, stores.fleet, stores.wakeups, process.metrics, rules)


def _learner(process: Process, stores: Stores) -> "LearningLoop":
    from forestay.capacity.learn import LearningLoop
    from forestay.capacity.postgres_costs import PostgresCostStore
    from forestay.telemetry.cost_facts import PostgresCostFacts

    kept_seconds = process.settings.queue.facts_retention_seconds
    costs = PostgresCostStore(stores.database, kept_seconds)
    return LearningLoop(PostgresCostFacts(stores.facts_database), costs, stores.fleet, process.clock)


def _settlement_loops(process: Process, stores: Stores) -> "list[Loop]":
    """List the loops of facts: shipped with their usage added, then told to the counters of limits."""
    from forestay.abuse.refusals import LateRefusals
    from forestay.controller import Loop
    from forestay.limits import settlement
    from forestay.limits.postgres_store import PostgresLimitStore
    from forestay.queue import claiming
    from forestay.telemetry import facts
    from forestay.telemetry.call_facts import PostgresCalls

    store = PostgresLimitStore(stores.database, stores.wakeups, process.clock)
    ground = settlement.Ground(store, stores.fleet, process.settings.limits)
    settle = settlement.Settlement(ground, process.metrics).settle
    refusals = LateRefusals(PostgresCalls(stores.facts_database), process.clock)

    async def ship() -> int:
        await ground.refresh()
        return await facts.ship(
            stores.database, stores.facts_database, (claiming.settle_facts, settle, refusals.settle)
        )

    async def tidy() -> int:
        await store.tidy()
        return 0

    loops = [Loop("facts", 1.0, ship), Loop("limit_retention", 3600.0, tidy)]
    counters = _limit_counters(process)
    if counters is not None:
        closer = settlement.Closer(store, counters, ground, process.clock)
        loops.append(Loop("limits", 1.0, closer.run_once, batch=settlement.BATCH))
    return loops


def _outbox(stores: Stores) -> "PostgresOutbox":
    from forestay.delivery.outbox import PostgresOutbox

    return PostgresOutbox(stores.database)


def _anchor(process: Process, stores: Stores) -> "AuditAnchor":
    from forestay.delivery.signing import load_or_create_keys
    from forestay.fleet.anchor import AuditAnchor

    keys = load_or_create_keys(pathlib.Path(process.settings.secrets.signing_key_file))
    return AuditAnchor(stores.database, stores.objects, keys, process.clock)


def _sign_heads(process: Process, stores: Stores) -> "Callable[[], Awaitable[int]]":
    """Return the run of the loop that signs the audit log's heads, and says by a metric when they may not be signed."""
    from forestay.fleet.anchor import LogTampered
    from forestay.telemetry.metrics import AUDIT_TAMPERED

    anchor = _anchor(process, stores)

    async def run_once() -> int:
        try:
            signed = await anchor.run_once()
        except LogTampered:
            process.metrics.set(AUDIT_TAMPERED, 1)
            raise
        process.metrics.set(AUDIT_TAMPERED, 0)
        return signed

    return run_once


def _deliver(process: Process, stores: Stores, outbox: "PostgresOutbox") -> "Callable[[], Awaitable[int]]":
    """Return the delivery loop's run; raises UsageError when there is no key to sign webhooks with."""
    from forestay.delivery.signing import load_or_create_keys
    from forestay.delivery.webhooks import DeliveryPorts
    from forestay.delivery.webhooks import run_once as deliver

    key_file = process.settings.secrets.signing_key_file
    if not key_file:
        raise UsageError("FORESTAY_SIGNING_KEY_FILE", "is not set; expected a file for the key that signs webhooks")
    ports = DeliveryPorts(
        outbox=outbox,
        queue=stores.queue,
        keys=load_or_create_keys(pathlib.Path(key_file)),
        settings=process.settings,
        clock=process.clock,
        chance=process.chance,
        metrics=process.metrics,
        stop=process.stop,
    )
    return lambda: deliver(ports)
