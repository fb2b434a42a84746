"""Short-lived tokens that name a tenant, a key, a purpose and the models they open: sign and verify, no I/O.

The form is a JWT with HS256 (RFC 7519) and one fixed header: a token with any other header is refused before anything
of it is read, so no other algorithm can be talked into use. A token says nothing about whether its key still stands:
`gateway/auth` looks the key up and refuses a revoked one. Callers: `gateway/tokens` (sign), `gateway/auth` (verify).
"""

import base64
import binascii
import dataclasses
import datetime as dt
import enum
import hashlib
import hmac

import msgspec

from forestay.errors import UsageError
from forestay.ids import KeyId, TenantId

_MAX_TOKEN = 4096


class Purpose(enum.StrEnum):
    """What a token opens."""

    REALTIME = "realtime"  # ?fal_jwt_token= on run, stream and realtime
    UPLOAD = "upload"  # Bearer on the upload routes


@dataclasses.dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says."""

    tenant_id: TenantId
    key_id: KeyId
    purpose: Purpose
    apps: tuple[str, ...]  # what the caller named: aliases alone, owner/alias, or owner/alias/path
    expires_at: dt.datetime

    def opens(self, owner: str, alias: str) -> bool:
        """Tell whether a realtime token names this model."""
        full = f"{owner}/{alias}"
        named = any(app in {alias, full} or app.startswith(f"{full}/") for app in self.apps)
        return self.purpose is Purpose.REALTIME and named


class _Wire(msgspec.Struct, frozen=True):
    sub: str
    key: str
    use: Purpose
    exp: int
    iat: int
    apps: tuple[str, ...] = ()


def sign_token(claims: Claims, *, secret: str, now: dt.datetime) -> str:
    """Return the token; an empty `secret` raises UsageError naming the setting."""
    wire = _Wire(
        sub=claims.tenant_id,
        key=claims.key_id,
        use=claims.purpose,
        exp=int(claims.expires_at.timestamp()),
        iat=int(now.timestamp()),
        apps=claims.apps,
    )
    signed = f"{_HEADER}.{_encode(msgspec.json.encode(wire))}"
    return f"{signed}.{_encode(_code(signed, secret))}"


def verify_token(token: str, *, secret: str, now: dt.datetime) -> Claims | None:
    """Return what the token says; None when it is malformed, forged or expired (an expected outcome: 401)."""
    header, _, rest = token.partition(".")
    payload, _, code = rest.partition(".")
    if len(token) > _MAX_TOKEN or header != _HEADER or not secret:
        return None
    given = _decode(code)
    if given is None or not hmac.compare_digest(given, _code(f"{header}.{payload}", secret)):
        return None
    try:
        wire = msgspec.json.decode(_decode(payload) or b"", type=_Wire)
    except msgspec.MsgspecError:
        return None
    if wire.exp <= now.timestamp():
        return None
    expires_at = dt.datetime.fromtimestamp(wire.exp, dt.UTC)
    return Claims(TenantId(wire.sub), KeyId(wire.key), wire.use, wire.apps, expires_at)


def looks_like_token(text: str) -> bool:
    """Tell whether `text` has the form of one of our tokens, without judging it."""
    return text.startswith(f"{_HEADER}.")


def _code(signed: str, secret: str) -> bytes:
    if not secret:
        raise UsageError("FORESTAY_TOKEN_KEY", "is not set; set it to the same random text on every gateway")
    return hmac.digest(secret.encode(), signed.encode(), hashlib.sha256)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes | None:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None


_HEADER = _encode(b'{"alg":"HS256","typ":"JWT"}')
