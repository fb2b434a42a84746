"""A gateway over fakes of its ports, a model server and a worker on loopback, and a small driver for ASGI."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import cast

from aiohttp import WSMsgType, web
from tests.conformance.memory_artefacts import MemoryArtefactStore
from tests.conformance.memory_costs import MemoryCostStore
from tests.conformance.memory_fleet import MemoryFleetStore, MemoryKeyStore
from tests.conformance.memory_limits import MemoryLimitStore
from tests.conformance.memory_people import MemoryPeopleStore, MemorySignInStore
from tests.conformance.memory_queue import MemoryQueueStore
from tests.safety.doubles import AsItIs, GuardWorld, guard_world

from forestay.alerts.store import AlertDesk
from forestay.artefacts.admission import Admission
from forestay.chance import SystemChance
from forestay.clock import SystemClock
from forestay.errors import Unavailable
from forestay.fleet.actions import Origin, RegisterRevision, SetRoutes
from forestay.fleet.key_ring import KeyRing
from forestay.fleet.keys import KeyRequest, Scope
from forestay.fleet.model import ReplicaReport, ReplicaState, Revision, Route, WorkerReport
from forestay.fleet.passwords import Cost
from forestay.fleet.spec import EndpointSpec, HostKind, HostSpec, LimitSpec, ModelSpec, SafetySpec
from forestay.fleet.standing_store import StandingStore
from forestay.gateway.asgi import Gateway, build_gateway
from forestay.gateway.guesses import Guesses
from forestay.gateway.password_desk import PasswordDesk
from forestay.gateway.ports import AbuseDesk, AdminReaders, GatewayPorts, LimitPorts, SafetyDesk
from forestay.gateway.standing import Standings
from forestay.handshake import AUTH_HEADER, FILES_HEADER, CallVerifier, sign_reply
from forestay.ids import BUCKETS, ModelId, ReplicaId, RequestId, RevisionId, TenantId, WorkerId
from forestay.limits.counters import RemoteCounters
from forestay.media.store import MediaStore
from forestay.queue.model import Answer, AttemptReport, Finish, Lease, Outcome, State
from forestay.queue.store import Offer
from forestay.safety.hashes.postgres_reports import PostgresReports
from forestay.safety.hashes.store import BankStore
from forestay.safety.provenance.made import Origins
from forestay.safety.records import VerdictSource
from forestay.safety.review.wiring import ReviewGround, desk_of
from forestay.safety.store import SafetyStore
from forestay.settings import Gateway as GatewaySettings
from forestay.settings import Limits, Secrets, Settings
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database
from forestay.storage.valkey import LocalWakeups
from forestay.telemetry.call_facts import CallFact
from forestay.telemetry.facts import RequestFact
from forestay.telemetry.metrics import Metrics
from forestay.telemetry.poll_facts import PollMinute

INTERNAL_KEY = "internal"
TOKEN_KEY = "token-key"
QUICK = Cost(log2_n=4, r=1, p=1)  # the real one takes most of a second
OPENAPI: dict[str, object] = {
    "paths": {
        path: {
            "post": {
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": {
                                "type": "object",
                                "properties": {
                                    "prompt": {"type": "string", "maxLength": 1000},
                                    "steps": {"type": "integer", "minimum": 1},
                                },
                                "required": ["prompt"],
                            }
                        }
                    },
                }
            }
        }
        for path in ("/", "/stream", "/slow", "/fail", "/broken", "/big", "/edit", "/slow/cancel")
    }
}


@dataclasses.dataclass(slots=True)
class Reply:
    """What a call was answered."""

    status: int
    headers: dict[str, str]
    body: bytes
    messages: list[Mapping[str, object]]

    def json(self) -> object:
        """Return the body."""
        return json.loads(self.body)

    def field(self, name: str) -> object:
        """Return one field of a JSON object."""
        return cast("dict[str, object]", self.json())[name]


class Facts:
    """Keeps facts; `silent` makes it unavailable."""

    def __init__(self) -> None:
        self.kept: list[RequestFact] = []
        self.polls: list[PollMinute] = []
        self.silent = False

    async def write(self, batch: Sequence[RequestFact]) -> None:
        """Keep them."""
        if self.silent:
            raise Unavailable("silent, as the test asked")
        self.kept.extend(batch)

    async def write_polls(self, batch: Sequence[PollMinute]) -> None:
        """Keep them."""
        if self.silent:
            raise Unavailable("silent, as the test asked")
        self.polls.extend(batch)


class Calls:
    """Keeps notes of calls; `silent` makes it unavailable."""

    def __init__(self) -> None:
        self.kept: list[CallFact] = []
        self.silent = False

    async def write(self, batch: Sequence[CallFact]) -> None:
        """Keep them."""
        if self.silent:
            raise Unavailable("silent, as the test asked")
        self.kept.extend(batch)


class ModelServer:
    """A model's own server: calls, a stream, a slow one, failures, a websocket."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, str], bytes]] = []
        self.release = asyncio.Event()
        self.entered = asyncio.Event()
        self.cancelled: list[str] = []
        self.dropped = asyncio.Event()
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer by path."""
        body = await request.read()
        self.calls.append((request.path, {k.lower(): v for k, v in request.headers.items()}, body))
        path = request.path
        if path.endswith("/cancel"):
            self.cancelled.append(request.headers["x-fal-request-id"])
            return web.json_response({"ok": True})
        if path == "/realtime":
            return await self._realtime(request)
        if path == "/stream":
            return await self._stream(request)
        if path == "/slow":
            self.entered.set()
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.dropped.set()
                raise
        if path == "/fail":
            headers = {"X-Fal-Needs-Retry": "1", "x-fal-stop-runner": "1"}
            return web.json_response({"detail": [{"type": "no_media_generated"}]}, status=500, headers=headers)
        if path == "/broken":
            assert request.transport is not None
            request.transport.close()
        if path == "/big":
            return web.Response(body=b"x" * 3_000_000, content_type="image/png")
        headers = {"X-Fal-Billable-Units": "2", "X-Fal-Needs-Retry": "1", "connection": "keep-alive"}
        text = '{"echo": %s, "url": "forestay-media://%s/a.png"}' % ((body or b"null").decode(), "m" * 32)  # noqa: UP031
        return web.Response(text=text, content_type="application/json", headers=headers)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"n": 1, "url": "forestay-media://')
        await response.write(b"m" * 32 + b'/a.png"}\n\n')
        self.entered.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.dropped.set()
            raise
        await response.write(b'data: {"n": 2}\n\n')
        return response

    async def _realtime(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for frame in socket:
            if frame.type is WSMsgType.BINARY:
                await socket.send_bytes(b"echo:" + cast("bytes", frame.data))
            elif frame.data == "close":
                await socket.close(code=1000)
            elif frame.data == "crash":
                assert request.transport is not None
                request.transport.abort()
            else:
                await socket.send_str(f"echo:{frame.data}")
        return socket


class WorkerServer:
    """A worker's direct lane: slots, and calls that it passes to the model server's handler."""

    def __init__(self, model: ModelServer) -> None:
        self._model = model
        self._verifier = CallVerifier(INTERNAL_KEY)
        self.blocks: list[tuple[str, int]] = []
        self.grant = 100
        self.busy = 0
        self.gone = 0
        self.lie = False
        self.files = ""  # what it says of the files that it has let go
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Judge the caller, then answer."""
        path = request.path
        now = SystemClock().now().timestamp()
        proof = request.headers.get(AUTH_HEADER)
        nonce = self._verifier.check(proof, method=request.method, path=path, now_seconds=now)
        if nonce is None:
            return web.Response(status=401)
        headers = {AUTH_HEADER: "lie" if self.lie else sign_reply(INTERNAL_KEY, nonce)}
        if path.startswith("/slots/"):
            asked = json.loads(await request.read())
            granted = min(asked["slots"], self.grant)
            self.blocks.append((path.removeprefix("/slots/"), asked["slots"]))
            return web.json_response({"granted": granted, "seconds": asked["seconds"]}, headers=headers)
        if self.busy > 0:
            self.busy -= 1
            return web.Response(status=429, headers={**headers, "X-Forestay-Busy": "1"})
        if self.gone > 0:
            self.gone -= 1
            return web.Response(status=404, headers={**headers, "X-Forestay-Gone": "1"})
        inner = "/" + path.removeprefix("/direct/").partition("/")[2]
        self._model.calls.append((inner, {k.lower(): v for k, v in request.headers.items()}, await request.read()))
        told = {FILES_HEADER: self.files} if self.files else {}
        return web.json_response({"lane": "worker", "path": inner}, headers={**headers, **told})


