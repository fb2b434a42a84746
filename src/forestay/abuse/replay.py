"""Other rules on calls that happened: what they would have decided instead, and how right either set was.

Both sets see the same signals, each has its own counters, labels and standings. It decides nothing that takes effect.
It cannot know what a caller would have done once it was refused: later calls count as they came. Pure; called by
`forestay abuse replay`.
"""

import dataclasses
import datetime as dt
import math
from collections.abc import Mapping, Sequence

from forestay.abuse.calls import Call
from forestay.abuse.counters import Counters
from forestay.abuse.decide import History
from forestay.abuse.labels import Labels, in_force, judge
from forestay.abuse.rules import Rules
from forestay.abuse.signals import Signals
from forestay.abuse.vocabulary import Per
from forestay.fleet.standing import RESTRICTING, SEVERITY, Standing

_Z95 = 1.959963985


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """A subject on which two sets of rules differ: the gravest standing under each, None for none."""

    subject: str
    before: Standing | None
    after: Standing | None


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """How restrictions agree with labels."""

    caught: int  # abusive and restricted
    wrong: int  # honest and restricted
    missed: int  # abusive and free
    passed: int  # honest and free

    @property
    def precision(self) -> float | None:
        """Return the share of labelled restrictions that hit abuse; None without one."""
        return _share(self.caught, self.caught + self.wrong)

    @property
    def recall(self) -> float | None:
        """Return the share of labelled abuse that was restricted; None without any."""
        return _share(self.caught, self.caught + self.missed)


class Side:
    """One set of rules and what it would have decided."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._counters = Counters(rules.counters)
        self._labels: Labels = {}
        self._current: dict[str, Standing] = {}
        self.gravest: dict[str, Standing] = {}  # by subject; the first of equals
        self.decided = 0

    def count(self, call: Call, subjects: Mapping[Per, str]) -> None:
        """Let the counters see a call."""
        self._counters.observe(call, subjects)

    def judge(self, signals: Signals, per: Per, subject: str, call: Call) -> None:
        """Judge one subject after a call."""
        now = dt.datetime.fromtimestamp(call.at, dt.UTC)
        current = self._current.get(subject)
        history = History(
            subject,
            per,
            signals.of(per, subject, call.at),
            self._counters.values(subject, call.at),
            in_force(self._labels, subject, now),
            current if current is not None and current.expires_at > now else None,
            lambda: signals.facts(per, subject, call.at),
        )
        for standing in judge(history, self._rules, self._labels, now):
            self.decided += 1
            self._current[subject] = standing
            known = self.gravest.get(subject)
            if known is None or SEVERITY[standing.kind] > SEVERITY[known.kind]:
                self.gravest[subject] = standing


class Replay:
    """Two sets of rules on the same calls, in order; calls before `judged_from` (seconds since 1970) only teach."""

    def __init__(self, before: Rules, after: Rules, judged_from: float) -> None:
        self.before, self.after = Side(before), Side(after)
        self._judged_from = judged_from
        self._signals = Signals()
        self.tenant_of: dict[str, str] = {}  # key subject -> tenant subject
        self.taught = self.judged = 0

    def take(self, call: Call) -> None:
        """Take one call."""
        subjects = dict(self._signals.observe(call))
        for side in (self.before, self.after):
            side.count(call, subjects)
        if Per.KEY in subjects:
            self.tenant_of[subjects[Per.KEY]] = subjects[Per.TENANT]
        if call.at < self._judged_from:
            self.taught += 1
            return
        self.judged += 1
        for per, subject in subjects.items():
            for side in (self.before, self.after):
                side.judge(self._signals, per, subject, call)

    def changes(self) -> list[Change]:
        """Return where the two differ in kind or rule, what is new first, then by subject."""
        subjects = sorted(self.before.gravest.keys() | self.after.gravest.keys())
        pairs = [Change(name, self.before.gravest.get(name), self.after.gravest.get(name)) for name in subjects]
        differing = [item for item in pairs if _what(item.before) != _what(item.after)]
        return sorted(differing, key=lambda item: (item.before is not None, item.after is None, item.subject))

    def unchanged(self) -> int:
        """Return on how many subjects both decide the same."""
        both = self.before.gravest.keys() & self.after.gravest.keys()
        return sum(_what(self.before.gravest[name]) == _what(self.after.gravest[name]) for name in both)


def score(side: Side, abusive: Mapping[str, bool], tenant_of: Mapping[str, str]) -> Score:
    """Compare restrictions with labels (subject -> whether it is abusive).

    A key counts as restricted with its tenant, and a tenant when any of its keys is.
    """
    restricted = {name for name, standing in side.gravest.items() if standing.kind in RESTRICTING}
    reached = restricted | {tenant_of[name] for name in restricted if name in tenant_of}
    reached |= {key for key, tenant in tenant_of.items() if tenant in restricted}
    hits = [(truth, subject in reached) for subject, truth in abusive.items()]
    return Score(
        caught=sum(truth and hit for truth, hit in hits),
        wrong=sum(hit and not truth for truth, hit in hits),
        missed=sum(truth and not hit for truth, hit in hits),
        passed=sum(not truth and not hit for truth, hit in hits),
    )


def interval(successes: int, trials: int) -> tuple[float, float] | None:
    """Return the 95 % interval of a share (Wilson 1927, "Probable inference"); None without trials."""
    if trials <= 0:
        return None
    share, square = successes / trials, _Z95**2
    middle = (share + square / (2 * trials)) / (1 + square / trials)
    half = _Z95 / (1 + square / trials) * math.sqrt(share * (1 - share) / trials + square / (4 * trials**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def by_appeals(appeals: Sequence[tuple[str, bool]]) -> dict[str, bool]:
    """Return labels from decided appeals, oldest first: upheld means abusive, overturned honest; the newest counts."""
    return dict(appeals)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _what(standing: Standing | None) -> tuple[object, ...]:
    return () if standing is None else (standing.kind, standing.rule, standing.factor, standing.freeze_results)
