"""The gateway as one ASGI application; the order in `_answer` is the pipeline.

Every answer carries `x-fal-request-id`, whoever made it; every call leaves one log line and its metrics; an error that
nobody foresaw is a 500 in fal's shape with its trace in the log alone. Hot paths are plain ASGI; route tables of other
modules are Starlette's. Called by the wiring (`build_gateway`).
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from forestay.errors import Refused, Unavailable, UsageError
from forestay.gateway.access import Outlet, record
from forestay.gateway.admission import AdmissionDesk
from forestay.gateway.board import StatusBoard
from forestay.gateway.bodies import CallerGone
from forestay.gateway.call_notes import CallNotes
from forestay.gateway.content import ContentGate
from forestay.gateway.cors import preflight
from forestay.gateway.direct import DirectRoutes
from forestay.gateway.direct_facts import DirectFacts
from forestay.gateway.exchange import SCOPE_KEY, Exchange
from forestay.gateway.fleet_view import FleetView
from forestay.gateway.incoming import SenderGone, SenderSlow
from forestay.gateway.inlet import Inlet
from forestay.gateway.lanes import BlockKeeper, DirectParts
from forestay.gateway.limits import LimitGate
from forestay.gateway.listening import Listener
from forestay.gateway.loops import keep_running
from forestay.gateway.mounts import mounted
from forestay.gateway.poll_counts import POLLS, StatusPolls
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.prediction import Predictions
from forestay.gateway.queue_routes import QueueParts, QueueRoutes
from forestay.gateway.realtime import RealtimeRoutes, deny
from forestay.gateway.responses import (
    Reply,
    bad_request,
    internal_error,
    plain_error,
    unavailable,
    unknown_path,
)
from forestay.gateway.routing import Surface, bases_of, port_of, read_host, surface_of
from forestay.gateway.slots import Slots
from forestay.gateway.submit import QueueWaker
from forestay.gateway.upstream import Failed, Upstream
from forestay.gateway.validation import Contracts
from forestay.ids import new_request_id
from forestay.media.store import TooLarge
from forestay.processes import calm_collector
from forestay.settings import Gateway as GatewaySettings
from forestay.telemetry.causes import probe_tenants_of
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import UNHANDLED

Handler = Callable[[Exchange, Scope, Receive, Send], Awaitable[Reply | None]]
STARTUP_SECONDS = 10.0
_LEFT = (CallerGone, ClientDisconnect, SenderGone)  # nobody is left to read an answer
_LOG = logger("gateway")


class Gateway:
    """The application and what it keeps in memory."""

    def __init__(self, ports: GatewayPorts) -> None:
        self.ports: Final = ports
        self.notes: Final = CallNotes(ports)
        self.fleet: Final = FleetView(ports.fleet, ports.clock, ports.standings)
        self.board: Final = StatusBoard(ports)
        self._waker = QueueWaker(ports)
        gateway_id = f"gateway-{ports.chance.bits(64):016x}"
        contracts = Contracts(ports.metrics)
        predictions = Predictions(ports, contracts)
        self.polls: Final = StatusPolls(ports, gateway_id)
        self.limits: Final = LimitGate(ports, self.fleet, gateway_id)
        content = ContentGate(None if ports.safety is None else ports.safety.guard)
        self.direct: Final = DirectParts(
            ports=ports,
            fleet=self.fleet,
            contracts=contracts,
            slots=Slots(self.fleet, ports.clock),
            upstream=Upstream(ports, gateway_id),
            facts=DirectFacts(ports),
            predictions=predictions,
            limits=self.limits,
            content=content,
            probe_tenants=probe_tenants_of(ports.settings.observe.probe_tenants),
        )
        self.admission: Final = AdmissionDesk(ports, self.fleet, predictions)
        self._keeper = BlockKeeper(self.direct)
        self._realtime = RealtimeRoutes(self.direct)
        self._ports_of_surfaces = surface_ports(ports.settings.gateway)
        tables = mounted(self)
        self._surfaces: Mapping[Surface, Handler] = {
            Surface.RUN: DirectRoutes(self.direct),
            Surface.QUEUE: QueueRoutes(
                QueueParts(
                    ports,
                    self.fleet,
                    contracts,
                    self.board,
                    self._waker,
                    self.direct.sentinels,
                    predictions,
                    self.limits,
                    self.admission,
                    content,
                )
            ),
            Surface.REST: tables.rest,
            Surface.CDN: tables.cdn,
            Surface.ROOT: tables.root,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call, or live for as long as the server does."""
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "websocket":
                await self._websocket(scope, receive, send)
            case "lifespan":
                await self._lifespan(receive, send)
            case kind:
                raise RuntimeError(f"no such ASGI scope: {kind}")

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = self._open(scope)
        inlet = Inlet(receive, exchange.headers)
        outlet = Outlet(exchange, scope, inlet, send, self.ports)
        try:
            reply = await self._answer(exchange, scope, inlet, outlet.send)
        except Exception as error:
            if outlet.started and not isinstance(error, _LEFT):
                self._log_cut(exchange, error)
                raise
            reply = self._reply_to(exchange, error)
        if reply is not None:
            await outlet.reply(reply)
        self._finish(exchange, scope)

    def _finish(self, exchange: Exchange, scope: Scope) -> None:
        """Leave what every call leaves: its log line, its metrics and, where it is one to note, its note."""
        if self.ports.settings.observe.telemetry:
            seconds = record(exchange, scope, self.ports)
            if exchange.route in POLLS:
                self.polls.count(exchange, seconds)
        self.notes.note(exchange, scope)

    async def _answer(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> Reply | None:
        """The pipeline: header limit, preflight, then the surface's own guards (key, options, body, schema)."""
        if exchange.header_bytes > self.ports.settings.gateway.max_header_bytes:
            return plain_error(431, "The request's headers are too large", "headers")
        if scope["method"] == "OPTIONS":
            return preflight(exchange)
        return await self._surfaces[exchange.surface](exchange, scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = self._open(scope)
        exchange.request_id = str(self._new_id())
        try:
            if exchange.surface is Surface.RUN:
                await self._realtime(exchange, scope, receive, send)
            else:
                await receive()
                await deny(exchange, unknown_path(exchange.path), scope, send)
        except Exception as error:  # noqa: BLE001 - the last resort: mapped, logged, counted
            reply = self._reply_to(exchange, error)
            if reply is not None and not exchange.status_code:
                await deny(exchange, reply, scope, send)
        self._finish(exchange, scope)

    def _open(self, scope: Scope) -> Exchange:
        headers: dict[bytes, bytes] = {}
        size = 0
        for name, value in scope["headers"]:
            headers[name] = value
            size += len(name) + len(value)
        host = read_host(headers.get(b"host", b""))
        port = port_of(scope) if self._ports_of_surfaces else 0
        surface, path = surface_of(scope["path"], host, port, self._ports_of_surfaces)
        exchange = Exchange(
            app=self,
            request_id="",
            started=self.ports.clock.monotonic(),
            surface=surface,
            path=path,
            headers=headers,
            header_bytes=size,
            bases=bases_of(scope, host, self.ports.settings.gateway),
        )
        scope[SCOPE_KEY] = exchange
        return exchange

    def _reply_to(self, exchange: Exchange, error: Exception) -> Reply | None:
        """Map what was raised to an answer; None when nobody is left to read one."""
        if isinstance(error, _LEFT):
            exchange.status_code = 499
            return None
        foreseen = foreseen_reply(error)
        if foreseen is not None:
            return foreseen
        exchange.request_id = exchange.request_id or str(self._new_id())
        self.ports.metrics.add(UNHANDLED, exchange.route)
        _LOG.error("gateway.internal_error", request_id=exchange.request_id, exc_info=error)
        return internal_error(exchange.request_id)

    def _log_cut(self, exchange: Exchange, error: Exception) -> None:
        """An answer that had begun cannot be taken back: it is broken off, which its reader notices."""
        foreseen = isinstance(error, Failed | Unavailable)
        log = _LOG.info if foreseen else _LOG.error
        log("gateway.answer_cut", request_id=exchange.request_id, route=exchange.route, reason=str(error))
        if not foreseen:
            self.ports.metrics.add(UNHANDLED, exchange.route)

    def _new_id(self) -> object:
        return new_request_id(self.ports.clock.now(), self.ports.settings.queue.cell, self.ports.chance)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        message: Message = await receive()
        if message["type"] != "lifespan.startup":
            raise RuntimeError(f"expected lifespan.startup, not {message['type']}")
        calm_collector()
        async with self.running():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Run the loops that keep the memory true, while the block runs."""
        await self.direct.upstream.open()
        listener = Listener(self.ports, self.fleet, self.board, self.limits.rules)
        loops: Mapping[str, Callable[[], Awaitable[None]]] = {
            "gateway.fleet": self.fleet.run,
            "gateway.status": self.board.run,
            "gateway.wake": self._waker.run,
            "gateway.keys": self.ports.keys.run,
            "gateway.facts": self.direct.facts.run,
            "gateway.slots": self._keeper.run,
            "gateway.notes": self.notes.run,
            "gateway.polls": self.polls.run,
            "gateway.costs": self.direct.predictions.run,
            "gateway.admission": self.admission.run,
            "gateway.listen": listener.run,
            "gateway.limits": self.limits.rules.run,
            "gateway.counters": self.limits.run_counters,
            "gateway.usage": self.limits.usage.run,
            "gateway.keep": self.limits.keep,
            "gateway.running": self.limits.watch_queue,
        }
        safety = self.ports.safety
        if safety is not None:
            loops = {**loops, "gateway.guard": safety.guard.run, "gateway.policies": safety.policies.run}
        try:
            async with self.direct.sentinels.on_duty(), asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(keep_running(name, loop, self.ports.clock, self.ports.metrics))
                    for name, loop in loops.items()
                ]
                await self.fleet.wait_change(STARTUP_SECONDS)
                if safety is not None:
                    await safety.policies.wait_known(STARTUP_SECONDS)
                yield
                for task in tasks:
                    task.cancel()
            await self._settle()
        finally:
            await self.direct.upstream.close()

    async def _settle(self) -> None:
        """Give back what is leased and write what is kept; what fails now is lost, and logged."""
        try:
            await self._keeper.give_all_back()
            await self.direct.facts.flush()
            await self.polls.flush(last=True)
            await self.notes.flush(last=True)
            await self.ports.keys.flush()
            await self.limits.close()
            if self.ports.safety is not None:
                await self.ports.safety.guard.flush()
        except Unavailable as error:
            _LOG.warning("gateway.not_settled", reason=str(error))


def surface_ports(settings: GatewaySettings) -> Mapping[int, Surface]:
    """Return the ports that belong to one surface alone: callers there need neither prefix nor host name."""
    named = {Surface.RUN: settings.run_port, Surface.QUEUE: settings.queue_port}
    return {port: surface for surface, port in named.items() if port > 0}


def foreseen_reply(error: Exception) -> Reply | None:
    """Map the errors that Forestay raises on purpose, and Starlette's own, to their answers; None for a defect."""
    match error:
        case SenderSlow():
            reply = plain_error(408, str(error), "slow_body")
        case TooLarge():
            reply = plain_error(413, error.message, "too_large")
        case UsageError():
            reply = bad_request(str(error))
        case HTTPException():
            own = tuple((name.encode(), value.encode()) for name, value in (error.headers or {}).items())
            reply = plain_error(error.status_code, error.detail, "route", *own)
        case Refused():
            reply = plain_error(409, str(error), "refused")
        case Unavailable():
            _LOG.warning("gateway.unavailable", reason=str(error))
            reply = unavailable("The platform cannot answer now; try again", error.retry_after_seconds)
        case _:
            reply = None
    return reply


def build_gateway(ports: GatewayPorts) -> Gateway:
    """Build the application."""
    return Gateway(ports)