@dataclasses.dataclass(slots=True)
class World:
    """Everything a test may look at."""

    gateway: Gateway
    ports: GatewayPorts
    queue: MemoryQueueStore
    fleet: MemoryFleetStore
    facts: Facts
    model: ModelServer
    worker: WorkerServer
    key: str = ""
    other_key: str = ""
    admin_key: str = ""
    keys: MemoryKeyStore = dataclasses.field(kw_only=True)
    calls: Calls = dataclasses.field(kw_only=True)
    safety: GuardWorld = dataclasses.field(kw_only=True)

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        *,
        key: str | None = "",
        raw: bytes | None = None,
    ) -> Reply:
        """Make one call; `key=None` sends none, the empty one is the first tenant's."""
        return await drive(self.gateway, self.request(method, path, body, headers, key=key, raw=raw))

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        *,
        key: str | None = "",
        raw: bytes | None = None,
    ) -> "Request":
        """Build one call."""
        sent = {"host": "gateway.test", **(headers or {})}
        if key is not None and "authorization" not in sent:
            sent["authorization"] = f"Key {key or self.key}"
        data = raw if raw is not None else (b"" if body is None else json.dumps(body).encode())
        return Request(method, path, sent, data)

    async def issue(self, tenant: str = "acme", **what: object) -> str:
        """Issue a key; keyword arguments are fields of its `KeyRequest`."""
        request = KeyRequest(TenantId(tenant), "test", frozenset({Scope.API}), **what)  # type: ignore[arg-type]
        issued = await self.keys.create(request, actor="human:test")
        assert issued is not None
        return issued.credential

    async def submit(self, model: str = "acme/echo", **headers: str) -> str:
        """Submit and return the id."""
        reply = await self.call("POST", f"/queue/{model}", {"prompt": "a"}, headers)
        assert reply.status == 200, reply.body
        return str(reply.field("request_id"))

    async def claim(self, request_id: str | None = None, *, alias: str = "echo") -> Lease:
        """Lease the next request as a worker would."""
        revision, model = RevisionId(f"{alias}-1"), ModelId(f"acme/{alias}")
        offer = Offer(ReplicaId("r1"), revision, model, ((0, BUCKETS),), 1, idle=True)
        (lease,) = await self.queue.claim(WorkerId("w1"), [offer], 15.0)
        assert request_id in (None, str(lease.request_id))
        return lease

    async def finish(self, lease: Lease, answer: Answer, state: State = State.SUCCEEDED) -> None:
        """End a leased request as a worker would."""
        await self.queue.start([lease])
        await self.queue.checking([lease])
        now = self.ports.clock.now()
        report = AttemptReport(Outcome.SUCCEEDED, now, now, now, 0.1)
        assert await self.queue.finish([Finish(lease, state, answer, report)])
        await self.ports.wakeups.publish("forestay:changed", lease.request_id.hex)

    async def set_replica(self, *replicas: ReplicaReport | None) -> None:
        """Let the worker report these replicas (or none), and the gateway see them."""
        now = self.ports.clock.now()
        worker = WorkerReport(WorkerId("w1"), "cpu", self.worker.url, 1, 1000, "ready", now, now)
        await self.fleet.report(worker, [replica for replica in replicas if replica is not None])
        await self.gateway.fleet.refresh()


