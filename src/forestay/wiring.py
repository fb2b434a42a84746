"""Settings -> adapters -> processes: one function for each kind of process, and nothing else knows them all.

It decides which adapter stands behind each port and in which order a process starts and ends. Imports wait until their
process runs, so that a gateway does not carry a worker's weight. Called by the command line.
"""

import asyncio
import contextlib
import dataclasses
import pathlib
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING

from forestay.errors import UsageError
from forestay.processes import address_of, bind, calm_collector
from forestay.settings import Settings
from forestay.startup import (
    Process,
    Stores,
    admission,
    audit_anchor,
    begin_process,
    limit_counters,
    open_guard,
    open_stores,
    own_name,
    reviewing,
    second_queue,
    serve_metrics,
    start_process,
)
from forestay.telemetry.logs import logger

if TYPE_CHECKING:
    from forestay.abuse.meaning import Embedder
    from forestay.gateway.caller_address import Tunnels
    from forestay.gateway.ports import AdminReaders, GatewayPorts
    from forestay.servers import Listener

_GATEWAY_GRACE_SECONDS = 15.0

_log = logger("wiring")


async def run_gateway(settings: Settings, environment: Mapping[str, str], *, server: str) -> None:
    """Run one gateway until SIGTERM: plain HTTP, TLS, metrics and the CONNECT proxy."""
    process = start_process("gateway", settings, environment)
    from forestay.gateway.asgi import build_gateway
    from forestay.gateway.caller_address import trusted_networks
    from forestay.gateway.ports import SafetyDesk
    from forestay.servers import lifespan, serve

    trusted_networks(settings.gateway.trusted_proxies)  # what is no network is told now, not at the first call
    async with (
        open_stores(process, own_name("gateway")) as stores,
        serve_metrics(process) as metrics,
        _embedder(process) as embedder,
        open_guard(process, stores, own_name("gateway")) as guarding,
    ):
        desk = SafetyDesk(
            guarding.guard, guarding.detectors, guarding.policies, guarding.store, guarding.verdicts, guarding.verify,
            reviewing(process, stores, own_name("gateway")),
        )  # fmt: skip
        ports = dataclasses.replace(_gateway_ports(process, stores, embedder), safety=desk)
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
    from forestay.alerts.postgres_desk import PostgresAlertDesk
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
    from forestay.media.decode import Decoder, limits_of
    from forestay.safety.hashes.postgres_reports import PostgresReports
    from forestay.safety.hashes.postgres_store import PostgresBankStore
    from forestay.safety.provenance.wiring import origins_of
    from forestay.telemetry.call_facts import PostgresCalls
    from forestay.telemetry.facts import FactWriter

    settings, writer = process.settings, own_name("gateway")
    peppers = Peppers(settings.secrets.key_pepper, settings.secrets.old_key_peppers.split())
    key_store = PostgresKeyStore(stores.database, process.clock, process.chance, writer, peppers)
    calls, counters = PostgresCalls(stores.facts_database), limit_counters(process)
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
        admin=_admin_readers(stores, writer),
        people=PostgresPeopleStore(stores.database, process.clock, process.chance, writer),
        sign_ins=PostgresSignInStore(stores.database),
        desk=PasswordDesk(process.chance),
        anchor=audit_anchor(process, stores) if settings.secrets.signing_key_file else None,
        oidc=OidcProvider(settings.identity, process.clock) if settings.identity.oidc_issuer else None,
        alerts=PostgresAlertDesk(stores.database, process.clock, writer),
        calls=calls,
        embedder=embedder,
        abuse=AbuseDesk(PostgresAbuseStore(stores.database, writer=writer), calls),
        banks=PostgresBankStore(stores.database, stores.wakeups, process.clock, writer),
        reports=PostgresReports(stores.database, process.clock, writer),
        origins=origins_of(settings.safety, Decoder(limits_of(settings.ingress)), stores.database, process.clock.now()),
        standings=Standings(process.clock, settings.gateway.throttled_rate),
        guesses=Guesses(process.clock, settings.gateway.guesses, settings.gateway.guess_pause_seconds),
        standing_store=PostgresStandings(stores.database, stores.wakeups, process.chance, writer=writer),
        limits=LimitPorts(PostgresLimitStore(stores.database, stores.wakeups, process.clock, writer), counters),
        artefacts=admission(process, stores, writer),
    )


