"""The guards that every call of a model passes before its body is read: app, caller, standing, revision, endpoint.

Decides their order: a stranger learns nothing about which models exist, and nothing costly happens for a caller who is
not proven. Called by the queue's submit and the direct lane.
"""

import datetime as dt
from collections.abc import Sequence

from starlette.types import Scope

from forestay.fleet.grants import Verb
from forestay.fleet.keys import Caller
from forestay.fleet.model import ModelEntry, Revision
from forestay.gateway.auth import PUBLIC_KEY, authenticate_asked, authenticate_call
from forestay.gateway.exchange import Exchange
from forestay.gateway.fleet_view import FleetView
from forestay.gateway.options import Context
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.responses import Reply, request_error, unknown_model, unknown_path
from forestay.gateway.routing import parse_app_path
from forestay.gateway.validation import Contracts
from forestay.ids import ModelId, RequestId, bucket_of, new_request_id
from forestay.queue.model import ErrorType
from forestay.telemetry import tracing
from forestay.values import hot_value


@hot_value
class Target:
    """A call that passed the guards before its body: who calls what."""

    caller: Caller
    model: ModelEntry
    revision: Revision
    endpoint: str
    request_id: RequestId
    now: dt.datetime


async def admit(  # noqa: PLR0911 - a flat ladder reads as the policy itself
    ports: GatewayPorts,
    fleet: FleetView,
    contracts: Contracts,
    exchange: Exchange,
    scope: Scope,
    verbs: Sequence[Verb],
) -> Target | Reply:
    """Pass the guards that need no body: app, caller with a grant for each of `verbs`, standing, revision, endpoint."""
    app = parse_app_path(exchange.path)
    if app is None:
        return unknown_path(exchange.path)
    model = fleet.model(app.model_id) or await _deployed_just_now(app.model_id, ports, fleet, scope, verbs)
    if isinstance(model, Reply):
        return model
    exchange.model_id = model.model_id
    caller = await authenticate_call(scope, ports, model, verbs)
    if isinstance(caller, Reply):
        return caller
    exchange.tenant_id, exchange.key_id = caller.tenant_id, caller.key_id
    now = ports.clock.now()
    request_id = new_request_id(now, ports.settings.queue.cell, ports.chance)
    exchange.request_id, exchange.call_id = str(request_id), request_id
    refused = ports.standings.refuse_call(caller)
    if refused is not None:
        return refused
    revision = fleet.routed(model.model_id, bucket_of(request_id))
    if revision is None or not contracts.of(revision).has_endpoint(app.endpoint):
        await fleet.look_again()
        revision = fleet.routed(model.model_id, bucket_of(request_id))
    if revision is None:
        detail = f"No revision of {model.model_id} is routed; its owner must deploy one"
        return request_error(ErrorType.RUNNER_SCHEDULING_FAILURE, detail)
    if not contracts.of(revision).has_endpoint(app.endpoint):
        return unknown_path(app.endpoint)
    return Target(caller, model, revision, app.endpoint, request_id, now)


async def _deployed_just_now(
    model_id: ModelId, ports: GatewayPorts, fleet: FleetView, scope: Scope, verbs: Sequence[Verb]
) -> ModelEntry | Reply:
    """Look once more for an unknown model; a stranger, or a key without a grant, learns nothing about which exist."""
    caller = await authenticate_asked(scope, ports, verbs, model_id)
    if isinstance(caller, Reply):
        return caller
    await fleet.look_again()
    return fleet.model(model_id) or unknown_model(model_id)


def context_of(ports: GatewayPorts, target: Target, headers: dict[bytes, bytes]) -> Context:
    """Return what the caller's options depend on."""
    traceparent = headers.get(b"traceparent")
    return Context(
        now=target.now,
        spec=target.revision.spec,
        is_owner=target.caller.tenant_id == target.model.tenant_id and target.caller.key_id != PUBLIC_KEY,
        allow_private_webhooks=ports.settings.delivery.allow_private_webhooks,
        privileges=target.caller.privileges,
        allow_private_buckets=ports.settings.delivery.allow_private_buckets,
        traceparent=tracing.accept(
            None if traceparent is None else traceparent.decode("latin-1"),
            target.request_id,
            ports.settings.observe.trace_ratio,
        ),
    )