@dataclasses.dataclass(slots=True)
class Request:
    """One call for the driver; `gone` makes the caller leave."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""
    gone: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    pieces: list[bytes] | None = None
    scheme: str = "http"
    client: str = "127.0.0.1"
    more_headers: list[tuple[str, str]] = dataclasses.field(default_factory=list[tuple[str, str]])


async def drive(app: Gateway, request: Request) -> Reply:
    """Run one call through the application."""
    path, _, query = request.path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.scheme,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [
            (k.lower().encode("latin-1"), v.encode("latin-1"))
            for k, v in [*request.headers.items(), *request.more_headers]
        ],
        "server": ("127.0.0.1", 80),
        "client": (request.client, 1),
    }
    pieces = list(request.pieces if request.pieces is not None else [request.body])
    sent: list[Mapping[str, object]] = []

    async def receive() -> dict[str, object]:
        if pieces:
            piece = pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces)}
        await request.gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Mapping[str, object]) -> None:
        sent.append(dict(message))

    await app(scope, receive, send)  # type: ignore[arg-type]
    starts = [item for item in sent if item["type"] == "http.response.start"]
    if not starts:
        return Reply(0, {}, b"", sent)
    (start,) = starts
    pairs = cast("list[tuple[bytes, bytes]]", start["headers"])
    names = [name for name, _ in pairs if name != b"set-cookie"]  # the one header that may come twice
    assert len(names) == len(set(names)), names
    body = b"".join(cast("bytes", item.get("body", b"")) for item in sent if item["type"] == "http.response.body")
    headers = {name.decode(): value.decode("latin-1") for name, value in pairs}
    return Reply(cast("int", start["status"]), headers, body, sent)


class Socket:
    """A caller's websocket, driven by hand."""

    def __init__(self, app: Gateway, path: str, headers: Mapping[str, str]) -> None:
        self._app = app
        path, _, query = path.partition("?")
        self._scope = {
            "type": "websocket",
            "asgi": {"version": "3.0"},
            "scheme": "ws",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
            "server": ("127.0.0.1", 80),
            "extensions": {"websocket.http.response": {}},
        }
        self._in: asyncio.Queue[dict[str, object]] = asyncio.Queue()
        self.out: asyncio.Queue[dict[str, object]] = asyncio.Queue()

    async def run(self) -> None:
        """Run the session to its end."""
        await self._in.put({"type": "websocket.connect"})
        await self._app(self._scope, self._in.get, self.out.put)  # type: ignore[arg-type]

    async def say(self, **message: object) -> None:
        """Send a frame or another event."""
        await self._in.put({"type": "websocket.receive", **message} if "type" not in message else message)

    async def hear(self) -> dict[str, object]:
        """Return the next message, within five seconds."""
        async with asyncio.timeout(5):
            return await self.out.get()


