"""Whether a failed attempt is tried again: fal's table, its knobs, our ceilings. Pure.

It decides retry or give up, with the reason and the back-off; it does not decide what kills a replica, and it never
touches the queue. The worker calls `classify` and `decide_retry` after a failed attempt; the store calls `cap` so that
no caller can exceed the ceilings, and `decide_rescue` for a lease that ran out.

The table is https://fal.ai docs "Reliability / retries" as of mid 2026: 503, 504 and broken connections are retried as
`server_error`, an exceeded request time as `timeout`, a lost session as `connection_error`; 500 and 502 are not.
"""

import dataclasses
import enum
from collections.abc import Mapping

from forestay.fleet.spec import RetrySpec
from forestay.ids import ReplicaId
from forestay.queue.model import ErrorType, Lease, Options, Requeue

FENCE_CEILING = 1_000  # of all attempts, free ones included: beyond, something gives the request back for ever

ALONE_AFTER_LOST_LEASES = 2


class Condition(enum.StrEnum):
    """fal's retry conditions, and ours."""

    SERVER_ERROR = "server_error"  # 503, 504, disconnect, incomplete response
    TIMEOUT = "timeout"  # the model's request_timeout exceeded
    CONNECTION_ERROR = "connection_error"  # the session between platform and runner closed
    BROKEN_OUTPUT = "broken_output"  # ours: an answer that failed a check of `quality`


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong in one attempt."""

    condition: Condition | None  # None: by the table not worth another attempt
    needs_retry: bool | None = None  # X-Fal-Needs-Retry of the model's own 5xx or 429
    crashed: bool = False  # the model process was seen to die


@dataclasses.dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The platform's ceilings, from settings."""

    max_attempts: int = 10
    poison_replicas: int = 2
    base_seconds: float = 0.5
    cap_seconds: float = 30.0


@dataclasses.dataclass(frozen=True, slots=True)
class Retry:
    """Give the request back for another attempt, charged to `condition`."""

    condition: str
    delay_seconds: float
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class GiveUp:
    """The failure is final."""

    reason: str
    poison: bool = False
    error_type: ErrorType | None = None  # None: the model's own answer is the caller's


def classify(status_code: int, headers: Mapping[str, str]) -> Failure | None:
    """Read a model's answer: None when it is final whatever it says (below 500, and no 429 that asks for a retry).

    `headers` has lower-case names. `X-Fal-Needs-Retry` is heard on 5xx and 429 only.
    """
    if status_code < 500 and status_code != 429:
        return None
    needs_retry = {"1": True, "true": True, "0": False, "false": False}.get(
        headers.get("x-fal-needs-retry", "").strip().lower()
    )
    if status_code == 429:
        return Failure(None, needs_retry) if needs_retry else None
    return Failure(Condition.SERVER_ERROR if status_code in {503, 504} else None, needs_retry)


def decide_retry(  # noqa: PLR0911 - a flat ladder: one rule, one return
    failure: Failure, lease: Lease, spec: RetrySpec, policy: RetryPolicy, jitter: float
) -> Retry | GiveUp:
    """Decide about a failed attempt; `jitter` in [0, 1] spreads the back-off over its upper half."""
    crashed = crashed_with(lease, crashed=failure.crashed)
    if len(crashed) >= policy.poison_replicas:
        return GiveUp(f"it crashed {len(crashed)} replicas", poison=True, error_type=ErrorType.RUNNER_SERVER_ERROR)
    if lease.options.no_retry:
        return GiveUp("the caller forbade retries (X-Fal-No-Retry)")
    charged = charged_attempts(lease.retries_used, lease.lost_leases)
    if charged >= policy.max_attempts:
        return GiveUp(f"all {policy.max_attempts} attempts are used")
    if failure.needs_retry is False:
        return GiveUp("the model asked for no retry (X-Fal-Needs-Retry: 0)")
    condition = failure.condition or Condition.SERVER_ERROR
    delay_seconds = back_off(charged, policy, jitter)
    if failure.needs_retry:
        return Retry(condition, delay_seconds, "the model asked for a retry (X-Fal-Needs-Retry: 1)")
    if failure.condition is None:
        return GiveUp("a failure of this kind is not retried")
    budget, source = _budget(condition, lease.options, spec, policy)
    used = lease.retries_used.get(condition, 0)
    if used >= budget:
        return GiveUp(f"{used} of {budget} retries for {condition.value} are used ({source})")
    return Retry(condition, delay_seconds, f"{condition.value}: retry {used + 1} of {budget} ({source})")


