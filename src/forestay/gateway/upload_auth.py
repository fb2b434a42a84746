"""Who may upload, and who may have tokens: a key with the API scope, or (for uploads alone) an upload token.

An upload token counts for as long as its key stands: the key is looked up at each use. Called by `uploads` and
`tokens`; models' routes are the business of `auth`.
"""

from starlette.types import Scope

from forestay.fleet.keys import Caller, Rejected
from forestay.fleet.keys import Scope as KeyScope
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.responses import Reply, forbidden, not_authenticated
from forestay.gateway.signed_tokens import Purpose, looks_like_token, verify_token


async def key_caller(scope: Scope, ports: GatewayPorts) -> Caller | Reply:
    """Prove `Authorization: Key id:secret` with the API scope; anything else is answered 401 or 403."""
    kind, credential = _authorization(scope)
    if kind not in {"key", "bearer"} or looks_like_token(credential):
        return not_authenticated("A key is needed here: Authorization: Key id:secret")
    proven = ports.keys.cached(credential) or await ports.keys.verify(credential)
    if isinstance(proven, Rejected):
        return not_authenticated("Invalid key")
    return proven if KeyScope.API in proven.scopes else forbidden("This key lacks the API scope")


async def upload_caller(scope: Scope, ports: GatewayPorts) -> Caller | Reply:
    """Prove a key, or an upload token whose key still stands."""
    kind, credential = _authorization(scope)
    if kind != "bearer" or not looks_like_token(credential):
        return await key_caller(scope, ports)
    now = ports.clock.now()
    claims = verify_token(credential, secret=ports.settings.secrets.token_key, now=now)
    if claims is None or claims.purpose is not Purpose.UPLOAD:
        return not_authenticated("Invalid or expired token")
    stored = await ports.key_store.find(claims.key_id)
    if stored is None or stored.key.revoked_at is not None:
        return not_authenticated("The token's key was revoked")
    if stored.key.expires_at is not None and stored.key.expires_at <= now:
        return not_authenticated("The token's key has expired")
    return Caller(claims.key_id, claims.tenant_id, stored.key.scopes)


def _authorization(scope: Scope) -> tuple[str, str]:
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, credential = value.decode("latin-1").partition(" ")
            return kind.lower(), credential.strip()
    return "", ""
