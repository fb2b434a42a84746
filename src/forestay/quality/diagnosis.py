"""What is wrong and where: rows of the catalogue in order of likelihood, and the contrast that explains a change. Pure.

It compares outputs since a change with the reference of their own stratum: which features moved names the row, by the
angle between the shifts and the rows' signatures. Where it is, contrasts say: a value (a replica, a size, an adapter)
explains a change when outputs with it are bad and outputs without it are not, beyond what chance makes of so many
comparisons (Bonferroni). Decides nothing about what follows. Called by `loop`.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np

from forestay.fleet.spec_quality import OutputCheck
from forestay.quality.bets import Array
from forestay.quality.catalogue import BY_CHECK, EITHER, FAILURES, PROMPT_MIX, name_of
from forestay.quality.scorers.model import names_of
from forestay.quality.watching import stratum_of
from forestay.telemetry.output_facts import OutputFact

LEAST_ANGLE = 0.35  # cosine below which a signature says nothing
MOST_SHIFT = 50.0  # standard deviations
CHANCE = 1e-3  # that any contrast is named where nothing differs
LEAST_GROUP = 5
OUTSIDE_SHARE = 0.25  # of the badness inside, that outputs without the value may have
NAMED = 3
_ORDER = ("replica", "device", "worker", "parameters", "endpoint", "tenant", "cluster")  # of equals, the first is told
_ONE_PLACE = frozenset({"replica", "device", "worker"})
_SD = 1.4826  # makes the median absolute deviation a standard deviation
_LEAST_SPREAD = 1e-3


@dataclasses.dataclass(frozen=True, slots=True)
class Named:
    """A row of the catalogue and how well it fits, from 0 to 1."""

    row: int
    score: float
    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Contrast:
    """A value that explains a change."""

    dimension: str
    value: str
    inside: float  # mean badness of outputs with it
    outside: float  # and without it
    outputs: int
    sigmas: float  # how far apart the two are


@dataclasses.dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is known of one change. `contrast` None: everything of the revision is alike."""

    named: tuple[Named, ...]
    contrast: Contrast | None
    shifts: Mapping[str, float]  # features that moved most, in standard deviations
    everywhere: bool  # every replica that made enough outputs is bad
    bad: frozenset[str] = frozenset()  # replicas that are
    healthy: frozenset[str] = frozenset()


Strata = Mapping[str, Sequence[Sequence[float]]]  # a reference: outputs by stratum


def diagnose(facts: Sequence[OutputFact], reference: Strata, strata: Sequence[str], check: str = "") -> Diagnosis:
    """Explain a change by the outputs since it, of all replicas of the revision; `strata` says where each belongs.

    `check` names the contract that failed more often than usual; without one the features have moved.
    """
    kind = next((fact.kind for fact in facts), "image")
    names = names_of(kind)
    whole = [place for place, fact in enumerate(facts) if len(fact.features) == len(names) and not fact.failed]
    moved = np.zeros((len(facts), len(names)))
    if whole and names:
        told = [strata[place] for place in whole]
        moved[whole] = shifts_of([facts[place].features for place in whole], told, reference)
    bad = np.array([float(bool(fact.failed)) for fact in facts]) if check else _badness(moved[whole], moved)
    usual = 0.0 if check else 1.0
    kept = range(len(facts)) if check else whole
    contrast = contrast_of([facts[place] for place in kept], bad[list(kept)])
    ill, well = _replicas([facts[place] for place in kept], bad[list(kept)], usual)
    inside = [
        place for place in whole if contrast is None or value_of(facts[place], contrast.dimension) == contrast.value
    ]
    shift = middle_of(moved[inside])
    named = _by_check(check, contrast, facts) if check else by_signature(dict(zip(names, shift, strict=True)), kind)
    if not check and _is_mix([facts[place] for place in inside], [strata[place] for place in inside], contrast):
        named = (Named(PROMPT_MIX, 1.0, name_of(PROMPT_MIX)),)
    order: list[int] = np.argsort(-np.abs(shift))[:5].tolist()
    most: dict[str, float] = {names[place]: round(float(shift[place]), 2) for place in order} if names else {}
    return Diagnosis(named, contrast, most, bool(ill) and not well, ill, well)


def shifts_of(rows: Sequence[Sequence[float]], strata: Sequence[str], reference: Strata) -> Array:
    """Return how far each output lies from its stratum, in robust standard deviations, `[outputs, features]`."""
    known: dict[str, tuple[Array, Array]] = {}
    everything = np.array([row for one in reference.values() for row in one], dtype=np.float64)
    found = np.zeros((len(rows), len(rows[0]) if rows else 0))
    if not len(everything):
        return found
    floor = _LEAST_SPREAD * np.maximum(1e-3, np.abs(np.median(everything, axis=0)))
    for place, (row, stratum) in enumerate(zip(rows, strata, strict=True)):
        name = stratum if stratum in reference and len(reference[stratum]) else ""
        if name not in known:
            one = np.array(reference.get(name) or everything, dtype=np.float64)
            middle = np.median(one, axis=0)
            spread = _SD * np.median(np.abs(one - middle), axis=0)
            known[name] = middle, np.maximum(np.maximum(spread, 0.1 * one.std(axis=0)), floor)
        middle, spread = known[name]
        found[place] = np.clip((np.asarray(row) - middle) / spread, -MOST_SHIFT, MOST_SHIFT)
    return found


