"""Policies in memory: which version decides about a request, kept true by a poll and a wake-up.

What cannot be read now changes nothing: the last state goes on, because a guard must not depend on the database's
being there. A stored version whose seal does not hold, or that cannot be read, is not used: what it should judge is
then not judged at all, and so not released. `standard` comes along and needs no database. Read by gateways and
workers; run as a loop.
"""

import asyncio
import contextlib
from collections.abc import Collection, Mapping

from forestay.clock import Clock
from forestay.errors import Unavailable, UsageError
from forestay.ids import RequestId, TenantId, bucket_of
from forestay.safety.policy import UNGUARDED, Policy
from forestay.safety.policy_file import STANDARD, read_policy, standard_policy
from forestay.safety.sealing import PolicySeal
from forestay.safety.staging import Staging, choose
from forestay.safety.store import SafetyState, SafetyStore, StoredPolicy
from forestay.telemetry.logs import logger
from forestay.values import hot_value

POLL_SECONDS = 1.0
_LOG = logger("safety")


@hot_value
class ForRequest:
    """What holds for one request. Without a deciding policy nothing can be judged, and nothing is released."""

    deciding: Policy | None
    shadow: Policy | None


class Policies:
    """The versions in force."""

    def __init__(self, store: SafetyStore, seal: PolicySeal, clock: Clock) -> None:
        self._store = store
        self._seal = seal
        self._clock = clock
        self._state = SafetyState((), (), ())
        self._read: Mapping[tuple[str, int], Policy] = {(STANDARD, 0): standard_policy()}
        self._stages: Mapping[str, Staging] = {}
        self._tenants: Mapping[TenantId, str] = {}
        self._known = asyncio.Event()  # until the first read nothing is judged but what needs no policy

    def of(self, policy_id: str, request_id: RequestId) -> ForRequest:
        """Return the versions of a policy that judge this request."""
        if policy_id == UNGUARDED.policy_id:
            return ForRequest(UNGUARDED, None)
        if not self._known.is_set():
            return ForRequest(None, None)
        chosen = choose(self._stages.get(policy_id, Staging(policy_id, 0)), bucket_of(request_id))
        shadow = None if chosen.shadow is None else self._read.get((policy_id, chosen.shadow))
        return ForRequest(self._read.get((policy_id, chosen.deciding)), shadow)

    def all_of(self, policy_id: str, tenant_id: TenantId, request_id: RequestId) -> list[ForRequest]:
        """Return what judges a request: the model's policy first, then its caller's own, if it has another."""
        own = self._tenants.get(tenant_id, policy_id)
        return [self.of(name, request_id) for name in dict.fromkeys((policy_id, own))]

    def unguarded(self, policy_id: str, tenant_id: TenantId) -> bool:
        """Tell whether no policy looks at what this tenant calls under a model's policy."""
        return policy_id == UNGUARDED.policy_id and self._tenants.get(tenant_id, policy_id) == policy_id

    def of_tenant(self, tenant_id: TenantId) -> str:
        """Return the policy that judges whatever a tenant calls; empty: none but the models' own."""
        return self._tenants.get(tenant_id, "")

    def asks_for(self, mark: str, policy_ids: Collection[str]) -> bool:
        """Tell whether one of these policies, or of those of tenants, gives released files this mark (`manifest`)."""
        stages = [self._stages.get(name, Staging(name, 0)) for name in {*policy_ids, *self._tenants.values()}]
        deciding = {(stage.policy_id, stage.live) for stage in stages}
        deciding |= {(stage.policy_id, stage.candidate or 0) for stage in stages if stage.percent > 0.0}
        found = [self._read.get(version) for version in deciding]
        return any(policy is not None and mark in policy.provenance for policy in found)

    def in_force(self) -> list[tuple[Staging, int, Policy | None]]:
        """Return every version that judges anything, by name; None where it cannot be used: it judges nothing then."""
        stages = {STANDARD: Staging(STANDARD, 0)} | dict(self._stages)
        return [
            (stage, version, self._read.get((stage.policy_id, version)))
            for _, stage in sorted(stages.items())
            for version in (stage.live, stage.candidate)
            if version or (version == 0 and stage.policy_id == STANDARD)  # of others there is no version 0
        ]

    def waived(self, model_id: str) -> frozenset[str]:
        """Return the detectors whose trouble is waived for a model now."""
        now = self._clock.now()
        return frozenset(
            waiver.detector_id
            for waiver in self._state.waivers
            if waiver.until > now and waiver.model_id in {"", model_id}
        )

    async def refresh(self) -> None:
        """Read anew; raises Unavailable and changes nothing when the database does not answer."""
        state = await self._store.state()
        self._known.set()
        if state == self._state:
            return
        found: dict[tuple[str, int], Policy] = {(STANDARD, 0): standard_policy()}
        for stored in state.policies:
            policy = self._read.get((stored.policy_id, stored.version)) or self._trusted(stored)
            if policy is not None:
                found[stored.policy_id, stored.version] = policy
        self._state, self._read = state, found
        self._stages = {stage.policy_id: stage for stage in state.stages}
        self._tenants = {item.tenant_id: item.policy_id for item in state.tenants}

    async def wait_known(self, seconds: float) -> None:
        """Wait for the first read, at most so long; without it nothing guarded goes on, and that is safe."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._known.wait()

    async def run(self) -> None:
        """Keep reading for ever."""
        while True:
            try:
                await self.refresh()
            except Unavailable as error:
                _LOG.warning("safety.policies_unreadable", reason=str(error))
            await self._clock.sleep(POLL_SECONDS)

    def _trusted(self, stored: StoredPolicy) -> Policy | None:
        name = {"policy_id": stored.policy_id, "version": stored.version}
        if not self._seal.holds(stored.policy_id, stored.version, stored.text, stored.seal):
            _LOG.error("safety.policy_seal_broken", **name)
            return None
        try:
            return read_policy(stored.text, stored.policy_id, stored.version)
        except UsageError as error:
            _LOG.error("safety.policy_unreadable", **name, reason=str(error))
            return None
