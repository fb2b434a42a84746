"""What follows from what was found: which replica is drained, which revision is left, what comes back. Pure.

One bad replica beside healthy ones is drained alone: its worker keeps the others, and gets none more of the revision
until a fresh one has passed a self-test. All replicas of the revision on a worker go where another of them is ill too,
where the fresh one draws otherwise as well, where it comes again within the hour, or where the device is at fault.
Where every replica of a new revision is bad and an older one still stands by, traffic goes back to that. It never takes
the last replica that serves, nor more than `MOST_HELD` of a revision's, nor two at a time: a bad reference, or a bad
detector, looks like many bad replicas. Where nothing else serves any more, what is held back returns: poor outputs that
are alerted on beat none. The brakes of `fleet/apply` hold besides. Called by `loop`.
"""

import dataclasses
import datetime as dt
from collections.abc import Collection, Iterator, Mapping, Sequence

from forestay.fleet.apply import MAX_REPLICAS
from forestay.fleet.model import Fleet, Placement, ReplicaReport, ReplicaState, Route
from forestay.ids import BUCKETS, ModelId, ReplicaId, RevisionId
from forestay.quality.canary_store import SelfTested, Spot
from forestay.quality.watch_store import Hold

MOST_HELD = 0.34  # of a revision's replicas
FRESH = dt.timedelta(minutes=15)  # older suspicions ask for nothing
PAUSE = dt.timedelta(seconds=60)  # between two drains of one revision
FIRST_TEST = dt.timedelta(minutes=1)  # after all of a worker were drained: what ails a device may pass
FIRST_TEST_ALONE = dt.timedelta(seconds=5)  # after one was: its siblings serve on that device all the while
TEST_PAUSE = dt.timedelta(minutes=5)  # between two self-tests of one worker
TRIAL = dt.timedelta(minutes=5)  # how long one is held back alone where no canaries test a fresh one
AGAIN = dt.timedelta(hours=1)  # after a hold ended: the same on the same worker is no matter of one process
GIVEN_BACK = dt.timedelta(minutes=10)  # after a hold ended, what it took away is wanted again, if it is at all
GONE = dt.timedelta(days=1)  # a worker that is not there: what a person drained on it is over
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
    of_device: bool = False  # the device is at fault, whichever process runs on it


@dataclasses.dataclass(frozen=True, slots=True)
class DrainReplica:
    """Take a replica out, alone or with all on its worker, and give that worker no other; `left`: how many it keeps."""

    hold: Hold
    left: int

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


@dataclasses.dataclass(frozen=True, slots=True)
class GiveBack:
    """Want as many replicas of a revision on a worker as before a hold that is over."""

    hold: Hold
    replicas: int
    reason: str


Remedy = DrainReplica | LeaveRevision | AskSelfTest | LiftHold | GiveBack


@dataclasses.dataclass(frozen=True, slots=True)
class Ground:
    """Everything that the decision looks at."""

    fleet: Fleet
    suspicions: Sequence[Suspicion]
    holds: Sequence[Hold]  # in force
    tested: Mapping[Spot, SelfTested] = dataclasses.field(default_factory=dict[Spot, SelfTested])  # the last self-tests
    refused: Mapping[str, dt.datetime] = dataclasses.field(default_factory=dict[str, dt.datetime])  # finding -> until
    lifted: Sequence[Hold] = ()  # within the last `AGAIN`


def decide(ground: Ground, now: dt.datetime) -> list[Remedy]:
    """Return what to do; doing it and deciding again gives nothing more."""
    found: list[Remedy] = [*_returns(ground, now), *_gives_back(ground, now)]
    touched: set[RevisionId] = {item.hold.revision_id for item in found if isinstance(item, LiftHold)}
    drains: list[Remedy] = list(_widened(ground, now))
    for suspicion in sorted(ground.suspicions, key=lambda item: (item.at, item.finding_id)):
        if not _may_act(suspicion, ground, now):
            continue
        remedy = _drain(suspicion, ground, now) if suspicion.replica_id else _leave(suspicion, ground.fleet, now)
        drains += [remedy] if remedy is not None else []
    for remedy in drains:
        revision_id = remedy.revision_id if isinstance(remedy, LeaveRevision) else remedy.hold.revision_id
        if revision_id not in touched:
            touched.add(revision_id)
            found.append(remedy)
    return found


