"""How facts change what is predicted: one pass over observations, in order. Pure.

It decides the coefficients, the level and the interval of a `CostModel` after each request that succeeded. Called by
the learning loop and the simulator.

Coefficients: least squares of relative errors (each fact divided by what was expected of it), with a ridge towards
the prior and none negative, over sums that forget (a fact counts half after about 140 others), solved by coordinate
descent from the last solution (Franc, Hlavac and Navara, "Sequential Coordinate-Wise Algorithm for the Non-negative
Least Squares Problem", 2005). One odd fact moves little: residuals count by Huber's weight ("Robust Estimation of a
Location Parameter", 1964), and no fact counts for more than thirty usual ones, however large its features. A ratio of
used to expected seconds corrects the level, so that over many requests predictions add up to what is used.

Interval: adaptive conformal (Gibbs and Candes, "Adaptive Conformal Inference Under Distribution Shift", NeurIPS
2021): quantiles of the newest residuals, each taken before its own fact was learned, at a level that moves with every
miss, so that the share of misses holds even while costs change. It asks for no distribution.
"""

import dataclasses
import math
import operator
from collections.abc import Iterable, Mapping, Sequence

from forestay.capacity.features import MAX_FEATURES, usual_of
from forestay.capacity.predict import (
    COVERAGE,
    LEAST_SECONDS,
    MOST_SECONDS,
    OVERHEAD,
    PSEUDO_SCORES,
    CostBelief,
    CostModel,
    all_work,
    fresh_model,
    interval,
    ratios_of,
    terms_of,
)

_FORGET = 1.0 - 1.0 / 200.0
_SWEEPS = 3
_HUBER = 2.0  # residuals beyond so many standard deviations count less
_CLIP = 3.0  # ... and none moves the level by more than so many
_LEVERAGE = 30.0  # usual requests that one fact may count for
_SCORES = 128
_LEVEL_STEP = 0.02  # gamma of adaptive conformal inference
_TARGET = 1.0 - COVERAGE - 0.02  # windows are finite: it aims a little above what is promised
_LEVELS = (0.005, 0.4)
_MAD = 0.6745  # a normal's median absolute deviation, in standard deviations
_SPREADS = (0.01, 5.0)
_REMEMBERED = 20.0  # facts that a model is worth when a new feature makes it start anew


@dataclasses.dataclass(frozen=True, slots=True)
class Observation:
    """One request that succeeded: what it asked for and what it took."""

    features: Mapping[str, float]
    device_seconds: float
    weight: float = 1.0  # less than 1: counts less, so that one tenant does not teach for all


def learn(model: CostModel, observations: Iterable[Observation]) -> CostModel:
    """Return the model after these facts, in order. Facts without a positive finite cost are passed over."""
    state = _Learning(model)
    for item in observations:
        if not 0.0 < item.device_seconds <= MOST_SECONDS:
            continue
        if any(name not in model.names for name in item.features) and len(model.names) < MAX_FEATURES:
            model = _with_room(state.model(), item.features)
            state = _Learning(model)
        state.see(item)
    return state.model()


def _with_room(model: CostModel, features: Mapping[str, float]) -> CostModel:
    """Return a model that also knows these features and expects what this one does where they are as usual."""
    names = (*model.names, *(name for name in features if name not in model.names))[:MAX_FEATURES]
    usual = (*model.usual, *(usual_of(name) or 1.0 for name in names[len(model.names) :]))
    terms, whole, formerly = terms_of(names), all_work(names), all_work(model.names)
    prior = [0.0] * len(terms)
    for weight, term in zip(model.coefficients, terms_of(model.names), strict=True):
        # What grew with all the work known so far grows with all of it now; every other product stays what it was.
        grown = whole if term == formerly else term
        kept = weight * OVERHEAD if not formerly and not term else 0.0
        prior[0] += kept
        prior[terms.index(grown if grown in terms else whole)] += weight - kept
    trust = min(_REMEMBERED, model.learned + model.trust)
    fresh = fresh_model(names, usual, prior, CostBelief(trust, model.typical, model.spread, model.origin))
    return dataclasses.replace(
        fresh,
        smear=model.smear,
        smeared=model.smeared,
        scores=model.scores,
        level=model.level,
        learned=model.learned,
    )


