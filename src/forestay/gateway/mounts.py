"""Where other modules' route tables and our own small routes hang: REST, CDN and the root.

Decides only the mounting; each module of routes decides its own answers. Called by `asgi`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from starlette.requests import Request
from starlette.routing import BaseRoute, Route, Router
from starlette.types import Receive, Scope, Send

from forestay.gateway import admin, appeals, cdn, js_proxy, jwks, standing_routes, tokens, uploads
from forestay.gateway.exchange import Exchange
from forestay.gateway.fleet_view import FleetView
from forestay.gateway.limits import LimitGate
from forestay.gateway.openapi import document
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.responses import Reply, json_reply, unavailable, unknown_path


class Host(Protocol):
    """What the root's own routes ask of the gateway."""

    @property
    def ports(self) -> GatewayPorts:
        """Return the ports."""
        ...

    @property
    def fleet(self) -> FleetView:
        """Return the view of the fleet."""
        ...

    @property
    def limits(self) -> LimitGate:
        """Return the gate of limits."""
        ...


class _Table(Protocol):
    def routes(self, ports: GatewayPorts) -> list[BaseRoute]:
        """Return a module's routes."""
        ...


class Mounted:
    """One surface served by Starlette's routes."""

    def __init__(self, name: str, routes: Sequence[BaseRoute]) -> None:
        self._name = name
        self._router = Router(list(routes), default=_unknown, redirect_slashes=False)

    async def __call__(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> Reply | None:
        """Let the routes answer; the route's own path, not the caller's, names the metric."""
        exchange.route = self._name
        scope["path"] = exchange.path
        scope["app"] = exchange.app  # makes Starlette raise for a wrong method rather than answer in plain text
        scope["raw_path"] = exchange.path.encode("utf-8", "surrogateescape")
        await self._router(scope, receive, send)
        route = scope.get("route")
        if isinstance(route, Route):
            exchange.route = f"{self._name}:{route.path}"
        return None


@dataclasses.dataclass(frozen=True, slots=True)
class Mounts:
    """The three surfaces that Starlette's routes serve."""

    rest: Mounted
    cdn: Mounted
    root: Mounted


def mounted(gateway: Host) -> Mounts:
    """Gather all route tables."""
    ports = gateway.ports
    return Mounts(
        rest=Mounted("rest", _tables((uploads, tokens, jwks), ports)),
        cdn=Mounted("cdn", _tables((uploads, cdn), ports)),
        root=Mounted(
            "root",
            [*_own(gateway), *appeals.routes(gateway), *_tables((js_proxy, jwks, admin, standing_routes), ports)],
        ),
    )


def _tables(modules: Sequence[_Table], ports: GatewayPorts) -> list[BaseRoute]:
    return [route for module in modules for route in module.routes(ports)]


def _own(gateway: Host) -> list[BaseRoute]:
    description = json_reply(200, document())

    async def health(_request: Request) -> Reply:
        return json_reply(200, {"status": "ok"})

    async def ready(_request: Request) -> Reply:
        if not gateway.fleet.ready:
            return unavailable("the fleet has not been read yet", 1.0)
        await gateway.ports.fleet.version()  # raises Unavailable when the database is away: 503
        return json_reply(200, {"status": "ready"})

    async def openapi(_request: Request) -> Reply:
        return description

    return [
        Route("/health", health, methods=["GET"]),
        Route("/ready", ready, methods=["GET"]),
        Route("/openapi.json", openapi, methods=["GET"]),
    ]


async def _unknown(scope: Scope, receive: Receive, send: Send) -> None:
    await unknown_path(scope["path"])(scope, receive, send)
