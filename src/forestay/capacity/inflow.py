"""How much work each tenant has been adding of late: an exponentially weighted rate. No I/O; the caller says the time.

It decides how far back "of late" reaches (half a minute). Admission asks it what others will add while a request
waits.
"""

import math
from collections.abc import Mapping

from forestay.ids import ModelId, TenantId

MEMORY_SECONDS = 30.0
_MAX_TENANTS = 10_000


class Inflow:
    """Device-seconds per second that tenants have added, by model."""

    def __init__(self) -> None:
        self._sums: dict[ModelId, dict[TenantId, tuple[float, float]]] = {}  # decayed sum, and when it was that
        self._known = 0

    def add(self, model_id: ModelId, tenant_id: TenantId, seconds: float, now: float) -> None:
        """Note an admitted request; `now` is monotonic."""
        if self._known >= _MAX_TENANTS:
            self._forget(now)
        sums = self._sums.setdefault(model_id, {})
        before, at = sums.get(tenant_id, (0.0, now))
        self._known += tenant_id not in sums
        sums[tenant_id] = before * math.exp((at - now) / MEMORY_SECONDS) + seconds, now

    def rates(self, model_id: ModelId, now: float) -> Mapping[TenantId, float]:
        """Return the device-seconds per second that each tenant has been adding to a model's queue."""
        return {
            tenant_id: value * math.exp((at - now) / MEMORY_SECONDS) / MEMORY_SECONDS
            for tenant_id, (value, at) in self._sums.get(model_id, {}).items()
        }

    def _forget(self, now: float) -> None:
        """Drop whoever has added nothing for long, and everybody when that is not enough."""
        oldest = now - 5.0 * MEMORY_SECONDS
        kept = {
            model_id: {tenant_id: item for tenant_id, item in sums.items() if item[1] >= oldest}
            for model_id, sums in self._sums.items()
        }
        self._known = sum(len(sums) for sums in kept.values())
        if self._known >= _MAX_TENANTS:
            kept, self._known = {}, 0
        self._sums = {model_id: sums for model_id, sums in kept.items() if sums}
