"""Whose turn it is: start-time fair queueing over predicted device-seconds. Pure.

It decides the order in which waiting requests take free slots, and what that charges to their tenants (decision 0005,
"Turns"); it neither predicts a cost nor knows which replica runs what. It is the reference of the claim statement
(`sql/claim.sql`), which must pick the same requests; the simulator and the shedding loop call it as it stands.

The rule, from Goyal, Vin and Cheng, "Start-time Fair Queueing" (SIGCOMM 1996): a tenant's next request starts at the
tenant's virtual time, the one behind it at that plus `cost / weight`, and so on; the smallest of these tags is served.
The pool's virtual time is the largest tag served so far. A tenant that returns is lifted to it (or to the tenant that
is furthest behind among those who wait) instead of being given the past, as the counters of Sheng et al., "Fairness in
Serving Large Language Models" (OSDI 2024) are; one that has been waiting keeps its place, so that what was charged too
much and given back is not lost. Between two tenants that both wait throughout an interval, the service given, divided
by weight, differs by at most one of the largest request of each, divided by its weight (their theorem 1), however many
requests either sends. Service counts when it is given out; on several slots what runs is not yet what was received.

Inside a tenant the earliest start deadline goes first; a request without one counts as due its tenant's patience after
its submit, so nothing waits for ever behind urgent ones. `low` requests yield to every other until their `order_at`,
which is their submit plus the starvation bound; from then on they wait like any other. Waiting with nothing but
yielding requests keeps no place: otherwise one low request, renewed again and again, would save up the whole pool.
"""

import dataclasses
import datetime as dt
import itertools
from collections.abc import Iterable, Mapping, Sequence

from forestay.ids import RequestId, TenantId

LEAST_SECONDS = 1e-6  # a cost of nothing would give a tenant every slot


@dataclasses.dataclass(frozen=True, slots=True)
class Waiting:
    """One queued request that may be served now."""

    request_id: RequestId
    tenant_id: TenantId
    predicted_seconds: float  # device-seconds
    due_at: dt.datetime  # start deadline; without one, order_at plus the patience of the settings
    order_at: dt.datetime  # submit; of a low request, submit plus the starvation bound
    low: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Service:
    """What a tenant has received of a pool so far, as the start tag of its next request."""

    tenant_id: TenantId
    virtual_time: float  # device-seconds per weight
    weight: float = 1.0
    active: bool = False  # it has been waiting since its last turn: not lifted


@dataclasses.dataclass(frozen=True, slots=True)
class Pick:
    """One request whose turn it is."""

    request_id: RequestId
    tenant_id: TenantId
    start_tag: float  # virtual time at which its service begins
    finish_tag: float  # start tag plus cost / weight: the tenant's virtual time when nothing follows
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Turns:
    """The picks in order, and the state after charging them."""

    picks: tuple[Pick, ...]
    service: Mapping[TenantId, Service]  # of every tenant that waits
    pool_time: float


def decide_turns(
    waiting: Iterable[Waiting], service: Iterable[Service], pool_time: float, slots: int, now: dt.datetime
) -> Turns:
    """Pick at most `slots` of the waiting requests; a tenant without a service row is new, with weight 1.

    Every free slot is filled while anything waits. Asking again with the state after, and without the picked requests,
    goes on where this stopped: while nobody yields, two claims of one slot pick what one claim of two does.
    """
    queues = _by_tenant(waiting)
    before = _lifted(queues, {item.tenant_id: item for item in service}, pool_time)
    tagged = [entry for tenant_id, own in queues.items() for entry in _tags(own, before[tenant_id], now)]
    tagged.sort(key=lambda entry: (_yields(entry.item, now), entry.start, entry.item.due_at, entry.item.request_id))
    picked, left = tagged[: max(slots, 0)], tagged[max(slots, 0) :]
    keep_place = {one.item.tenant_id for one in left if not _yields(one.item, now)}
    received = {**{key: item.virtual_time for key, item in before.items()}, **{o.item.tenant_id: o.end for o in picked}}
    return Turns(
        picks=tuple(
            Pick(one.item.request_id, one.item.tenant_id, one.start, one.end, _reason(one.item, now)) for one in picked
        ),
        service={
            key: dataclasses.replace(item, virtual_time=received[key], active=key in keep_place)
            for key, item in before.items()
        },
        pool_time=max([pool_time, *(one.start for one in picked)]),
    )


def settle(service: Service, predicted_seconds: float, used_seconds: float) -> Service:
    """Correct a charge once it is known what the request took, in device-seconds: 0 gives all of it back."""
    corrected = service.virtual_time + (used_seconds - predicted_seconds) / service.weight
    return dataclasses.replace(service, virtual_time=max(corrected, 0.0))


@dataclasses.dataclass(frozen=True, slots=True)
class _Tagged:
    item: Waiting
    start: float
    end: float


def _lifted(
    tenants: Iterable[TenantId], known: Mapping[TenantId, Service], pool_time: float
) -> dict[TenantId, Service]:
    """Lift who returns to where the others are: never past the pool, nor past who waits with the least."""
    found = {key: known.get(key) or Service(key, 0.0) for key in tenants}
    floor = min([pool_time, *(item.virtual_time for item in found.values() if item.active)])
    return {
        key: item if item.active else dataclasses.replace(item, virtual_time=max(item.virtual_time, floor))
        for key, item in found.items()
    }


def _tags(own: Sequence[Waiting], service: Service, now: dt.datetime) -> list[_Tagged]:
    """Give one tenant's requests their tags, in the order in which the tenant wants them served."""
    ordered = sorted(own, key=lambda item: (_yields(item, now), item.due_at, item.request_id))
    costs = (max(item.predicted_seconds, LEAST_SECONDS) / service.weight for item in ordered)
    bounds = itertools.pairwise(itertools.accumulate(costs, initial=service.virtual_time))
    return [_Tagged(item, start, end) for item, (start, end) in zip(ordered, bounds, strict=True)]


def _yields(item: Waiting, now: dt.datetime) -> bool:
    return item.low and item.order_at > now


def _by_tenant(waiting: Iterable[Waiting]) -> dict[TenantId, list[Waiting]]:
    found: dict[TenantId, list[Waiting]] = {}
    for item in waiting:
        found.setdefault(item.tenant_id, []).append(item)
    return found


def _reason(item: Waiting, now: dt.datetime) -> str:
    if _yields(item, now):
        return "low priority, and no other request waits"
    if item.low:
        return "low priority, past the starvation bound"
    return "least service received for its weight"
