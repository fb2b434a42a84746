"""Who is told of which alerts, how soon and how often: routes, silences, inhibitions, as values. Pure.

Decides what matches; what follows from it is `decide`'s. Read from YAML by `rules_file`; silences come from the store.
"""

import dataclasses
import datetime as dt
import fnmatch
from collections.abc import Sequence

from forestay.alerts.model import Alert, Condition
from forestay.errors import UsageError

MAX_MATCHERS = 16
MAX_PATTERN = 200


@dataclasses.dataclass(frozen=True, slots=True)
class Matcher:
    """`field=pattern` or `field!=pattern`; `*` in a pattern stands for any text."""

    field: str  # name, source, subject, owner, severity, or a label
    pattern: str
    negated: bool = False

    def holds(self, condition: Condition) -> bool:
        """Tell whether the condition's field fits."""
        value = condition.field(self.field)
        if "*" not in self.pattern:
            return (value == self.pattern) != self.negated
        literal = self.pattern.replace("[", "[[]").replace("?", "[?]")  # `*` alone is special here
        fits = fnmatch.fnmatchcase(value, literal)
        return fits != self.negated

    def __str__(self) -> str:
        """Return it as it is written."""
        return f"{self.field}{'!=' if self.negated else '='}{self.pattern}"


def read_matcher(text: str) -> Matcher:
    """Read `field=pattern` or `field!=pattern`; raises UsageError."""
    left, found, pattern = text.partition("=")
    negated = left.endswith("!")
    field = left.removesuffix("!").strip()
    if not found or not field or not field.replace("_", "").replace("-", "").isalnum():
        raise UsageError("matcher", f"{text[:80]!r} is none; write field=pattern, for example subject=model:acme/*")
    if not pattern or len(pattern) > MAX_PATTERN or any(ord(letter) < 32 for letter in pattern):
        raise UsageError("matcher", f"{field}: the pattern must be one line of 1 to {MAX_PATTERN} characters")
    return Matcher(field, pattern, negated)


def matches(matchers: Sequence[Matcher], condition: Condition) -> bool:
    """Tell whether every matcher holds."""
    return all(matcher.holds(condition) for matcher in matchers)


