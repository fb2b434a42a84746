"""`abuse`: a simulated month of honest and dishonest callers, judged by the rules that Forestay brings.

2,000 and more honest keys (`abuse_people`) and seventeen kinds of attack (`abuse_attacks`) write a month of calls. The
calls go, one by one and in order, through the code that judges stored facts in production: `Signals.observe`, then
`decide_standing` for whom the call was about. A suspended or stepped-up caller's later calls are refused, as they would
be. Seeds and parameter ranges of the test are not those that thresholds were tuned on: see `TUNING_SEED`, `TEST_SEEDS`
and `Range.draw`. Signals without embeddings; a network's standing counts for the network.
"""

import dataclasses
import datetime as dt
import os
import statistics
import time
from collections import Counter, defaultdict

import numpy as np

from bench.abuse_attacks import EXTRACTIONS, KINDS, LEAKS, Attack, Attackers
from bench.abuse_people import People
from bench.abuse_words import make_words
from bench.abuse_world import START, World
from bench.table import Row
from forestay.abuse.calls import Call
from forestay.abuse.decide import decide_standing
from forestay.abuse.rules import Rules
from forestay.abuse.rules_file import default_rules
from forestay.abuse.signals import Known, Signals
from forestay.fleet.standing import RESTRICTING, Standing, StandingKind

TUNING_SEED = 1
TEST_SEEDS = (20_261, 20_262, 20_263, 20_264, 20_265)
EACH = 8  # attacks of each kind
_BARRED = {StandingKind.SUSPEND, StandingKind.STEP_UP}


@dataclasses.dataclass(slots=True)
class Outcome:
    """What the month came to."""

    attacks: list[Attack]
    honest: set[str]  # subjects of honest keys and their tenants
    members: set[str]
    restricted: dict[str, tuple[float, str]] = dataclasses.field(default_factory=dict[str, tuple[float, str]])
    found: dict[int, int] = dataclasses.field(default_factory=dict[int, int])  # attack -> its calls until it was found
    events: int = 0
    seconds: float = 0.0


def simulate(seed: int, *, outside: bool, scale: float = 1.0, each: int = EACH) -> tuple[World, People, Attackers]:
    """Make the month."""
    world = World(make_words(), np.random.default_rng(seed))
    people = People(world, scale)
    people.live()
    attackers = Attackers(people, outside=outside, each=each)
    attackers.strike()
    return world, people, attackers


class Judge:
    """Runs the month's calls through signals and rules."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._signals = Signals(rules.counters)
        self._standings: dict[str, Standing] = {}
        self.log: list[tuple[float, Standing]] = []

    def barred(self, call: Call) -> bool:
        """Tell whether the caller's standing refuses this call."""
        for subject in (f"key:{call.key}", f"tenant:{call.tenant}"):
            standing = self._standings.get(subject)
            if standing is not None and standing.kind in _BARRED and standing.expires_at.timestamp() > call.at:
                return True
        return False

    def take(self, call: Call) -> list[Standing]:
        """Observe and decide."""
        found: list[Standing] = []
        for per, subject in self._signals.observe(call):
            standing = self._standings.get(subject)
            if standing is not None and standing.expires_at.timestamp() <= call.at:
                standing = None
            history = self._signals.history(per, subject, call.at, Known(standing=standing))
            now = dt.datetime.fromtimestamp(call.at, dt.UTC)
            found += [item for item in decide_standing(history, self._rules, now) if isinstance(item, Standing)]
        for item in found:
            self._standings[item.subject] = item
            self.log.append((item.since.timestamp(), item))
        return found


