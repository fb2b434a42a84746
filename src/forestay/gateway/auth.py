"""Who calls: `Key id:secret`, a short-lived token, or nobody where a model is public; and what that opens.

401 for a credential that is missing or wrong, and for a private model of someone else (fal's own choice); 429 for one
not proven here yet, from an address that guesses. Then 403: from a network that the key is not meant for, without the
scope, without a grant for the verb and the model. The reason of a 401 is counted, never told; a 403 names what is
missing, but never the list of networks. A key without networks and grants pays for neither. Called by every route
before anything else.
"""

import dataclasses
from collections.abc import Sequence
from urllib.parse import parse_qs

from starlette.types import Scope

from forestay.abuse.calls import narrow_network
from forestay.fleet.grants import Verb
from forestay.fleet.keys import Caller, Rejected
from forestay.fleet.keys import Scope as KeyScope
from forestay.fleet.model import ModelEntry
from forestay.fleet.networks import Address, contains
from forestay.gateway.caller_address import address_of_call
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.responses import Reply, forbidden, no_access, not_authenticated, too_many_guesses
from forestay.gateway.signed_tokens import looks_like_token, verify_token
from forestay.ids import KeyId, ModelId
from forestay.readiness.entry import IN_REVIEW
from forestay.telemetry.metrics import REFUSED

PUBLIC_KEY = KeyId("public")  # the caller of a public model who showed no credential; its owner pays
_GUESSES = frozenset({Rejected.UNKNOWN, Rejected.WRONG_SECRET})  # an expired key is a forgotten one
_TOKEN_QUERY = "fal_jwt_token"  # noqa: S105 - a name, no secret


async def authenticate(scope: Scope, ports: GatewayPorts, needs: KeyScope = KeyScope.API) -> Caller | Reply:
    """Prove the caller by key alone: what issues tokens, and the admin API, take no token."""
    credential = _credential(scope)
    if credential is None:
        return _missing(ports)
    return await _by_key(credential, scope, ports, needs)


async def authenticate_entry(scope: Scope, ports: GatewayPorts) -> Caller | Reply:
    """Prove the caller of something that leads to new work (a token, an upload) by key; no entry for the suspended."""
    return _entering(await authenticate(scope, ports), ports)


async def authenticate_upload(scope: Scope, ports: GatewayPorts) -> Caller | Reply:
    """Prove the caller of an upload: by key, or by a token for uploads; no entry for the suspended."""
    return _entering(await _uploader(scope, ports), ports)


async def _uploader(scope: Scope, ports: GatewayPorts) -> Caller | Reply:
    credential = _credential(scope)
    if credential is None:
        return _missing(ports)
    return granted(await _by_either(credential, scope, ports), ports, (Verb.UPLOAD,), None)


async def authenticate_asked(
    scope: Scope, ports: GatewayPorts, verbs: Sequence[Verb], model_id: ModelId
) -> Caller | Reply:
    """Prove who names a model, known or not: by key, or by a token that names it."""
    credential = _credential(scope) or _query_token(scope)
    if credential is None:
        return _missing(ports)
    return granted(await _by_either(credential, scope, ports), ports, verbs, model_id)


def shows_credential(scope: Scope) -> bool:
    """Tell whether the call comes with a key or token, good or bad."""
    return (_credential(scope) or _query_token(scope)) is not None


def _entering(caller: Caller | Reply, ports: GatewayPorts) -> Caller | Reply:
    refused = ports.standings.refuse_entry(caller) if isinstance(caller, Caller) else None
    return refused or caller


async def authenticate_call(
    scope: Scope, ports: GatewayPorts, model: ModelEntry, verbs: Sequence[Verb]
) -> Caller | Reply:
    """Prove the caller of a model: by key, by a token that names it, or by nothing where it is public."""
    credential = _credential(scope) or _query_token(scope)
    if credential is None:
        if model.visibility == "public":
            return public_caller(model)
        return _missing(ports)
    caller = granted(
        _at_once(credential, scope, ports) or await _by_either(credential, scope, ports), ports, verbs, model.model_id
    )
    if isinstance(caller, Caller) and model.visibility == "private" and caller.tenant_id != model.tenant_id:
        ports.metrics.add(REFUSED, "no_access")
        return no_access(model.model_id)
    if isinstance(caller, Caller) and model.visibility == IN_REVIEW and not _reviews(caller, model):
        ports.metrics.add(REFUSED, "in_review")
        return forbidden(f"{model.model_id} is in review; it takes calls once `forestay model admit` has let it in")
    return caller


def _reviews(caller: Caller, model: ModelEntry) -> bool:
    """Tell whether the caller may try a model that is not let in yet."""
    return caller.tenant_id == model.tenant_id and KeyScope.ADMIN in caller.scopes and caller.narrowed is None


