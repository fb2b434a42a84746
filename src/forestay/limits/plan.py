"""Which rules hold for a call: rules in, the plan of its checks out.

A rule of a subject stands before the `*` rule of its scope, kind by kind; rules of different scopes all hold. Checks
that are counted in one place make one plan: key and tenant together (a key belongs to one tenant), model and fleet
together, so that each plan is one atomic step of one Valkey slot. Pure. Called by the gate for every call of a limited
caller (from a cache), and by the settlement.
"""

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping, Sequence

from forestay.limits.gcra import Bucket, bucket_of
from forestay.limits.model import ANY, BUDGETS, SETTLED, LimitKind, LimitRule, LimitScope, Spender, Subject

MINUTE_SECONDS = 60.0
FLEET = Subject(LimitScope.FLEET, ANY)
_KNOWN_PLANS = 50_000
_FLIGHTS = frozenset({LimitKind.IN_FLIGHT})
CODES: Mapping[LimitKind, str] = {  # as the script names them
    LimitKind.REQUESTS_PER_SECOND: "r",
    LimitKind.IN_FLIGHT: "i",
    LimitKind.GPU_SECONDS_PER_MINUTE: "g",
    LimitKind.GPU_SECONDS_PER_MONTH: "b",
    LimitKind.MONEY_PER_MONTH: "m",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """A rule as it holds for one subject; `rule.subject` may be the `*` that it comes from."""

    subject: Subject
    rule: LimitRule
    bucket: Bucket | None  # of rates

    @property
    def kind(self) -> LimitKind:
        """Return what is counted."""
        return self.rule.kind


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The checks of one call that are counted in one slot. Each is its own: told apart by identity, which is quick."""

    slot: str  # the hash tag: t:acme, or fleet
    checks: tuple[Check, ...]
    budgets: tuple[Subject, ...]  # those with a budget of the month
    flights: tuple[Subject, ...]  # those whose calls in flight are counted
    holds: tuple[Subject, ...]  # those and all whose prediction is settled later: a granted call must be ended for them
    text: str  # the checks as the script reads them: JSON


def make_plan(slot: str, checks: Sequence[Check]) -> Plan:
    """Arrange the checks of one slot."""
    subjects = list(dict.fromkeys(check.subject for check in checks))
    budgets = [subject for subject in subjects if any(_is(check, subject, BUDGETS) for check in checks)]
    flights = [subject for subject in subjects if any(_is(check, subject, _FLIGHTS) for check in checks)]
    holds = [subject for subject in subjects if any(_is(check, subject, SETTLED | _FLIGHTS) for check in checks)]
    kept = [[str(subject), int(subject in budgets), int(subject in flights)] for subject in holds]
    text = json.dumps([[_line(check) for check in checks], kept], separators=(",", ":"))
    return Plan(slot, tuple(checks), tuple(budgets), tuple(flights), tuple(holds), text)


def _is(check: Check, subject: Subject, kinds: frozenset[LimitKind]) -> bool:
    return check.subject == subject and check.kind in kinds


def _line(check: Check) -> list[object]:
    if check.bucket is None:
        return [CODES[check.kind], str(check.subject), check.rule.amount, 0]
    return [CODES[check.kind], str(check.subject), check.bucket.interval, check.bucket.capacity]


def _check(subject: Subject, rule: LimitRule) -> Check:
    match rule.kind:
        case LimitKind.REQUESTS_PER_SECOND:
            bucket = bucket_of(rule.amount, rule.burst)
        case LimitKind.GPU_SECONDS_PER_MINUTE:
            bucket = bucket_of(rule.amount / MINUTE_SECONDS, rule.amount)
        case LimitKind.IN_FLIGHT | LimitKind.GPU_SECONDS_PER_MONTH | LimitKind.MONEY_PER_MONTH:
            bucket = None
    return Check(subject, rule, bucket)


def slowed(rule: LimitRule, factor: float) -> LimitRule:
    """Return a rule as it holds for a throttled caller: at least one call may always be in flight, or come at once."""
    if factor >= 1.0 or rule.kind in BUDGETS:
        return rule
    if rule.kind is LimitKind.IN_FLIGHT:
        return dataclasses.replace(rule, amount=max(1.0, rule.amount * factor // 1))
    burst = max(1.0, rule.burst * factor // 1) if rule.burst else 0.0
    return dataclasses.replace(rule, amount=rule.amount * factor, burst=burst)


class Rulebook:
    """All rules of one moment, arranged for look-ups."""

    def __init__(self, rules: Iterable[LimitRule]) -> None:
        self.rules = tuple(rules)
        self._of: dict[Subject, dict[LimitKind, LimitRule]] = {}
        for rule in self.rules:
            self._of.setdefault(rule.subject, {})[rule.kind] = rule
        self.counts_flights = any(rule.kind is LimitKind.IN_FLIGHT for rule in self.rules)
        self._plans = functools.lru_cache(_KNOWN_PLANS)(self._find)

    def plans(self, spender: Spender, *, direct: bool, factor: float = 1.0) -> tuple[Plan, ...]:
        """Return the plans of a call; none when nothing limits it. Calls in flight are counted for direct ones alone.

        A queued request over the count in flight waits its turn at the claim; it is never refused for that. `factor`
        is what a throttled caller's own rates and calls in flight are multiplied by; budgets stay.
        """
        return self._plans(spender, direct, factor) if self._of else ()

    def of(self, subject: Subject) -> list[Check]:
        """Return every check that holds for one subject."""
        kinds = {**self._of.get(Subject(subject.scope, ANY), {}), **self._of.get(subject, {})}
        return [_check(subject, kinds[kind]) for kind in LimitKind if kind in kinds]

    def _find(self, spender: Spender, direct: bool, factor: float) -> tuple[Plan, ...]:
        own = [Subject(LimitScope.KEY, spender.key_id), Subject(LimitScope.TENANT, spender.tenant_id)]
        shared = [Subject(LimitScope.MODEL, spender.model_id), FLEET]
        found: list[Plan] = []
        for slot, subjects in ((slot_of_tenant(spender.tenant_id), own), (SHARED_SLOT, shared)):
            checks = [
                _check(subject, check.rule if slot == SHARED_SLOT else slowed(check.rule, factor))
                for subject in subjects
                for check in self.of(subject)
                if direct or check.kind is not LimitKind.IN_FLIGHT
            ]
            if checks:
                found.append(make_plan(slot, checks))
        return tuple(found)


SHARED_SLOT = "fleet"


def slot_of_tenant(tenant_id: str) -> str:
    """Return the slot where a tenant and its keys are counted."""
    return f"t:{tenant_id}"
