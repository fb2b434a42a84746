"""Which outputs a scorer sees, what its answer is worth, and how long it rests after a failure. Pure.

It decides three things. An output is scored by a draw from its request's id and by what is left of the budget: neither
looks at the output, so that the guarantee of the detectors holds for the sample (the choice is predictable). An answer
counts when it has the promised form, range and numbers, and when the scorer gave a frozen output the scores that it
always gave. A scorer that failed rests, twice as long each time. Called by `worker/scoring` and
`worker/scorer_process`.
"""

import dataclasses
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import cast

from forestay.fleet.spec_quality import ScorerUse
from forestay.quality.scorers.model import (
    MAX_MEASURES,
    MODALITIES,
    Described,
    Failed,
    FrozenItem,
    Given,
    Measure,
    Missing,
    Score,
    Trouble,
)

FIRST_PAUSE_SECONDS = 2.0
MOST_PAUSE_SECONDS = 300.0
CHANGED_PAUSE_SECONDS = 3_600.0  # a changed judge is a matter for a person
HOUR = 3_600.0
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclasses.dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a budget: it fills by the hour, and never beyond one hour's worth."""

    left_seconds: float
    at_seconds: float  # of a monotonic clock


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """Whether an output is scored, and why."""

    taken: bool
    reason: str  # "sampled" | "not drawn" | "over budget"
    allowance: Allowance


def decide_take(use: ScorerUse, allowance: Allowance | None, draw: float, now_seconds: float) -> Choice:
    """Say whether the next output is scored; `draw` from 0 to 1, of `draw_of`."""
    most = use.budget_seconds_per_hour
    before = allowance or Allowance(most, now_seconds)
    gained = max(0.0, now_seconds - before.at_seconds) * most / HOUR
    filled = Allowance(min(most, before.left_seconds + gained), now_seconds)
    if draw >= use.share:
        return Choice(taken=False, reason="not drawn", allowance=filled)
    if filled.left_seconds <= 0:
        return Choice(taken=False, reason="over budget", allowance=filled)
    return Choice(taken=True, reason="sampled", allowance=filled)


def spent(allowance: Allowance, seconds: float) -> Allowance:
    """Return what is left after a scorer has worked so long; below nothing where it took more than was left."""
    return dataclasses.replace(allowance, left_seconds=allowance.left_seconds - max(0.0, seconds))


def draw_of(request_id: str, place: int, scorer_id: str, key: bytes) -> float:
    """Return a number from 0 to 1 of an output, the same whenever it is asked for, which no caller can foresee."""
    said = f"{request_id}\n{place}\n{scorer_id}".encode()
    return int.from_bytes(hashlib.blake2b(said, digest_size=7, key=key[:64]).digest(), "big") / 2**56


def pause_seconds(failed: Failed, failures: int) -> float:
    """Return how long a scorer rests after its n-th failure in a row, from 1."""
    if failed.trouble is Trouble.CHANGED:
        return CHANGED_PAUSE_SECONDS
    return min(MOST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(20, max(0, failures - 1)))


def read_described(said: Mapping[str, object], scorer_id: str) -> Described | Failed:
    """Read what a scorer says of itself; it must be the one that was named."""
    own = f"{said.get('name')}@{said.get('version')}"[:80]
    if own != scorer_id:
        return Failed(Trouble.GARBAGE, f"it calls itself {own!r}, and was named {scorer_id}")
    told = said.get("modality")
    modality = told if told in MODALITIES else None
    if modality is None:
        return Failed(Trouble.GARBAGE, f"its modality is none of {', '.join(MODALITIES)}")
    measures = [_measure(name, value) for name, value in _mapping(said.get("scores")).items()]
    if not 1 <= len(measures) <= MAX_MEASURES or None in measures:
        return Failed(Trouble.GARBAGE, f"its scores are not 1 to {MAX_MEASURES} names with `low` below `high`")
    return Described(scorer_id, modality, tuple(item for item in measures if item is not None))


def read_scores(described: Described, said: object, count: int) -> list[Score] | Failed:
    """Read an answer to `count` outputs: one for each, either nothing or every measure as a number."""
    rows = cast("Sequence[object]", said) if isinstance(said, list) else ()
    if len(rows) != count:
        return Failed(Trouble.GARBAGE, f"it answered {len(rows)} of {count} outputs")
    found: list[Score] = []
    for row in rows:
        score = _score(described, row)
        if score is None:
            return Failed(Trouble.GARBAGE, "an answer is neither nothing nor a number for each of its scores")
        found.append(score)
    return found


def differs(described: Described, frozen: FrozenItem, score: Score, tolerance: float) -> str:
    """Say how the score of a frozen output differs from what it was; empty: it does not."""
    if isinstance(score, Missing):
        same = score.why == "abstained" and frozen.scores is None
        return "" if same else f"frozen output {frozen.name}: {score.why}, which it was not"
    if frozen.scores is None:
        return f"frozen output {frozen.name}: it has scores, and had none"
    for measure, now, then in zip(described.measures, score.values, frozen.scores, strict=True):
        if abs(now - then) > tolerance * (measure.high - measure.low):
            return f"frozen output {frozen.name}: {measure.name} is {now:.6g} and was {then:.6g}"
    return ""


def _measure(name: str, value: object) -> Measure | None:
    said = _mapping(value)
    low, high, better = said.get("low"), said.get("high"), said.get("higher_is_better", True)
    if _NAME.fullmatch(name) is None or not isinstance(better, bool):
        return None
    if not _is_number(low) or not _is_number(high):
        return None
    least, most = float(cast("float", low)), float(cast("float", high))
    return Measure(name, least, most, better) if -1e9 <= least < most <= 1e9 else None


def _score(described: Described, row: object) -> Score | None:
    if row is None:
        return Missing("abstained")
    given = _mapping(row)
    if set(given) != {item.name for item in described.measures} or not all(map(_is_number, given.values())):
        return None
    values = tuple(float(cast("float", given[item.name])) for item in described.measures)
    if not all(map(math.isfinite, values)):
        return Missing("not_finite")
    inside = all(item.low <= value <= item.high for item, value in zip(described.measures, values, strict=True))
    return Given(values) if inside else Missing("out_of_range")


def _mapping(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
