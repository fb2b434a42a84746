"""Who asks for what, when: seeded generators of requests. Pure.

They decide what callers do, never what becomes of it (`world`). Times are seconds from the start of the world. Called
by benches and tests.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from forestay.chance import Chance

Cost = Callable[[Mapping[str, float], Chance], float]  # what a request with these features really takes, device-seconds


@dataclasses.dataclass(frozen=True, slots=True)
class Arrival:
    """One request as its caller sends it, and what it will really take."""

    at: float
    tenant: str
    features: Mapping[str, float]
    device_seconds: float  # known to the world alone
    start_within: float | None = None
    low: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Caller:
    """How one tenant behaves."""

    tenant: str
    rate: float  # requests a second, on average
    features: Sequence[Mapping[str, float]]  # asked for with equal chance
    start_within: Sequence[float | None] = (None,)  # likewise
    low: bool = False


def steady(caller: Caller, cost: Cost, seconds: float, chance: Chance) -> Iterator[Arrival]:
    """Yield arrivals at a constant average rate, independent of one another (a Poisson process)."""
    at = _gap(caller.rate, chance)
    while at < seconds:
        yield _arrival(at, caller, cost, chance)
        at += _gap(caller.rate, chance)


def bursts(caller: Caller, cost: Cost, seconds: float, chance: Chance, *, every: float) -> Iterator[Arrival]:
    """Yield the same number on average, but all at once `every` so many seconds."""
    at = chance.uniform(0.0, every)
    while at < seconds:
        for _ in range(max(1, round(caller.rate * every))):
            yield _arrival(at, caller, cost, chance)
        at += every


def backlog(caller: Caller, cost: Cost, count: int, chance: Chance) -> Iterator[Arrival]:
    """Yield `count` requests at the very start."""
    for number in range(count):
        yield _arrival(number * 1e-6, caller, cost, chance)


def merged(*streams: Iterable[Arrival]) -> list[Arrival]:
    """Return all arrivals in the order of time."""
    return sorted((item for stream in streams for item in stream), key=lambda item: item.at)


def diffusion(seconds: float, spread: float, overhead: float = 0.15) -> Cost:
    """Return the cost of a diffusion model: some overhead, the rest by steps, pixels and images; log-normal noise.

    `seconds` is what 30 steps of one picture of 1024 x 1024 take on average.
    """

    def cost(features: Mapping[str, float], chance: Chance) -> float:
        steps, pixels = features.get("steps", 30.0) / 30.0, features.get("pixels", 2.0**20) / 2.0**20
        work = steps * pixels * features.get("images", 1.0)
        noise = math.exp(spread * _normal(chance) - spread * spread / 2.0)
        return seconds * (overhead + (1.0 - overhead) * work) * noise

    return cost


def _arrival(at: float, caller: Caller, cost: Cost, chance: Chance) -> Arrival:
    features = caller.features[int(chance.uniform(0.0, len(caller.features)))]
    within = caller.start_within[int(chance.uniform(0.0, len(caller.start_within)))]
    return Arrival(at, caller.tenant, features, cost(features, chance), within, caller.low)


def _gap(rate: float, chance: Chance) -> float:
    return -math.log(1.0 - chance.uniform(0.0, 1.0 - 1e-12)) / rate


def _normal(chance: Chance) -> float:
    """Return one standard normal number (Box and Muller, 1958)."""
    radius = math.sqrt(-2.0 * math.log(1.0 - chance.uniform(0.0, 1.0 - 1e-12)))
    return radius * math.cos(2.0 * math.pi * chance.uniform(0.0, 1.0))