def granted(
    caller: Caller | Reply, ports: GatewayPorts, verbs: Sequence[Verb], model_id: ModelId | None
) -> Caller | Reply:
    """Pass a proven caller on; refuse with 401 what its token was not issued for, with 403 what its key may not do.

    401 makes fal's JavaScript client fetch another token.
    """
    if isinstance(caller, Reply):
        return caller
    if caller.narrowed is not None and not all(caller.narrowed.covers(verb, model_id) for verb in verbs):
        return _refused(ports, "token")
    for verb in verbs:
        if not caller.may(verb, model_id):
            ports.metrics.add(REFUSED, "grant")
            what = verb.value if model_id is None else f"{verb.value} {model_id}"
            return forbidden(f"This key may not {what}: it has no grant for that; ask whoever issued it")
    return caller


def public_caller(model: ModelEntry) -> Caller:
    """Return the nobody on whose calls the owner of a public model pays."""
    return Caller(PUBLIC_KEY, model.tenant_id, frozenset({KeyScope.API}))


def _at_once(credential: str, scope: Scope, ports: GatewayPorts) -> Caller | Reply | None:
    """Prove a key that this gateway knows, as nearly every call's is; None: it takes a closer look."""
    if looks_like_token(credential):
        return None
    answer = ports.keys.cached(credential)
    return _admitted(answer, scope, ports, KeyScope.API) if isinstance(answer, Caller) else None


async def _by_key(credential: str, scope: Scope, ports: GatewayPorts, needs: KeyScope) -> Caller | Reply:
    answer = ports.keys.cached(credential)
    if not isinstance(answer, Caller):
        refused = _doubted(credential, scope, ports)
        if refused is not None:
            return refused
        answer = answer or await ports.keys.verify(credential)
    if isinstance(answer, Rejected):
        if answer in _GUESSES:
            ports.guesses.failed(_address_of(scope, ports), credential)
        return _refused(ports, answer.value)
    return _admitted(answer, scope, ports, needs)


def _doubted(credential: str, scope: Scope, ports: GatewayPorts) -> Reply | None:
    """Refuse to look at a credential from where too many wrong ones came; what was proven here before is looked at."""
    address = _address_of(scope, ports)
    wait = ports.guesses.wait_seconds(address)
    network = "" if address is None else narrow_network(address)
    if (not wait and not ports.standings.doubts(network)) or ports.keys.remembers(credential):
        return None
    return too_many_guesses(wait) if wait else ports.standings.refuse_unproven(network)


def _address_of(scope: Scope, ports: GatewayPorts) -> Address | None:
    return address_of_call(scope, ports.settings.gateway.trusted_proxies, ports.tunnels)


def _admitted(caller: Caller, scope: Scope, ports: GatewayPorts, needs: KeyScope) -> Caller | Reply:
    """Refuse a proven caller from another network, or without the scope."""
    if caller.networks:
        address = _address_of(scope, ports)
        if address is None or not contains(caller.networks, address):
            ports.metrics.add(REFUSED, "network")
            return forbidden("This key may not be used from this network")
    if needs not in caller.scopes:
        ports.metrics.add(REFUSED, "scope")
        return forbidden(f"This key lacks the scope {needs.value}")
    return caller


async def _by_either(credential: str, scope: Scope, ports: GatewayPorts) -> Caller | Reply:
    """Prove a key or a token. A token lives no longer than its key, and is good only where its key is."""
    if not looks_like_token(credential):
        return await _by_key(credential, scope, ports, KeyScope.API)
    claims = verify_token(credential, secret=ports.settings.secrets.token_key, now=ports.clock.now())
    if claims is None:
        return _refused(ports, "token")
    answer = await ports.keys.stands(claims.key_id)
    if isinstance(answer, Rejected):
        return _refused(ports, answer.value)
    return _admitted(dataclasses.replace(answer, narrowed=claims.grant()), scope, ports, KeyScope.API)


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
    try:
        values = parse_qs(query.decode("latin-1"), max_num_fields=50).get(_TOKEN_QUERY)
    except ValueError:  # more fields than anybody sends: no token is looked for among them
        return "malformed"
    return values[0] if values else None


def _missing(ports: GatewayPorts) -> Reply:
    ports.metrics.add(REFUSED, "no_credential")
    return not_authenticated("Authentication is required: send `Authorization: Key <id>:<secret>`")


def _refused(ports: GatewayPorts, why: str) -> Reply:
    ports.metrics.add(REFUSED, why)
    return dataclasses.replace(not_authenticated("Invalid credentials"), why=why)
