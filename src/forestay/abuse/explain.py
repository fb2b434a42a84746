"""Why a subject stands as it does: its signals now, every rule about its kind, and what each condition saw.

It decides nothing: the numbers are those of `signals`, the tests those of `rules`. Pure but for `recall`, which reads
the loop's snapshot and the calls after it. Called by the admin API.
"""

import asyncio
import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence

from forestay.abuse import snapshot
from forestay.abuse.decide import History
from forestay.abuse.facts import call_of
from forestay.abuse.labels import in_force
from forestay.abuse.rules import Compare, Label, Rule, Rules, compiled_test, named
from forestay.abuse.signals import Known, Signals, shown
from forestay.abuse.snapshot import Meta
from forestay.abuse.store import AbuseStore
from forestay.abuse.vocabulary import Per
from forestay.fleet.standing import Standing
from forestay.telemetry.call_facts import LATEST, CallFact, CallSource

PAGE = 2_000
MAX_PAGES = 20  # of calls after the snapshot: minutes of a busy fleet
HISTORY = dt.timedelta(days=30)


@dataclasses.dataclass(frozen=True, slots=True)
class Tested:
    """One condition of a rule: what it wants, and what is."""

    name: str
    wants: str
    value: float | str
    holds: bool


@dataclasses.dataclass(frozen=True, slots=True)
class RuleNow:
    """One rule and whether it holds."""

    id: str
    standing: str  # that it gives; empty: a label alone
    holds: bool
    tested: tuple[Tested, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Explanation:
    """What is known of a subject."""

    subject: str
    as_of: dt.datetime | None  # the last call that the answer knows of; None: no call is known at all
    complete: bool  # False: more calls wait than could be read for this answer
    signals: Mapping[str, float]
    counters: Mapping[str, float]
    labels: Mapping[str, dt.datetime]
    standing: Standing | None
    rules: tuple[RuleNow, ...]
    facts: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Recalled:
    """The memory of one subject, brought up to now."""

    signals: Signals
    meta: Meta
    complete: bool


async def recall(subject: str, rules: Rules, store: AbuseStore, calls: CallSource, now: dt.datetime) -> Recalled:
    """Read what the loop has written down of the subject, and the calls after it."""
    kind, _, identity = subject.partition(":")
    parts = await store.parts(snapshot.parts_about(identity if kind == Per.KEY else ""))
    signals = Signals(rules.counters)
    meta = await asyncio.to_thread(snapshot.restore, parts, signals) or Meta()
    for _ in range(MAX_PAGES):
        facts = await calls.after(meta.position, (meta.at or now - HISTORY) - LATEST, PAGE)
        await asyncio.to_thread(_observe, signals, facts)
        if facts:
            meta.position, meta.at = facts[-1].position, max(facts[-1].at, meta.at or facts[-1].at)
        if len(facts) < PAGE:
            return Recalled(signals, meta, complete=True)
    return Recalled(signals, meta, complete=False)


def explain(recalled: Recalled, subject: str, rules: Rules, standing: Standing | None, now: dt.datetime) -> Explanation:
    """Explain a subject as of now."""
    per, at = Per(subject.partition(":")[0]), now.timestamp()
    known = Known(in_force(recalled.meta.labels, subject, now), standing)
    history = recalled.signals.history(per, subject, at, known)
    return Explanation(
        subject=subject,
        as_of=recalled.meta.at,
        complete=recalled.complete,
        signals={name: round(value, 3) for name, value in shown(history.signals, per).items()},
        counters=history.counters,
        labels=history.labels,
        standing=standing,
        rules=tuple(_rule_now(rule, history) for rule in rules.rules if rule.per is per),
        facts=history.facts(),
    )


def _observe(signals: Signals, facts: Sequence[CallFact]) -> None:
    for fact in facts:
        signals.observe(call_of(fact))


def _rule_now(rule: Rule, history: History) -> RuleNow:
    tested = tuple(_tested(leaf, history) for leaf in named(rule.when))
    standing = "" if rule.then.kind is None else rule.then.kind.value
    return RuleNow(rule.id, standing, compiled_test(rule.when)(history, 1.0), tested)


def _tested(leaf: Compare | Label, history: History) -> Tested:
    holds = compiled_test(leaf)(history, 1.0)
    if isinstance(leaf, Label):
        return Tested(leaf.name, "label", "carried" if holds else "not carried", holds)
    values = history.counters if leaf.counter else history.signals
    return Tested(leaf.name, f"{leaf.op.value} {leaf.value:g}", round(values[leaf.name], 3), holds)
