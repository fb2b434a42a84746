"""A running admin API with real stores behind it, and the command line pointed at it."""

import asyncio
import dataclasses
import functools
import io
import json
import pathlib
import socket
import sys
import types
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import cast

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.safety.doubles import AsItIs, StubDetectors

from forestay.abuse.postgres_store import PostgresAbuseStore
from forestay.alerts.postgres_desk import PostgresAlertDesk
from forestay.artefacts.admission import Admission
from forestay.artefacts.postgres_store import PostgresArtefactStore
from forestay.capacity.postgres_costs import PostgresCostStore
from forestay.chance import SeededChance, SystemChance
from forestay.cli import main
from forestay.clock import SystemClock
from forestay.delivery.dead_letters import PostgresDeadLetters
from forestay.delivery.signing import load_or_create_keys
from forestay.drills.store import PostgresDrills
from forestay.fleet.anchor import AuditAnchor
from forestay.fleet.key_ring import KeyRing
from forestay.fleet.keys import KeyRequest
from forestay.fleet.keys import Scope as KeyScope
from forestay.fleet.passwords import Cost
from forestay.fleet.peppers import Peppers
from forestay.fleet.postgres_devices import PostgresDevices
from forestay.fleet.postgres_keys import PostgresKeyStore
from forestay.fleet.postgres_people import PostgresPeopleStore, PostgresSignInStore
from forestay.fleet.postgres_standings import PostgresStandings
from forestay.fleet.postgres_store import PostgresFleetStore
from forestay.gateway import appeals, standing_routes
from forestay.gateway.admin import routes
from forestay.gateway.caller_address import Tunnels
from forestay.gateway.exchange import SCOPE_KEY
from forestay.gateway.fleet_view import FleetView
from forestay.gateway.guesses import Guesses
from forestay.gateway.limits import LimitGate
from forestay.gateway.password_desk import PasswordDesk
from forestay.gateway.ports import AbuseDesk, AdminReaders, GatewayPorts, LimitPorts, SafetyDesk
from forestay.gateway.routing import FAL_BASES
from forestay.gateway.standing import Standings
from forestay.ids import TenantId
from forestay.limits.postgres_store import PostgresLimitStore
from forestay.media.decode import Decoder
from forestay.media.postgres_store import PostgresMediaStore
from forestay.quality.postgres_canaries import PostgresCanaries
from forestay.quality.postgres_evidence import PostgresEvidence
from forestay.quality.postgres_findings import PostgresFindings
from forestay.quality.watch_store import PostgresWatch
from forestay.queue.claiming import PostgresTurns
from forestay.queue.listing import PostgresRequestList
from forestay.queue.postgres_store import open_queue_store
from forestay.queue.store import QueueStore
from forestay.readiness.postgres_store import PostgresReadiness
from forestay.rollouts.postgres_store import PostgresRolloutFacts, PostgresRolloutStore
from forestay.rollouts.shadow.postgres_store import PostgresShadowStore
from forestay.safety import chain
from forestay.safety.audit_store import PostgresAudits
from forestay.safety.guard import Guard, GuardPorts
from forestay.safety.hashes.postgres_reports import PostgresReports
from forestay.safety.hashes.postgres_store import PostgresBankStore
from forestay.safety.model import DetectorInfo
from forestay.safety.policies import Policies
from forestay.safety.postgres_store import PostgresSafetyStore
from forestay.safety.provenance.wiring import origins_of
from forestay.safety.records import PostgresVerdicts
from forestay.safety.review.wiring import ReviewGround, desk_of
from forestay.safety.sealing import PolicySeal
from forestay.safety.taxonomy import Category, Modality
from forestay.settings import Gateway, Queue, Safety, Secrets, Settings, process_environment
from forestay.settings_observe import Observe
from forestay.slo.policy_store import PostgresBudgetPolicy
from forestay.slo.postgres_store import PostgresSloStandings
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database
from forestay.storage.valkey import LocalWakeups
from forestay.telemetry.call_facts import PostgresCalls
from forestay.telemetry.fact_reader import PostgresFactReader
from forestay.telemetry.facts import FactWriter
from forestay.telemetry.metrics import Metrics
from forestay.telemetry.output_facts import PostgresOutputs
from forestay.telemetry.rollup_reader import PostgresRollups

MAX_UPLOAD = 100_000
WATERMARK_KEY = "a watermark's key of the tests"
PEPPER = "a pepper of the tests, long enough"