def _may_act(suspicion: Suspicion, ground: Ground, now: dt.datetime) -> bool:
    return suspicion.sure and now - suspicion.at <= FRESH and not _is_refused(suspicion.finding_id, ground, now)


def _is_refused(finding_id: str, ground: Ground, now: dt.datetime) -> bool:
    until = ground.refused.get(finding_id)
    return until is not None and until > now


# Draining --------------------------------------------------------------------------------------------------------
def drain_asked_for(replica: ReplicaReport, fleet: Fleet, reason: str, now: dt.datetime) -> DrainReplica:
    """Return how one replica is drained by a person's word: alone where its worker has others of the revision."""
    siblings = [item for item in fleet.replicas.values() if _spot(item) == _spot(replica) and item != replica]
    staying = sum(not is_leaving(item, fleet) for item in siblings)
    hold = Hold(
        worker_id=replica.worker_id,
        revision_id=replica.revision_id,
        model_id=replica.model_id,
        replica_id=replica.replica_id,
        finding_id="",
        reason=reason,
        held_at=now,
        alone=staying > 0,
    )
    return DrainReplica(hold, max(staying, _placed(fleet, _spot(replica)) - 1) if staying else 0)


def is_last(replica: ReplicaReport, fleet: Fleet) -> bool:
    """Tell whether a revision that has traffic would be left without a replica that serves."""
    routed = any(route.revision_id == replica.revision_id for route in fleet.routes)
    return routed and not any(item != replica for item in _serving(fleet, replica.revision_id))


def _drain(suspicion: Suspicion, ground: Ground, now: dt.datetime) -> DrainReplica | None:
    """Drain one replica, or all on its worker; where a brake holds the second, the first alone."""
    bad = ground.fleet.replicas.get(suspicion.replica_id)
    if bad is None or bad.state is not ReplicaState.READY or not suspicion.peers_healthy:
        return None
    spot = (bad.worker_id, bad.revision_id)
    known = any(_spot(item) == spot and (not item.alone or item.replica_id == bad.replica_id) for item in ground.holds)
    if known or _was_just_now(bad.revision_id, ground, now):
        return None
    hold = Hold(
        worker_id=bad.worker_id,
        revision_id=suspicion.revision_id,
        model_id=suspicion.model_id,
        replica_id=bad.replica_id,
        finding_id=suspicion.finding_id,
        reason=suspicion.reason,
        held_at=now,
    )
    siblings = [item for item in _serving(ground.fleet, bad.revision_id) if _spot(item) == spot and item != bad]
    why = _why_all(suspicion, siblings, ground)
    whole = _all_of(hold, why, ground) if why is not None else None
    return whole or (_one_of(hold, len(siblings), ground) if siblings else None)


def _why_all(suspicion: Suspicion, siblings: Sequence[ReplicaReport], ground: Ground) -> str | None:
    """Return why all replicas of the revision on the worker go; None: the one alone does."""
    if not siblings:
        return ""
    if suspicion.of_device:
        return "the device is at fault"
    names = {item.replica_id for item in siblings}
    ill = {item.replica_id for item in ground.suspicions if item.sure and item.replica_id in names}
    if ill:
        return f"{len(ill)} of {len(siblings)} others of the revision on the worker are ill too"
    worker_id = siblings[0].worker_id
    begun = ground.fleet.workers[worker_id].started_at if worker_id in ground.fleet.workers else None
    spot = (worker_id, suspicion.revision_id)
    known = [item for item in (*ground.holds, *ground.lifted) if _spot(item) == spot]
    before = [item.held_at for item in known if begun is not None and begun <= item.held_at]
    if before:
        return f"another of the revision on the worker was ill at {max(before):%H:%M} UTC"
    return None


def _widened(ground: Ground, now: dt.datetime) -> Iterator[DrainReplica]:
    """Drain the siblings of what is held back alone where a fresh replica on the worker was ill too."""
    wide = {_spot(item) for item in ground.holds if not item.alone}
    for spot, hold in sorted(_newest(ground.holds).items()):
        tested = ground.tested.get(spot)
        if hold.by_person or spot in wide or tested is None or not tested.differed or tested.at <= hold.held_at:
            continue
        siblings = any(_spot(item) == spot for item in _serving(ground.fleet, hold.revision_id))
        if not siblings or _was_just_now(hold.revision_id, ground, now) or _is_refused(hold.finding_id, ground, now):
            continue
        why = "a fresh replica on the worker draws otherwise too"
        remedy = _all_of(dataclasses.replace(hold, held_at=now), why, ground)
        if remedy is not None:
            yield remedy


