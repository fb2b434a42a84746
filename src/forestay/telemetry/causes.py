"""Who or what is to blame when a request or an attempt fails: a closed vocabulary, derived purely. Facts carry it.

It decides the cause from how something ended (`queue/model.py`, Outcome, by its words) and fal's error type, and which
ends count for or against nobody: a caller's own error, a cancel, content that was refused. Called where facts are
written and where they are rolled up.
"""

import enum
from collections.abc import Collection, Mapping

from forestay.ids import SHADOW_TENANT

SUCCEEDED = "succeeded"
CANCELLED = "cancelled"
BROKEN_OUTPUT = "broken_output"


class Cause(enum.StrEnum):
    """Who or what a failure is put down to."""

    CALLER = "caller"  # a refused input, a cancel, a caller that left
    MODEL = "model"  # its own 5xx, crash or time-out
    WORKER = "worker"  # lost, or not reached
    COLD_START = "cold_start"  # no replica was up in time
    MEMORY = "memory"
    SAFETY = "safety"  # content that may not go through
    PLATFORM = "platform"  # ours: nothing free in time, a store that was away
    UPSTREAM = "upstream"  # a provider, or the caller's own bucket's platform


class Traffic(enum.StrEnum):
    """Whose call it was."""

    CALLER = "caller"
    PROBE = "probe"  # of a tenant that FORESTAY_PROBE_TENANTS names: synthetic
    CANARY = "canary"  # sent to a candidate revision on purpose
    SHADOW = "shadow"  # a copy that a rollout sent: nobody's, in no bill and no SLO


_BY_OUTCOME: Mapping[str, Cause | None] = {
    SUCCEEDED: None,
    "caller_error": Cause.CALLER,
    "model_error": Cause.MODEL,
    "model_crash": Cause.MODEL,
    "model_timeout": Cause.MODEL,
    BROKEN_OUTPUT: Cause.MODEL,
    "memory": Cause.MEMORY,
    "startup": Cause.COLD_START,
    "worker_lost": Cause.WORKER,
    "upstream": Cause.UPSTREAM,
    "safety": Cause.SAFETY,
    CANCELLED: Cause.CALLER,
    "expired": Cause.PLATFORM,
    "platform": Cause.PLATFORM,
}
# Where the outcome alone says less than fal's error type does.
_BY_BOTH: Mapping[tuple[str, str], Cause] = {
    ("expired", "startup_timeout"): Cause.COLD_START,
    ("expired", "runner_scheduling_failure"): Cause.COLD_START,
    ("platform", "runner_disconnected"): Cause.WORKER,
    ("platform", "runner_connection_timeout"): Cause.WORKER,
    ("platform", "runner_connection_refused"): Cause.WORKER,
    ("platform", "runner_connection_error"): Cause.WORKER,
    ("model_error", "internal_error"): Cause.PLATFORM,
}
_NOBODYS = frozenset({Cause.CALLER, Cause.SAFETY})


def cause_of(outcome: str, error_type: str | None = None) -> Cause | None:
    """Return what an end is put down to; None for a success. A word that is not known is the platform's doing."""
    return _BY_BOTH.get((outcome, error_type or "")) or _BY_OUTCOME.get(outcome, Cause.PLATFORM)


def excluded(cause: Cause | None) -> bool:
    """Tell whether an end says nothing of the service: neither good nor bad."""
    return cause in _NOBODYS


def traffic_of(tenant_id: str, probe_tenants: Collection[str]) -> Traffic:
    """Return whose call it was; a caller cannot say this of itself."""
    if tenant_id == SHADOW_TENANT:
        return Traffic.SHADOW
    return Traffic.PROBE if tenant_id in probe_tenants else Traffic.CALLER


def probe_tenants_of(setting: str) -> frozenset[str]:
    """Read the names of a setting, separated by commas."""
    return frozenset(name.strip() for name in setting.split(",") if name.strip())


def outcomes() -> tuple[str, ...]:
    """Return the closed vocabulary of how something ends."""
    return tuple(_BY_OUTCOME)