def middle_of(moved: Array) -> Array:
    """Return the mean shift of outputs, taken of logarithms so that few far ones do not carry it."""
    if not len(moved):
        return np.zeros_like(moved, shape=moved.shape[1:])
    squeezed: list[float] = _squeezed(moved).mean(axis=0).tolist()
    return np.array([math.copysign(math.expm1(abs(value)), value) for value in squeezed])


def by_signature(shifts: Mapping[str, float], kind: str) -> tuple[Named, ...]:
    """Return the rows whose signature lies nearest to these shifts, the nearest first."""
    told = {name: math.copysign(math.log1p(abs(value)), value) for name, value in shifts.items()}
    length = math.sqrt(sum(value * value for value in told.values()))
    found: list[Named] = []
    for failure in FAILURES:
        angles = [_angle(told, length, signature) for signature in failure.signatures.get(kind, ())]
        if angles and max(angles) >= LEAST_ANGLE:
            found.append(Named(failure.row, round(max(angles), 4), failure.name))
    return tuple(sorted(found, key=lambda item: -item.score))


def _angle(told: Mapping[str, float], length: float, signature: Mapping[str, float]) -> float:
    own = math.sqrt(sum(weight * weight for weight in signature.values()))
    product = sum(
        weight * (abs(told.get(name[1:], 0.0)) if name.startswith(EITHER) else told.get(name, 0.0))
        for name, weight in signature.items()
    )
    return product / (own * length) if own and length else 0.0


def contrast_of(facts: Sequence[OutputFact], bad: Array) -> Contrast | None:
    """Return the value that explains most of what is bad; None where none does."""
    tests: list[Contrast] = []
    for dimension in _ORDER:
        values = np.array([value_of(fact, dimension) for fact in facts])
        for value in sorted(set(values.tolist())):
            inside = values == value
            if min(int(inside.sum()), int((~inside).sum())) < LEAST_GROUP:
                continue
            with_it, without = bad[inside], bad[~inside]
            noise = math.sqrt(float(bad.var()) * (1 / len(with_it) + 1 / len(without))) or math.inf
            apart = float(with_it.mean() - without.mean()) / noise
            tests.append(
                Contrast(dimension, value, float(with_it.mean()), float(without.mean()), int(inside.sum()), apart)
            )
    least = NormalDist().inv_cdf(1 - CHANCE / max(1, len(tests)))
    good = [test for test in tests if test.sigmas > least and test.outside <= OUTSIDE_SHARE * test.inside]
    # Of values that explain alike, the one that leaves least outside and is told first.
    return min(
        good, key=lambda test: (round(test.outside / test.inside, 1), _ORDER.index(test.dimension)), default=None
    )


def _is_mix(facts: Sequence[OutputFact], strata: Sequence[str], contrast: Contrast | None) -> bool:
    """Tell whether other prompts of one cluster explain a change.

    A model that has changed draws other clusters otherwise too. Where most outputs of the one are of prompts that the
    reference knows by themselves, it is the outputs that have changed.
    """
    if contrast is None or contrast.dimension != "cluster":
        return False
    strange = sum(stratum == stratum_of(fact) for fact, stratum in zip(facts, strata, strict=True))
    return 2 * strange > len(facts)


def value_of(fact: OutputFact, dimension: str) -> str:
    """Return an output's value on one dimension of contrasts."""
    match dimension:
        case "cluster":
            return str(fact.cluster)
        case "parameters" | "endpoint" | "device":
            return str(getattr(fact, dimension))
        case _:
            return str(getattr(fact, f"{dimension}_id"))


def _badness(inside: Array, rows: Array) -> Array:
    """Return how far each output went the way that all of them went on average, in standard deviations."""
    way = _squeezed(inside).mean(axis=0) if len(inside) else np.zeros(rows.shape[1])
    length = float(np.linalg.norm(way))
    return _squeezed(rows) @ way / length if length > 0 else np.zeros(len(rows))


def _squeezed(shifts: Array) -> Array:
    return np.array(np.sign(shifts) * np.log1p(np.abs(shifts)), dtype=np.float64)


def _replicas(facts: Sequence[OutputFact], bad: Array, usual: float) -> tuple[frozenset[str], frozenset[str]]:
    """Return the replicas that are as bad as the worst of them by more than half, and the others."""
    values: dict[str, list[float]] = {}
    for fact, one in zip(facts, bad.tolist(), strict=True):
        values.setdefault(fact.replica_id, []).append(one)
    means = {name: sum(one) / len(one) for name, one in values.items() if len(one) >= LEAST_GROUP}
    worst = max(means.values(), default=0.0)
    least = max(0.5 * worst, 0.5 * usual)
    ill = frozenset(name for name, mean in means.items() if mean > 0 and mean >= least)
    return ill, frozenset(means) - ill


def _by_check(check: str, contrast: Contrast | None, facts: Sequence[OutputFact]) -> tuple[Named, ...]:
    """Return the rows that a failed contract speaks for; where it is says which of them comes first."""
    try:
        rows = list(BY_CHECK.get(OutputCheck(check), ()))
    except ValueError:
        return ()
    if rows[:1] == [1] and contrast is not None and contrast.dimension in _ONE_PLACE:
        rows = [1, 3, 2]  # a revision that is broken by itself is broken on every worker
    if rows[:1] == [1] and contrast is not None and contrast.dimension == "parameters":
        rows = [4, 1, 2]
    if rows == [39] and facts and facts[0].kind == "audio":
        rows = [42]
    return tuple(Named(row, round(1 / place, 4), name_of(row)) for place, row in enumerate(rows, start=1))
