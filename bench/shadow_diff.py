"""`shadow_diff`: how many broken revisions the shadow stage stops, and how many healthy ones.

The example model draws the same 64 requests as its healthy self and with 15 faults of pipelines (`shadow_world`); six
faults of what comes after the network, four of films and six of recordings are put in by `quality/faults`. A trial is a
shadow of 32 requests, drawn from the 64 without replacement, each answered by the control, by the candidate, and where
`diffs/noise` asks for it by the control again. In half of the trials the answers carry the noise of kernels that are
not deterministic: levels move by up to two, and one answer in twenty is another picture altogether. Tolerances and bets
were chosen on other requests. Beside it: bytes that must be equal, and Diffy's documented rule (more than 20 % relative
and 0.03 absolute between the rates of differing fields) on hashes of the pictures.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bench.shadow_world import HEALTHY, PIPELINE_FAULTS, pictures
from bench.table import Row
from forestay.diffs.films import compare_films
from forestay.diffs.noise import OUTSIDE, Compared, asks_first, log_capital
from forestay.diffs.pictures import compare_pictures
from forestay.diffs.sounds import compare_sounds
from forestay.quality.faults import FILMS, PICTURES, SOUNDS

FIRST = 9_000  # of the requests that are reported; tolerances were chosen on 0 to 47, bets on 5,000 to 5,063
SEED = 20_261_127
PER_SHADOW = 32
TRIALS = 40  # of each fault and round
HEALTHY_TRIALS = 250  # of each healthy revision and round
ALPHA = 0.01
NOISES = 10  # draws of it for each healthy revision
TOO_SUBTLE = ("11 steps for 12",)  # a fifth of what a cast to bfloat16 does: told, not counted
_AFTER = ("noise", "checkerboard", "tile seams", "red and blue swapped", "dots", "washed out", "resampled", "stripes")
_RATE = 16_000
_OTHER_SHARE = 0.05

Picture = npt.NDArray[np.uint8]
Distances = dict[str, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Answers:
    """Distances of second answers from first ones, request by request: first without noise, then with several draws."""

    floor: Sequence[Sequence[Distances]]
    found: Sequence[Sequence[Distances]]


def run(rounds: int) -> list[Row]:
    """Play trials; returns what was stopped."""
    worlds = _worlds()
    chance = np.random.default_rng(SEED)
    stopped: dict[str, float] = {}
    needed: list[int] = []
    for name, answers in worlds.items():
        trials = (HEALTHY_TRIALS if name in HEALTHY else TRIALS) * rounds
        ends = [_shadow(answers, chance, _draw(number, answers)) for number in range(trials)]
        stopped[name] = sum(end is not None for end in ends) / trials
        if name not in HEALTHY:
            needed += [end for end in ends if end is not None]
    counted = [name for name in worlds if name not in HEALTHY and name not in TOO_SUBTLE]
    healthy = [stopped[name] for name in HEALTHY]
    worst = min(counted, key=lambda name: stopped[name])
    return [
        Row("faults injected", len(counted), "", 12, note="15 of pipelines, the rest put in afterwards"),
        Row("broken revisions stopped", float(np.mean([stopped[name] for name in counted])), "share", 0.95),
        Row("healthy revisions stopped", float(np.mean(healthy)), "share", 0.01, "<=", f"alpha {ALPHA}, any look"),
        Row("least stopped of the faults", stopped[worst], "share", note=worst),
        Row("requests until stopped, median", float(np.median(needed)), "requests"),
        *[Row(f"stopped: {name}", stopped[name], "share", note="below what anyone sees") for name in TOO_SUBTLE],
        *_rivals(worlds),
    ]


def _worlds() -> dict[str, Answers]:
    drawn = pictures(FIRST)
    control, others = list(drawn["control"]), list(drawn["seed ignored"])
    chance = np.random.default_rng(7)
    firsts = [_noisy(control, others, chance) for _ in range(NOISES)]
    floors = [_each(control, control), *[_each(first, _noisy(control, others, chance)) for first in firsts]]
    found: dict[str, Answers] = {}

    def add(name: str, made: Sequence[Picture]) -> None:
        draws = firsts if name in HEALTHY else firsts[:1]
        noisy = [_each(first, _noisy(made, others, chance)) for first in draws]
        found[name] = Answers(floors[: 1 + len(draws)], [_each(control, made), *noisy])

    for name in (*HEALTHY, *PIPELINE_FAULTS):
        add(name, list(drawn[name]))
    for fault in PICTURES:
        if fault.name in _AFTER:
            add(f"picture: {fault.name}", [fault.inject(one, chance) for one in control])
    return {**found, **_films(control[:PER_SHADOW], chance), **_sounds(chance)}


def _each(ones: Sequence[Picture], others: Sequence[Picture]) -> list[Distances]:
    return [compare_pictures(one, other) for one, other in zip(ones, others, strict=True)]


def _noisy(made: Sequence[Picture], others: Sequence[Picture], chance: np.random.Generator) -> list[Picture]:
    found: list[Picture] = []
    for one, other in zip(made, others, strict=True):
        base = other if chance.random() < _OTHER_SHARE else one
        found.append(np.clip(base.astype(int) + chance.integers(-2, 3, base.shape), 0, 255).astype(np.uint8))
    return found


def _films(control: Sequence[Picture], chance: np.random.Generator) -> dict[str, Answers]:
    """Let each picture wander over eight frames."""
    films = [np.stack([np.roll(one, (step, 2 * step), (0, 1)) for step in range(8)]) for one in control]
    quiet = [compare_films(film, film) for film in films]
    found: dict[str, Answers] = {}
    for fault in FILMS:
        made = [compare_films(film, fault.inject(film, chance)) for film in films]
        found[f"film: {fault.name}"] = Answers([quiet, quiet], [made, made])
    return found


def _sounds(chance: np.random.Generator) -> dict[str, Answers]:
    """Play half a second of a chord for each request."""
    times = np.arange(_RATE // 2) / _RATE
    sounds = [
        0.2
        * np.array([np.sin(2 * np.pi * (220 + 10 * n) * k * times) / k for k in (1, 2, 3)]).sum(0).astype(np.float32)
        for n in range(64)
    ]
    quiet = [compare_sounds(sound, sound, _RATE) for sound in sounds]
    found: dict[str, Answers] = {}
    for fault in SOUNDS:
        made = [compare_sounds(sound, fault.inject(sound, chance), _RATE) for sound in sounds]
        found[f"sound: {fault.name}"] = Answers([quiet, quiet], [made, made])
    return found


def _draw(number: int, answers: Answers) -> int:
    """Return which draw of noise trial `number` has: none in every second one."""
    return 0 if number % 2 else 1 + number // 2 % (len(answers.found) - 1)


def _shadow(answers: Answers, chance: np.random.Generator, noisy: int) -> int | None:
    """Play one shadow, looked at after every request; returns at which it was stopped."""
    floor, found = answers.floor[noisy], answers.found[noisy]
    compared: list[Compared] = []
    for place in chance.permutation(len(found))[:PER_SHADOW]:
        stratum = f"size {place % 3}"
        one = Compared(str(place), stratum, floor[place], found[place], asks_first(compared, stratum))
        asked = one.asks_first or one.excess > OUTSIDE
        compared.append(one if asked else dataclasses.replace(one, floor={}))
        if log_capital(compared) >= math.log(1 / ALPHA):
            return len(compared)
    return None


def _rivals(worlds: dict[str, Answers]) -> list[Row]:
    """Judge the same answers by equality and by Diffy's rule, without and with noise."""
    equal = diffy = missed = 0
    faults = [name for name in worlds if name not in HEALTHY and name not in TOO_SUBTLE]
    for name in HEALTHY:
        for noisy in (0, 1):
            floor, found = worlds[name].floor[noisy], worlds[name].found[noisy]
            equal += any(distance["level"] > 0 for distance in found)
            diffy += _diffy(floor, found)
    for name in faults:
        missed += not _diffy(worlds[name].floor[1], worlds[name].found[1])
    tried = 2 * len(HEALTHY)
    return [
        Row("equal bytes: healthy stopped", equal / tried, "share"),
        Row("Diffy's rule on hashes: healthy stopped", diffy / tried, "share"),
        Row("Diffy's rule on hashes: faults stopped", 1 - missed / len(faults), "share", note="with noise"),
    ]


def _diffy(floor: Sequence[Distances], found: Sequence[Distances]) -> bool:
    raw = float(np.mean([_hash_differs(item) for item in found]))
    noise = float(np.mean([_hash_differs(item) for item in floor]))
    return raw - noise > 0.03 and (raw - noise) / max(raw + noise, 1e-9) > 0.2


def _hash_differs(distances: Distances) -> bool:
    return distances.get("hash", distances.get("wave", 0.0)) > 0
