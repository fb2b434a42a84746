"""What a caller may do about a request that the guard blocked: `POST` and `GET /appeals/{request_id}`, `GET /appeals`.

Beside the wire of models, at the root, where no model's path is. It decides whose appeal is heard: the key that made
the request, or an ADMIN key of its tenant; for everybody else the request does not exist. One appeal a request, in
words of a bounded length, counted like a call against the caller's rates. People decide it (`forestay safety
review`); a successful one is shown with the request that it has made. Called by `mounts`.
"""

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from forestay.errors import Refused, UsageError
from forestay.fleet.keys import Caller
from forestay.fleet.keys import Scope as KeyScope
from forestay.gateway import exchange as exchanges
from forestay.gateway.admin_reading import plain_text
from forestay.gateway.auth import authenticate
from forestay.gateway.fleet_view import FleetView
from forestay.gateway.guards import Target
from forestay.gateway.incoming import SenderGone, SenderSlow, read_json
from forestay.gateway.limits import LimitGate
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.protocol import FieldError
from forestay.gateway.responses import Reply, field_errors, json_reply, plain_error, unknown_request
from forestay.gateway.routing import Bases, request_url
from forestay.ids import RequestId, bucket_of, parse_request_id
from forestay.queue.model import Snapshot, State
from forestay.safety.review.desk import ReviewDesk
from forestay.safety.review.model import Item, ItemState, Outcome

MAX_WORDS = 2_000
MAX_LISTED = 200


class Host(Protocol):
    """What these routes ask of the gateway."""

    @property
    def ports(self) -> GatewayPorts:
        """Return the ports."""
        ...

    @property
    def fleet(self) -> FleetView:
        """Return the view of the fleet."""
        ...

    @property
    def limits(self) -> LimitGate:
        """Return the gate of limits."""
        ...


class _Words(msgspec.Struct, forbid_unknown_fields=True):
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Asked:
    """One call, proven."""

    host: Host
    desk: ReviewDesk
    caller: Caller
    bases: Bases

    @property
    def is_admin(self) -> bool:
        return KeyScope.ADMIN in self.caller.scopes

    def owns(self, item: Item) -> bool:
        """Tell whether this caller may know of the item."""
        if item.opened.tenant_id != self.caller.tenant_id:
            return False
        return self.is_admin or item.opened.key_id == self.caller.key_id


def routes(host: Host) -> list[BaseRoute]:
    """Return the routes."""

    def endpoint(handler: Callable[[_Asked, Request], Awaitable[Reply]]) -> Callable[[Request], Awaitable[Reply]]:
        async def answer(request: Request) -> Reply:
            safety = host.ports.safety
            if safety is None or safety.review is None:
                return plain_error(503, "no guard runs in this gateway, so nothing is appealed here", "guard")
            caller = await _caller(request, host.ports)
            if isinstance(caller, Reply):
                return caller
            bases = exchanges.of(request.scope).bases
            try:
                return await handler(_Asked(host, safety.review, caller, bases), request)
            except UsageError as error:
                place: list[str | int] = ["body"] if error.field == "body" else ["body", error.field]
                return field_errors([FieldError(loc=place, msg=error.message, type="value_error")])
            except (SenderSlow, SenderGone) as error:
                return plain_error(408, str(error), "slow_body")

        return answer

    one = {"GET": endpoint(_show), "POST": endpoint(_make)}

    async def about_one(request: Request) -> Reply:
        return await one["GET" if request.method == "HEAD" else request.method](request)

    return [
        Route("/appeals", endpoint(_list), methods=["GET"]),
        Route("/appeals/{request_id}", about_one, methods=["GET", "POST"]),
    ]


async def _caller(request: Request, ports: GatewayPorts) -> Caller | Reply:
    """Prove a key with the scope API, or with ADMIN for its tenant."""
    caller = await authenticate(request.scope, ports, KeyScope.API)
    if isinstance(caller, Reply) and caller.status_code == 403:
        admin = await authenticate(request.scope, ports, KeyScope.ADMIN)
        return admin if isinstance(admin, Caller) else caller
    return caller


async def _list(asked: _Asked, _request: Request) -> Reply:
    """List the caller's appeals, newest first."""
    key_id = None if asked.is_admin else asked.caller.key_id
    items = await asked.desk.reviews.appeals_of(asked.caller.tenant_id, key_id, MAX_LISTED)
    return json_reply(200, {"appeals": [_shown(item, asked.bases) for item in items]})


