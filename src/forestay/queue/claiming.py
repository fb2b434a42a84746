"""How free slots become leases in Postgres: by turns, under the pool's lock.

The rule is `queue/fairness` (decision 0005, "Turns"); the statements in `sql/claim.sql` carry it out, so that whose
turn it is and what was taken change together. Accounts are corrected by `settle_facts` once an attempt's real cost is
known. The queue store calls `claim_records`; the controller's facts loop `settle_facts`, its turns loop `run_once`.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from forestay.errors import UsageError
from forestay.ids import TenantId, WorkerId
from forestay.queue import rows
from forestay.queue.rooms import Rooms, rooms_of, within_models
from forestay.queue.store import Offer
from forestay.storage.postgres import Connection, Database, Record, load_queries

_SQL = load_queries("forestay.queue", "sql/claim.sql")
MAX_WEIGHT = 1_000_000.0
_MAX_ACCOUNTS = 10_000


@dataclasses.dataclass(frozen=True, slots=True)
class Account:
    """What a tenant has received in a pool, in device-seconds per weight, beside where the pool itself stands."""

    pool: str
    tenant_id: TenantId
    virtual_time: float
    active: bool  # it waits now
    weight: float
    pool_virtual_time: float


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """Who claims, for how long, and how many requests of each tenant may run where no stored rule says (None: any)."""

    worker_id: WorkerId
    lease_seconds: float
    default_in_flight: int | None
    counted: bool = True  # some rule counts what is in flight


async def claim_records(database: Database, claim: Claim, offers: Sequence[Offer]) -> list[Record]:
    """Lease requests for the offered slots; nothing is locked while nothing waits."""
    useful = [offer for offer in offers if offer.slots > 0 and offer.buckets]
    models = sorted({offer.model_id for offer in useful})
    look = await database.fetchrow(_SQL["anything_waiting"], models) if models else None
    if look is None or not look["waiting"]:
        return []
    claim = dataclasses.replace(claim, counted=bool(look["counted"]) or claim.default_in_flight is not None)
    found: list[Record] = []
    for pool in sorted({offer.pool for offer in useful}):
        async with database.transaction() as connection:
            await connection.execute(_SQL["lock_pool"], pool, True)  # noqa: FBT003 - a column of the statement
            mine = [offer for offer in useful if offer.pool == pool]
            found += await _claim_for(connection, pool, claim, mine)
    return found


async def _claim_for(connection: Connection, pool: str, claim: Claim, offers: Sequence[Offer]) -> list[Record]:
    who = (claim.worker_id, claim.lease_seconds)
    rooms = await _rooms(connection, claim)
    offers = within_models(offers, rooms)
    found: list[Record] = []
    hinted = rows.hinted_columns(offers)
    most = sum(offer.slots for offer in offers if offer.hints)
    if hinted[0] and rooms.wide_enough(most):
        barred = (rooms.short_tenants(most), rooms.short_keys(most))
        found = await connection.fetch(_SQL["claim_hinted"], *who, *hinted, pool, *barred)
        offers = _without(offers, found)
        rooms = await _rooms(connection, claim) if found else rooms
    groups, slots = rows.claim_columns(offers)
    if slots[0]:
        found += await connection.fetch(_SQL["claim"], *who, *groups, *slots, pool, *_room_columns(rooms))
    return found


async def _rooms(connection: Connection, claim: Claim) -> Rooms:
    if not claim.counted:
        return rooms_of([])
    found = await connection.fetch(_SQL["rooms"], claim.default_in_flight)
    return rooms_of([(row[0], row[1], row[2]) for row in found])


def _room_columns(rooms: Rooms) -> tuple[object, ...]:
    return (
        list(rooms.tenants),
        list(rooms.tenants.values()),
        list(rooms.keys),
        list(rooms.keys.values()),
        rooms.other_tenants,
        rooms.other_keys,
        rooms.short_keys(1),
        rooms.fleet,
    )


def _without(offers: Sequence[Offer], taken: Sequence[Record]) -> list[Offer]:
    """Reduce the offers by the slots that `taken` fills; a replica that got one is idle no more."""
    counts = Counter(cast("str", record["replica_id"]) for record in taken)
    return [
        dataclasses.replace(offer, slots=offer.slots - used, idle=False)
        if (used := counts.get(offer.replica_id, 0))
        else offer
        for offer in offers
    ]


async def settle_facts(
    connection: Connection, _requests: Sequence[Mapping[str, object]], attempts: Sequence[Mapping[str, object]]
) -> None:
    """Charge what attempts really took instead of what was predicted: a settler of `telemetry.facts.ship`."""
    owed: dict[tuple[str, str], float] = {}
    for fact in attempts:
        predicted, revision_id = fact.get("predicted_seconds"), fact.get("revision_id")
        if isinstance(predicted, int | float) and isinstance(revision_id, str):
            account = (str(fact["tenant_id"]), revision_id)
            owed[account] = owed.get(account, 0.0) + cast("float", fact["device_seconds"]) - predicted
    if not owed:
        return
    tenants, revisions = [tenant for tenant, _ in owed], [revision for _, revision in owed]
    for record in await connection.fetch(_SQL["pools_of"], revisions):
        await connection.execute(_SQL["lock_pool"], record["pool"], False)  # noqa: FBT003 - as above
    await connection.execute(_SQL["settle"], tenants, revisions, list(owed.values()))


async def run_once(database: Database) -> int:
    """Mark who waits no more, and forget accounts that say nothing; returns how many were forgotten."""
    await database.execute(_SQL["rest"])
    tag = await database.execute(_SQL["forget_service"])
    return int(tag.rpartition(" ")[2])


class Turns(Protocol):
    """What a person may see of turns, and set."""

    async def accounts(self) -> list[Account]:
        """List every account, those next in turn first, at most 10,000."""
        ...

    async def set_weight(self, tenant_id: TenantId, weight: float) -> bool:
        """Give a tenant its share relative to others (1 is usual); False when there is no such tenant."""
        ...


class PostgresTurns:
    """Turns over the queue's tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def accounts(self) -> list[Account]:
        """List every account, those next in turn first, at most 10,000."""
        records = await self._database.fetch(_SQL["accounts"], _MAX_ACCOUNTS)
        return [Account(**dict(record)) for record in records]

    async def set_weight(self, tenant_id: TenantId, weight: float) -> bool:
        """Give a tenant its share; raises UsageError outside (0, MAX_WEIGHT]."""
        if not 0 < weight <= MAX_WEIGHT:
            raise UsageError("weight", f"must be above 0 and at most {MAX_WEIGHT:g}")
        return await self._database.fetchval(_SQL["set_weight"], tenant_id, weight) is not None
