"""Evidence that grows while we look: log e-values with restart, so that looking after every call is no mistake.

An e-process multiplies bets that are fair, or worse, while nothing is wrong; by Ville's inequality it passes 1/a with
probability at most a however often one looks (Ramdas, Grünwald, Vovk, Shafer 2023, "Game-theoretic statistics and safe
anytime-valid inference"). Restarted at 1 whenever it falls below, it is the CUSUM e-detector of Shin, Ramdas, Rinaldo
2022 ("E-detectors: a nonparametric framework for sequential change detection"): the mean time to a false alarm at
threshold 1/a is at least 1/a calls. Numbers here are natural logarithms, in nats: 9.2 is one in ten thousand.
Pure; decides nothing. Called by the signals.
"""

import dataclasses
import math

LARGEST = 60.0  # nats kept: beyond it nothing is learnt, and a recovery would take for ever


@dataclasses.dataclass(slots=True)
class Evidence:
    """A running log e-value, floored at 0, with the calls that stand behind it."""

    nats: float = 0.0
    calls: int = 0  # since it last was 0
    since: float = 0.0  # when it left 0
    facts: list[str] = dataclasses.field(
        default_factory=list[str]
    )  # ids of those that raised it most lately, newest last

    def add(self, nats: float, at: float, fact: str = "") -> None:
        """Take one more bet; a rise keeps the fact's id."""
        total = self.nats + nats
        if total <= 0.0:
            if self.nats:
                self.nats, self.calls, self.since = 0.0, 0, 0.0
                self.facts.clear()
            return
        if not self.calls:
            self.since = at
        self.nats = min(total, LARGEST)
        self.calls += 1
        if nats > 0 and fact:
            if len(self.facts) >= MAX_FACTS:
                del self.facts[0]
            self.facts.append(fact)


MAX_FACTS = 12


def bernoulli_bet(*, happened: bool, at_most: float, bet_on: float) -> float:
    """Return the log e-value of one trial against "its chance is at most `at_most`", betting on `bet_on` > `at_most`.

    The likelihood ratio; its mean is at most 1 for every chance up to `at_most`.
    """
    return math.log(bet_on / at_most) if happened else math.log((1.0 - bet_on) / (1.0 - at_most))


def mean_bet(value: float, *, at_most: float, most: float, stake: float) -> float:
    """Return the log e-value of one value in [0, `most`] against "its mean is at most `at_most`".

    Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting": 1 + s (x - m) is a fair or
    unfavourable bet for every distribution with mean up to m; `stake` is s times m, below 1 so that no bet loses all.
    """
    return math.log1p(stake / at_most * (min(max(value, 0.0), most) - at_most))
