"""Publishes the keys that sign webhooks, `GET /.well-known/jwks.json`, where fal's verifiers look for fal's.

Decides nothing. Mounted by `asgi` on the REST surface.
"""

from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from forestay.delivery.signing import load_or_create_keys
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.responses import JSON_TYPE, Reply

_CACHE = (b"cache-control", b"public, max-age=300")  # verifiers may keep it for a day; ours is short for rotation


def routes(ports: GatewayPorts) -> list[BaseRoute]:
    """Return the route; without a key file (FORESTAY_SIGNING_KEY_FILE) the set is empty and no webhook is signed."""
    path = ports.settings.secrets.signing_key_file
    keys: dict[str, list[dict[str, str]]] = load_or_create_keys(Path(path)).jwks() if path else {"keys": []}
    reply = Reply(200, msgspec.json.encode(keys), (JSON_TYPE, _CACHE))

    async def jwks(_request: Request) -> Reply:
        return reply

    return [Route("/.well-known/jwks.json", jwks, methods=["GET", "HEAD"])]
