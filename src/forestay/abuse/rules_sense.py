"""Whether well-formed rules make sense: the static checks beyond form. Pure; called by `rules_file`.

Each fault comes with the place in the file that it is about. A rule is *forestalled* when another one, at least as
grave and as long, holds whenever it does: it could be deleted without a difference, which nobody means to write.
"""

import re
from collections.abc import Iterator, Sequence

from forestay.abuse.rules import All, Any, Compare, Condition, CounterSpec, Label, Not, Op, Rule, Rules, named
from forestay.abuse.vocabulary import SIGNALS, Per
from forestay.fleet.standing import SEVERITY, StandingKind

Place = tuple[int | str, ...]
Fault = tuple[Place, str]
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_UPPER = (Op.AT_MOST, Op.BELOW)


def faults(rules: Rules) -> Iterator[Fault]:
    """Yield everything about the rules that makes no sense."""
    yield from _twins([item.id for item in rules.counters], "counters")
    yield from _twins([item.id for item in rules.rules], "rules")
    counters = {item.id: item for item in rules.counters}
    for number, counter in enumerate(rules.counters):
        if counter.id in SIGNALS:
            yield ("counters", number, "id"), f"{counter.id} is the name of a signal; choose another"
        if counter.of == counter.per.value == "key" and counter.measure == "distinct":
            yield ("counters", number, "distinct"), "counts the key itself, which is always one"
    given = {rule.then.label.name for rule in rules.rules if rule.then.label is not None}
    for number, rule in enumerate(rules.rules):
        place: Place = ("rules", number, "when")
        yield from _names(rule, place, counters, given)
        yield from _directions(rule.when, place, negated=False)
        yield from _contradictions(rule.when, place)
        yield from _reason(rule, ("rules", number, "then", "reason"), counters)
    yield from _forestalled(rules.rules)


def _twins(names: Sequence[str], where: str) -> Iterator[Fault]:
    for number, name in enumerate(names):
        if name in names[:number]:
            yield (where, number, "id"), f"{name} is taken; every id is used once"


def _names(rule: Rule, place: Place, counters: dict[str, CounterSpec], given: set[str]) -> Iterator[Fault]:
    for leaf in named(rule.when):
        match leaf:
            case Label(name=name):
                if name not in given:
                    yield place, f"no rule gives the label {name}; add `label` to one, or leave this out"
            case Compare(name=name, counter=True):
                counter = counters.get(name)
                if counter is None:
                    yield place, f"there is no counter {name}; declare it under `counters`"
                elif counter.per is not rule.per:
                    yield place, f"counter {name} counts per {counter.per}, the rule is per {rule.per}"
                else:
                    yield from _bounds(leaf, place, 1e12)
            case Compare(name=name):
                signal = SIGNALS.get(name)
                if signal is None:
                    yield place, f"there is no signal {name}; docs/reference/abuse-rules.md lists them"
                elif rule.per not in signal.per:
                    about = " and ".join(sorted(signal.per))
                    yield place, f"{name} is about a {about}, the rule is per {rule.per}"
                else:
                    yield from _bounds(leaf, place, signal.most)


def _bounds(leaf: Compare, place: Place, most: float) -> Iterator[Fault]:
    never = {
        Op.AT_LEAST: leaf.value > most,
        Op.ABOVE: leaf.value >= most,
        Op.AT_MOST: leaf.value < 0.0,
        Op.BELOW: leaf.value <= 0.0,
    }
    always = {
        Op.AT_LEAST: leaf.value <= 0.0,
        Op.ABOVE: leaf.value < 0.0,
        Op.AT_MOST: leaf.value >= most,
        Op.BELOW: leaf.value > most,
    }
    if never[leaf.op]:
        yield place, f"{leaf.name} {leaf.op} {leaf.value:g} never holds: it goes from 0 to {most:g}"
    elif always[leaf.op]:
        yield place, f"{leaf.name} {leaf.op} {leaf.value:g} always holds; leave it out"


