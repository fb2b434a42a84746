"""A sign-in at an OpenID provider between start and end: what the browser or the command line carries meanwhile.

Nothing is stored for a sign-in that was begun, so that beginning many costs nothing: state, nonce and PKCE verifier
travel in a cookie (or a handle) signed by us. Each may be used once (`used_proofs`). Pure. Called by `admin_oidc`.
"""

import base64
import binascii
import dataclasses
import hashlib
import hmac
from typing import TypeVar

import msgspec

from forestay.chance import Chance
from forestay.errors import UsageError

FLOW_SECONDS = 600
_MAX_SEALED = 8192
_LABEL = b"forestay oidc\n"


class Flow(msgspec.Struct, frozen=True):
    """A browser's sign-in."""

    state: str
    nonce: str
    verifier: str
    redirect_uri: str
    next_path: str
    until: int  # unix seconds


class DeviceFlow(msgspec.Struct, frozen=True):
    """A command line's sign-in."""

    device_code: str
    until: int


Sealed = TypeVar("Sealed", Flow, DeviceFlow)


@dataclasses.dataclass(frozen=True, slots=True)
class Sealer:
    """Signs what travels; the secret is the one of short-lived tokens, for another label."""

    secret: str = dataclasses.field(repr=False)

    def seal(self, flow: Flow | DeviceFlow) -> str:
        """Return the flow as signed text."""
        body = _encode(msgspec.json.encode(flow))
        return f"{body}.{_encode(self._code(type(flow).__name__, body))}"

    def open(self, text: str, kind: type[Sealed], now_seconds: float) -> Sealed | None:
        """Return a flow that we sealed and that is not over; None for any other."""
        body, _, code = text.partition(".")
        given = _decode(code)
        if len(text) > _MAX_SEALED or given is None:
            return None
        if not hmac.compare_digest(given, self._code(kind.__name__, body)):
            return None
        try:
            flow = msgspec.json.decode(_decode(body) or b"", type=kind)
        except msgspec.MsgspecError:
            return None
        return flow if flow.until > now_seconds else None

    def _code(self, kind: str, body: str) -> bytes:
        if not self.secret:
            raise UsageError("FORESTAY_TOKEN_KEY", "is not set; set it to the same random text on every gateway")
        return hmac.digest(self.secret.encode(), _LABEL + f"{kind}\n{body}".encode(), "sha256")


def new_flow(chance: Chance, redirect_uri: str, next_path: str, now_seconds: float) -> Flow:
    """Begin a browser's sign-in, good for ten minutes."""
    state, nonce, verifier = (chance.token(32) for _ in range(3))
    return Flow(state, nonce, verifier, redirect_uri, next_path, int(now_seconds) + FLOW_SECONDS)


def challenge_of(verifier: str) -> str:
    """Return the S256 challenge of PKCE (RFC 7636, section 4.2)."""
    return _encode(hashlib.sha256(verifier.encode()).digest())


def is_own_path(text: str) -> bool:
    """Tell whether a browser may be sent there afterwards: a path of ours, never another site."""
    return text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable() and len(text) <= 512


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes | None:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
