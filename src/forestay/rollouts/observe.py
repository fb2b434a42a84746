"""From the facts of finished requests to what a canary learns of them. Pure.

It decides what counts: requests that began while one share of the traffic was in force everywhere, each under the arm
that its bucket gives it, whichever revision then ran it. So a request that its revision never took, and that expired
waiting, counts against that revision. What its own caller caused (a cancel) counts for nobody. It judges nothing
(`canary/evidence`). Called by the rollouts' loop.
"""

import dataclasses
import datetime as dt
import math
from collections.abc import Mapping, Sequence

from forestay.ids import BUCKETS, RequestId, bucket_of
from forestay.rollouts.canary.evidence import absorb
from forestay.rollouts.canary.model import Observation
from forestay.rollouts.model import Cursor, Phase, Rollout
from forestay.rollouts.slices import slices_of

_FAILED = frozenset(
    {
        "model_error",
        "model_crash",
        "model_timeout",
        "memory",
        "startup",
        "worker_lost",
        "upstream",
        "expired",
        "platform",
    }
)
_SUCCEEDED, _REFUSED, _BLOCKED, _BROKEN = "succeeded", "caller_error", "safety", "broken_output"
_JUDGED = _FAILED | {_SUCCEEDED, _REFUSED, _BLOCKED, _BROKEN}
_RATE_SECONDS = 60.0  # over which the traffic is averaged


@dataclasses.dataclass(frozen=True, slots=True)
class FinishedRequest:
    """What a fact says of one request; `work` holds the numbers of its input (`x_...`) and of its output."""

    request_id: RequestId
    endpoint: str
    outcome: str
    submitted_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime
    device_seconds: float
    work: Mapping[str, object]
    tenant_id: str = ""


def learn(rollout: Rollout, facts: Sequence[FinishedRequest], now: dt.datetime) -> Rollout:
    """Return the rollout with the evidence of these requests, which follow its cursor in order."""
    if not facts and rollout.looked_at is not None:
        return dataclasses.replace(rollout, requests_per_second=_rate(rollout, 0, now), looked_at=now)
    seen: list[tuple[FinishedRequest, Observation, Phase]] = []
    for fact in facts:
        phase = phase_of(fact, rollout.phases)
        observed = None if phase is None else observe(fact, phase)
        if phase is not None and observed is not None:
            seen.append((fact, observed, phase))
    candidates = [(fact, phase) for fact, observed, phase in seen if observed.candidate]
    at_step = sum(phase == rollout.phases[-1] for _, phase in candidates) if rollout.phases else 0
    return dataclasses.replace(
        rollout,
        evidence=absorb(rollout.evidence, [observed for _, observed, _ in seen], rollout.policy.canary),
        cursor=Cursor(facts[-1].finished_at, facts[-1].request_id) if facts else rollout.cursor,
        step_requests=rollout.step_requests + at_step,
        last_seen_at=candidates[-1][0].finished_at if candidates else rollout.last_seen_at,
        requests_per_second=_rate(rollout, len(facts), now),
        looked_at=now,
    )


def _rate(rollout: Rollout, count: int, now: dt.datetime) -> float:
    since = rollout.looked_at or rollout.started_at
    seconds = (now - since).total_seconds()
    if seconds <= 0:
        return rollout.requests_per_second
    part = 1.0 - math.exp(-seconds / _RATE_SECONDS)
    return rollout.requests_per_second * (1.0 - part) + count / seconds * part


def phase_of(fact: FinishedRequest, phases: Sequence[Phase]) -> Phase | None:
    """Return the phase that chose the request's revision, None when it may have been either of two.

    A revision is chosen when the request starts; one that never started must have waited within a single phase.
    """
    began, ended = (fact.started_at, fact.started_at) if fact.started_at else (fact.submitted_at, fact.finished_at)
    for phase in phases:
        if phase.since <= began and (phase.until is None or ended < phase.until):
            return phase
    return None


def observe(fact: FinishedRequest, phase: Phase) -> Observation | None:
    """Return what the request says; None when it says nothing of its revision."""
    if fact.outcome not in _JUDGED:
        return None
    edge = round(phase.weight * BUCKETS / 100)
    readings: dict[str, float] = {
        "failed": float(fact.outcome in _FAILED),
        "refused": float(fact.outcome == _REFUSED),
        "blocked": float(fact.outcome == _BLOCKED),
    }
    if fact.outcome in {_SUCCEEDED, _BROKEN}:
        readings["broken"] = float(fact.outcome == _BROKEN)
    if fact.outcome == _SUCCEEDED:
        if fact.started_at is not None:
            readings["seconds"] = max(0.0, (fact.finished_at - fact.started_at).total_seconds())
        if fact.device_seconds > 0:
            readings["device_seconds"] = fact.device_seconds
        quality = fact.work.get("quality")  # written by whoever scores outputs
        if isinstance(quality, int | float):
            readings["quality"] = float(quality)
    slices = slices_of(fact.endpoint, fact.work.get("x_pixels"), fact.tenant_id)
    return Observation(bucket_of(fact.request_id) < edge, edge / BUCKETS, readings, slices)