def _budget(condition: Condition, options: Options, spec: RetrySpec, policy: RetryPolicy) -> tuple[int, str]:
    """Return the retries allowed for `condition` and who said so: caller's header, then model, then platform."""
    wanted = options.retry_config.get(condition.value, {}).get("retries")
    if wanted is not None:
        return wanted, "X-Fal-Retry-Config"
    if condition.value in spec.skip_conditions:
        return 0, "the model skips this condition"
    if condition.value in spec.config:
        return spec.config[condition.value], "the model's retry_config"
    return policy.max_attempts - 1, "the platform's default"


def back_off(charged: int, policy: RetryPolicy, jitter: float) -> float:
    """Return seconds to wait after the `charged`-th attempt (1 for the first): doubling, capped, upper half spread."""
    whole = min(policy.cap_seconds, policy.base_seconds * 2.0 ** min(charged - 1, 30))
    return whole * (0.5 + 0.5 * jitter)


def charged_attempts(retries_used: Mapping[str, int], lost_leases: int) -> int:
    """Count the attempts that weigh against the ceiling; attempts given back for free (drain, move) do not."""
    return 1 + sum(retries_used.values()) + lost_leases


def crashed_with(lease: Lease, *, crashed: bool) -> tuple[ReplicaId, ...]:
    """Return the distinct replicas that the request has crashed, this attempt's included when it did."""
    if not crashed or lease.replica_id in lease.crashed_replicas:
        return lease.crashed_replicas
    return (*lease.crashed_replicas, lease.replica_id)


def cap(item: Requeue, policy: RetryPolicy) -> GiveUp | None:
    """Tell why a requeue may not be done although a worker asks for it; None when it may."""
    lease = item.lease
    crashed = crashed_with(lease, crashed=item.crashed)
    if len(crashed) >= policy.poison_replicas:
        return GiveUp(f"it crashed {len(crashed)} replicas", poison=True, error_type=ErrorType.RUNNER_SERVER_ERROR)
    charged = charged_attempts(lease.retries_used, lease.lost_leases)
    if item.condition and charged >= policy.max_attempts:
        return GiveUp(f"all {policy.max_attempts} attempts are used", error_type=ErrorType.RUNNER_DISCONNECTED)
    if lease.attempt >= FENCE_CEILING:
        return GiveUp(f"it was given back {lease.attempt} times", error_type=ErrorType.INTERNAL_ERROR)
    return None


@dataclasses.dataclass(frozen=True, slots=True)
class LostLease:
    """A lease that ran out: its worker is dead, cut off or too slow."""

    attempt: int
    lost_leases: int  # before this one
    retries_used: Mapping[str, int]
    no_retry: bool
    started: bool  # the model may have begun


@dataclasses.dataclass(frozen=True, slots=True)
class Rescue:
    """Queue it again; `alone` when it must have its replica to itself."""

    alone: bool
    delay_seconds: float
    reason: str


def decide_rescue(lost: LostLease, policy: RetryPolicy, jitter: float) -> Rescue | GiveUp:
    """Decide about a lease that ran out. It never counts as poison: a worker's death has many causes.

    The first rescue is immediate; after two lost leases the request runs alone, so that if it is what kills workers,
    it takes nobody with it.
    """
    charged = charged_attempts(lost.retries_used, lost.lost_leases)
    if lost.no_retry and lost.started:
        return GiveUp(
            "its worker was lost and the caller forbade retries (X-Fal-No-Retry)",
            error_type=ErrorType.RUNNER_DISCONNECTED,
        )
    if charged >= policy.max_attempts or lost.attempt >= FENCE_CEILING:
        return GiveUp(
            f"its worker was lost in the last of {policy.max_attempts} attempts",
            error_type=ErrorType.RUNNER_DISCONNECTED,
        )
    delay_seconds = 0.0 if lost.lost_leases == 0 else back_off(charged, policy, jitter)
    alone = lost.lost_leases + 1 >= ALONE_AFTER_LOST_LEASES
    return Rescue(alone, delay_seconds, "lease lost" + (", runs alone from now on" if alone else ""))
