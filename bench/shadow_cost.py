"""`shadow_cost`: device-seconds that a shadow takes until it is as sure as full mirroring, both with the same judge.

Requests of five sizes arrive as they do on a public image API: small ones often and cheap, large ones seldom and dear.
Healthy revisions and six faults of pipelines are drawn by the example model (`shadow_world`); each fault shows in all
sizes, or in one of them alone (a kernel for one shape, a tile that is too large). Full mirroring copies every request
as it comes; the stage takes the size that was compared least, and of it the cheapest request among those on offer
(`rollouts/shadow/decide`). For each the least length of shadow is sought that stops 95 % of the faults; then what it
costs: broken revisions until they are stopped, healthy ones to the end. Lengths are found on one half of the seeds and
reported on the other.
"""

import dataclasses
import uuid
from collections.abc import Callable, Sequence

import numpy as np
from tests.conformance.memory_fleet import EPOCH

from bench.shadow_world import Pictures, pictures
from bench.table import Row
from forestay.diffs.noise import Compared, Said, log_capital
from forestay.diffs.pictures import compare_pictures
from forestay.ids import ModelId, RequestId, RevisionId
from forestay.rollouts.shadow.decide import decide_mirror
from forestay.rollouts.shadow.model import Offered, Outcome, Pair, ShadowPolicy

