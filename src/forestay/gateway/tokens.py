"""Issues short-lived tokens for browsers: `POST /tokens/` and `POST /tokens/realtime` (contract, section 2.3).

A token opens the models it names for the uses it names, never more than its key, until it expires or its key does or is
revoked. Only a key gets one: a token that could fetch its successor would never expire. Signing and verifying:
`signed_tokens`. Mounted on the REST surface.
"""

import dataclasses
import datetime as dt
from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from forestay.errors import UsageError
from forestay.fleet.keys import Caller
from forestay.gateway.auth import authenticate_entry
from forestay.gateway.incoming import SenderGone, SenderSlow, read_json
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.protocol import FieldError
from forestay.gateway.responses import Reply, field_errors, forbidden, json_reply, plain_error
from forestay.gateway.routing import parse_app_path
from forestay.gateway.signed_tokens import VERBS, Claims, Use, pattern_of, sign_token
from forestay.telemetry.metrics import REFUSED

MAX_SECONDS = 3600
DEFAULT_SECONDS = 120
MAX_APPS = 50
MAX_APP = 300
DEFAULT_USES = frozenset({Use.REALTIME, Use.RUN})


class _Wanted(msgspec.Struct):
    allowed_apps: list[str] = []
    app: str = ""
    token_expiration: int | None = None
    duration: int | None = None
    uses: list[Use] = []  # ours; empty: what fal's clients ask a token for


@dataclasses.dataclass(frozen=True, slots=True)
class _Asked:
    apps: tuple[str, ...]
    uses: tuple[Use, ...]
    seconds: int


def routes(ports: GatewayPorts) -> list[BaseRoute]:
    """Return the token routes."""

    async def plain(request: Request) -> Reply:
        token = await _issue(request, ports)
        return token if isinstance(token, Reply) else json_reply(201, token)

    async def realtime(request: Request) -> Reply:
        token = await _issue(request, ports)
        return token if isinstance(token, Reply) else json_reply(201, {"token": token})

    return [
        Route("/tokens/", plain, methods=["POST"]),
        Route("/tokens", plain, methods=["POST"]),
        Route("/tokens/realtime", realtime, methods=["POST"]),
    ]


async def _issue(request: Request, ports: GatewayPorts) -> str | Reply:
    caller = await authenticate_entry(request.scope, ports)
    if isinstance(caller, Reply):
        return caller
    asked = await _read(request, ports)
    if isinstance(asked, Reply):
        return asked
    lacking = _lacking(caller, asked.uses, asked.apps)
    if lacking:
        ports.metrics.add(REFUSED, "grant")
        return forbidden(f"This key has no grant for a token that may {lacking}")
    now = ports.clock.now()
    expires_at = now + dt.timedelta(seconds=asked.seconds)
    if caller.expires_at is not None:
        expires_at = min(expires_at, caller.expires_at)
    uses = frozenset(asked.uses) or DEFAULT_USES
    claims = Claims(caller.tenant_id, caller.key_id, uses, asked.apps, expires_at)
    return sign_token(claims, secret=ports.settings.secrets.token_key, now=now)


async def _read(request: Request, ports: GatewayPorts) -> _Asked | Reply:
    try:
        wanted = await read_json(request, _Wanted, ports.settings.gateway.body_timeout_seconds)
    except UsageError as error:
        return field_errors([FieldError(loc=["body"], msg=error.message, type="json_invalid")])
    except (SenderSlow, SenderGone) as error:
        return plain_error(408, str(error), "slow_body")
    apps = tuple(wanted.allowed_apps or ([wanted.app] if wanted.app else []))
    if not 1 <= len(apps) <= MAX_APPS or any(len(app) > MAX_APP or pattern_of(app) is None for app in apps):
        form = f"each an alias or owner/alias, of at most {MAX_APP} characters"
        return _refused("allowed_apps", f"must name 1 to {MAX_APPS} apps, {form}")
    seconds = next((given for given in (wanted.token_expiration, wanted.duration) if given is not None), None)
    seconds = DEFAULT_SECONDS if seconds is None else seconds
    if not 1 <= seconds <= MAX_SECONDS:
        return _refused("token_expiration", f"must be 1 to {MAX_SECONDS} seconds")
    return _Asked(apps, tuple(wanted.uses), seconds)


def _lacking(caller: Caller, uses: Sequence[Use], apps: Sequence[str]) -> str:
    """Name the first use and app of which the key itself may do nothing; empty when there is none.

    Aliases alone are left to the moment of use: they name no owner whose grant could be looked at.
    """
    for use in uses:
        for app in apps:
            path = parse_app_path(app)
            if path is not None and not any(caller.may(verb, path.model_id) for verb in VERBS[use]):
                return f"{use} {path.model_id}"
    return ""


def _refused(field: str, message: str) -> Reply:
    return field_errors([FieldError(loc=["body", field], msg=message, type="value_error")])
