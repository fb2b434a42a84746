"""Identifiers: what each looks like, and how a request id names its cell.

A request id is a UUIDv7 (RFC 9562) whose twelve `rand_a` bits hold the number of the cell that accepted it, so that any
gateway can route a status or a result to its home without a look-up. The remaining 62 random bits also give the
request's *bucket*, by which a route splits traffic between revisions.
"""

import datetime as dt
import re
import uuid
from typing import NewType

from forestay.chance import Chance

RequestId = NewType("RequestId", uuid.UUID)
TenantId = NewType("TenantId", str)
KeyId = NewType("KeyId", str)
ModelId = NewType("ModelId", str)  # "owner/alias"
RevisionId = NewType("RevisionId", str)  # "digits-3f2a91c04b7d": alias and the first 12 hex digits of its digest
WorkerId = NewType("WorkerId", str)
ReplicaId = NewType("ReplicaId", str)

BUCKETS = 10_000  # a route splits traffic in steps of 0.01 %
# Buckets beyond those of routes: only replicas of a rollout's control and candidate take requests with them.
SHADOW_CONTROL_BUCKET, SHADOW_CANDIDATE_BUCKET = BUCKETS, BUCKETS + 1
PLATFORM_TENANT = TenantId("default")  # of `forestay up`: its ADMIN keys read the reports of every tenant
SHADOW_TENANT = TenantId("~shadow")  # whose mirrored requests are; no tenant of a person can be called so
SHADOW_KEY = KeyId("~shadow")
MAX_CELL = 0xFFF
_OWNER_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}/[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def new_request_id(now: dt.datetime, cell: int, chance: Chance) -> RequestId:
    """Make a UUIDv7 for `now` whose `rand_a` bits name `cell` (0..4095)."""
    if not 0 <= cell <= MAX_CELL:
        message = f"cell {cell} is outside 0..{MAX_CELL}; set FORESTAY_CELL to a number in that range"
        raise ValueError(message)
    milliseconds = int(now.timestamp() * 1000)
    value = (milliseconds << 80) | (0x7 << 76) | (cell << 64) | (0b10 << 62) | chance.bits(62)
    return RequestId(uuid.UUID(int=value))


def parse_request_id(text: str) -> RequestId | None:
    """Read a request id; None when `text` is not a UUID of version 7 (an expected outcome: callers answer 404)."""
    try:
        value = uuid.UUID(text)
    except ValueError:
        return None
    return RequestId(value) if value.version == 7 else None


def cell_of(request_id: RequestId) -> int:
    """Return the cell that accepted the request."""
    return (request_id.int >> 64) & MAX_CELL


def made_at(request_id: RequestId) -> dt.datetime | None:
    """Return when the id was made; None for one that names a time beyond the calendar."""
    try:
        return dt.datetime.fromtimestamp((request_id.int >> 80) / 1000, dt.UTC)
    except (ValueError, OverflowError):
        return None


def bucket_of(request_id: RequestId) -> int:
    """Return the request's traffic bucket, 0 <= bucket < BUCKETS, evenly spread and fixed for its life."""
    return (request_id.int & ((1 << 62) - 1)) % BUCKETS


def first_request_id_at(moment: dt.datetime) -> uuid.UUID:
    """Return the smallest id that a request submitted at `moment` can have: the bound of a time partition."""
    return uuid.UUID(int=int(moment.timestamp() * 1000) << 80)


def is_model_id(text: str) -> bool:
    """Tell whether `text` has the form `owner/alias`."""
    return _OWNER_ALIAS.fullmatch(text) is not None