def _all_of(hold: Hold, why: str, ground: Ground) -> DrainReplica | None:
    spot = _spot(hold)
    going = {item.replica_id for item in _serving(ground.fleet, hold.revision_id) if _spot(item) == spot}
    left = _left_without(going, hold.revision_id, ground)
    if not left:
        return None
    because = f"{why}; " if why else ""
    reason = f"{hold.reason}; {because}{left} other replicas of the revision serve on"
    taken = max(len(going), _placed(ground.fleet, spot))
    return DrainReplica(dataclasses.replace(hold, alone=False, replicas=taken, reason=reason), 0)


def _one_of(hold: Hold, siblings: int, ground: Ground) -> DrainReplica | None:
    left = _left_without({hold.replica_id}, hold.revision_id, ground)
    if not left:
        return None
    kept = f"{siblings} of the revision stay on the worker, which gets none more before a fresh one is tested"
    reason = f"{hold.reason}; {left} other replicas of the revision serve on; {kept}"
    stays = max(siblings, _placed(ground.fleet, _spot(hold)) - 1)
    return DrainReplica(dataclasses.replace(hold, alone=True, replicas=1, reason=reason), stays)


def _left_without(going: Collection[ReplicaId], revision_id: RevisionId, ground: Ground) -> int:
    """Return how many replicas of a revision serve on that nobody suspects; 0 where a brake holds.

    It holds the last that serve, and so many that the reference is the likelier fault.
    """
    serving = _serving(ground.fleet, revision_id)
    suspected = {item.replica_id for item in ground.suspicions if item.revision_id == revision_id}
    left = sum(item.replica_id not in going and item.replica_id not in suspected for item in serving)
    held = sum(item.replicas for item in ground.holds if item.revision_id == revision_id)
    gone = held + sum(item.replica_id in going for item in serving)
    return 0 if gone > 1 and gone > MOST_HELD * (len(serving) + held) else left


def _was_just_now(revision_id: RevisionId, ground: Ground, now: dt.datetime) -> bool:
    return any(item.revision_id == revision_id and now - item.held_at < PAUSE for item in ground.holds)


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


# Coming back -----------------------------------------------------------------------------------------------------
def _returns(ground: Ground, now: dt.datetime) -> list[Remedy]:
    found: list[Remedy] = []
    alive: set[RevisionId] = set()  # revisions of which one worker is let go already
    for spot, hold in sorted(_newest(ground.holds).items(), key=lambda item: (item[1].held_at, item[0])):
        if any(item.by_person for item in ground.holds if _spot(item) == spot):
            why = _why_moot(hold, ground, now)
            found += [LiftHold(item, why) for item in ground.holds if _spot(item) == spot and why]
            continue
        why = _why_lifted(hold, ground, now)
        if not why and hold.revision_id not in alive and _is_missed(hold, ground, now):
            alive.add(hold.revision_id)
            why = "nothing else serves the revision: poor outputs, alerted on, beat none"
        if why:
            found += [LiftHold(item, why) for item in ground.holds if _spot(item) == spot]
        elif _is_test_due(hold, ground, now):
            found.append(AskSelfTest(hold, f"held back since {hold.held_at:%H:%M} UTC; a passed self-test ends that"))
    return found


def _why_moot(hold: Hold, ground: Ground, now: dt.datetime) -> str:
    """Return why what a person drained is over without a word: a worker that only starts anew is held back still."""
    if hold.revision_id not in ground.fleet.revisions:
        return "the revision is no more"
    gone = hold.worker_id not in ground.fleet.workers and now - hold.held_at > GONE
    return "the worker is no more" if gone else ""


def _why_lifted(hold: Hold, ground: Ground, now: dt.datetime) -> str:
    worker, tested = ground.fleet.workers.get(hold.worker_id), ground.tested.get(_spot(hold))
    if hold.revision_id not in ground.fleet.revisions or worker is None or worker.started_at > hold.held_at:
        # Another process, perhaps another machine: what was found of the former says nothing of it.
        return "the worker or the revision is no more what it was"
    if tested is not None and tested.passed and tested.at > hold.held_at:
        return "the self-test passed"
    if hold.alone and not _has_canaries(hold, ground) and now - hold.held_at >= TRIAL:
        return "no canaries test a fresh replica: it may serve, and its outputs are followed"
    return ""