class _Learning:
    """A cost model being taught; mutable for the time of one batch."""

    def __init__(self, model: CostModel) -> None:
        self._before = model
        self._terms = terms_of(model.names)
        self._coefficients = list(model.coefficients)
        self._products = [list(row) for row in model.products]
        self._moments = list(model.moments)
        self._typical, self._spread, self._level = math.log(model.typical), model.spread, model.level
        self._smear, self._smeared = model.smear, model.smeared
        self._scores = list(model.scores)
        self._learned = model.learned

    def see(self, item: Observation) -> None:
        """Learn one fact."""
        ratios = ratios_of(item.features, self._before.names, self._before.usual)
        values = [math.prod(ratios[index] for index in term) for term in self._terms]
        expected = max(_dot(self._coefficients, values), LEAST_SECONDS)
        used = max(item.device_seconds, LEAST_SECONDS)
        residual = math.log(used / expected)
        self._judge(residual)
        self._learned += 1
        self._follow(residual, math.log(used), item.weight)
        self._add(values, expected, residual, item.weight)
        self._solve()

    def _judge(self, residual: float) -> None:
        """Note whether the interval held this one, and how far off it was."""
        low, high = interval(self._scores, self._level)
        missed = not low <= residual <= high
        self._level = min(max(self._level + _LEVEL_STEP * (_TARGET - missed), _LEVELS[0]), _LEVELS[1])
        self._scores.append(round(residual, 4))
        if len(self._scores) > _SCORES or self._learned < PSEUDO_SCORES:
            del self._scores[0]

    def _follow(self, residual: float, logarithm: float, weight: float) -> None:
        """Follow the spread of the residuals, the typical cost, and the ratio of used to expected seconds."""
        step = max(0.05, 0.5 / self._learned)
        wide = abs(residual) > _MAD * self._spread
        self._spread = min(max(self._spread * math.exp(step * (wide - 0.5)), _SPREADS[0]), _SPREADS[1])
        self._typical += (logarithm - self._typical) * max(1.0 - _FORGET, 1.0 / (self._before.trust + self._learned))
        self._smear = _FORGET * self._smear + weight * math.exp(self._clipped(residual))
        self._smeared = _FORGET * self._smeared + weight

    def _clipped(self, residual: float) -> float:
        limit = _CLIP * self._spread
        return min(max(residual, -limit), limit)

    def _add(self, values: Sequence[float], expected: float, residual: float, weight: float) -> None:
        """Add one equation, divided by what was expected: errors count in proportion."""
        settled = self._learned > PSEUDO_SCORES
        seconds = expected * math.exp(self._clipped(residual) if settled else residual)
        scale = max(expected, seconds * math.exp(-_CLIP * self._spread))
        usual = max(values[0], 1.0) * math.exp(self._typical)
        reach = max(values) * usual / scale  # in usual requests, when the largest term costs as much as a usual one
        scale *= max(1.0, reach / _LEVERAGE)
        counts = weight * min(1.0, _HUBER * self._spread / max(abs(residual), 1e-9)) / (scale * scale)
        for row, left in zip(self._products, values, strict=True):
            share = counts * left
            row[:] = [_FORGET * known + share * right for known, right in zip(row, values, strict=True)]
        self._moments = [
            _FORGET * moment + counts * left * seconds for moment, left in zip(self._moments, values, strict=True)
        ]

    def _solve(self) -> None:
        """Move each coefficient to its best value that is not negative; the start is near, so a few sweeps do."""
        coefficients = self._coefficients
        ridge = self._before.trust * math.exp(-2.0 * self._typical)
        wanted = [moment + ridge * prior for moment, prior in zip(self._moments, self._before.prior, strict=True)]
        for _ in range(_SWEEPS):
            before = coefficients.copy()
            for n, row in enumerate(self._products):
                own = row[n]
                best = (wanted[n] - _dot(row, coefficients) + own * coefficients[n]) / (own + ridge)
                coefficients[n] = max(best, 0.0)
            if coefficients == before:
                break  # another sweep would change nothing

    def model(self) -> CostModel:
        """Return the frozen state."""
        return dataclasses.replace(
            self._before,
            coefficients=tuple(self._coefficients),
            products=tuple(tuple(row) for row in self._products),
            moments=tuple(self._moments),
            typical=math.exp(self._typical),
            spread=self._spread,
            smear=self._smear,
            smeared=self._smeared,
            scores=tuple(self._scores),
            level=self._level,
            learned=self._learned,
        )


def _dot(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(map(operator.mul, left, right))