def play(made: tuple[World, People, Attackers], rules: Rules) -> tuple[Outcome, Judge]:
    """Judge the month and score what was decided."""
    world, people, attackers = made
    judge = Judge(rules)
    honest = [one for one in people.people if one.key not in attackers.victims]
    outcome = Outcome(
        attackers.attacks,
        {f"key:{one.key}" for one in honest} | {f"tenant:{one.tenant}" for one in honest},
        {member for attack in attackers.attacks for member in attack.members},
    )
    waiting: dict[str, list[Attack]] = defaultdict(list)
    for attack in attackers.attacks:
        for member in attack.members:
            waiting[member].append(attack)
    counts: Counter[int] = Counter()
    hit: dict[int, set[str]] = defaultdict(set)
    for call, number in world.calls():
        started = time.thread_time()
        barred = judge.barred(call)
        found = [] if barred else judge.take(call)
        outcome.seconds += time.thread_time() - started
        outcome.events += 1
        if number >= 0:
            counts[number] += 1
        at = call.at - START
        for standing in found:
            if standing.kind not in RESTRICTING:
                continue
            outcome.restricted.setdefault(standing.subject, (at, standing.rule))
            for attack in waiting.get(standing.subject, ()):
                if attack.begins - 1 <= at <= attack.ends:
                    hit[attack.number].add(standing.subject)
                    if len(hit[attack.number]) >= attack.needs * len(attack.members):
                        outcome.found.setdefault(attack.number, counts[attack.number])
    return outcome, judge


def false_alarms(outcome: Outcome, people: People, attackers: Attackers) -> list[str]:
    """Return the honest keys that were restricted, or whose tenant was; a victim's only before its attack."""
    begins = {member: attack.begins for attack in attackers.attacks for member in attack.members}
    wrong: list[str] = []
    for one in people.people:
        for subject in (f"key:{one.key}", f"tenant:{one.tenant}"):
            when = outcome.restricted.get(subject)
            if when is not None and when[0] + 1 < begins.get(subject, begins.get(f"key:{one.key}", np.inf)):
                wrong.append(f"{one.kind} {subject} {when[1]} day {when[0] / 86400:.1f}")
                break
    return wrong


def report(seed: int, *, outside: bool, scale: float = 1.0, each: int = EACH, verbose: bool = True) -> list[Row]:
    """Simulate, judge, score; the rows of one month."""
    made = simulate(seed, outside=outside, scale=scale, each=each)
    _, people, attackers = made
    outcome, _judge = play(made, default_rules())
    wrong = false_alarms(outcome, people, attackers)
    by_kind = {kind: [attack for attack in outcome.attacks if attack.kind == kind] for kind in KINDS}
    rows = [
        Row(
            f"recall, {kind}",
            sum(attack.number in outcome.found for attack in attacks) / len(attacks),
            "",
            note=f"calls until found: {_median(outcome, attacks):.0f}",
        )
        for kind, attacks in by_kind.items()
    ]
    found = sum(attack.number in outcome.found for attack in outcome.attacks)
    leaks = [attack for kind in LEAKS for attack in by_kind[kind]]
    copies = [attack for kind in EXTRACTIONS for attack in by_kind[kind]]
    rows += [
        Row("honest keys", len(people.people) - len(attackers.victims), "keys", 2_000 * scale),
        Row("recall, all attacks", found / len(outcome.attacks), "", 0.90),
        Row("honest keys restricted", 100 * len(wrong) / len(people.people), "%", 0.1, "<="),
        Row("leak found after, median", _median(outcome, leaks), "calls", 60, "<="),
        Row("copying found after, median", _median(outcome, copies), "calls", 500, "<="),
        Row(
            "calls judged",
            outcome.events / outcome.seconds,
            "per second",
            5_000,
            note=f"{outcome.events:,} calls, one thread",
        ),
    ]
    if verbose:
        print("\n".join(wrong))
    return rows


def _median(outcome: Outcome, attacks: list[Attack]) -> float:
    return statistics.median([outcome.found.get(attack.number, np.inf) for attack in attacks])


def run(rounds: int) -> list[Row]:
    """Judge `rounds` months (at most five) of the test's seeds; FORESTAY_BENCH_SEED sets others."""
    base = int(os.environ.get("FORESTAY_BENCH_SEED", "0"))
    seeds = [base + number for number in range(rounds)] if base else TEST_SEEDS[:rounds]
    months = [report(seed, outside=True) for seed in seeds]
    return [
        dataclasses.replace(same[0], value=statistics.median(row.value for row in same))
        for same in zip(*months, strict=True)
    ]
