"""The port of what the guard keeps beside facts: policies, their stages, who has a stricter one, and waivers.

Every change has its audit row in the same transaction. Called by the admin API (changes) and by `policies` (reads).
"""

import dataclasses
import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Protocol

from forestay.ids import TenantId
from forestay.safety.staging import Staging


@dataclasses.dataclass(frozen=True, slots=True)
class StoredPolicy:
    """One version of a policy as it was set; `seal` proves that whoever set it held the platform's key."""

    policy_id: str
    version: int
    text: str
    seal: bytes
    reason: str
    set_at: dt.datetime
    set_by: str


@dataclasses.dataclass(frozen=True, slots=True)
class Waiver:
    """Break glass: until then, trouble of this detector releases as flagged. Blocks it never waives."""

    waiver_id: uuid.UUID
    detector_id: str
    model_id: str  # empty: every model
    reason: str
    until: dt.datetime
    set_by: str


@dataclasses.dataclass(frozen=True, slots=True)
class TenantPolicy:
    """A policy that judges whatever a tenant calls, beside the model's own."""

    tenant_id: TenantId
    policy_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class SafetyState:
    """Everything that a gateway or a worker needs to know of policies; one read."""

    policies: tuple[StoredPolicy, ...]  # the versions that are live or candidates
    stages: tuple[Staging, ...]
    waivers: tuple[Waiver, ...]  # those that have not ended
    tenants: tuple[TenantPolicy, ...] = ()


class SafetyStore(Protocol):
    """Policies, stages and waivers."""

    async def state(self) -> SafetyState:
        """Read what is in force now."""
        ...

    async def versions(self, policy_id: str, limit: int) -> Sequence[StoredPolicy]:
        """Read the versions of a policy, newest first."""
        ...

    async def propose(self, policy_id: str, text: str, *, actor: str, reason: str) -> StoredPolicy:
        """Add a checked version and let it judge in shadow."""
        ...

    async def advance(self, policy_id: str, percent: float, *, actor: str, reason: str) -> Staging:
        """Let the candidate decide for a share of requests; 100: for all."""
        ...

    async def roll_back(self, policy_id: str, version: int | None, *, actor: str, reason: str) -> Staging:
        """Drop the candidate, or put an earlier version in force."""
        ...

    async def strengthen(self, tenant_id: TenantId, policy_id: str | None, *, actor: str, reason: str) -> bool:
        """Have a tenant's calls judged by a further policy, or (None) by models' own alone; tells if it changed."""
        ...

    async def waive(self, waiver: Waiver) -> None:
        """Break glass for a while."""
        ...

    async def end_waiver(self, waiver_id: uuid.UUID, *, actor: str, reason: str) -> bool:
        """End a waiver before its time; False when there is none that runs."""
        ...
