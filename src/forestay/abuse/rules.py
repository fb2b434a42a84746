"""Rules as values: conditions over signals, counters and labels, and what follows from them.

Pure. It decides whether a condition holds for what is known of a subject, and nothing about where rules come from
(`rules_file`) or what becomes of them (`decide`). Conditions are compiled to closures once, when the rules are read:
a rule is asked after every call.
"""

import dataclasses
import datetime as dt
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeGuard, assert_never

from forestay.abuse.vocabulary import Per
from forestay.fleet.standing import StandingKind

RELEASE = 0.8  # a standing is renewed while its rule holds with thresholds eased to this share: hysteresis


class Op(enum.StrEnum):
    """How a value is compared."""

    AT_LEAST = "at_least"
    ABOVE = "above"
    AT_MOST = "at_most"
    BELOW = "below"


@dataclasses.dataclass(frozen=True, slots=True)
class Compare:
    """A signal or a counter against a number."""

    name: str
    op: Op
    value: float
    counter: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Label:
    """The subject carries this label."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Not:
    """The condition does not hold."""

    inner: "Condition"


@dataclasses.dataclass(frozen=True, slots=True)
class All:
    """Every one holds."""

    inner: "tuple[Condition, ...]"


@dataclasses.dataclass(frozen=True, slots=True)
class Any:
    """At least one holds."""

    inner: "tuple[Condition, ...]"


Condition = Compare | Label | Not | All | Any


@dataclasses.dataclass(frozen=True, slots=True)
class CounterSpec:
    """A count over calls in a sliding window, kept for each subject."""

    id: str
    per: Per
    measure: str  # calls | seconds | distinct
    of: str  # of distinct: network, agent, model, prompt, key
    window_seconds: float
    where: Mapping[str, str | bool]


@dataclasses.dataclass(frozen=True, slots=True)
class GivenLabel:
    """A label that a rule gives, and for how long."""

    name: str
    lasting: dt.timedelta


@dataclasses.dataclass(frozen=True, slots=True)
class Then:
    """What follows: a standing, a label, or both."""

    kind: StandingKind | None
    lasting: dt.timedelta
    reason: str  # with {names} of signals and counters, filled in by `decide`
    factor: float = 1.0
    freeze_results: bool = False
    label: GivenLabel | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """One rule."""

    id: str
    code: str
    per: Per
    when: Condition
    then: Then


class View(Protocol):
    """What a condition may look at."""

    @property
    def signals(self) -> Mapping[str, float]:
        """Return signals by name."""
        ...

    @property
    def counters(self) -> Mapping[str, float]:
        """Return counters by id."""
        ...

    @property
    def labels(self) -> Mapping[str, dt.datetime]:
        """Return the labels in force with their ends."""
        ...


Test = Callable[[View, float], bool]  # the float eases thresholds of evidence: 1 is strict


@dataclasses.dataclass(frozen=True, slots=True)
class Rules:
    """A checked set of rules, with their compiled conditions."""

    version: int
    rules: tuple[Rule, ...]
    counters: tuple[CounterSpec, ...] = ()
    digest: str = ""
    tests: Mapping[Per, tuple[tuple[Rule, Test], ...]] = dataclasses.field(
        default_factory=dict[Per, tuple[tuple[Rule, Test], ...]], compare=False
    )

    @classmethod
    def of(cls, rules: Sequence[Rule], counters: Sequence[CounterSpec] = (), digest: str = "") -> "Rules":
        """Compile checked rules."""
        compiled = {per: tuple((rule, compiled_test(rule.when)) for rule in rules if rule.per is per) for per in Per}
        return cls(1, tuple(rules), tuple(counters), digest, compiled)


def compiled_test(condition: Condition) -> Test:
    """Compile a condition; `test(view, ease)` tells whether it holds."""
    match condition:
        case Compare():
            return _compare(condition)
        case Label(name=name):
            return lambda view, _ease: name in view.labels
        case Not(inner=inner):
            test = compiled_test(inner)
            return lambda view, ease: not test(view, ease)
        case All(inner=parts):
            return _conjunction(parts)
        case Any(inner=parts):
            tests = tuple(compiled_test(part) for part in parts)
            return lambda view, ease: any(test(view, ease) for test in tests)
        case _:
            assert_never(condition)


def _conjunction(parts: "tuple[Condition, ...]") -> Test:
    """Compile an `all`: plain lower bounds of signals, which most conditions are made of, in one loop."""
    bounds = tuple((part.name, part.value) for part in parts if _is_bound(part))
    tests = tuple(compiled_test(part) for part in parts if not _is_bound(part))

    def holds(view: View, ease: float) -> bool:
        signals = view.signals
        for name, value in bounds:
            if signals[name] < value * ease:
                return False
        for test in tests:  # noqa: SIM110 - a generator costs more than the test
            if not test(view, ease):
                return False
        return True

    return holds


def _is_bound(part: "Condition") -> TypeGuard[Compare]:
    return isinstance(part, Compare) and part.op is Op.AT_LEAST and not part.counter


def _compare(condition: Compare) -> Test:
    name, value, of_counter = condition.name, condition.value, condition.counter

    def read(view: View) -> float:
        return view.counters[name] if of_counter else view.signals[name]

    match condition.op:
        case Op.AT_LEAST:
            return lambda view, ease: read(view) >= value * ease
        case Op.ABOVE:
            return lambda view, ease: read(view) > value * ease
        case Op.AT_MOST:
            return lambda view, _ease: read(view) <= value
        case Op.BELOW:
            return lambda view, _ease: read(view) < value
        case _:
            assert_never(condition.op)


def named(condition: Condition) -> list[Compare | Label]:
    """Return the leaves of a condition, in order."""
    match condition:
        case Compare() | Label():
            return [condition]
        case Not(inner=inner):
            return named(inner)
        case All(inner=parts) | Any(inner=parts):
            return [leaf for part in parts for leaf in named(part)]
        case _:
            assert_never(condition)
