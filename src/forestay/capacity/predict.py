"""What a request will cost, in device-seconds, from its features, with an interval. Pure.

It decides what is predicted from what was learned, and what is believed before anything was; how facts change that is
`capacity/regress`'s, reading inputs `capacity/features`'s. One cost model stands for a revision's endpoint. Called by
the gateway at submit and direct call, by the learning loop, the simulator and the admin API.

The model is a sum of products of ratios to the usual, `r = feature / usual`: a constant (what every request costs),
the product of all (steps times pixels times images ...), the product of all but each one (decoding grows with pixels,
not with steps), each alone, the product times pixels or frames once more (attention), LoRAs by their number, alone
and times the product. No coefficient is negative, so more work never costs less; such sums are what profiles of
diffusion models look like, and unlike a power law they have room for an overhead. `usual` is the schema's default
where it has one.

Before any fact the former revision's model is believed, else the spec's `gpu_seconds` for a usual request, growing in
proportion to what `scales_with` names; where it names nothing, a fifth is taken for overhead. The interval is
described in `capacity/regress`; it promises nine in ten over time, not for each kind of request.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import msgspec

from forestay.capacity.features import MAX_FEATURES

VERSION = 1
LEAST_SECONDS = 0.001
MOST_SECONDS = 1e6
UNKNOWN_SECONDS = 1.0  # of a model of which nothing at all is said
COVERAGE = 0.9
PSEUDO_SCORES = 20  # residuals that stand for the prior's spread until real ones replace them
SMEAR_TRUST = 10.0  # facts that the prior ratio is worth

OVERHEAD = 0.2  # of a usual request's cost, where the spec names nothing that it scales with
_COUNTED = frozenset({"loras"})  # usual is none at all: counted, not divided
_SQUARED = frozenset({"pixels", "frames"})
_INHERITED = 5.0  # facts that a former revision's word is worth
_WORD, _NO_WORD = 0.5, 0.02  # ... and the spec's, and nobody's
_SPREADS = (0.5, 1.5)  # of the logarithm of the error, with the spec's word and with nobody's

Term = tuple[int, ...]  # which ratios are multiplied, by index; one that appears twice is squared


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    """Device-seconds that a request will take: the expectation, and the interval that holds nine in ten."""

    seconds: float
    low: float
    high: float
    source: str  # what it is based on, in words


@dataclasses.dataclass(frozen=True, slots=True)
class Predictor:
    """What predicting needs, and no more: a few numbers."""

    names: tuple[str, ...]
    usual: tuple[float, ...]
    terms: tuple[tuple[float, Term], ...]  # device-seconds of each product; none is negative
    low: float  # factors of the expectation: the ends of the interval
    high: float
    spread: float  # robust standard deviation of the logarithm of the error
    source: str

    def seconds(self, features: Mapping[str, float]) -> float:
        """Return the expected device-seconds; never falls when a feature grows."""
        ratios = ratios_of(features, self.names, self.usual) if self.names else ()
        total = 0.0
        for weight, term in self.terms:
            for index in term:
                weight *= ratios[index]  # noqa: PLW2901 - the product in the making
            total += weight
        return bounded(total)

    def predict(self, features: Mapping[str, float]) -> Prediction:
        """Return the expectation with its interval."""
        seconds = self.seconds(features)
        low, high = bounded(seconds * self.low), bounded(seconds * self.high)
        return Prediction(seconds, min(low, seconds), max(high, seconds), self.source)


@dataclasses.dataclass(frozen=True, slots=True)
class CostModel:
    """Everything that learning remembers of one endpoint; serialisable as it stands."""

    names: tuple[str, ...]
    usual: tuple[float, ...]
    prior: tuple[float, ...]  # coefficients believed before any fact, in the order of `terms_of(names)`
    trust: float  # in facts
    coefficients: tuple[float, ...]
    products: tuple[tuple[float, ...], ...]  # forgetting sums of v v', v = terms / expectation
    moments: tuple[float, ...]  # forgetting sums of v (seconds / expectation)
    typical: float  # geometric mean of the costs seen
    spread: float
    smear: float  # forgetting sums of used / expected and of their weights: their ratio corrects the level
    smeared: float
    scores: tuple[float, ...]  # the newest residuals log(used / expected), oldest first
    level: float  # share of misses that the interval aims at now
    learned: int  # facts so far
    origin: str  # where the prior came from, in words
    version: int = VERSION

    @property
    def predictor(self) -> Predictor:
        """Return what predicting needs."""
        ratio = self.smear / self.smeared
        low, high = interval(self.scores, self.level)
        told = zip(self.coefficients, terms_of(self.names), strict=True)
        return Predictor(
            names=self.names,
            usual=self.usual,
            terms=tuple((weight * ratio, term) for weight, term in told if weight > 0.0),
            low=math.exp(low) / ratio,
            high=math.exp(high) / ratio,
            spread=self.spread,
            source=f"{self.learned} requests of this revision, after {self.origin}" if self.learned else self.origin,
        )


def bounded(seconds: float) -> float:
    """Return a cost within what any request may be predicted to take; never 0."""
    return min(max(seconds, LEAST_SECONDS), MOST_SECONDS)


def ratios_of(features: Mapping[str, float], names: Sequence[str], usual: Sequence[float]) -> list[float]:
    """Return each feature's ratio to the usual, 1 where it is not said; of what is counted, the count, or 0."""
    return [
        (1.0 if name not in _COUNTED else 0.0) if (value := features.get(name)) is None else value / base
        for name, base in zip(names, usual, strict=True)
    ]


