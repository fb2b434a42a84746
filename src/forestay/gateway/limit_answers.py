"""What callers are told of their limits: 429 in fal's shape, and the IETF's RateLimit header fields.

`RateLimit-Policy` names every limit of the caller's own key and tenant, `RateLimit` what is left of each, on refusals
and on successes (draft-ietf-httpapi-ratelimit-headers-11). Limits of models and of the fleet are shared with others,
whose traffic is nobody's business: a refusal by one says so, without numbers. Pure. Called by the gate.
"""

import functools
import math
from collections.abc import Mapping, Sequence

from forestay.gateway.responses import Header, Reply, request_error
from forestay.limits.counters import Short
from forestay.limits.model import BUDGETS, MONEY_HUNDREDTHS, LimitKind, LimitScope
from forestay.limits.plan import MINUTE_SECONDS, SHARED_SLOT, Check, Plan
from forestay.queue.model import ErrorType

MONTH_SECONDS = 30 * 86_400  # the window that a policy names; the month itself is the calendar's
_NAMES: Mapping[LimitKind, str] = {
    LimitKind.REQUESTS_PER_SECOND: "requests",
    LimitKind.IN_FLIGHT: "in-flight",
    LimitKind.GPU_SECONDS_PER_MINUTE: "gpu-minute",
    LimitKind.GPU_SECONDS_PER_MONTH: "gpu-month",
    LimitKind.MONEY_PER_MONTH: "money-month",
}
_WORDS: Mapping[LimitKind, str] = {
    LimitKind.REQUESTS_PER_SECOND: "requests per second",
    LimitKind.IN_FLIGHT: "calls in flight",
    LimitKind.GPU_SECONDS_PER_MINUTE: "device-seconds per minute",
    LimitKind.GPU_SECONDS_PER_MONTH: "device-seconds per month",
    LimitKind.MONEY_PER_MONTH: "currency units per month",
}
NEEDS_RETRY: Header = (b"x-fal-needs-retry", b"1")


def success_headers(plan: Plan, levels: Sequence[float]) -> tuple[Header, ...]:
    """Return both fields for the caller's own limits."""
    return _policy(plan)[0], (b"ratelimit", _left(plan, levels))


def refusal(plan: Plan, short: Short, own: tuple[Header, ...]) -> Reply:
    """Answer 429; `own` are the fields of the caller's own limits where a shared one refuses."""
    check = plan.checks[short.check]
    seconds = max(1, math.ceil(short.wait_seconds))
    fields = own
    if plan.slot != SHARED_SLOT:
        levels = list(short.levels)
        levels[2 * short.check + 1] = short.wait_seconds  # Retry-After must not be earlier than the window's end
        fields = success_headers(plan, levels)
    retry: Header = (b"retry-after", b"%d" % seconds)
    return request_error(_kind_of(check), _detail(check, seconds), NEEDS_RETRY, retry, *fields)


def _kind_of(check: Check) -> ErrorType:
    if check.kind is LimitKind.IN_FLIGHT:
        return ErrorType.CONCURRENT_REQUESTS_LIMIT
    return ErrorType.BUDGET_EXCEEDED if check.kind in BUDGETS else ErrorType.RATE_LIMIT


def _detail(check: Check, seconds: int) -> str:
    scope, rule = check.subject.scope, check.rule
    if scope in {LimitScope.MODEL, LimitScope.FLEET}:
        return f"The {scope.value}'s limit of {_WORDS[rule.kind]} is reached by all callers together; {_when(seconds)}"
    amount = rule.amount / MONEY_HUNDREDTHS if rule.kind is LimitKind.MONEY_PER_MONTH else rule.amount
    burst = f" (at most {rule.burst:g} at once)" if rule.burst else ""
    mend = "; submit to the queue instead, where requests wait their turn" if rule.kind is LimitKind.IN_FLIGHT else ""
    return f"This {scope.value} may use {amount:g} {_WORDS[rule.kind]}{burst}; {_when(seconds)}{mend}"


def _when(seconds: int) -> str:
    return f"try again in {seconds} s" if seconds < 2 * 86_400 else f"try again in {seconds // 86_400} days"


def _left(plan: Plan, levels: Sequence[float]) -> bytes:
    items = [
        f"{name};r={int(levels[2 * n])}" + (f";t={math.ceil(levels[2 * n + 1])}" if levels[2 * n + 1] > 0 else "")
        for n, name in enumerate(_policy(plan)[1])
    ]
    return ", ".join(items).encode()


@functools.lru_cache(50_000)
def _policy(plan: Plan) -> tuple[Header, tuple[str, ...]]:
    """Return the field that never changes for a plan, and the names of its policies."""
    names = tuple(f'"{check.subject.scope.value}-{_NAMES[check.kind]}"' for check in plan.checks)
    items = (f"{name};{_quota(check)}" for name, check in zip(names, plan.checks, strict=True))
    return (b"ratelimit-policy", ", ".join(items).encode()), names


def _quota(check: Check) -> str:
    """Return quota, unit and window of one policy. Units that the draft's registry lacks are named in its way."""
    amount = max(1, int(check.rule.amount))
    match check.kind:
        case LimitKind.REQUESTS_PER_SECOND:
            window = max(1, math.ceil(check.rule.burst / check.rule.amount))
            return f"q={max(1, int(check.rule.amount * window))};w={window}"
        case LimitKind.IN_FLIGHT:
            return f'q={amount};qu="concurrent-requests"'
        case LimitKind.GPU_SECONDS_PER_MINUTE:
            return f'q={amount};qu="gpu-seconds";w={MINUTE_SECONDS:.0f}'
        case LimitKind.GPU_SECONDS_PER_MONTH:
            return f'q={amount};qu="gpu-seconds";w={MONTH_SECONDS}'
        case LimitKind.MONEY_PER_MONTH:
            return f'q={amount};qu="currency-hundredths";w={MONTH_SECONDS}'
