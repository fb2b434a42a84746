"""What a rollout's policy would do: how often it finds harm, what that exposes, how long it takes. Pure.

It plays the policy's own judge and pace (`canary`) against invented traffic: a control, and a candidate that is like it
or worse by what is said. It decides nothing about a real rollout. Looks are a minute apart, where the controller looks
each second: what it says of exposure and time is a little too much. Called by `forestay rollout simulate`.
"""

import dataclasses
import datetime as dt
import math

import numpy as np

from forestay.rollouts.canary.decide import decide_canary
from forestay.rollouts.canary.evidence import absorb
from forestay.rollouts.canary.model import CanaryState, Evidence, GiveUp, Observation, Policy, Promote, RollBack, Shift

LOOK_SECONDS = 60.0
_START = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_SIGMA = 0.5  # of the logarithm of latencies: the 99th percentile is about three times the median
_MOST_REQUESTS = 3_000  # a look; busier traffic is thinned, which only makes evidence scarcer


@dataclasses.dataclass(frozen=True, slots=True)
class World:
    """Invented traffic: requests per minute, and how the candidate differs from the control."""

    per_minute: float
    control_errors: float = 0.01
    candidate_errors: float = 0.01
    slower: float = 1.0  # times the control's latency


@dataclasses.dataclass(frozen=True, slots=True)
class Ending:
    """How one simulated canary ended."""

    verdict: str  # promoted | rolled_back | held
    requests: int  # of the candidate
    bad: int  # of them
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Summary:
    """What many simulated canaries came to; shares of 1, medians and 90th percentiles."""

    played: int
    promoted: float
    rolled_back: float
    held: float
    requests_median: float
    requests_p90: float
    bad_median: float
    bad_p90: float
    seconds_median: float
    seconds_p90: float


def simulate(policy: Policy, world: World, seeds: int) -> Summary:
    """Play `seeds` canaries from seed 1 on; the same call gives the same answer."""
    endings = [play(policy, world, seed) for seed in range(1, seeds + 1)]

    def share(verdict: str) -> float:
        return sum(item.verdict == verdict for item in endings) / len(endings)

    def quantile(values: list[float], part: float) -> float:
        return sorted(values)[max(0, math.ceil(part * len(values)) - 1)]

    requests, bad = [float(item.requests) for item in endings], [float(item.bad) for item in endings]
    seconds = [item.seconds for item in endings]
    return Summary(
        played=len(endings),
        promoted=share("promoted"),
        rolled_back=share("rolled_back"),
        held=share("held"),
        requests_median=quantile(requests, 0.5),
        requests_p90=quantile(requests, 0.9),
        bad_median=quantile(bad, 0.5),
        bad_p90=quantile(bad, 0.9),
        seconds_median=quantile(seconds, 0.5),
        seconds_p90=quantile(seconds, 0.9),
    )


def play(policy: Policy, world: World, seed: int) -> Ending:
    """Play one canary to its end; it ends at the policy's deadline at the latest."""
    chance = np.random.default_rng(seed)
    state = CanaryState(policy, Evidence(), 0.0, _START, _START, 0, None, world.per_minute / 60.0)
    exposed = bad = 0
    now = _START
    for _ in range(math.ceil(policy.deadline_seconds / LOOK_SECONDS) + 2):
        [action] = decide_canary(state, now)
        seconds = (now - _START).total_seconds()
        if isinstance(action, RollBack | Promote | GiveUp):
            verdict = {RollBack: "rolled_back", Promote: "promoted", GiveUp: "held"}[type(action)]
            return Ending(verdict, exposed, bad, seconds)
        if isinstance(action, Shift):
            state = dataclasses.replace(state, weight=action.weight, step_since=now, step_requests=0)
        batch = _minute(chance, world, state.weight / 100.0)
        candidates = [item for item in batch if item.candidate]
        exposed += len(candidates)
        bad += sum(item.readings["failed"] > 0 for item in candidates)
        now += dt.timedelta(seconds=LOOK_SECONDS)
        state = dataclasses.replace(
            state,
            evidence=absorb(state.evidence, batch, policy),
            step_requests=state.step_requests + len(candidates),
            last_seen_at=now if candidates else state.last_seen_at,
        )
    return Ending("held", exposed, bad, (now - _START).total_seconds())


def _minute(chance: np.random.Generator, world: World, weight: float) -> list[Observation]:
    count = min(_MOST_REQUESTS, int(chance.poisson(world.per_minute)))
    arms = chance.random(count) < weight
    failed = chance.random(count) < np.where(arms, world.candidate_errors, world.control_errors)
    seconds = chance.lognormal(0.0, _SIGMA, count) * np.where(arms, world.slower, 1.0)
    found: list[Observation] = []
    for arm, fails, took in zip(arms.tolist(), failed.tolist(), seconds.tolist(), strict=True):
        readings = {"failed": float(fails)} if fails else {"failed": 0.0, "broken": 0.0, "seconds": took}
        found.append(Observation(arm, weight, readings))
    return found