def _is_missed(hold: Hold, ground: Ground, now: dt.datetime) -> bool:
    return not _serving(ground.fleet, hold.revision_id) and now - hold.held_at > PAUSE


def _is_test_due(hold: Hold, ground: Ground, now: dt.datetime) -> bool:
    tested = ground.tested.get(_spot(hold))
    if tested is not None and tested.at > hold.held_at:
        return now - tested.at >= TEST_PAUSE
    if hold.alone:
        return _has_canaries(hold, ground) and now - hold.held_at >= FIRST_TEST_ALONE
    return now - hold.held_at >= FIRST_TEST


def _has_canaries(hold: Hold, ground: Ground) -> bool:
    return bool(ground.fleet.revisions[hold.revision_id].spec.quality.canaries.inputs)


def given_back(over: Sequence[Hold], fleet: Fleet, now: dt.datetime) -> list[GiveBack]:
    """Return what is wanted again of holds that a person has just ended."""
    return list(_gives_back(Ground(fleet, [], [], lifted=over), now))


def _gives_back(ground: Ground, now: dt.datetime) -> Iterator[GiveBack]:
    """Want again what holds took away that are over, where the revision has traffic and the worker has room.

    Whoever else has placed something there since knows better: then it is left as it is.
    """
    held = {_spot(item) for item in ground.holds}
    over = [item for item in ground.lifted if not item.given_back and _spot(item) not in held]
    for spot, hold in sorted(_newest(over).items()):
        lifted_at = hold.lifted_at or now
        routed = any(route.revision_id == hold.revision_id for route in ground.fleet.routes)
        if not routed or now - lifted_at > GIVEN_BACK or _is_refused(hold.finding_id, ground, now):
            continue
        told = _placement(ground.fleet, spot)
        taken = sum(item.replicas for item in over if _spot(item) == spot and item.lifted_at == hold.lifted_at)
        more = min(taken, _room(hold, ground.fleet))
        if more > 0 and (told is None or told.reason == hold.reason):
            wanted = more + (told.replicas if told is not None else 0)
            yield GiveBack(hold, wanted, f"given back after a hold that ended at {lifted_at:%H:%M} UTC")


def _room(hold: Hold, fleet: Fleet) -> int:
    """Return how many replicas of a held revision its worker could hold beside all that it is asked for."""
    worker, revision = fleet.workers.get(hold.worker_id), fleet.revisions.get(hold.revision_id)
    if worker is None or revision is None:
        return 0
    asked = [
        (item.replicas, fleet.revisions[item.revision_id].spec.resources)
        for item in fleet.placements
        if item.worker_id == hold.worker_id and item.revision_id in fleet.revisions
    ]
    needs, most = revision.spec.resources, MAX_REPLICAS
    if needs.devices:
        most = min(most, (worker.devices - sum(count * one.devices for count, one in asked)) // needs.devices)
    if worker.memory_mb and needs.memory_mb:
        most = min(most, (worker.memory_mb - sum(count * one.memory_mb for count, one in asked)) // needs.memory_mb)
    return max(0, most)


# Small questions -------------------------------------------------------------------------------------------------
def _spot(item: Hold | ReplicaReport) -> Spot:
    return item.worker_id, item.revision_id


def _newest(holds: Sequence[Hold]) -> dict[Spot, Hold]:
    return {_spot(item): item for item in sorted(holds, key=lambda item: item.held_at)}


def _placement(fleet: Fleet, spot: Spot) -> Placement | None:
    return next((item for item in fleet.placements if (item.worker_id, item.revision_id) == spot), None)


def _placed(fleet: Fleet, spot: Spot) -> int:
    placement = _placement(fleet, spot)
    return placement.replicas if placement is not None else 0


def _serving(fleet: Fleet, revision_id: RevisionId) -> list[ReplicaReport]:
    return [
        item
        for item in fleet.replicas.values()
        if item.revision_id == revision_id and item.state is ReplicaState.READY and not is_leaving(item, fleet)
    ]


def is_leaving(replica: ReplicaReport, fleet: Fleet) -> bool:
    """Tell whether a replica was told to end already."""
    placement = _placement(fleet, _spot(replica))
    return placement is not None and (placement.replicas == 0 or replica.replica_id in placement.ending)