@dataclasses.dataclass(frozen=True, slots=True)
class Silence:
    """Nobody is told of what matches, for a while. The end of what was told before is told all the same."""

    silence_id: str
    matchers: tuple[Matcher, ...]
    until: dt.datetime
    by: str
    why: str
    since: dt.datetime
    ended_at: dt.datetime | None = None

    def in_force(self, now: dt.datetime) -> bool:
        """Tell whether it holds at `now`."""
        return self.since <= now < self.until and (self.ended_at is None or now < self.ended_at)


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """Who else is told of a page that nobody has acknowledged for so long."""

    after_seconds: float
    receivers: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """Whose alerts go where. The first route that matches is taken."""

    name: str
    receivers: tuple[str, ...]
    matchers: tuple[Matcher, ...] = ()
    group_by: tuple[str, ...] = ("owner",)
    group_wait_seconds: float = 10.0  # a group's first news waits for others
    group_interval_seconds: float = 300.0  # between news of one group
    page_wait_seconds: float = 0.0  # the same where a page is among the news: one look's pages come together anyway
    page_interval_seconds: float = 30.0
    repeat_seconds: float = 14_400.0  # what nobody acknowledged is told again; Alertmanager's own four hours
    escalate: tuple[Step, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Inhibition:
    """While an alert that matches `by` fires, nobody is told of those that match `over` and agree on `equal`."""

    by: tuple[Matcher, ...]
    over: tuple[Matcher, ...]
    equal: tuple[str, ...] = ()


# A pool without workers is one page, not one ticket for each worker.
POOL_FIRST = Inhibition(by=(Matcher("name", "pool_lost"),), over=(Matcher("name", "worker_lost"),), equal=("pool",))
# An outage of the whole platform is one page, not one for each model, tenant and worker.
PLATFORM_FIRST = Inhibition(by=(Matcher("wide", "platform"),), over=(Matcher("wide", "platform", negated=True),))
# A composite that burns because one of its parts does is the same harm: the part is told.
PART_FIRST = Inhibition(
    by=(Matcher("name", "slo_burns"), Matcher("subject", "composite", negated=True)),
    over=(Matcher("name", "slo_burns"), Matcher("subject", "composite")),
    equal=("hurting",),
)

BROUGHT = (PLATFORM_FIRST, POOL_FIRST, PART_FIRST)


@dataclasses.dataclass(frozen=True, slots=True)
class Rules:
    """Everything that the operator says of alerting."""

    routes: tuple[Route, ...] = ()
    inhibitions: tuple[Inhibition, ...] = BROUGHT
    quiet_receivers: frozenset[str] = frozenset()  # that are not told of ends
    resolve_after_seconds: float = 60.0  # gone for so long, an alert is over
    flap_window_seconds: float = 3_600.0  # back within, it flaps: the wait for its end doubles each time
    flap_cap_seconds: float = 1_800.0
    refresh_seconds: float = 60.0  # new numbers and words of an unchanged alert are noted as often

    def route_of(self, condition: Condition) -> Route | None:
        """Return the first route that matches."""
        return next((route for route in self.routes if matches(route.matchers, condition)), None)

    def route_named(self, name: str) -> Route | None:
        """Return the route of that name."""
        return next((route for route in self.routes if route.name == name), None)


def group_of(route: Route | None, condition: Condition) -> str:
    """Return the key of the group in which a condition is told."""
    if route is None:
        return "unrouted"
    parts = [f"{field}={condition.field(field)}" for field in route.group_by]
    return "/".join((route.name, *parts))[:600]


def silence_over(silences: Sequence[Silence], alert: Alert, now: dt.datetime) -> Silence | None:
    """Return the silence in force over an alert that lasts longest."""
    found = [item for item in silences if item.in_force(now) and matches(item.matchers, alert.condition)]
    return max(found, key=lambda item: (item.until, item.silence_id), default=None)


def inhibitors_among(rules: Rules, firing: Sequence[Alert]) -> list[Alert]:
    """Return the alerts that stand over others while they fire."""
    return [alert for alert in firing if any(matches(rule.by, alert.condition) for rule in rules.inhibitions)]


def inhibitor_of(rules: Rules, alert: Alert, inhibitors: Sequence[Alert]) -> Alert | None:
    """Return the inhibitor that stands over this alert.

    One that stands over others itself is held back only by an earlier rule, and by none that it could hold back in
    turn. Otherwise rules could hold alerts back by each other in a circle, and nobody would hear of any.
    """
    own = _first_rule(rules, alert) if any(other.alert_id == alert.alert_id for other in inhibitors) else None
    for rule in rules.inhibitions[:own]:
        if not matches(rule.over, alert.condition):
            continue
        for other in inhibitors:
            if _stands_over(rule, other, alert) and not (own is not None and _could_hold(rules, alert, other)):
                return other
    return None


def _first_rule(rules: Rules, alert: Alert) -> int:
    """Return the place of the first rule by which an inhibitor stands over others."""
    return next(place for place, rule in enumerate(rules.inhibitions) if matches(rule.by, alert.condition))


def _stands_over(rule: Inhibition, other: Alert, alert: Alert) -> bool:
    agree = all(other.condition.field(name) == alert.condition.field(name) for name in rule.equal)
    return agree and other.alert_id != alert.alert_id and matches(rule.by, other.condition)


def _could_hold(rules: Rules, alert: Alert, other: Alert) -> bool:
    over = (rule for rule in rules.inhibitions if matches(rule.over, other.condition))
    return any(_stands_over(rule, alert, other) for rule in over)
