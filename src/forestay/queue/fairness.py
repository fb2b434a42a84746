"""Whose turn it is: start-time fair queueing over predicted device-seconds. Pure.

It decides the order in which waiting requests take free slots, and what that charges to their tenants (decision 0005,
"Turns"); it neither predicts a cost nor knows which replica runs what. It is the reference of the claim statement,
which must pick the same requests; the simulator and the shedding loop call it as it stands.

The rule, from Goyal, Vin and Cheng, "Start-time Fair Queueing" (SIGCOMM 1996): a tenant's next request has the start
tag `max(virtual time of the tenant, virtual time of the pool)`, the one behind it that tag plus `cost / weight`, and
so on; the smallest tag is served. Taking the maximum lifts a tenant that returns to the present instead of giving it
the past (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024, does the same to its counters). The
pool's virtual time is the tag of the request served last. Between two tenants that both wait throughout an interval,
the service given, divided by weight, differs by at most one of the largest request of each, divided by its weight
(their theorem 1), however many requests either sends. Service counts when it is given out; on several slots, what
runs is not yet what was received.

A charge is a prediction; `settle` corrects it. What was charged too little is added to the virtual time at once. What
was charged too much becomes credit that the next charges use up: lowering the virtual time instead would lose it
again, since on many slots the pool's time has passed that point by then and would lift the tenant over it.

Inside a tenant the earliest deadline to start goes first, then the order of submit. `low` requests yield to every
other until their `order_at`, which is their submit plus the starvation bound; from then on they wait like any other.
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
    start_deadline: dt.datetime | None
    order_at: dt.datetime  # submit; of a low request, submit plus the starvation bound
    low: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Service:
    """What a tenant has received of a pool so far, as the start tag of its next request."""

    tenant_id: TenantId
    virtual_time: float  # device-seconds per weight
    weight: float = 1.0
    credit: float = 0.0  # same unit: what was charged too much, used up by the next charges


@dataclasses.dataclass(frozen=True, slots=True)
class Pick:
    """One request whose turn it is."""

    request_id: RequestId
    tenant_id: TenantId
    start_tag: float  # virtual time at which its service begins
    finish_tag: float  # start tag plus charge: the tenant's virtual time when nothing follows
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Turns:
    """The picks in order, and the state after charging them."""

    picks: tuple[Pick, ...]
    service: Mapping[TenantId, Service]  # of the tenants that were served
    pool_time: float


def decide_turns(
    waiting: Iterable[Waiting], service: Iterable[Service], pool_time: float, slots: int, now: dt.datetime
) -> Turns:
    """Pick at most `slots` of the waiting requests; a tenant without a service row begins at the pool's time, weight 1.

    Every free slot is filled while anything waits. Asking again with the state after, and without the picked requests,
    goes on where this stopped: while nobody yields or has credit, two claims of one slot are one claim of two.
    """
    before = {item.tenant_id: item for item in service}
    tagged = [
        entry
        for tenant_id, own in _by_tenant(waiting).items()
        for entry in _tags(own, before.get(tenant_id) or Service(tenant_id, pool_time), pool_time, now)
    ]
    tagged.sort(key=lambda entry: (_yields(entry.item, now), entry.start, entry.rank, *_submitted(entry.item)))
    picked = tagged[: max(slots, 0)]
    return Turns(
        picks=tuple(
            Pick(one.item.request_id, one.item.tenant_id, one.start, one.after.virtual_time, _reason(one.item, now))
            for one in picked
        ),
        service={one.item.tenant_id: one.after for one in picked},
        pool_time=max([pool_time, *(one.start for one in picked)]),
    )


def settle(service: Service, predicted_seconds: float, used_seconds: float) -> Service:
    """Correct a charge once it is known what the request took, in device-seconds: 0 gives all of it back."""
    difference = (used_seconds - predicted_seconds) / service.weight
    if difference < 0:
        return dataclasses.replace(service, credit=service.credit - difference)
    return dataclasses.replace(service, virtual_time=service.virtual_time + difference)


@dataclasses.dataclass(frozen=True, slots=True)
class _Tagged:
    item: Waiting
    start: float  # its start tag
    rank: int  # its place among its tenant's: decides between equal tags, which credit makes
    after: Service  # its tenant's, once this request and those before it are charged


def _tags(own: Sequence[Waiting], service: Service, pool_time: float, now: dt.datetime) -> list[_Tagged]:
    """Give one tenant's requests their tags, in the order in which the tenant wants them served."""
    base, found = max(service.virtual_time, pool_time), list[_Tagged]()
    ordered = sorted(own, key=lambda item: (_yields(item, now), *_urgency(item)))
    costs = (max(item.predicted_seconds, LEAST_SECONDS) / service.weight for item in ordered)
    sums = itertools.accumulate(costs, initial=0.0)
    for rank, (item, (before, after)) in enumerate(zip(ordered, itertools.pairwise(sums), strict=True)):
        left = max(service.credit - after, 0.0)
        paid = dataclasses.replace(service, virtual_time=base + max(after - service.credit, 0.0), credit=left)
        found.append(_Tagged(item, base + max(before - service.credit, 0.0), rank, paid))
    return found


def _urgency(item: Waiting) -> tuple[bool, dt.datetime, dt.datetime, RequestId]:
    """Order inside a tenant: those with a deadline to start by deadline, then the others by submit."""
    return (item.start_deadline is None, item.start_deadline or item.order_at, *_submitted(item))


def _submitted(item: Waiting) -> tuple[dt.datetime, RequestId]:
    return (item.order_at, item.request_id)


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
