"""The words of limits: what may be limited, for whom, and what a call takes from it.

Pure values and their bounds; no counting (`gcra`, `lua/counters.lua`) and no storage. Called by the gateway's gate, the
admin API and the settlement.
"""

import dataclasses
import enum
import math
import re

from forestay.errors import UsageError
from forestay.ids import KeyId, ModelId, TenantId, is_model_id
from forestay.values import hot_value

ANY = "*"  # of a scope: each subject that has no rule of that kind of its own
MONEY_HUNDREDTHS = 100  # money is counted in hundredths of the currency unit
_KEY = re.compile(r"[0-9a-f]{16}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|public")
_TENANT = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_LARGEST = 1e12


class LimitScope(enum.StrEnum):
    """What a rule counts together."""

    KEY = "key"
    TENANT = "tenant"
    MODEL = "model"
    FLEET = "fleet"


class LimitKind(enum.StrEnum):
    """What is counted."""

    REQUESTS_PER_SECOND = "requests_per_second"
    IN_FLIGHT = "in_flight"
    GPU_SECONDS_PER_MINUTE = "gpu_seconds_per_minute"  # device-seconds: a GPU, or a slot on a processor
    GPU_SECONDS_PER_MONTH = "gpu_seconds_per_month"  # calendar month, UTC
    MONEY_PER_MONTH = "money_per_month"  # hundredths of the currency unit


BUDGETS = frozenset({LimitKind.GPU_SECONDS_PER_MONTH, LimitKind.MONEY_PER_MONTH})
SETTLED = BUDGETS | {LimitKind.GPU_SECONDS_PER_MINUTE}  # the prediction is taken first, the difference settled later


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """Whom a rule is for, `tenant:acme`; the id `*` stands for each that has no rule of its own."""

    scope: LimitScope
    id: str

    def __str__(self) -> str:
        return f"{self.scope.value}:{self.id}"


@dataclasses.dataclass(frozen=True, slots=True)
class LimitRule:
    """One limit. `amount` is in the kind's own unit; `burst` belongs to requests per second alone."""

    subject: Subject
    kind: LimitKind
    amount: float
    burst: float = 0.0  # requests that may come at once


@hot_value
class Charge:
    """What one call takes: predicted when it is reserved, measured when it is settled."""

    gpu_seconds: float
    money: float = 0.0  # hundredths of the currency unit


NOTHING = Charge(0.0)


@hot_value
class Spender:
    """Whose call it is: the three ids by which rules find it."""

    tenant_id: TenantId
    key_id: KeyId
    model_id: ModelId


def parse_subject(text: str, field: str = "subject") -> Subject:
    """Read `tenant:acme`, `key:3f2a...`, `model:owner/alias` or `fleet`; raises UsageError naming the forms."""
    name, _, subject_id = text.partition(":")
    if name == LimitScope.FLEET and subject_id in {"", ANY}:
        return Subject(LimitScope.FLEET, ANY)
    try:
        subject = Subject(LimitScope(name), subject_id)
    except ValueError:
        subject = None
    if subject is None or not _is_id(subject):
        message = (
            f"{text[:80]!r} is none of tenant:acme, key:<id>, model:owner/alias, fleet; `*` as the id means each "
            f"that has no rule of its own"
        )
        raise UsageError(field, message)
    return subject


def _is_id(subject: Subject) -> bool:
    if subject.id == ANY:
        return True
    match subject.scope:
        case LimitScope.KEY:
            return _KEY.fullmatch(subject.id) is not None
        case LimitScope.TENANT:
            return _TENANT.fullmatch(subject.id) is not None
        case LimitScope.MODEL:
            return is_model_id(subject.id)
        case LimitScope.FLEET:
            return False


def checked_rule(subject: Subject, kind: LimitKind, amount: float, burst: float | None = None) -> LimitRule:
    """Make a rule of bounded numbers; raises UsageError naming the field and what it may be."""
    if not (math.isfinite(amount) and 0 < amount <= _LARGEST):
        raise UsageError(kind.value, f"must be above 0 and at most {_LARGEST:g}; remove the limit to lift it")
    if kind is LimitKind.IN_FLIGHT and not (amount >= 1 and float(amount).is_integer()):
        raise UsageError(kind.value, "must be a whole number of calls, at least 1")
    if kind is not LimitKind.REQUESTS_PER_SECOND:
        if burst is not None:
            raise UsageError("burst", "belongs to requests_per_second; leave it away here")
        return LimitRule(subject, kind, float(amount))
    size = max(1.0, math.ceil(amount)) if burst is None else burst  # without one: what a second allows
    if not (math.isfinite(size) and 1 <= size <= _LARGEST and float(size).is_integer()):
        raise UsageError("burst", f"must be a whole number of requests from 1 to {_LARGEST:g}")
    return LimitRule(subject, kind, float(amount), float(size))
