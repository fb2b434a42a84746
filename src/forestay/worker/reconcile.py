"""What a worker does so that its replicas become those that its placements ask for. Pure.

It decides which replicas to start, which to drain, and when a model whose start failed is tried again (fal's back-off:
30 s more after each failure, at most 10 minutes, ended by any success of the same revision anywhere). A worker that
comes back after a kill has all its models to load, and loads share its processors, disk and network: a model that
requests wait for loads first, and one that nobody waits for is put off meanwhile, for half a minute. It decides no
placements. Driven by `worker/keeping.py`, and by whoever simulates it.
"""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence

from forestay.fleet.model import Fleet, Placement, ReplicaState, Revision
from forestay.ids import ModelId, ReplicaId, RevisionId, WorkerId


@dataclasses.dataclass(frozen=True, slots=True)
class Observed:
    """A replica as the decision needs it."""

    replica_id: ReplicaId
    revision_id: RevisionId
    state: ReplicaState
    busy: bool
    devices: int
    started_at: dt.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """Failed starts of a revision on this worker, since its last success here."""

    count: int
    failed_at: dt.datetime
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class BackOff:
    """How long a failed start is waited after; seconds."""

    step_seconds: float
    cap_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Start:
    """Load one more replica of a revision."""

    revision_id: RevisionId
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Drain:
    """Let a replica end once nothing runs on it."""

    replica_id: ReplicaId
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Wait:
    """A revision waits until its next try: shown as a replica in back-off."""

    revision_id: RevisionId
    model_id: ModelId
    until: dt.datetime
    failure: Failure


Action = Start | Drain | Wait
_LIVE = frozenset({ReplicaState.SETUP, ReplicaState.READY})
# A load that takes longer holds nobody up: deploys have time-outs of their own. A base model loads in 22.7 s (GenTD26,
# Alibaba, 2026).
PUT_OFF = dt.timedelta(seconds=30)


@dataclasses.dataclass(frozen=True, slots=True)
class Situation:
    """One look at everything the decision depends on."""

    placements: Sequence[Placement]  # this worker's
    observed: Sequence[Observed]
    failures: Mapping[RevisionId, Failure]
    successes: Mapping[RevisionId, dt.datetime]  # the last time that any replica anywhere became ready
    revisions: Mapping[RevisionId, Revision]
    devices: int
    back_off: BackOff
    waited_for: frozenset[ModelId] = frozenset()  # models that requests wait for


def is_choice(situation: Situation, now: dt.datetime) -> bool:
    """Tell whether it matters which models are waited for: one can be started, and another loads or lacks replicas."""
    if not any(isinstance(action, Start) for action in decide(situation, now)):
        return False
    loading = {item.revision_id for item in situation.observed if item.state is ReplicaState.SETUP}
    known = [item for item in situation.placements if item.revision_id in situation.revisions]
    lacking = {item.revision_id for item in known if _missing(situation, item) > 0}
    return len(loading | lacking) > 1


def decide(situation: Situation, now: dt.datetime) -> list[Action]:
    """Return what to do; doing it and deciding again on the same placements gives nothing more."""
    wanted = {item.revision_id: item for item in situation.placements if item.revision_id in situation.revisions}
    actions: list[Action] = []
    for revision_id in sorted({item.revision_id for item in situation.observed if item.state in _LIVE}):
        actions += _drains(situation.observed, revision_id, wanted.get(revision_id))
    # A draining replica holds its devices until it has ended: nothing new starts in their place before.
    used = sum(item.devices for item in situation.observed if item.state is not ReplicaState.STOPPED)
    urgent = _loads_for_somebody(situation, now)
    for revision_id in sorted(wanted, key=lambda name: (not _is_waited_for(situation, name), name)):
        revision, placement = situation.revisions[revision_id], wanted[revision_id]
        waited_for = _is_waited_for(situation, revision_id)
        need = revision.spec.resources.devices
        missing = _missing(situation, placement)
        until = _not_before(situation, revision_id)
        if missing > 0 and until is not None and now < until:
            actions.append(Wait(revision_id, revision.model_id, until, situation.failures[revision_id]))
            continue
        if urgent and not waited_for:
            continue
        for _ in range(max(0, missing)):
            if used + need > situation.devices:
                break
            used += need
            urgent = urgent or (waited_for and not _serves(situation, revision_id))
            actions.append(Start(revision_id, placement.reason))
    return actions


def _drains(observed: Sequence[Observed], revision_id: RevisionId, placement: Placement | None) -> list[Action]:
    reason = placement.reason if placement else "no placement asks for it any more"
    live = _live(observed, revision_id)
    named = [item for item in live if placement is not None and item.replica_id in placement.ending]
    live = [item for item in live if item not in named]
    surplus = len(live) - (placement.replicas if placement else 0)
    # Idle ones first, then those that are still starting, then the youngest: least is lost.
    live.sort(key=lambda item: (item.busy, item.state is not ReplicaState.SETUP, -item.started_at.timestamp()))
    return [Drain(item.replica_id, reason) for item in (*named, *live[: max(0, surplus)])]


def _missing(situation: Situation, placement: Placement) -> int:
    live = _live(situation.observed, placement.revision_id)
    return placement.replicas - sum(item.replica_id not in placement.ending for item in live)


def _live(observed: Sequence[Observed], revision_id: RevisionId) -> list[Observed]:
    return [item for item in observed if item.revision_id == revision_id and item.state in _LIVE]


def _is_waited_for(situation: Situation, revision_id: RevisionId) -> bool:
    return situation.revisions[revision_id].model_id in situation.waited_for


def _serves(situation: Situation, revision_id: RevisionId) -> bool:
    return any(item.state is ReplicaState.READY for item in situation.observed if item.revision_id == revision_id)


def _loads_for_somebody(situation: Situation, now: dt.datetime) -> bool:
    """Tell whether a revision that requests wait for has begun to load of late, and none of it is ready here."""
    began = now - PUT_OFF
    setup = [item for item in situation.observed if item.state is ReplicaState.SETUP and item.started_at > began]
    known = {item.revision_id for item in setup if item.revision_id in situation.revisions}
    return any(_is_waited_for(situation, item) and not _serves(situation, item) for item in known)


def _not_before(situation: Situation, revision_id: RevisionId) -> dt.datetime | None:
    failure = situation.failures.get(revision_id)
    if failure is None:
        return None
    success = situation.successes.get(revision_id)
    if success is not None and success > failure.failed_at:
        return None
    seconds = min(situation.back_off.cap_seconds, situation.back_off.step_seconds * failure.count)
    return failure.failed_at + dt.timedelta(seconds=seconds)


def successes_of(fleet: Fleet) -> dict[RevisionId, dt.datetime]:
    """Return when each revision last became ready, on any worker."""
    found: dict[RevisionId, dt.datetime] = {}
    for replica in fleet.replicas.values():
        if replica.ready_at is not None:
            found[replica.revision_id] = max(replica.ready_at, found.get(replica.revision_id, replica.ready_at))
    return found


def placements_of(fleet: Fleet, worker_id: WorkerId) -> list[Placement]:
    """Return what is asked of one worker."""
    return [placement for placement in fleet.placements if placement.worker_id == worker_id]