@dataclasses.dataclass(frozen=True, slots=True)
class Ran:
    """What a command printed and how it ended."""

    status: int
    out: str
    err: str

    def json(self) -> dict[str, object]:
        """The JSON that it printed."""
        return cast("dict[str, object]", json.loads(self.out))


@dataclasses.dataclass(frozen=True, slots=True)
class Platform:
    """The admin API, its stores, its address and its keys."""

    url: str
    admin_key: str
    api_key: str
    ports: GatewayPorts
    database: Database


@pytest.fixture
async def platform(database: Database, objects: ObjectStore, tmp_path: pathlib.Path) -> AsyncIterator[Platform]:
    """The admin routes on a free port."""
    clock, queue_settings = SystemClock(), Queue()
    peppers = Peppers(PEPPER)
    keys = PostgresKeyStore(database, clock, SystemChance(), peppers=peppers)
    await keys.create_tenant(TenantId("acme"), "Acme", actor="system:test")
    issued = [
        await keys.create(KeyRequest(TenantId("acme"), "t", frozenset({scope})), actor="system:test")
        for scope in (KeyScope.ADMIN, KeyScope.API)
    ]
    admin, api = (item.credential for item in issued if item is not None)
    async with open_queue_store(database, objects, queue_settings, SeededChance(3)) as queue:
        wakeups, decoder = LocalWakeups(), Decoder()
        known: dict[str, object] = {
            "queue": queue,
            "fleet": PostgresFleetStore(database, wakeups),
            "keys": KeyRing(keys, clock, peppers=peppers),
            "key_store": keys,
            "objects": objects,
            "media": PostgresMediaStore(database, objects, SystemChance()),
            "wakeups": wakeups,
            "settings": Settings(
                gateway=Gateway(max_upload_bytes=MAX_UPLOAD, body_timeout_seconds=2.0),
                secrets=Secrets(key_pepper=PEPPER),
                observe=Observe(audit_ratio=1.0),
            ),
            "clock": clock,
            "chance": SeededChance(4),
            "metrics": Metrics(),
            "tunnels": Tunnels(),
            "facts": FactWriter(database),
            "anchor": AuditAnchor(database, objects, load_or_create_keys(tmp_path / "signing.pem"), clock),
            "people": PostgresPeopleStore(database, clock, SystemChance()),
            "sign_ins": PostgresSignInStore(database),
            "desk": PasswordDesk(SystemChance(), Cost(log2_n=4, r=1, p=1)),
            "standings": Standings(clock, 1.0),
            "guesses": Guesses(SystemClock(), 20, 30.0),
            "standing_store": PostgresStandings(database, wakeups, SeededChance(5)),
            "costs": PostgresCostStore(database),
            "artefacts": Admission(PostgresArtefactStore(database, clock), objects, clock),
            "alerts": PostgresAlertDesk(database, clock),
            "abuse": AbuseDesk(PostgresAbuseStore(database), PostgresCalls(database)),
            "banks": PostgresBankStore(database, wakeups, clock),
            "reports": PostgresReports(database, clock),
            "origins": origins_of(
                Safety(provenance_dir=str(tmp_path / "provenance"), watermark_key=WATERMARK_KEY),
                decoder,
                database,
                clock.now(),
            ),
            "admin": AdminReaders(
                PostgresRequestList(database),
                PostgresFactReader(database),
                PostgresDeadLetters(database),
                PostgresTurns(database),
                PostgresRollups(database),
                PostgresSloStandings(database),
                PostgresBudgetPolicy(database, writer="test"),
                PostgresAudits(database, database, writer="test"),
                PostgresRolloutStore(database, writer="test"),
                PostgresRolloutFacts(database, settled_seconds=-5.0),
                PostgresShadowStore(database),
                PostgresReadiness(database, database, writer="test"),
                PostgresFindings(database),
                PostgresWatch(database),
                PostgresDrills(database),
                PostgresCanaries(database),
                PostgresOutputs(database),
                PostgresDevices(database),
                PostgresEvidence(database),
            ),
            "limits": LimitPorts(PostgresLimitStore(database, wakeups, clock), None),
        }
        known["safety"] = _safety(known, database, wakeups, clock)
        absent: dict[str, object] = {field.name: None for field in dataclasses.fields(GatewayPorts)}
        ports = GatewayPorts(**(absent | known))  # pyright: ignore[reportArgumentType]
        fleet = FleetView(ports.fleet, clock, ports.standings)
        await fleet.refresh()
        own = appeals.routes(_Host(ports, fleet, cast("LimitGate", None)))
        async with _served(_Exchanges(Starlette(routes=[*routes(ports), *standing_routes.routes(ports), *own]))) as url:
            yield Platform(url, admin, api, ports, database)
        await decoder.close()


