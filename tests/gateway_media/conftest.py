"""A small gateway for these tests: the media routes with the real routing of hosts and prefixes, stores and keys."""

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from forestay.chance import SeededChance
from forestay.clock import SystemClock
from forestay.fleet.key_ring import KeyRing
from forestay.fleet.keys import KeyRequest
from forestay.fleet.keys import Scope as KeyScope
from forestay.fleet.postgres_keys import PostgresKeyStore
from forestay.gateway import cdn, exchange, js_proxy, jwks, tokens, uploads
from forestay.gateway.caller_address import Tunnels
from forestay.gateway.exchange import Exchange
from forestay.gateway.guesses import Guesses
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.routing import bases_of, host_of, surface_of
from forestay.gateway.standing import Standings
from forestay.ids import KeyId, TenantId
from forestay.media.postgres_store import PostgresMediaStore
from forestay.settings import Gateway, Secrets, Settings
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database
from forestay.telemetry.metrics import Metrics

MAX_UPLOAD = 200_000


class MediaGateway:
    """The media routes alone, found as the whole gateway finds them."""

    def __init__(self, ports: GatewayPorts) -> None:
        self.ports = ports
        modules = (uploads, tokens, jwks, js_proxy, cdn)
        self._router = Router([route for module in modules for route in module.routes(ports)])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Name the surface, strip the prefix, hand over."""
        host = host_of(scope)
        surface, path = surface_of(scope["path"], host, 0, {})
        known: dict[str, object] = {
            "app": self,
            "request_id": "id",
            "started": 0.0,
            "surface": surface,
            "path": path,
            "headers": dict(scope["headers"]),
            "header_bytes": 0,
            "bases": bases_of(scope, host, self.ports.settings.gateway),
        }
        names = {field.name for field in dataclasses.fields(Exchange)}
        call = Exchange(**{name: value for name, value in known.items() if name in names})  # pyright: ignore[reportArgumentType]
        inner = {**scope, "path": path, exchange.SCOPE_KEY: call}
        await self._router(inner, receive, send)


@dataclasses.dataclass(slots=True)
class Credential:
    """A key of a tenant."""

    key_id: KeyId
    tenant_id: TenantId
    headers: dict[str, str]


@pytest.fixture
def keys(database: Database, chance: SeededChance) -> PostgresKeyStore:
    """The real store of keys."""
    return PostgresKeyStore(database, SystemClock(), chance)


@pytest.fixture
def ports(database: Database, objects: ObjectStore, keys: PostgresKeyStore, tmp_path: Path) -> GatewayPorts:
    """What the media routes use; what they never touch is absent."""
    secrets = Secrets(token_key="a token key", signing_key_file=str(tmp_path / "signing.pem"))
    used: dict[str, object] = {
        "keys": KeyRing(keys, SystemClock()),
        "key_store": keys,
        "objects": objects,
        "media": PostgresMediaStore(database, objects, SeededChance(11)),
        "settings": Settings(
            gateway=Gateway(max_upload_bytes=MAX_UPLOAD, body_timeout_seconds=0.5, upload_lifetime_seconds=600),
            secrets=secrets,
        ),
        "clock": SystemClock(),
        "chance": SeededChance(12),
        "metrics": Metrics(),
        "standings": Standings(SystemClock(), 1.0),
        "guesses": Guesses(SystemClock(), 20, 30.0),
        "tunnels": Tunnels(),
    }
    absent = {field.name: None for field in dataclasses.fields(GatewayPorts)}
    return GatewayPorts(**(absent | used))  # pyright: ignore[reportArgumentType]


@pytest.fixture
def gateway(ports: GatewayPorts) -> MediaGateway:
    """The application under test."""
    return MediaGateway(ports)


async def issue(keys: PostgresKeyStore, tenant: str) -> Credential:
    """Make a tenant with a key."""
    await keys.create_tenant(TenantId(tenant), tenant, actor="test")
    issued = await keys.create(KeyRequest(TenantId(tenant), "k", frozenset({KeyScope.API})), actor="test")
    assert issued is not None
    return Credential(issued.key.key_id, TenantId(tenant), {"Authorization": f"Key {issued.credential}"})


@pytest.fixture
async def acme(keys: PostgresKeyStore) -> Credential:
    """A caller."""
    return await issue(keys, "acme")


@pytest.fixture
async def other(keys: PostgresKeyStore) -> Credential:
    """A caller of another tenant."""
    return await issue(keys, "other")


@pytest.fixture
async def client(gateway: MediaGateway) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, by prefix on its own host name."""
    transport = httpx.ASGITransport(app=gateway)  # pyright: ignore[reportArgumentType]
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.example:8080") as one:
        yield one
