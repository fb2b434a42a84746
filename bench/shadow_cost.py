"""`shadow_cost`: device-seconds that a shadow takes until it is as sure as full mirroring, both with the same judge.

Requests of five sizes arrive as they do on a public image API: small ones often and cheap, large ones seldom and dear.
Healthy revisions and six faults of pipelines are drawn by the example model (`shadow_world`); each fault shows in all
sizes, or in one of them alone (a kernel for one shape, a tile that is too large). Full mirroring copies every request
as it comes, to the candidate and to the control again, and stops as early as the same bets allow. The stage takes the
size that was compared least, of it the cheapest request among those on offer (`rollouts/shadow/decide`; the store keeps
forty of a size), and asks the control again where `diffs/noise` says so. For each the least length of shadow is sought
that stops 95 % of the faults; then what it costs: broken revisions until they are stopped, healthy ones to the end.
Lengths are found on one half of the seeds and requests, on which the bets were chosen as well; costs and power are of
the other half. Beside it: full mirroring that looks once, at its end.
"""

import dataclasses
import uuid
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from tests.conformance.memory_fleet import EPOCH

from bench.shadow_world import Pictures, pictures
from bench.table import Row
from forestay.diffs.noise import OUTSIDE, Compared, Said, asks_first, log_capital
from forestay.diffs.pictures import compare_pictures
from forestay.ids import ModelId, RequestId, RevisionId
from forestay.rollouts.shadow.decide import decide_mirror
from forestay.rollouts.shadow.model import Offered, Outcome, Pair, ShadowPolicy
from forestay.rollouts.shadow.postgres_store import MOST_OFFERS