def revision_of(name: str, model_id: str, limits: LimitSpec | None = None, policy: str = "unguarded") -> Revision:
    """An http_server revision that says what it accepts."""
    endpoints = (EndpointSpec("/"), EndpointSpec("/stream", "stream"), EndpointSpec("/realtime", "realtime"))
    spec = ModelSpec(
        ModelId(model_id),
        "",
        "",
        "",
        "",
        "shared",
        HostSpec(HostKind.HTTP_SERVER),
        endpoints,
        limits=limits or LimitSpec(startup_timeout_seconds=2.0),
        safety=SafetySpec(policy),
    )
    now = SystemClock().now()
    return Revision(RevisionId(name), ModelId(model_id), name, spec, None, OPENAPI, now)


def replica_of(direct_url: str | None, slots: int = 4, name: str = "r1") -> ReplicaReport:
    """A ready replica of acme/echo."""
    now = SystemClock().now()
    return ReplicaReport(
        ReplicaId(name),
        WorkerId("w1"),
        RevisionId("echo-1"),
        ModelId("acme/echo"),
        ReplicaState.READY,
        slots,
        1,
        direct_url,
        ("warm",),
        "",
        0,
        now,
        now,
        None,
        now,
    )


async def deploy(fleet: MemoryFleetStore, revision: Revision, tenant: str, visibility: str) -> None:
    """Register and route a revision."""
    route = Route(revision.model_id, revision.revision_id, 0, BUCKETS)
    actions = [
        RegisterRevision(revision, TenantId(tenant), visibility, "test"),
        SetRoutes(revision.model_id, (route,), "test"),
    ]
    await fleet.apply(actions, origin=Origin.HUMAN, actor="human:test")


@asynccontextmanager
async def serving(handler: object) -> AsyncGenerator[str]:
    """Serve a handler on loopback; yields the URL."""
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{rest:.*}", handler)  # type: ignore[arg-type]
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


class _NoUploads:
    uploads = None


