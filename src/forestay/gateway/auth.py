"""Who calls: `Key id:secret`, a short-lived token, or nobody where a model is public; and what that opens.

401 for a credential that is missing or wrong, and for a private model of someone else (fal's own choice); 403 for a
key without the scope. The reason of a refusal is counted, never told. Called by every route before anything else.
"""

from urllib.parse import parse_qs

from starlette.types import Scope

from forestay.fleet.keys import Caller, Rejected
from forestay.fleet.keys import Scope as KeyScope
from forestay.fleet.model import ModelEntry
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.responses import Reply, forbidden, no_access, not_authenticated
from forestay.gateway.signed_tokens import Claims, Purpose, looks_like_token, verify_token
from forestay.ids import KeyId
from forestay.telemetry.metrics import REFUSED

PUBLIC_KEY = KeyId("public")  # the caller of a public model who showed no credential; its owner pays
_TOKEN_QUERY = "fal_jwt_token"  # noqa: S105 - a name, no secret


async def authenticate(scope: Scope, ports: GatewayPorts, needs: KeyScope = KeyScope.API) -> Caller | Reply:
    """Prove the caller by key; tokens open only what `authenticate_call` and `authenticate_upload` open."""
    credential = _credential(scope)
    if credential is None:
        return _missing(ports)
    return await _by_key(credential, ports, needs)


async def authenticate_upload(scope: Scope, ports: GatewayPorts) -> Caller | Reply:
    """Prove the caller of an upload: by key, or by an upload token."""
    credential = _credential(scope)
    if credential is None:
        return _missing(ports)
    if not looks_like_token(credential):
        return await _by_key(credential, ports, KeyScope.API)
    claims = verify_token(credential, secret=ports.settings.secrets.token_key, now=ports.clock.now())
    if claims is None or claims.purpose is not Purpose.UPLOAD:
        return _refused(ports, "token")
    return await _standing(claims, ports)


async def authenticate_call(scope: Scope, ports: GatewayPorts, model: ModelEntry) -> Caller | Reply:
    """Prove the caller of a model: by key, by a realtime token that names it, or by nothing where it is public."""
    credential = _credential(scope) or _query_token(scope)
    if credential is None:
        if model.visibility == "public":
            return public_caller(model)
        return _missing(ports)
    if looks_like_token(credential):
        caller = await _by_token(credential, ports, model)
    else:
        caller = await _by_key(credential, ports, KeyScope.API)
    if isinstance(caller, Caller) and model.visibility == "private" and caller.tenant_id != model.tenant_id:
        ports.metrics.add(REFUSED, "no_access")
        return no_access(model.model_id)
    return caller


def public_caller(model: ModelEntry) -> Caller:
    """Return the nobody on whose calls the owner of a public model pays."""
    return Caller(PUBLIC_KEY, model.tenant_id, frozenset({KeyScope.API}))


async def _by_key(credential: str, ports: GatewayPorts, needs: KeyScope) -> Caller | Reply:
    answer = ports.keys.cached(credential) or await ports.keys.verify(credential)
    if isinstance(answer, Rejected):
        return _refused(ports, answer.value)
    if needs not in answer.scopes:
        ports.metrics.add(REFUSED, "scope")
        return forbidden(f"This key lacks the scope {needs.value}")
    return answer


async def _by_token(token: str, ports: GatewayPorts, model: ModelEntry) -> Caller | Reply:
    claims = verify_token(token, secret=ports.settings.secrets.token_key, now=ports.clock.now())
    owner, _, alias = model.model_id.partition("/")
    if claims is None or not claims.opens(owner, alias):
        return _refused(ports, "token")
    return await _standing(claims, ports)


async def _standing(claims: Claims, ports: GatewayPorts) -> Caller | Reply:
    """A token lives no longer than its key: one read, since tokens open long sessions and uploads, not polls."""
    stored = await ports.key_store.find(claims.key_id)
    if stored is None or stored.key.revoked_at is not None:
        return _refused(ports, "revoked")
    if stored.key.expires_at is not None and stored.key.expires_at <= ports.clock.now():
        return _refused(ports, "expired")
    return Caller(claims.key_id, claims.tenant_id, stored.key.scopes)


def _credential(scope: Scope) -> str | None:
    """Return what follows `Key` or `Bearer` in the Authorization header."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, rest = value.partition(b" ")
            if kind.lower() in {b"key", b"bearer"}:
                return rest.strip().decode("latin-1") or None
            return "malformed"  # some other scheme: refused as a wrong credential, not as a missing one
    return None


def _query_token(scope: Scope) -> str | None:
    query: bytes = scope["query_string"]
    if _TOKEN_QUERY.encode() not in query:
        return None
    values = parse_qs(query.decode("latin-1"), max_num_fields=50).get(_TOKEN_QUERY)
    return values[0] if values else None


def _missing(ports: GatewayPorts) -> Reply:
    ports.metrics.add(REFUSED, "no_credential")
    return not_authenticated("Authentication is required: send `Authorization: Key <id>:<secret>`")


def _refused(ports: GatewayPorts, why: str) -> Reply:
    ports.metrics.add(REFUSED, why)
    return not_authenticated("Invalid credentials")