SIZES = (("256", 0.52, 1.0), ("512", 0.27, 2.0), ("768", 0.13, 4.5), ("1024", 0.06, 8.0), ("2048", 0.02, 32.0))
SPREAD = 0.5  # of the logarithm of a request's cost within its size: steps and pictures differ
FAULTS = ("prediction type", "vae scale x1.3", "style leaks", "weights off by 5 %", "half the steps", "4-bit weights")
SCOPES = ("", *(name for name, _, _ in SIZES))
TUNED_FIRST, FIRST = 5_000, 9_000  # of the requests that lengths are found on, and that are reported
REPORT_SEED = 20_261_126
LENGTHS = (12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
ARRIVALS = 20  # while one request is compared; the store keeps the first of each size, up to its limit
ALPHA, POWER = 0.01, 0.95
SHADOWS = 12  # of each fault and scope, and round
_LIMIT = float(np.log(1 / ALPHA))

Distances = dict[str, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Taken:
    """One mirrored request: its size, what one copy costs, and which picture it is."""

    size: str
    seconds: float
    picture: int


Chooser = Callable[[np.random.Generator, int], list[Taken]]


@dataclasses.dataclass(frozen=True, slots=True)
class World:
    """Distances of what was drawn again, by request: by the control, by a healthy candidate, by broken ones."""

    quiet: Sequence[Distances]
    benign: Sequence[Distances]
    faults: Mapping[str, Sequence[Distances]]


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """How requests are chosen, and whether the control is always asked again."""

    choose: Chooser
    always_both: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What a way comes to. Costs are device-seconds of a shadow."""

    length: int
    power: float
    broken: float
    healthy: float
    to_the_end: float  # of a shadow that is never stopped early


def run(rounds: int) -> list[Row]:
    """Find lengths, then costs."""
    tuned, reported = _world(TUNED_FIRST), _world(FIRST)
    ways = {"full": Way(full, always_both=True), "stage": Way(staged, always_both=False)}
    found = {name: _measured(way, tuned, reported, rounds) for name, way in ways.items()}
    whole, stage = found["full"], found["stage"]
    share = (stage.broken + stage.healthy) / (whole.broken + whole.healthy)
    fixed = (stage.broken + stage.healthy) / (2 * whole.to_the_end)
    return [
        Row("cost of a shadow, of full mirroring's", share, "share", 0.25, "<="),
        Row("the same, healthy revisions", stage.healthy / whole.healthy, "share"),
        Row("the same, broken revisions until stopped", stage.broken / whole.broken, "share"),
        Row("the same, of full mirroring that looks once", fixed, "share"),
        Row("faults stopped by the stage", stage.power, "share", POWER - 0.02, note=f"{stage.length} requests; others"),
        Row("faults stopped by full mirroring", whole.power, "share", note=f"{whole.length} requests; others"),
        Row("device-seconds of a healthy shadow", stage.healthy, "s", note=f"full mirroring: {whole.healthy:,.0f}"),
    ]


def _world(first: int) -> World:
    drawn = pictures(first)
    control = drawn["control"]
    return World(
        _distances(control, control),
        _distances(control, drawn["other batches"]),
        {name: _distances(control, drawn[name]) for name in FAULTS},
    )


def _measured(way: Way, tuned: World, reported: World, rounds: int) -> Found:
    fits = (size for size in LENGTHS if _power(way, tuned, size, 1, rounds) >= POWER)
    length = next(fits, LENGTHS[-1])
    power = _power(way, reported, length, REPORT_SEED, rounds)
    return Found(length, power, *_costs(way, reported, length, rounds))


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
        for item in [_arrival(chance) for _ in range(ARRIVALS)]:  # others have come meanwhile
            name = RequestId(uuid.UUID(int=len(pictures_of) + 1))
            pictures_of[name] = item.picture
            if sum(offer.stratum == item.size for offer in offers) < MOST_OFFERS:  # as the store keeps them
                offers.append(_offer(name, item))
        [mirror] = decide_mirror(policy, pairs, offers, 0)
        offer = mirror.offered
        taken.append(Taken(offer.stratum, offer.device_seconds, pictures_of[offer.request_id]))
        pairs.append(Pair(offer.request_id, "/", offer.stratum, offer.request_id, offer.request_id, b"", b"", EPOCH,
                          Outcome({}, {})))  # fmt: skip
        offers.remove(offer)
    return taken


def _arrival(chance: np.random.Generator) -> Taken:
    place = int(chance.choice(len(SIZES), p=[share for _, share, _ in SIZES]))
    size, _, seconds = SIZES[place]
    cost = float(seconds * np.exp(SPREAD * chance.standard_normal()))
    return Taken(size, cost, int(chance.integers(1 << 30)))


def _offer(name: RequestId, item: Taken) -> Offered:
    return Offered(name, ModelId("a/b"), RevisionId("r"), "/", item.size, b'{"seed":1}', b"{}", item.seconds, EPOCH)


def _distances(control: Pictures, made: Pictures) -> list[Distances]:
    return [compare_pictures(one, other) for one, other in zip(control, made, strict=True)]


def _played(
    way: Way, taken: Sequence[Taken], world: World, found: Sequence[Distances], scope: str
) -> tuple[bool, float]:
    """Play a shadow whose fault shows in one size, or in all: whether it is stopped, and its device-seconds."""
    compared: list[Compared] = []
    spent = 0.0
    for number, item in enumerate(taken):
        place = item.picture % len(found)
        quiet = world.quiet[place]
        distance = found[place] if scope in {"", item.size} else quiet
        both = way.always_both or asks_first(compared, item.size)
        one = Compared(str(number), item.size, quiet, distance, both)
        asked = both or one.excess > OUTSIDE
        spent += item.seconds * (2 if asked else 1)
        compared.append(one if asked else dataclasses.replace(one, floor={}))
        if one.said is Said.DIFFERS and log_capital(compared) >= _LIMIT:
            return True, spent
    return False, spent


def _power(way: Way, world: World, length: int, seed: int, rounds: int) -> float:
    """Return the mean share stopped over the scopes: a fault of a rare size counts as much as one of all."""
    shares: list[float] = []
    for place, scope in enumerate(SCOPES):
        chance = np.random.default_rng((seed, place, length))
        ends = [
            _played(way, way.choose(chance, length), world, found, scope)[0]
            for found in world.faults.values()
            for _ in range(rounds + 1)
        ]
        shares.append(sum(ends) / len(ends))
    return float(np.mean(shares))


def _costs(way: Way, world: World, length: int, rounds: int) -> tuple[float, float, float]:
    """Return mean device-seconds: broken revisions until stopped, healthy ones, and what was chosen, to its end."""
    chance = np.random.default_rng((REPORT_SEED, length))
    broken = [
        _played(way, way.choose(chance, length), world, found, scope)[1]
        for scope in SCOPES
        for found in world.faults.values()
        for _ in range(rounds)
    ]
    chosen = [way.choose(chance, length) for _ in range(SHADOWS * rounds)]
    healthy = [_played(way, taken, world, world.benign, "")[1] for taken in chosen]
    whole = [2 * sum(item.seconds for item in taken) for taken in chosen]
    return float(np.mean(broken)), float(np.mean(healthy)), float(np.mean(whole))