@asynccontextmanager
async def a_world(
    objects: ObjectStore,
    *,
    limits: object = None,
    counters: object = None,
    database: Database | None = None,
    **gateway: object,
) -> AsyncGenerator[World]:
    """Build and run a gateway; with a database people review there; further keyword arguments are its settings."""
    clock, chance = SystemClock(), SystemChance()
    values = {"status_hold_seconds": 0.0, "status_refresh_seconds": 0.02, **gateway}
    settings = Settings(
        gateway=GatewaySettings(**values),  # type: ignore[arg-type]
        secrets=Secrets(internal_key=INTERNAL_KEY, token_key=TOKEN_KEY),
        limits=cast("Limits", limits or Limits()),
    )
    fleet, keys, facts = MemoryFleetStore(clock), MemoryKeyStore(clock, chance), Facts()
    queue = MemoryQueueStore(clock)
    calls = Calls()
    safety = await guard_world()
    store, verdicts = cast("SafetyStore", safety.store), cast("VerdictSource", safety.verdicts)
    wakeups, metrics = LocalWakeups(), Metrics()
    review = None
    if database is not None:
        review = desk_of(
            ReviewGround(
                database, objects, queue, cast("MediaStore", None), safety.verdicts, wakeups, settings, clock, chance,
                metrics, AsItIs(), "test",
            )
        )  # fmt: skip
    desk = SafetyDesk(safety.guard, safety.detectors, safety.policies, store, verdicts, safety.verify, review)
    ports = GatewayPorts(
        queue=queue,
        fleet=fleet,
        keys=KeyRing(keys, clock),
        key_store=keys,
        objects=objects,
        media=_NoUploads(),  # type: ignore[arg-type]
        wakeups=wakeups,
        facts=facts,
        settings=settings,
        clock=clock,
        chance=chance,
        metrics=metrics,
        admin=cast("AdminReaders", None),
        costs=MemoryCostStore(clock),
        people=MemoryPeopleStore(clock, chance),
        sign_ins=MemorySignInStore(clock),
        desk=PasswordDesk(chance, QUICK),
        standings=Standings(clock, settings.gateway.throttled_rate),
        guesses=Guesses(clock, settings.gateway.guesses, settings.gateway.guess_pause_seconds),
        standing_store=cast("StandingStore", None),
        limits=LimitPorts(MemoryLimitStore(clock), cast("RemoteCounters | None", counters)),
        calls=calls,
        abuse=cast("AbuseDesk", None),
        alerts=cast("AlertDesk", None),
        banks=cast("BankStore", None),
        reports=cast("PostgresReports", None),
        origins=cast("Origins", None),
        artefacts=Admission(MemoryArtefactStore(clock), objects, clock),
        safety=desk,
    )
    model = ModelServer()
    worker = WorkerServer(model)
    await deploy(fleet, revision_of("echo-1", "acme/echo"), "acme", "shared")
    await deploy(fleet, revision_of("open-1", "acme/open"), "acme", "public")
    await deploy(fleet, revision_of("own-1", "acme/own"), "acme", "private")
    await deploy(fleet, revision_of("guarded-1", "acme/guarded", policy="strict"), "acme", "shared")
    async with serving(model.handle) as model.url, serving(worker.handle) as worker.url:
        world = World(
            build_gateway(ports), ports, queue, fleet, facts, model, worker, keys=keys, calls=calls, safety=safety
        )
        world.key = await _key(keys, "acme", Scope.API)
        world.other_key = await _key(keys, "other", Scope.API)
        world.admin_key = await _key(keys, "acme", Scope.ADMIN)
        now = clock.now()
        seen = WorkerReport(WorkerId("w1"), "cpu", worker.url, 1, 1000, "ready", now, now)
        await fleet.report(seen, [replica_of(model.url)])
        async with world.gateway.running():
            yield world


async def _key(keys: MemoryKeyStore, tenant: str, scope: Scope) -> str:
    await keys.create_tenant(TenantId(tenant), tenant, actor="human:test")
    issued = await keys.create(KeyRequest(TenantId(tenant), "test", frozenset({scope})), actor="human:test")
    assert issued is not None
    return issued.credential


def request_id_of(text: str) -> RequestId:
    """Read an id that must be one."""
    from forestay.ids import parse_request_id  # noqa: PLC0415

    found = parse_request_id(text)
    assert found is not None
    return found
