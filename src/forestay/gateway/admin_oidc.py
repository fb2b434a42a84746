"""Admin routes of signing in by OpenID Connect: a browser by code, a command line by device, a program by ID token.

A browser's sign-in is bound to it by a cookie that holds state, nonce and PKCE verifier, and can be finished once.
Whoever is refused learns no more than that; logs and counters say why. Tries count against their network as passwords
do. Mounted by `admin`; without FORESTAY_OIDC_ISSUER every route here is 404.
"""

import hashlib
import hmac
from html import escape

import msgspec
from starlette.requests import Request
from starlette.types import Scope

from forestay.fleet.people import Claimed, Way
from forestay.fleet.sign_in import subjects_of
from forestay.gateway.admin_reading import NotThere, Problem, read_body
from forestay.gateway.admin_sign_in import MAX_OPEN_BODY, signed_in_reply
from forestay.gateway.caller_address import address_of_call
from forestay.gateway.oidc_flow import FLOW_SECONDS, DeviceFlow, Flow, Sealer, is_own_path, new_flow
from forestay.gateway.oidc_provider import OidcProvider, Pending
from forestay.gateway.oidc_tokens import Fault
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.responses import Header, Reply, json_reply
from forestay.gateway.routing import scope_scheme
from forestay.gateway.session_cookie import cookie_of, own_origin, set_cookie, set_flow_cookie
from forestay.gateway.sign_in import SignedIn, open_session
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import SIGN_INS

_CALLBACK = "/admin/oidc/callback"
_COOKIES = {"https": b"__Host-forestay-oidc", "http": b"forestay-oidc"}
_REFUSED = "The sign-in was refused"
_MAX_CODE = 4096
_PAGE: tuple[Header, ...] = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
)
_NO_STORE: Header = (b"cache-control", b"no-store")
_LOG = logger("gateway")


class _Handle(msgspec.Struct, forbid_unknown_fields=True):
    handle: str


class _Token(msgspec.Struct, forbid_unknown_fields=True):
    id_token: str


async def get_start(request: Request, ports: GatewayPorts) -> Reply:
    """Send a browser to the provider; `next` is the path of ours that it comes to afterwards."""
    provider = _provider(ports)
    next_path = request.query_params.get("next", "/")
    if not is_own_path(next_path):
        raise Problem(400, "next must be a path of this gateway", "oidc_next")
    redirect_uri = own_origin(request.scope, ports.settings.gateway.public_url) + _CALLBACK
    flow = new_flow(ports.chance, redirect_uri, next_path, ports.clock.now().timestamp())
    location = await provider.authorization_url(flow)
    cookie = set_flow_cookie(request.scope, _cookie_name(request.scope), _sealer(ports).seal(flow), FLOW_SECONDS)
    return Reply(302, b"", ((b"location", location.encode()), cookie, _NO_STORE))


async def get_callback(request: Request, ports: GatewayPorts) -> Reply:
    """Finish a browser's sign-in: the very browser that began it, once."""
    provider, query = _provider(ports), request.query_params
    sealed = cookie_of(request.scope, _cookie_name(request.scope))
    flow = None if sealed is None else _sealer(ports).open(sealed, Flow, ports.clock.now().timestamp())
    if flow is None:
        raise _no("no sign-in was begun here, or it took too long", status=400)
    state, code = query.get("state", ""), query.get("code", "")
    if not hmac.compare_digest(state.encode("utf-8", "surrogatepass"), flow.state.encode()):
        raise _no("another sign-in's state", status=400)
    if query.get("iss", provider.issuer) != provider.issuer:  # RFC 9207: an answer of another provider
        raise _no("another issuer", status=400)
    if not 0 < len(code) <= _MAX_CODE:
        raise _no(f"the provider answered without a code ({query.get('error', '')[:40]})", status=400)
    await _brake(request, ports)
    if not await ports.sign_ins.use_once(_digest("state", state), FLOW_SECONDS):
        raise _no("a state shown before", status=400)
    signed = await _admit(await provider.redeem(code, flow), request, ports)
    life_seconds = ports.settings.identity.session_seconds
    path = escape(flow.next_path, quote=True)
    # A page, not a redirect: on its way from another site a browser would not send a cookie that is SameSite=Strict.
    page = f'<!doctype html><meta http-equiv="refresh" content="0;url={path}"><p><a href="{path}">Signed in</a>'
    gone = set_flow_cookie(request.scope, _cookie_name(request.scope), "", 0)
    return Reply(200, page.encode(), (*_PAGE, set_cookie(request.scope, signed.opened.token, life_seconds), gone))


