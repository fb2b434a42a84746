"""What a bettor has made who bets that the candidate's answers lie too far away more often than the control's. Pure.

Given a request and the caller's answer to it, a further answer of the control lies outside the tolerance with some
chance t, and so does the candidate's while the two revisions are alike: two independent draws with the same t. Nobody
knows t, and it may be another for every request. A bet is a pair of chances, `usual` for the control and `shifted` for
the candidate; it wins the likelihood of what was seen under them, over that under the one t that fits them best.

    both asked beforehand      t* = (usual + shifted) / 2
    the control only where     t* = shifted (1 + usual) / (1 + shifted)
    the candidate lies outside

Both are e-variables whatever t is: the first is that of Turner, Ly and Gruenwald (2024), Generic E-variables for exact
sequential k-sample tests, section 2. In the second what is expected is a quadratic in t, 1 and level at t*, and concave
where usual <= shifted. So a product of them is an e-process, and asking the control twice is only paid for where there
is something to explain. Which of the two a request gets is chosen before it is asked (`asks_first`).

Where both lie outside, which is further is a fair coin, and the bet goes on with that. A bet of equal chances is that
coin alone; where both are asked beforehand it is thrown whether they lie outside or not. Two distances within a
tolerance of each other are told apart by nobody: such a request wins nothing. Called by `noise`.
"""

import dataclasses
import math
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of one request.

    `again` is None where the control was not asked again. `toss` is 1 where the candidate lies further away than the
    control by more than a tolerance, -1 where it lies nearer by as much, else 0.
    """

    stratum: str
    out: bool  # the candidate lies outside the tolerance
    again: bool | None  # the control's second answer does
    asks_first: bool  # both were asked beforehand
    toss: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Bet:
    """One bet: chances that an answer lies outside, and that the candidate is further away where both do."""

    weight: float  # of the capital
    usual: float
    shifted: float
    further: float = 0.8


# Faults move nearly every picture, or half of them, or few. Where noise lies outside as well, the coin alone counts.
BETS = (
    Bet(0.27, 0.01, 0.98),
    Bet(0.11, 0.01, 0.60),
    Bet(0.12, 0.01, 0.30),
    Bet(0.05, 0.15, 0.95),
    Bet(0.12, 0.50, 0.50, 0.98),
    Bet(0.20, 0.50, 0.50, 0.90),
    Bet(0.13, 0.50, 0.50, 0.75),
)
_ON_ALL = 0.5  # of the capital; the rest is spread over strata


def log_capital_of(seen: Sequence[Seen]) -> float:
    """Return the logarithm of what a bettor has who began with 1: an e-value at every look."""
    strata: dict[str, list[Seen]] = {}  # in order of appearance
    for item in seen:
        strata.setdefault(item.stratum, []).append(item)
    parts = [(_ON_ALL, _won(seen))]
    left = 1.0 - _ON_ALL
    for number, some in enumerate(strata.values(), 1):
        share = (1.0 - _ON_ALL) / (number * (number + 1))  # known before anything of the stratum is seen
        parts.append((share, _won(some)))
        left -= share
    return _log_mean([*parts, (left, 0.0)])


def log_win(bet: Bet, seen: Seen) -> float:
    """Return the logarithm of what one request multiplies a bet's capital by."""
    usual, shifted = bet.usual, bet.shifted
    if seen.asks_first:
        if seen.again is None:
            return 0.0
        if usual == shifted:  # the coin alone: of two draws of a kind either may be the further one
            return _tossed(bet, seen.toss)
        both = (usual + shifted) / 2
        if not seen.out:
            return _ratio(1 - shifted, 1 - both) + (_ratio(usual, both) if seen.again else _ratio(1 - usual, 1 - both))
    else:
        both = shifted * (1 + usual) / (1 + shifted)
        if not seen.out:
            return _ratio(1 - shifted, 1 - both)
    if seen.again:
        return _ratio(shifted, both) + _ratio(usual, both) + _tossed(bet, seen.toss)
    # Below it would win if the bettor took it: to win nothing instead keeps the expectation below 1.
    return _ratio(shifted, both) + _ratio(1 - usual, 1 - both) if seen.toss > 0 else 0.0


def _tossed(bet: Bet, toss: int) -> float:
    return {1: math.log(2 * bet.further), -1: math.log(2 * (1 - bet.further))}.get(toss, 0.0)


def _ratio(one: float, other: float) -> float:
    return math.log(one / other)


def _won(seen: Sequence[Seen]) -> float:
    return _log_mean([(bet.weight, sum(log_win(bet, item) for item in seen)) for bet in BETS])


def _log_mean(parts: Sequence[tuple[float, float]]) -> float:
    top = max(value for _, value in parts)
    return top + math.log(sum(weight * math.exp(value - top) for weight, value in parts))