def all_work(names: Sequence[str]) -> Term:
    """Return the product of everything that is a factor of the work."""
    return tuple(n for n, name in enumerate(names) if name not in _COUNTED)


def terms_of(names: Sequence[str]) -> tuple[Term, ...]:
    """Return the products that the cost of an endpoint with these features is a sum of, without doubles."""
    factors = all_work(names)
    found: list[Term] = [(), factors]
    found += [tuple(other for other in factors if other != n) for n in factors]
    found += [(n,) for n in factors]
    found += [tuple(sorted((*factors, n))) for n in factors if names[n] in _SQUARED]
    found += [term for n, name in enumerate(names) if name in _COUNTED for term in ((n,), (*factors, n))]
    return tuple(dict.fromkeys(found))


def cold_model(usual: Mapping[str, float], gpu_seconds: float | None, scales_with: Sequence[str]) -> CostModel:
    """Return a model that has seen nothing: the spec's typical cost for the usual request, growing with its work.

    `usual` holds the usual value of each feature; `gpu_seconds` is None where the spec says nothing.
    """
    kept = dict(list(usual.items())[:MAX_FEATURES])
    names = tuple(kept)
    seconds = gpu_seconds or UNKNOWN_SECONDS
    constant = seconds * (0.0 if scales_with else OVERHEAD)
    terms = terms_of(names)
    prior = [0.0] * len(terms)
    prior[0] += constant
    prior[terms.index(all_work(names))] += seconds - constant
    origin = "the spec's gpu_seconds" if gpu_seconds else "no word in the spec"
    spread = _SPREADS[0 if gpu_seconds else 1]
    divisors = tuple(_divisor(name, value) for name, value in kept.items())
    return fresh_model(names, divisors, prior, CostBelief(_WORD if gpu_seconds else _NO_WORD, seconds, spread, origin))


def inherited_model(former: CostModel, revision_id: str) -> CostModel:
    """Return the model of a new revision: it expects what the former one costs, and is soon taught otherwise."""
    belief = CostBelief(_INHERITED, former.typical, former.spread, f"revision {revision_id}")
    fresh = fresh_model(former.names, former.usual, former.coefficients, belief)
    smear = SMEAR_TRUST * former.smear / former.smeared
    return dataclasses.replace(fresh, smear=smear, scores=former.scores[-PSEUDO_SCORES:])


@dataclasses.dataclass(frozen=True, slots=True)
class CostBelief:
    """What is believed before any fact, beside the coefficients."""

    trust: float  # in facts
    typical: float  # device-seconds
    spread: float
    origin: str


def fresh_model(
    names: tuple[str, ...], usual: tuple[float, ...], prior: Sequence[float], belief: CostBelief
) -> CostModel:
    """Return a model with these beliefs and no facts."""
    size = len(prior)
    return CostModel(
        names=names,
        usual=usual,
        prior=tuple(prior),
        trust=belief.trust,
        coefficients=tuple(prior),
        products=tuple(tuple(0.0 for _ in range(size)) for _ in range(size)),
        moments=tuple(0.0 for _ in range(size)),
        typical=belief.typical,
        spread=belief.spread,
        smear=SMEAR_TRUST,
        smeared=SMEAR_TRUST,
        scores=tuple(belief.spread * _logistic((n + 0.5) / PSEUDO_SCORES) for n in range(PSEUDO_SCORES)),
        level=1.0 - COVERAGE,
        learned=0,
        origin=belief.origin,
    )


def _divisor(name: str, usual: float) -> float:
    return usual if usual > 0.0 and name not in _COUNTED else 1.0


def interval(scores: Sequence[float], level: float) -> tuple[float, float]:
    """Return the residuals between which all but `level` of the next ones should lie, half of it on each side.

    By the finite-sample rank of split conformal prediction (Vovk, Gammerman and Shafer, 2005), ceil((n + 1) share).
    """
    ordered = sorted(scores)
    count = len(ordered)
    rank = min(math.ceil((count + 1) * (1.0 - level / 2.0)), count)
    return ordered[count - rank], ordered[rank - 1]


def _logistic(share: float) -> float:
    """Return about the normal quantile (Haley's logistic approximation, 1952): what a spread looks like as scores."""
    return math.log(share / (1.0 - share)) / 1.702


def model_to_json(model: CostModel) -> dict[str, object]:
    """Return the model as plain values, with its predictor apart: gateways read that alone."""
    return {"model": msgspec.to_builtins(model), "predictor": msgspec.to_builtins(model.predictor)}


def model_from_json(value: object) -> CostModel | None:
    """Read back a stored model; None when it is of another version or broken: learning starts anew."""
    try:
        model = msgspec.convert(value, CostModel)
    except msgspec.ValidationError:
        return None
    return model if model.version == VERSION and len(model.prior) == len(terms_of(model.names)) else None


def predictor_from_json(value: object) -> Predictor | None:
    """Read a stored predictor; None when it is broken."""
    try:
        predictor = msgspec.convert(value, Predictor)
    except msgspec.ValidationError:
        return None
    known = len(predictor.names)
    fits = len(predictor.usual) == known and all(0 <= n < known for _, term in predictor.terms for n in term)
    return predictor if fits else None
