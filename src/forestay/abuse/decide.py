"""Who should stand under what, by the rules: the one decision of this domain.

Pure: from what is known of a subject (signals, counters, labels, its standing), the rules and `now` to actions with a
reason and evidence. At most one standing a subject: the gravest of the rules that hold, the first of equals. A standing
in force is not softened; it is renewed when half of its time is over and its rule still holds with eased thresholds,
else it runs out. More evidence never decides less. It does not decide whether the action takes effect (`fleet/apply`:
modes, freeze, cap, what a person said). Called by the abuse loop, by replay and by the bench.
"""

import dataclasses
import datetime as dt
import re
from collections.abc import Callable, Mapping

from forestay.abuse.rules import RELEASE, Compare, Rule, Rules, named
from forestay.abuse.vocabulary import Per
from forestay.fleet.standing import SEVERITY, Standing, StandingKind, standing_id_of

_NAMES = re.compile(r"\{([a-z_.0-9]+)\}")


@dataclasses.dataclass(frozen=True, slots=True)
class History:
    """What is known of a subject when it is judged."""

    subject: str
    per: Per
    signals: Mapping[str, float]
    counters: Mapping[str, float]
    labels: Mapping[str, dt.datetime]  # in force
    standing: Standing | None = None  # in force
    facts: Callable[[], tuple[str, ...]] = tuple  # ids of the facts behind the signals, never what they said


@dataclasses.dataclass(frozen=True, slots=True)
class Give:
    """Put a label on the subject until then."""

    subject: str
    label: str
    until: dt.datetime
    reason: str


Judgement = Standing | Give


def decide_standing(history: History, rules: Rules, now: dt.datetime) -> list[Judgement]:
    """Decide what should follow now; empty when nothing should change."""
    current = history.standing
    found: list[Judgement] = []
    gravest: Rule | None = None
    for rule, test in rules.tests.get(history.per, ()):
        held = current is not None and current.rule == rule.id
        if not test(history, RELEASE if held else 1.0):
            continue
        label = rule.then.label
        if label is not None and label.name not in history.labels:
            found.append(Give(history.subject, label.name, now + label.lasting, reason_of(rule, history)))
        kind = rule.then.kind
        if kind is not None and (gravest is None or SEVERITY[kind] > _severity(gravest)):
            gravest = rule
    if gravest is not None and _changes(gravest, current, now):
        found.append(_standing(gravest, history, now))
    return found


def reason_of(rule: Rule, history: History) -> str:
    """Fill the rule's reason with the numbers that it names."""
    return _NAMES.sub(lambda match: _shown(_value(match[1], history)), rule.then.reason)


def evidence_of(rule: Rule, history: History) -> dict[str, object]:
    """Return the numbers that the rule looked at and the ids of the facts behind them."""
    numbers = {
        leaf.name: round(_value(leaf.name, history), 3) for leaf in named(rule.when) if isinstance(leaf, Compare)
    }
    return {**numbers, "facts": list(history.facts())}


def _changes(rule: Rule, current: Standing | None, now: dt.datetime) -> bool:
    kind = rule.then.kind
    if current is None or kind is None:
        return kind is not None
    if current.rule == rule.id and current.kind is kind:
        return current.expires_at - now < rule.then.lasting / 2
    return SEVERITY[kind] > SEVERITY[current.kind]


def _standing(rule: Rule, history: History, now: dt.datetime) -> Standing:
    kind = rule.then.kind or StandingKind.WATCH
    return Standing(
        standing_id=standing_id_of(history.subject, rule.id, now),
        subject=history.subject,
        kind=kind,
        code=rule.code,
        rule=rule.id,
        reason=reason_of(rule, history),
        since=now,
        expires_at=now + rule.then.lasting,
        factor=rule.then.factor,
        freeze_results=rule.then.freeze_results,
        evidence=evidence_of(rule, history),
    )


def _severity(rule: Rule) -> int:
    return -1 if rule.then.kind is None else SEVERITY[rule.then.kind]


def _value(name: str, history: History) -> float:
    return history.counters[name] if name in history.counters else history.signals[name]


def _shown(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.2g}"
