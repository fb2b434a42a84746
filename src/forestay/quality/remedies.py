"""What follows from what was found: which replica is drained, which revision is left, what comes back. Pure.

One bad replica beside healthy ones is drained, and its worker runs none of the revision until a self-test has passed.
Where every replica of a new revision is bad and an older one still stands by, traffic goes back to that. It never takes
the last replica that serves, nor more than `MOST_HELD` of a revision's, nor two at a time: a bad reference, or a bad
detector, looks like many bad replicas. Where nothing else serves any more, what is held back returns: poor outputs that
are alerted on beat none. The brakes of `fleet/apply` hold besides. Called by `loop`.
"""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence

from forestay.fleet.model import Fleet, ReplicaReport, ReplicaState, Route
from forestay.ids import BUCKETS, ModelId, ReplicaId, RevisionId, WorkerId
from forestay.quality.watch_store import Hold

MOST_HELD = 0.34  # of a revision's replicas
FRESH = dt.timedelta(minutes=15)  # older suspicions ask for nothing
PAUSE = dt.timedelta(seconds=60)  # between two drains of one revision
FIRST_TEST = dt.timedelta(minutes=1)  # after the drain
TEST_PAUSE = dt.timedelta(minutes=5)  # between two self-tests of one worker
STANDS_BY = dt.timedelta(days=7)  # how old an earlier revision may be that traffic goes back to


@dataclasses.dataclass(frozen=True, slots=True)
class Suspicion:
    """A finding that may ask for a remedy."""

    finding_id: str
    model_id: ModelId
    revision_id: RevisionId
    replica_id: ReplicaId  # empty: of the whole revision
    sure: bool  # beyond the rate of false alarms of the whole fleet, not of one stream alone
    peers_healthy: bool  # other replicas of the revision were looked at and are healthy
    at: dt.datetime
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class DrainReplica:
    """Take a replica out, and keep its worker from running the revision."""

    hold: Hold

    @property
    def reason(self) -> str:
        """Return why."""
        return self.hold.reason


@dataclasses.dataclass(frozen=True, slots=True)
class LeaveRevision:
    """Send a model's traffic back to an earlier revision."""

    model_id: ModelId
    revision_id: RevisionId  # the one that is left
    routes: tuple[Route, ...]
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class AskSelfTest:
    """Ask for a self-test of what is held back."""

    hold: Hold
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class LiftHold:
    """Let a worker run the revision again."""

    hold: Hold
    reason: str


Remedy = DrainReplica | LeaveRevision | AskSelfTest | LiftHold


@dataclasses.dataclass(frozen=True, slots=True)
class Ground:
    """Everything that the decision looks at."""

    fleet: Fleet
    suspicions: Sequence[Suspicion]
    holds: Sequence[Hold]  # in force
    tested: Mapping[tuple[WorkerId, RevisionId], tuple[dt.datetime, bool]] = dataclasses.field(
        default_factory=dict[tuple[WorkerId, RevisionId], tuple[dt.datetime, bool]]
    )  # the last self-test: when, and whether it passed
    refused: Mapping[str, dt.datetime] = dataclasses.field(default_factory=dict[str, dt.datetime])  # finding -> until


def decide(ground: Ground, now: dt.datetime) -> list[Remedy]:
    """Return what to do; doing it and deciding again gives nothing more."""
    found: list[Remedy] = [*_returns(ground, now)]
    touched: set[RevisionId] = {item.hold.revision_id for item in found if isinstance(item, LiftHold)}
    for suspicion in sorted(ground.suspicions, key=lambda item: (item.at, item.finding_id)):
        if suspicion.revision_id in touched or not _may_act(suspicion, ground, now):
            continue
        remedy = _drain(suspicion, ground, now) if suspicion.replica_id else _leave(suspicion, ground.fleet, now)
        if remedy is not None:
            touched.add(suspicion.revision_id)
            found.append(remedy)
    return found


def _may_act(suspicion: Suspicion, ground: Ground, now: dt.datetime) -> bool:
    until = ground.refused.get(suspicion.finding_id)
    return suspicion.sure and now - suspicion.at <= FRESH and (until is None or until <= now)