def _directions(condition: Condition, place: Place, *, negated: bool) -> Iterator[Fault]:
    """More evidence must never decide less: evidence is asked for at least so much, and is not negated."""
    match condition:
        case Compare(name=name, op=op, counter=counter):
            grows = counter or (name in SIGNALS and SIGNALS[name].evidence)
            if grows and (op in _UPPER) != negated:
                yield place, f"{name} is evidence: more of it would decide less here; ask for at least so much"
        case Label():
            return
        case Not(inner=inner):
            yield from _directions(inner, place, negated=not negated)
        case All(inner=parts) | Any(inner=parts):
            for part in parts:
                yield from _directions(part, place, negated=negated)


def _contradictions(condition: Condition, place: Place) -> Iterator[Fault]:
    match condition:
        case All():
            yield from _contradiction(condition, place)
            for part in condition.inner:
                yield from _contradictions(part, place)
        case Any(inner=parts):
            for part in parts:
                yield from _contradictions(part, place)
        case Not(inner=inner):
            yield from _contradictions(inner, place)
        case Compare() | Label():
            return


def _contradiction(condition: All, place: Place) -> Iterator[Fault]:
    parts = _flat(condition)
    labels = {part.name for part in parts if isinstance(part, Label)}
    for part in parts:
        if isinstance(part, Not) and isinstance(part.inner, Label) and part.inner.name in labels:
            yield place, f"asks for the label {part.inner.name} and for its absence: it never holds"
    compares = [part for part in parts if isinstance(part, Compare)]
    for lower in compares:
        for upper in compares:
            same = lower.name == upper.name and lower.op not in _UPPER and upper.op in _UPPER
            strict = Op.ABOVE is lower.op or Op.BELOW is upper.op
            if same and (lower.value > upper.value or (strict and lower.value == upper.value)):
                yield (
                    place,
                    f"{lower.name} {lower.op} {lower.value:g} and {upper.op} {upper.value:g} never hold together",
                )


def _flat(condition: All) -> list[Condition]:
    return [item for part in condition.inner for item in (_flat(part) if isinstance(part, All) else [part])]


def _reason(rule: Rule, place: Place, counters: dict[str, CounterSpec]) -> Iterator[Fault]:
    for name in _PLACEHOLDER.findall(rule.then.reason):
        known = (name in SIGNALS and rule.per in SIGNALS[name].per) or (
            name in counters and counters[name].per is rule.per
        )
        if not known:
            yield place, f"{{{name}}} is neither a signal nor a counter per {rule.per}"


def _forestalled(rules: Sequence[Rule]) -> Iterator[Fault]:
    for number, rule in enumerate(rules):
        if rule.then.kind is None or rule.then.label is not None:
            continue
        for other in rules:
            if other is not rule and _forestalls(other, rule, earlier=other in rules[:number]):
                yield ("rules", number), f"never decides anything: {other.id} holds whenever it does and goes as far"
                break


def _forestalls(other: Rule, rule: Rule, *, earlier: bool) -> bool:
    kind, theirs = rule.then.kind, other.then.kind
    if kind is None or theirs is None or other.per is not rule.per or other.then.lasting < rule.then.lasting:
        return False
    if SEVERITY[theirs] < SEVERITY[kind] or (theirs is kind and not earlier):
        return False
    softer = theirs is StandingKind.THROTTLE and other.then.factor > rule.then.factor
    return not softer and other.then.freeze_results >= rule.then.freeze_results and _implied(other.when, rule.when)


def _implied(weak: Condition, strong: Condition) -> bool:
    """Tell whether `strong` implies `weak`, as far as plain conjunctions of lower bounds and labels show it."""
    asked = _flat(weak) if isinstance(weak, All) else [weak]
    given = _flat(strong) if isinstance(strong, All) else [strong]
    return all(any(_covers(mine, theirs) for theirs in given) for mine in asked)


def _covers(weak: Condition, strong: Condition) -> bool:
    if weak == strong:
        return True
    if not (isinstance(weak, Compare) and isinstance(strong, Compare)) or weak.name != strong.name:
        return False
    if weak.op in _UPPER or strong.op in _UPPER:
        return weak.op is strong.op and weak.value >= strong.value
    return weak.value < strong.value or (weak.value == strong.value and weak.op is Op.AT_LEAST)


def subjects(rules: Rules) -> frozenset[Per]:
    """Return about whom any rule is."""
    return frozenset(rule.per for rule in rules.rules)