@dataclasses.dataclass(frozen=True, slots=True)
class _Host:
    """What the callers' own routes ask of a gateway; no model is here, so nothing limits their calls."""

    ports: GatewayPorts
    fleet: FleetView
    limits: LimitGate


class _Exchanges:
    """Gives each call what the gateway knows of one: the bases of its URLs."""

    def __init__(self, application: Starlette) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[SCOPE_KEY] = types.SimpleNamespace(bases=FAL_BASES, cause="")
        await self._application(scope, receive, send)


def _safety(known: dict[str, object], database: Database, wakeups: LocalWakeups, clock: SystemClock) -> SafetyDesk:
    """The guard's stores, and detectors that are there without a judge."""
    seal = PolicySeal("a long random text")
    store, verdicts = PostgresSafetyStore(database, wakeups, seal), PostgresVerdicts(database)
    policies, detectors = Policies(store, seal, clock), Declared()
    ports = GuardPorts(detectors, policies, verdicts, clock, SeededChance(5), Metrics())
    verify = functools.partial(chain.verify, database)
    review = desk_of(
        ReviewGround(
            database=database,
            objects=cast("ObjectStore", known["objects"]),
            queue=cast("QueueStore", known["queue"]),
            media=PostgresMediaStore(database, cast("ObjectStore", known["objects"]), SystemChance()),
            verdicts=verdicts,
            wakeups=wakeups,
            settings=Settings(
                secrets=Secrets(internal_key="a long random text"),
                safety=Safety(review_url="https://reviews.example.org/hook"),
            ),
            clock=clock,
            chance=SystemChance(),
            metrics=Metrics(),
            finisher=AsItIs(),
            writer="test",
        )
    )
    return SafetyDesk(Guard(ports), detectors, policies, store, verdicts, verify, review)


class Declared(StubDetectors):
    """The detectors that the standard policy names, as they declare themselves."""

    async def known(self) -> Sequence[DetectorInfo]:
        """Say what there is."""
        texts = {Modality.TEXT: frozenset(Category)}
        pictures = {modality: frozenset({Category.SEXUAL}) for modality in (Modality.IMAGE, Modality.VIDEO)}
        return [
            DetectorInfo("text-meaning@1", "sha256:a", texts, costly=True),
            DetectorInfo("text-linear@1", "sha256:b", texts, costly=False),
            DetectorInfo("nsfw@1", "sha256:c", pictures, costly=True),
        ]


class _served:  # noqa: N801 - reads as a function
    """Serve an application on a free port while the context lasts."""

    def __init__(self, application: ASGIApp) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._server = uvicorn.Server(uvicorn.Config(application, log_level="warning", lifespan="off"))

    async def __aenter__(self) -> str:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._group.create_task(self._server.serve(sockets=[self._socket]))
        async with asyncio.timeout(10):
            while not self._server.started:  # noqa: ASYNC110 - the server offers no event
                await asyncio.sleep(0.01)
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        await self._group.__aexit__(None, None, None)


@pytest.fixture
def forestay(platform: Platform, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Callable[..., "object"]:
    """Run one command against the platform, in a thread, as a person would."""
    for name in process_environment():
        if name.startswith("FORESTAY_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FORESTAY_URL", platform.url)
    monkeypatch.setenv("FORESTAY_KEY", platform.admin_key)
    monkeypatch.setenv("HOME", str(tmp_path))

    async def run(*words: str) -> Ran:
        return await asyncio.to_thread(_run, [str(word) for word in words])

    return run


class _Output(io.StringIO):
    """Standard output that takes bytes too."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = io.BytesIO()

    @property
    def buffer(self) -> io.BytesIO:
        return self.raw

    def text(self) -> str:
        return self.getvalue() + self.raw.getvalue().decode()


def _run(words: list[str]) -> Ran:
    out, err = _Output(), _Output()
    status = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main(words)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
    sys.stdout.flush()
    return Ran(status, out.text(), err.text())
