"""A webhook receiver as a careful customer would write it: verifies the signature, ignores what it has seen.

It is a collector of traces (OTLP/HTTP, JSON) beside that.
It keeps every delivery in memory. It decides whether a delivery is genuine by fal's published scheme (Ed25519 over
request id, user id, timestamp and the body's SHA-256; keys from a JWKS). the courses start it and read it.
"""

import base64
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import cast

from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from forestay.clock import Clock

TOLERANCE_SECONDS = 300.0
LARGEST_BODY = 4 * 1024 * 1024
_PREFIX = "X-Fal-Webhook-"


@dataclasses.dataclass(frozen=True, slots=True)
class Delivery:
    """One POST as it arrived."""

    request_id: str
    user_id: str
    timestamp: str
    signature: str
    body: bytes
    arrived_at: float  # unix seconds

    def payload(self) -> Mapping[str, object]:
        """Return the parsed body."""
        return cast("Mapping[str, object]", json.loads(self.body))


class Receiver:
    """The server and what it has received."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._runner: web.AppRunner | None = None
        self.deliveries: list[Delivery] = []
        self.spans: list[Mapping[str, object]] = []
        self.url = ""
        self.collector_url = ""

    async def start(self) -> None:
        """Listen on a free port of loopback."""
        application = web.Application(client_max_size=LARGEST_BODY)
        application.router.add_post("/hook", self._receive)
        application.router.add_post("/v1/traces", self._collect)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = cast("tuple[str, int]", self._runner.addresses[0][:2])
        self.url = f"http://{host}:{port}/hook"
        self.collector_url = f"http://{host}:{port}"

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        headers = request.headers
        self.deliveries.append(
            Delivery(
                request_id=headers.get(f"{_PREFIX}Request-Id", ""),
                user_id=headers.get(f"{_PREFIX}User-Id", ""),
                timestamp=headers.get(f"{_PREFIX}Timestamp", ""),
                signature=headers.get(f"{_PREFIX}Signature", ""),
                body=await request.read(),
                arrived_at=self._clock.now().timestamp(),
            )
        )
        return web.Response(status=200)

    async def _collect(self, request: web.Request) -> web.Response:
        """Take spans as an OTLP/HTTP collector does, in JSON."""
        body = cast("Mapping[str, Sequence[Mapping[str, Sequence[Mapping[str, object]]]]]", await request.json())
        for resource in body["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                self.spans += cast("Sequence[Mapping[str, object]]", scope["spans"])
        return web.json_response({})


def read_jwks(jwks: Mapping[str, object]) -> list[Ed25519PublicKey]:
    """Return the Ed25519 keys of a JWK set."""
    keys = cast("Sequence[Mapping[str, str]]", jwks["keys"])
    return [Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "==")) for key in keys]


def is_genuine(delivery: Delivery, keys: Sequence[Ed25519PublicKey]) -> bool:
    """Tell whether any of `keys` signed this delivery, and recently."""
    if not delivery.timestamp.isdigit() or abs(delivery.arrived_at - int(delivery.timestamp)) > TOLERANCE_SECONDS:
        return False
    digest = hashlib.sha256(delivery.body).hexdigest()
    message = f"{delivery.request_id}\n{delivery.user_id}\n{delivery.timestamp}\n{digest}".encode()
    try:
        signature = bytes.fromhex(delivery.signature)
    except ValueError:
        return False
    return any(_verifies(key, signature, message) for key in keys)


def _verifies(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True
