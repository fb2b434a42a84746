"""Issues realtime tokens: `POST /tokens/` and `POST /tokens/realtime` (contract, section 2.3).

A token opens the models it names, until it expires or its key is revoked. Only a key gets one: a token that could
fetch its successor would never expire. Signing and verifying: `signed_tokens`. Mounted on the REST surface.
"""

import datetime as dt

import msgspec
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from forestay.errors import UsageError
from forestay.gateway.auth import authenticate_entry
from forestay.gateway.incoming import SenderGone, SenderSlow, read_json
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.protocol import FieldError
from forestay.gateway.responses import Reply, field_errors, json_reply, plain_error
from forestay.gateway.signed_tokens import Claims, Purpose, sign_token

MAX_SECONDS = 3600
DEFAULT_SECONDS = 120
MAX_APPS = 50
MAX_APP = 300


class _Wanted(msgspec.Struct):
    allowed_apps: list[str] = []
    app: str = ""
    token_expiration: int | None = None
    duration: int | None = None


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
    try:
        wanted = await read_json(request, _Wanted, ports.settings.gateway.body_timeout_seconds)
    except UsageError as error:
        return field_errors([FieldError(loc=["body"], msg=error.message, type="json_invalid")])
    except (SenderSlow, SenderGone) as error:
        return plain_error(408, str(error), "slow_body")
    apps = tuple(wanted.allowed_apps or ([wanted.app] if wanted.app else []))
    if not 1 <= len(apps) <= MAX_APPS or any(not 1 <= len(app) <= MAX_APP for app in apps):
        return _refused("allowed_apps", f"must name 1 to {MAX_APPS} apps, each of 1 to {MAX_APP} characters")
    seconds = next((given for given in (wanted.token_expiration, wanted.duration) if given is not None), None)
    seconds = DEFAULT_SECONDS if seconds is None else seconds
    if not 1 <= seconds <= MAX_SECONDS:
        return _refused("token_expiration", f"must be 1 to {MAX_SECONDS} seconds")
    now = ports.clock.now()
    expires_at = now + dt.timedelta(seconds=seconds)
    claims = Claims(caller.tenant_id, caller.key_id, Purpose.REALTIME, apps, expires_at)
    return sign_token(claims, secret=ports.settings.secrets.token_key, now=now)


def _refused(field: str, message: str) -> Reply:
    return field_errors([FieldError(loc=["body", field], msg=message, type="value_error")])
