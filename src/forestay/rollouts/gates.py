"""The gates that a candidate passes before any traffic. Pure.

It decides, from the fleet and the two revisions, what each gate says; inconclusive is never pass. It waits for nothing
and does nothing: `rollouts/decide` holds the rollout until every gate has passed.
"""

import datetime as dt
from collections.abc import Sequence

from forestay.fleet.model import Fleet, ReplicaState
from forestay.fleet.routes import awaited, is_up
from forestay.quality.canary_store import PlayedRound
from forestay.rollouts.budget_hold import NO_DEMAND, Demand, check_budget
from forestay.rollouts.golden_gates import check_goldens, check_policy
from forestay.rollouts.interface import Kind, compare_interfaces
from forestay.rollouts.model import GateResult, GateVerdict, Rollout

_MOST_DETAIL = 300
_MOST_CHANGES = 5


def check_gates(
    rollout: Rollout,
    fleet: Fleet,
    now: dt.datetime,
    demand: Demand = NO_DEMAND,
    rounds: Sequence[PlayedRound] | None = None,
) -> tuple[GateResult, ...]:
    """Return every gate's answer; that of the error budget where the model's SLOs demand something.

    `rounds` of golden canaries, the newest first; without them nobody asks what the candidate draws.
    """
    further = (check_policy(rollout, fleet), check_budget(rollout, demand))
    return (
        check_start(rollout, fleet, now),
        check_interface(rollout, fleet),
        *([] if rounds is None else check_goldens(rollout, fleet, rounds)),
        *(gate for gate in further if gate is not None),
    )


def check_interface(rollout: Rollout, fleet: Fleet) -> GateResult:
    """Tell whether every caller of the control can go on unchanged; what nobody knows is not promised to anybody."""
    control, candidate = fleet.revisions.get(rollout.control), fleet.revisions.get(rollout.candidate)
    if control is None or control.openapi is None:
        return GateResult("interface", GateVerdict.PASS, "the control declares none, so callers rely on none")
    if candidate is None or candidate.openapi is None:
        return GateResult("interface", GateVerdict.INCONCLUSIVE, "the candidate declares none; the control does")
    changes = compare_interfaces(control.openapi, candidate.openapi)
    breaking = [item for item in changes if item.kind is Kind.BREAKING]
    if not breaking:
        told = f"{len(changes)} additions" if changes else "nothing changed for callers"
        return GateResult("interface", GateVerdict.PASS, told)
    told = "; ".join(item.told() for item in breaking[:_MOST_CHANGES])
    if rollout.policy.allow_breaking:
        return GateResult("interface", GateVerdict.PASS, f"breaking, which was allowed: {told}")
    return GateResult("interface", GateVerdict.FAIL, f"callers would break: {told}")


def check_start(rollout: Rollout, fleet: Fleet, now: dt.datetime) -> GateResult:
    """Tell whether a replica of the candidate is ready, and why not, once its start-up time-out has passed."""
    revision = fleet.revisions.get(rollout.candidate)
    if revision is None:
        return GateResult("start", GateVerdict.FAIL, f"revision {rollout.candidate} is not known any more")
    if is_up(fleet, rollout.candidate):
        return GateResult("start", GateVerdict.PASS, "a replica is ready")
    waited = (now - rollout.started_at).total_seconds()
    replicas = [item for item in fleet.replicas.values() if item.revision_id == rollout.candidate]
    failing = [item.detail for item in replicas if item.state is ReplicaState.BACKOFF and item.detail]
    told = failing[0][:_MOST_DETAIL] if failing else (f"it is in {replicas[0].state}" if replicas else "not placed yet")
    if waited < revision.spec.limits.startup_timeout_seconds:
        return GateResult("start", GateVerdict.INCONCLUSIVE, f"no replica is ready after {waited:.0f} s: {told}")
    if not replicas and awaited(fleet, rollout.candidate) is not None:
        return GateResult("start", GateVerdict.INCONCLUSIVE, "no worker of its pool has room for it")
    return GateResult("start", GateVerdict.FAIL, f"no replica was ready within its start-up time-out: {told}")
