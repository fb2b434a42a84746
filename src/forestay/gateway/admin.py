"""The admin API: what the CLI (and later the console) asks of a running platform. ADMIN keys only.

It decides what a person may ask and how it is answered: 401 without a key, 403 without the scope, 404 for what is not
there, 409 for what stands against it, 413 for what is too large, 422 with the field for what is wrong. Whatever a
person changes leaves an audit row that names the key. The rules of the fleet are `fleet/apply`'s. Mounted at `/admin`.
"""

from collections.abc import Awaitable, Callable
from typing import cast

from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from forestay.errors import UsageError
from forestay.fleet.keys import Scope
from forestay.gateway import admin_fleet, admin_keys, admin_requests
from forestay.gateway.admin_reading import Act, NotThere, Problem
from forestay.gateway.auth import authenticate
from forestay.gateway.incoming import SenderGone, SenderSlow
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.protocol import FieldError
from forestay.gateway.responses import Reply, field_errors, plain_error

Handler = Callable[[Act], Awaitable[Reply]]
_TABLE: tuple[tuple[str, str, Handler], ...] = (
    ("PUT", "/bundles/{digest}", admin_fleet.put_bundle),
    ("GET", "/bundles/{digest}", admin_fleet.get_bundle),
    ("POST", "/models", admin_fleet.post_model),
    ("GET", "/models", admin_fleet.get_models),
    ("GET", "/models/{owner}/{alias}", admin_fleet.get_model),
    ("GET", "/fleet", admin_fleet.get_fleet),
    ("POST", "/freeze", admin_fleet.post_freeze),
    ("POST", "/modes", admin_fleet.post_mode),
    ("GET", "/audit", admin_fleet.get_audit),
    ("GET", "/audit/verify", admin_fleet.get_audit_faults),
    ("POST", "/keys", admin_keys.post_key),
    ("GET", "/keys", admin_keys.get_keys),
    ("DELETE", "/keys/{key_id}", admin_keys.delete_key),
    ("POST", "/tenants", admin_keys.post_tenant),
    ("GET", "/tenants", admin_keys.get_tenants),
    ("GET", "/requests", admin_requests.get_requests),
    ("GET", "/requests/{request_id}", admin_requests.get_request),
    ("GET", "/requests/{request_id}/result", admin_requests.get_result),
    ("POST", "/requests/{request_id}/cancel", admin_requests.post_cancel),
    ("GET", "/webhooks", admin_requests.get_webhooks),
    ("POST", "/webhooks/{request_id}/retry", admin_requests.post_webhook_retry),
)


def routes(ports: GatewayPorts) -> list[BaseRoute]:
    """Return the admin routes; one route a path, so that a wrong method is answered 405 with those allowed."""
    by_path: dict[str, dict[str, Handler]] = {}
    for method, path, handler in _TABLE:
        by_path.setdefault(path, {})[method] = handler
    return [
        Route(f"/admin{path}", _endpoint(ports, handlers), methods=list(handlers)) for path, handlers in by_path.items()
    ]


def _endpoint(ports: GatewayPorts, handlers: dict[str, Handler]) -> Callable[[Request], Awaitable[Reply]]:
    async def endpoint(request: Request) -> Reply:
        caller = await authenticate(request.scope, ports, Scope.ADMIN)
        if isinstance(caller, Reply):
            return caller
        handler = handlers["GET" if request.method == "HEAD" else request.method]
        return await _answer(handler, Act(request, ports, caller))

    return endpoint


async def _answer(handler: Handler, act: Act) -> Reply:
    try:
        return await handler(act)
    except Problem as problem:
        return plain_error(problem.status_code, str(problem), problem.cause)
    except NotThere as error:
        return plain_error(404, str(error), "not_there")
    except UsageError as error:
        faults = cast("tuple[str, ...]", getattr(error, "faults", ()) or (error.message,))
        location: list[str | int] = ["body", error.field] if error.field != "body" else ["body"]
        return field_errors([FieldError(loc=location, msg=fault, type="value_error") for fault in faults])
    except (SenderSlow, SenderGone) as error:
        return plain_error(408, str(error), "slow_body", (b"connection", b"close"))