async def _show(asked: _Asked, request: Request) -> Reply:
    """Show how an appeal stands, asked by the id of either request."""
    request_id = parse_request_id(request.path_params["request_id"])
    found = None if request_id is None else await asked.desk.reviews.find(str(request_id))
    if found is None or not asked.owns(found.item) or found.item.appeal is None:
        return unknown_request()
    return json_reply(200, _shown(found.item, asked.bases))


async def _make(asked: _Asked, request: Request) -> Reply:
    """Appeal."""
    words = plain_text("reason", (await _read(request, asked.host.ports)).reason, MAX_WORDS, empty=False)
    request_id = parse_request_id(request.path_params["request_id"])
    found = None if request_id is None else await _appealable(asked, request_id)
    if found is None or isinstance(found, Reply):
        return found or unknown_request()
    try:
        item = await asked.desk.reviews.appeal(found.opened.item_id, f"caller:{asked.caller.key_id}", words)
    except Refused as error:
        return plain_error(409, str(error), "not_appealable")
    if item is None:
        return unknown_request()
    if item.decided is not None and await asked.desk.carry(item):
        carried = await asked.desk.reviews.find(item.opened.item_id)
        item = item if carried is None else carried.item
    return json_reply(201, _shown(item, asked.bases))


async def _appealable(asked: _Asked, request_id: RequestId) -> Item | Reply:
    """Return the item of a request that this caller may appeal, or why not."""
    ports = asked.host.ports
    found = await asked.desk.reviews.find(str(request_id))
    snapshot = (await ports.queue.snapshots([request_id])).get(request_id)
    if found is None or found.item.linked_id == request_id:
        return _not_appealable(asked, snapshot)
    if not asked.owns(found.item):
        return unknown_request()
    limited = await _limited(asked, found.item)
    if limited is not None:
        return limited
    if snapshot is not None and snapshot.state is State.WITHHELD:
        return plain_error(409, "People look at this output already; nothing is decided yet", "not_appealable")
    return found.item


async def _read(request: Request, ports: GatewayPorts) -> _Words:
    return await read_json(request, _Words, ports.settings.gateway.body_timeout_seconds)


async def _limited(asked: _Asked, item: Item) -> Reply | None:
    """Count an appeal as a call of the caller's; it holds nothing afterwards."""
    host, request_id = asked.host, item.opened.request_id
    model = host.fleet.model(item.opened.model_id)
    revision = None if model is None else host.fleet.routed(model.model_id, bucket_of(request_id))
    if model is None or revision is None:  # the model is gone: nothing counts its calls
        return None
    target = Target(asked.caller, model, revision, item.opened.endpoint, request_id, host.ports.clock.now())
    reservation = await host.limits.reserve(target, 0.0, direct=True)
    if isinstance(reservation, Reply):
        return reservation
    host.limits.give_back(reservation, whole=False)
    return None


def _not_appealable(asked: _Asked, snapshot: Snapshot | None) -> Reply:
    """Say why a request of the caller's own cannot be appealed; another's does not exist."""
    mine = snapshot is not None and snapshot.tenant_id == asked.caller.tenant_id
    if snapshot is None or not mine or not (asked.is_admin or snapshot.key_id == asked.caller.key_id):
        return unknown_request()
    if snapshot.state is State.BLOCKED:
        what = "its content was not kept: the model's policy does not, or too many others wait"
    elif snapshot.state is State.WITHHELD:
        what = "people look at it already; nothing is decided yet"
    else:
        what = f"it is {snapshot.state.value}, and only what was blocked can be appealed"
    return plain_error(409, f"This request cannot be appealed: {what}", "not_appealable")


def _shown(item: Item, bases: Bases) -> dict[str, object]:
    """Return what a caller is told: never who decided, nor what another tenant did."""
    opened, decided, appeal = item.opened, item.decided, item.appeal
    linked = None if item.linked_id is None or item.done_at is None else str(item.linked_id)
    released = decided is not None and decided.outcome is Outcome.RELEASED
    return {
        "request_id": str(opened.request_id),
        "model_id": opened.model_id,
        "point": opened.point.value,
        "category": None if opened.category is None else opened.category.value,
        "state": "decided" if item.state is ItemState.DECIDED else "open",
        "outcome": None if decided is None else decided.outcome.value,
        "reason": appeal and appeal.words,
        "made_at": appeal and appeal.at,
        "decided_at": decided and decided.at,
        "linked_request_id": linked,
        "linked_response_url": request_url(bases, opened.model_id, linked) if linked and released else None,
    }