def _drain(suspicion: Suspicion, ground: Ground, now: dt.datetime) -> DrainReplica | None:
    bad = ground.fleet.replicas.get(suspicion.replica_id)
    if bad is None or bad.state is not ReplicaState.READY or not suspicion.peers_healthy:
        return None
    held = {item.worker_id for item in ground.holds if item.revision_id == suspicion.revision_id}
    last = max((item.held_at for item in ground.holds if item.revision_id == suspicion.revision_id), default=None)
    if bad.worker_id in held or (last is not None and now - last < PAUSE):
        return None
    serving = _serving(ground.fleet, suspicion.revision_id)
    suspected = {item.replica_id for item in ground.suspicions if item.revision_id == suspicion.revision_id}
    left = [item for item in serving if item.worker_id != bad.worker_id and item.replica_id not in suspected]
    gone = sum(item.worker_id == bad.worker_id for item in serving)
    total = len(serving) + len(held)
    if not left or (gone + len(held) > 1 and gone + len(held) > MOST_HELD * total):
        return None  # the last that serves, or so many that the reference is the likelier fault
    reason = f"{suspicion.reason}; {len(left)} other replicas of the revision serve on"
    return DrainReplica(
        Hold(
            worker_id=bad.worker_id,
            revision_id=suspicion.revision_id,
            model_id=suspicion.model_id,
            replica_id=bad.replica_id,
            finding_id=suspicion.finding_id,
            reason=reason,
            held_at=now,
        )
    )


def _leave(suspicion: Suspicion, fleet: Fleet, now: dt.datetime) -> LeaveRevision | None:
    """Go back to the newest earlier revision that has a ready replica."""
    revision = fleet.revisions.get(suspicion.revision_id)
    routed = [route for route in fleet.routes if route.model_id == suspicion.model_id]
    if revision is None or {route.revision_id for route in routed} != {suspicion.revision_id}:
        return None  # it has no traffic, or shares it: a rollout judges for itself
    earlier = [
        item
        for item in fleet.revisions.values()
        if item.model_id == suspicion.model_id
        and item.created_at < revision.created_at
        and now - item.created_at <= STANDS_BY
        and _serving(fleet, item.revision_id)
    ]
    if not earlier:
        return None
    back = max(earlier, key=lambda item: item.created_at)
    reason = f"{suspicion.reason}; back to revision {back.revision_id}, which stands by"
    routes = (Route(suspicion.model_id, back.revision_id, 0, BUCKETS),)
    return LeaveRevision(suspicion.model_id, suspicion.revision_id, routes, reason)


def _returns(ground: Ground, now: dt.datetime) -> list[Remedy]:
    found: list[Remedy] = []
    lifted: set[RevisionId] = set()
    for hold in sorted(ground.holds, key=lambda item: item.held_at):
        worker = ground.fleet.workers.get(hold.worker_id)
        tested_at, passed = ground.tested.get((hold.worker_id, hold.revision_id), (hold.held_at, False))
        if hold.revision_id not in ground.fleet.revisions or worker is None or worker.started_at > hold.held_at:
            # Another process, perhaps another machine: what was found of the former says nothing of it.
            found.append(LiftHold(hold, "the worker or the revision is no more what it was"))
        elif passed and tested_at > hold.held_at:
            found.append(LiftHold(hold, "the self-test passed"))
        elif (
            not _serving(ground.fleet, hold.revision_id)
            and hold.revision_id not in lifted
            and now - hold.held_at > PAUSE
        ):
            lifted.add(hold.revision_id)
            found.append(LiftHold(hold, "nothing else serves the revision: poor outputs, alerted on, beat none"))
        elif now - tested_at >= (TEST_PAUSE if tested_at > hold.held_at else FIRST_TEST):
            found.append(AskSelfTest(hold, f"held back since {hold.held_at:%H:%M} UTC; a passed self-test ends that"))
    return found


def _serving(fleet: Fleet, revision_id: RevisionId) -> list[ReplicaReport]:
    return [
        item
        for item in fleet.replicas.values()
        if item.revision_id == revision_id and item.state is ReplicaState.READY and not _is_leaving(fleet, item)
    ]


def _is_leaving(fleet: Fleet, replica: ReplicaReport) -> bool:
    return any(
        item.worker_id == replica.worker_id and item.revision_id == replica.revision_id and item.replicas == 0
        for item in fleet.placements
    )
