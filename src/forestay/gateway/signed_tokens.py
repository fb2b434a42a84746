"""Short-lived tokens that name a tenant, a key, their uses and the models they open: sign and verify, no I/O.

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
import re
from collections.abc import Mapping

import msgspec

from forestay.errors import UsageError
from forestay.fleet.grants import Grant, Verb
from forestay.gateway.routing import parse_app_path
from forestay.ids import KeyId, TenantId

_MAX_TOKEN = 4096


class Use(enum.StrEnum):
    """What a token is for."""

    REALTIME = "realtime"
    RUN = "run"  # synchronous calls and streams
    QUEUE = "queue"  # submit, status, result, cancel: of requests made with this token's key
    UPLOAD = "upload"


VERBS: Mapping[Use, frozenset[Verb]] = {
    Use.REALTIME: frozenset({Verb.REALTIME}),
    Use.RUN: frozenset({Verb.RUN, Verb.STREAM}),
    Use.QUEUE: frozenset({Verb.SUBMIT, Verb.READ, Verb.CANCEL}),
    Use.UPLOAD: frozenset({Verb.UPLOAD}),
}
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_NOTHING = frozenset({"/"})  # a pattern that no model has: a token without apps opens none


@dataclasses.dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says."""

    tenant_id: TenantId
    key_id: KeyId
    uses: frozenset[Use]
    apps: tuple[str, ...]  # what the caller named: aliases alone, owner/alias, or owner/alias/path
    expires_at: dt.datetime

    def grant(self) -> Grant:
        """Return what the token opens of its key, at most."""
        models = frozenset(pattern for app in self.apps if (pattern := pattern_of(app)) is not None)
        return Grant(models or _NOTHING, frozenset(verb for use in self.uses for verb in VERBS[use]))


class _Wire(msgspec.Struct, frozen=True):
    sub: str
    key: str
    use: tuple[Use, ...]
    exp: int
    iat: int
    apps: tuple[str, ...] = ()


def sign_token(claims: Claims, *, secret: str, now: dt.datetime) -> str:
    """Return the token; an empty `secret` raises UsageError naming the setting."""
    wire = _Wire(
        sub=claims.tenant_id,
        key=claims.key_id,
        use=tuple(sorted(claims.uses)),
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
    return Claims(TenantId(wire.sub), KeyId(wire.key), frozenset(wire.use), wire.apps, expires_at)


def pattern_of(app: str) -> str | None:
    """Return an app that a caller names as a pattern of models (`fleet/grants`); None when it is none."""
    if _ALIAS.fullmatch(app):
        return f"*/{app}"
    path = parse_app_path(app)
    return None if path is None else path.model_id


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