async def post_device(request: Request, ports: GatewayPorts) -> Reply:
    """Begin a command line's sign-in: a code that the person types in at the provider."""
    provider = _provider(ports)
    await _brake(request, ports)
    device = await provider.begin_device()
    if device is None:
        raise Problem(409, f"{provider.issuer} signs no devices in; use a browser, or an ID token", "oidc_no_device")
    life_seconds = max(1, min(device.expires_in, 3600))
    until = int(ports.clock.now().timestamp()) + life_seconds
    handle = _sealer(ports).seal(DeviceFlow(device.device_code, until))
    return json_reply(
        200,
        {
            "handle": handle,
            "user_code": device.user_code,
            "verification_uri": device.verification_uri,
            "verification_uri_complete": device.verification_uri_complete,
            "expires_in": life_seconds,
            "interval": max(1, min(device.interval, 60)),
        },
        _NO_STORE,
    )


async def post_device_token(request: Request, ports: GatewayPorts) -> Reply:
    """Ask whether the person has signed in meanwhile: 202 until then."""
    provider = _provider(ports)
    asked = await read_body(request, ports, _Handle, MAX_OPEN_BODY)
    flow = _sealer(ports).open(asked.handle, DeviceFlow, ports.clock.now().timestamp())
    if flow is None:
        raise _no("no device's sign-in, or it took too long")
    found = await provider.poll_device(flow.device_code)
    if isinstance(found, Pending):
        return json_reply(202, {"pending": found}, _NO_STORE)
    return signed_in_reply(request, await _admit(found, request, ports), cookie=False)


async def post_exchange(request: Request, ports: GatewayPorts) -> Reply:
    """Exchange a fresh ID token, which a program got from the provider itself, for a session; each token once."""
    provider = _provider(ports)
    asked = await read_body(request, ports, _Token, 2 * MAX_OPEN_BODY)
    await _brake(request, ports)
    found = await provider.judge(asked.id_token, nonce=None, fresh=True)
    if isinstance(found, Claimed) and not await ports.sign_ins.use_once(_digest("token", asked.id_token), 86_400.0):
        found = Fault("a token shown before")
    return signed_in_reply(request, await _admit(found, request, ports), cookie=False)


async def _admit(found: Claimed | Fault, request: Request, ports: GatewayPorts) -> SignedIn:
    """Give whom the provider vouches for a session, unless they are kept out here."""
    if isinstance(found, Fault):
        ports.metrics.add(SIGN_INS, Way.OIDC, "refused")
        raise _no(found.why, status=403 if found.why == "no role" else 401)
    person = await ports.people.admit(found)
    if person.disabled_at is not None:
        ports.metrics.add(SIGN_INS, Way.OIDC, "refused")
        raise _no(f"{person.person_id} is disabled", status=403)
    await ports.sign_ins.succeeded(_network(request, ports))
    return await open_session(ports, person, Way.OIDC)


async def _brake(request: Request, ports: GatewayPorts) -> None:
    """Count the try against its network, before anything is asked of the provider."""
    wait = await ports.sign_ins.begin(_network(request, ports))
    if wait > 0:
        ports.metrics.add(SIGN_INS, Way.OIDC, "wait")
        raise Problem(429, f"Too many tries; wait {max(1, round(wait))} s", "sign_in_wait")


def _network(request: Request, ports: GatewayPorts) -> tuple[str, ...]:
    address = address_of_call(request.scope, ports.settings.gateway.trusted_proxies, ports.tunnels)
    return subjects_of("", address)[1:]


def _provider(ports: GatewayPorts) -> OidcProvider:
    if ports.oidc is None:
        raise NotThere("no OpenID provider is configured; see FORESTAY_OIDC_ISSUER")
    return ports.oidc


def _sealer(ports: GatewayPorts) -> Sealer:
    return Sealer(ports.settings.secrets.token_key)


def _no(why: str, *, status: int = 401) -> Problem:
    _LOG.warning("gateway.oidc_refused", reason=why)
    return Problem(status, _REFUSED, "oidc_refused")


def _digest(kind: str, text: str) -> bytes:
    return hashlib.sha256(f"oidc {kind}\n{text}".encode("utf-8", "surrogatepass")).digest()


def _cookie_name(scope: Scope) -> bytes:
    return _COOKIES[scope_scheme(scope)]