SIZES = (("256", 0.52, 1.0), ("512", 0.27, 2.0), ("768", 0.13, 4.5), ("1024", 0.06, 8.0), ("2048", 0.02, 32.0))
SPREAD = 0.5  # of the logarithm of a request's cost within its size: steps and pictures differ
FAULTS = ("prediction type", "vae scale x1.3", "style leaks", "weights off by 5 %", "half the steps", "4-bit weights")
LENGTHS = (12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
ON_OFFER = 40  # of each size
ALPHA, POWER = 0.01, 0.95
SHADOWS = 12  # of each fault and scope, and round
_LIMIT = float(np.log(1 / ALPHA))

Distances = dict[str, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Taken:
    """One mirrored request: its size, what its copies cost, and which picture it is."""

    size: str
    seconds: float
    picture: int


Chooser = Callable[[np.random.Generator, int], list[Taken]]


def run(rounds: int) -> list[Row]:
    """Find lengths, then costs."""
    drawn = pictures(5_000)
    control = drawn["control"]
    quiet = _distances(control, control)
    faults = {name: _distances(control, drawn[name]) for name in FAULTS}
    benign = _distances(control, drawn["other batches"])
    found: dict[str, tuple[int, float, float, float]] = {}
    for name, choose in (("full", full), ("stage", staged)):
        length = next(
            (size for size in LENGTHS if _power(choose, faults, quiet, size, 1, rounds) >= POWER), LENGTHS[-1]
        )
        power = _power(choose, faults, quiet, length, 2, rounds)
        broken, healthy = _costs(choose, faults, quiet, benign, (length, rounds))
        found[name] = (length, power, broken, healthy)
    (full_length, full_power, full_broken, full_healthy), (length, power, broken, healthy) = (
        found["full"],
        found["stage"],
    )
    return [
        Row(
            "cost of a shadow, of full mirroring's",
            (broken + healthy) / (full_broken + full_healthy),
            "share",
            0.25,
            "<=",
        ),
        Row("the same, healthy revisions", healthy / full_healthy, "share"),
        Row("the same, broken revisions until stopped", broken / full_broken, "share"),
        Row("faults stopped by the stage", power, "share", POWER - 0.02, note=f"{length} requests; other seeds"),
        Row("faults stopped by full mirroring", full_power, "share", note=f"{full_length} requests; other seeds"),
        Row("device-seconds of a healthy shadow", healthy, "s", note=f"full mirroring: {full_healthy:,.0f}"),
    ]


def full(chance: np.random.Generator, length: int) -> list[Taken]:
    """Mirror every request as it comes."""
    return [_arrival(chance) for _ in range(length)]


def staged(chance: np.random.Generator, length: int) -> list[Taken]:
    """Let the stage choose among what is on offer."""
    policy = ShadowPolicy(requests=length, budget_seconds=float("inf"), at_a_time=1)
    offers: list[Offered] = []
    pictures_of: dict[RequestId, int] = {}
    pairs: list[Pair] = []
    taken: list[Taken] = []
    while len(taken) < length:
        while len(offers) < ON_OFFER:  # others have arrived meanwhile
            item = _arrival(chance)
            name = RequestId(uuid.UUID(int=len(pictures_of) + 1))
            pictures_of[name] = item.picture
            offers.append(_offer(name, item))
        [mirror] = decide_mirror(policy, pairs, offers, 0)
        offer = mirror.offered
        taken.append(Taken(offer.stratum, 2 * offer.device_seconds, pictures_of[offer.request_id]))
        pairs.append(Pair(offer.request_id, "/", offer.stratum, offer.request_id, offer.request_id, b"", b"", EPOCH,
                          Outcome({}, {})))  # fmt: skip
        offers.remove(offer)
        if len(offers) > ON_OFFER // 2:
            offers = offers[-(ON_OFFER // 2) :]  # offers grow old
    return taken


def _arrival(chance: np.random.Generator) -> Taken:
    place = int(chance.choice(len(SIZES), p=[share for _, share, _ in SIZES]))
    size, _, seconds = SIZES[place]
    cost = float(seconds * np.exp(SPREAD * chance.standard_normal()))
    return Taken(size, 2 * cost, int(chance.integers(64)))


def _offer(name: RequestId, item: Taken) -> Offered:
    return Offered(name, ModelId("a/b"), RevisionId("r"), "/", item.size, b'{"seed":1}', b"{}", item.seconds / 2, EPOCH)


def _distances(control: Pictures, made: Pictures) -> list[Distances]:
    return [compare_pictures(one, other) for one, other in zip(control, made, strict=True)]


def _stopped(taken: Sequence[Taken], found: Sequence[Distances], quiet: Sequence[Distances], scope: str) -> int | None:
    """Return after how many requests a revision is stopped whose fault shows in one size, or in all."""
    compared: list[Compared] = []
    for number, item in enumerate(taken):
        shows = scope in {"", item.size}
        distance = found[item.picture] if shows else quiet[item.picture]
        compared.append(Compared(str(number), item.size, quiet[item.picture], distance))
        if compared[-1].said is Said.DIFFERS and log_capital(compared) >= _LIMIT:
            return number + 1
    return None


def _power(
    choose: Chooser, faults: dict[str, list[Distances]], quiet: list[Distances], length: int, seed: int, rounds: int
) -> float:
    """Return the least share stopped over the scopes: a fault of a rare size counts as much as one of all."""
    shares: list[float] = []
    for place, scope in enumerate(("", *(name for name, _, _ in SIZES))):
        chance = np.random.default_rng((seed, place, length))
        ends = [
            _stopped(choose(chance, length), found, quiet, scope)
            for found in faults.values()
            for _ in range(rounds + 1)
        ]
        shares.append(sum(end is not None for end in ends) / len(ends))
    return float(np.mean(shares))


def _costs(
    choose: Chooser,
    faults: dict[str, list[Distances]],
    quiet: list[Distances],
    benign: list[Distances],
    size: tuple[int, int],
) -> tuple[float, float]:
    """Return mean device-seconds of broken revisions (until stopped) and of healthy ones (to the end)."""
    length, rounds = size
    chance = np.random.default_rng(3)
    broken: list[float] = []
    healthy: list[float] = []
    for scope in ("", *(name for name, _, _ in SIZES)):
        for found in faults.values():
            for _ in range(rounds):
                taken = choose(chance, length)
                end = _stopped(taken, found, quiet, scope)
                broken.append(sum(item.seconds for item in taken[:end]))
    for _ in range(SHADOWS * rounds):
        taken = choose(chance, length)
        end = _stopped(taken, benign, quiet, "")
        healthy.append(sum(item.seconds for item in taken[:end]))
    return float(np.mean(broken)), float(np.mean(healthy))