def _admin_readers(stores: Stores, writer: str) -> "AdminReaders":
    from forestay.delivery.dead_letters import PostgresDeadLetters
    from forestay.drills.store import PostgresDrills
    from forestay.fleet.postgres_devices import PostgresDevices
    from forestay.gateway.ports import AdminReaders
    from forestay.quality.postgres_canaries import PostgresCanaries
    from forestay.quality.postgres_evidence import PostgresEvidence
    from forestay.quality.postgres_findings import PostgresFindings
    from forestay.quality.watch_store import PostgresWatch
    from forestay.queue.claiming import PostgresTurns
    from forestay.queue.listing import PostgresRequestList
    from forestay.readiness.postgres_store import PostgresReadiness
    from forestay.rollouts.postgres_store import PostgresRolloutFacts, PostgresRolloutStore
    from forestay.rollouts.shadow.postgres_store import PostgresShadowStore
    from forestay.safety.audit_store import PostgresAudits
    from forestay.slo.policy_store import PostgresBudgetPolicy
    from forestay.slo.postgres_store import PostgresSloStandings
    from forestay.telemetry.fact_reader import PostgresFactReader
    from forestay.telemetry.output_facts import PostgresOutputs
    from forestay.telemetry.rollup_reader import PostgresRollups

    return AdminReaders(
        requests=PostgresRequestList(stores.database),
        facts=PostgresFactReader(stores.facts_database),
        webhooks=PostgresDeadLetters(stores.database),
        turns=PostgresTurns(stores.database),
        rollups=PostgresRollups(stores.facts_database),
        slos=PostgresSloStandings(stores.database),
        budgets=PostgresBudgetPolicy(stores.database, writer=writer),
        audits=PostgresAudits(stores.database, stores.facts_database, writer=writer),
        rollouts=PostgresRolloutStore(stores.database, writer=writer),
        rollout_facts=PostgresRolloutFacts(stores.facts_database),
        shadows=PostgresShadowStore(stores.database),
        readiness=PostgresReadiness(stores.database, stores.facts_database, writer=writer),
        findings=PostgresFindings(stores.database),
        evidence=PostgresEvidence(stores.database),
        holds=PostgresWatch(stores.database),
        drills=PostgresDrills(stores.database),
        canaries=PostgresCanaries(stores.database),
        outputs=PostgresOutputs(stores.facts_database),
        devices=PostgresDevices(stores.database),
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
    from forestay.drills.store import PostgresDrills
    from forestay.fleet.postgres_devices import PostgresDevices
    from forestay.quality.postgres_canaries import PostgresCanaries
    from forestay.quality.postgres_findings import PostgresFindings
    from forestay.rollouts.shadow.postgres_store import PostgresShadowStore
    from forestay.safety.provenance.wiring import stamps_of
    from forestay.telemetry.output_facts import PostgresOutputs
    from forestay.worker.nvml import open_nvml
    from forestay.worker.process import WorkerPorts
    from forestay.worker.process import run_worker as work

    name = f"worker {settings.worker.worker_id}".strip()
    async with (
        open_stores(process, name) as stores,
        serve_metrics(process) as metrics,
        open_guard(process, stores, name) as guarding,
    ):
        ports = WorkerPorts(
            queue=stores.queue,
            open_queue=lambda: second_queue(process, f"{name} leases"),
            fleet=stores.fleet,
            objects=stores.objects,
            media=stores.media,
            wakeups=stores.wakeups,
            settings=settings,
            clock=process.clock,
            chance=process.chance,
            metrics=process.metrics,
            artefacts=admission(process, stores, name),
            environment=environment,
            guard=guarding.guard,
            policies=guarding.policies,
            findings=PostgresFindings(stores.database),
            drills=PostgresDrills(stores.database) if settings.worker.drills else None,
            opener=reviewing(process, stores, name).opener,
            outputs=PostgresOutputs(stores.facts_database),
            canaries=PostgresCanaries(stores.database),
            device_store=PostgresDevices(stores.database),
            devices=None if settings.worker.pool.startswith("cpu") else await asyncio.to_thread(open_nvml),
            stamps=lambda decoder: stamps_of(settings.safety, decoder, stores.database, process.clock.now()),
            offers=PostgresShadowStore(stores.database),
        )

        def ready(address: str) -> None:
            calm_collector()
            process.link.ready({"metrics": metrics, "address": address})
            _log.info("worker.ready", address=address, metrics=metrics)

        await work(ports, process.stop, ready)
        _log.info("worker.stopped")


async def run_controller(settings: Settings, environment: Mapping[str, str]) -> None:
    """Run every control loop, each under its leader's lease, until SIGTERM."""
    process = start_process("controller", settings, environment)
    from forestay.control_loops import control_loops
    from forestay.controller import ControllerPorts, run_loops
    from forestay.storage.leader import LoopLeaders

    name = own_name("controller")
    async with open_stores(process, name) as stores, serve_metrics(process) as metrics:
        loops = control_loops(process, stores)
        ports = ControllerPorts(LoopLeaders(stores.database, name), stores.wakeups, process.clock, process.metrics)
        process.link.ready({"metrics": metrics})
        _log.info("controller.ready", loops=[loop.name for loop in loops], metrics=metrics)
        await run_loops(loops, ports, process.stop)
        _log.info("controller.stopped")


async def run_judge(settings: Settings, environment: Mapping[str, str]) -> None:
    """Run the judge until SIGTERM; it opens no store and needs no secret."""
    process = begin_process("judge", settings, environment)
    from forestay.safety.classifiers.registry import installed
    from forestay.safety.judge.process import JudgePorts, judging, limit_process

    limit_process(settings.judge)
    detectors = installed(settings.judge)
    ports = JudgePorts(detectors, settings.judge, process.clock, process.metrics, calm_collector)
    async with judging(ports) as server, serve_metrics(process) as metrics:
        process.link.ready({"metrics": metrics, "socket": settings.judge.socket})
        _log.info("judge.ready", detectors=sorted(server.lanes), metrics=metrics)
        await process.stop.wait()
        _log.info("judge.stopped")
