"""Which revisions are loaded where: the first rule, simple and replaceable. Pure.

It decides placements from the fleet, what waits, and the time: a wanted model is loaded at once where there is room,
and so is a revision that a deploy waits for; more replicas come while requests wait and room is left; when there is
none, the least recently used replica makes room (its worker drains it first, so never under a running request). It
never routes, and never counts on room before it is free. Who calls it: `capacity/loop`; its output takes effect only
through `fleet/apply`.

Against thrashing: what is just loaded stays for a floor time, longer when others wait for it too; a replica that is
still starting is never taken away; room that is being freed is waited for, not freed twice.
"""

import dataclasses
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence

from forestay.fleet.actions import Place
from forestay.fleet.model import Fleet, Placement, ReplicaReport, ReplicaState, Revision, WorkerReport
from forestay.fleet.routes import awaited
from forestay.ids import BUCKETS, ModelId, RevisionId, WorkerId

Spot = tuple[WorkerId, RevisionId]
_STARTING = frozenset({ReplicaState.SETUP})
_MAX_REPLICAS = 64
_UNROUTED_RANK, _LAST_RANK = 0, 4  # of victims, least valuable first: see `_rank`
_MAX_ROUNDS = 1_000


@dataclasses.dataclass(frozen=True, slots=True)
class Waiting:
    """The queue of one model: how many wait, since when the first of them, and when the model last had a replica."""

    count: int
    since: dt.datetime
    served_at: dt.datetime | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Rules:
    """Times of the rule; seconds."""

    dead_after_seconds: float = 45.0  # three leases without a sign of life
    demand_seconds: float = 60.0  # how long a direct call that found nothing counts, unless it is served before
    floor_seconds: float = 5.0  # a replica stays at least this long after it became ready or was used
    contested_floor_seconds: float = 30.0  # ... when requests wait for it as well
    grow_after_seconds: float = 2.0  # a request that has waited this long is worth another replica
    unrouted_seconds: float = 600.0  # a revision that no route names is unloaded when unused this long
    held: frozenset[Spot] = frozenset()  # what quality holds back: no replica more is placed there


def decide_dead(fleet: Fleet, now: dt.datetime, rules: Rules | None = None) -> list[WorkerId]:
    """Name the workers not heard of for so long that they hold nothing any more."""
    limit = (rules or Rules()).dead_after_seconds
    return sorted(key for key, worker in fleet.workers.items() if _age(now, worker.seen_at) > limit)


def decide_placement(
    fleet: Fleet, backlog: Mapping[ModelId, Waiting], now: dt.datetime, rules: Rules | None = None
) -> list[Place]:
    """Return the placements that should change; an empty list when all is as it should be."""
    found: dict[Spot, Place] = {}
    for _ in range(_MAX_ROUNDS):  # until it agrees with itself: each round loads, grows or takes something, which ends
        actions = _decide_round(fleet, backlog, now, rules or Rules())
        if not actions:
            break
        found.update({(item.worker_id, item.revision_id): item for item in actions})
        fleet = _with(fleet, actions)
    return [found[spot] for spot in sorted(found, key=lambda spot: (found[spot].replicas > 0, spot))]


def _decide_round(fleet: Fleet, backlog: Mapping[ModelId, Waiting], now: dt.datetime, rules: Rules) -> list[Place]:
    plan = _Plan(fleet, backlog, now, rules)
    loaded = [plan.load(revision) or plan.is_awaited(revision) for revision in plan.missing()]
    if all(loaded):  # a deploy that waits for room holds nobody up: the room promised to it is taken into account
        plan.grow()
    plan.unload_unrouted()
    return plan.changes()


def _with(fleet: Fleet, actions: Sequence[Place]) -> Fleet:
    changed = {(item.worker_id, item.revision_id): item for item in actions}
    kept = [item for item in fleet.placements if (item.worker_id, item.revision_id) not in changed]
    added = [Placement(item.worker_id, item.revision_id, item.replicas, item.reason, item.ending) for item in actions]
    return dataclasses.replace(fleet, placements=(*kept, *added))


class _Plan:
    """The decision in the making: wanted counts per spot, over what is held now."""

    def __init__(self, fleet: Fleet, backlog: Mapping[ModelId, Waiting], now: dt.datetime, rules: Rules) -> None:
        self._fleet = fleet
        self._backlog = backlog
        self._now = now
        self._rules = rules
        dead = set(decide_dead(fleet, now, rules))
        self._workers = {
            key: item for key, item in sorted(fleet.workers.items()) if key not in dead and item.state == "ready"
        }
        self._before: dict[Spot, int] = {}
        for item in fleet.placements:
            if item.worker_id in self._workers and item.revision_id in fleet.revisions:
                self._before[item.worker_id, item.revision_id] = item.replicas
        self._wanted = dict(self._before)
        self._reasons: dict[Spot, str] = {}
        self._promised: dict[WorkerId, list[Revision]] = {}  # room being freed, and for whom
        self._reports: dict[Spot, list[ReplicaReport]] = {}
        for report in sorted(fleet.replicas.values(), key=lambda item: item.replica_id):
            if report.worker_id in self._workers and report.state is not ReplicaState.STOPPED:
                self._reports.setdefault((report.worker_id, report.revision_id), []).append(report)

    # What is wanted ------------------------------------------------------------------------------------------------
    def missing(self) -> Iterator[Revision]:
        """Yield wanted revisions that are placed nowhere, routed or deployed; who has waited longest comes first."""
        found: list[tuple[dt.datetime, int, Revision]] = []
        for planned in self._fleet.pending.values():
            revision = self._fleet.revisions.get(planned.revision_id)
            if revision is not None and self.is_awaited(revision) and not self._is_held(planned.revision_id):
                found.append((planned.since, 0, revision))
        for model_id, revision_id, share in self._shares():
            since = self._wished_since(model_id)
            revision = self._fleet.revisions.get(revision_id)
            if since is not None and revision is not None and not self._is_held(revision_id):
                found.append((since, -share, revision))
        yield from (item[2] for item in sorted(found, key=lambda item: (item[0], item[1], item[2].revision_id)))

    def _wished_since(self, model_id: ModelId) -> dt.datetime | None:
        """Return since when the model is wanted: by the queue, by a direct call, or since it changed its revision."""
        moments: list[dt.datetime] = []
        waiting = self._backlog.get(model_id)
        if waiting is not None and waiting.count > 0:
            moments.append(max(waiting.since, waiting.served_at or waiting.since))  # turns: the unserved come first
        asked_at = self._fleet.demand.get(model_id)
        if asked_at is not None and _age(self._now, asked_at) <= self._rules.demand_seconds:
            moments.append(asked_at)
        others = [spot for spot, count in self._wanted.items() if count > 0 and self._model_of(spot) == model_id]
        if any(awaited(self._fleet, spot[1]) is None for spot in others):
            moments.append(self._now)  # another revision is loaded: hand over before the first caller has to wait
        return min(moments, default=None)

    def _shares(self) -> list[tuple[ModelId, RevisionId, int]]:
        shares: dict[tuple[ModelId, RevisionId], int] = {}
        for route in self._fleet.routes:
            key = (route.model_id, route.revision_id)
            shares[key] = shares.get(key, 0) + route.bucket_to - route.bucket_from
        return sorted((model_id, revision_id, share) for (model_id, revision_id), share in shares.items())

    def is_awaited(self, revision: Revision) -> bool:
        """Tell whether a deploy waits for a replica of it, while another revision has the traffic."""
        return awaited(self._fleet, revision.revision_id) is not None

    # Loading -------------------------------------------------------------------------------------------------------
    def load(self, revision: Revision) -> bool:
        """Place one replica, or begin to make room for it; False when it has to wait for room."""
        worker = self._roomiest(revision)
        if worker is not None:
            self._want(worker, revision, 1, f"{revision.model_id} is wanted and loaded nowhere")
            return True
        for candidate in self._workers.values():
            if self._fits(candidate, revision, later=True):
                self._promised.setdefault(candidate.worker_id, []).append(revision)
                return False
        self._make_room(revision)
        return False

    def _make_room(self, revision: Revision, worst_rank: int = _LAST_RANK) -> None:
        """Take what is worth least on one worker, nothing above `worst_rank`."""
        choices: list[tuple[tuple[int, dt.datetime, int, WorkerId], list[Spot]]] = []
        for worker in self._workers.values():
            victims = self._victims(worker, revision)
            if victims:
                worst = max(self._rank(spot) for spot in victims)
                if worst[0] > worst_rank:
                    continue
                choices.append(((*worst, len(victims), worker.worker_id), victims))
        if not choices:
            return
        (_, _, _, worker_id), victims = min(choices)
        for spot in victims:
            self._want(
                self._workers[spot[0]],
                self._fleet.revisions[spot[1]],
                self._wanted[spot] - 1,
                f"least recently used; makes room for {revision.model_id}",
            )
        self._promised.setdefault(worker_id, []).append(revision)

    def _victims(self, worker: WorkerReport, revision: Revision) -> list[Spot]:
        """Return spots (one entry per replica to give up) that make room on this worker, least valuable first."""
        if not _could_hold(worker, revision):
            return []
        before, victims = dict(self._wanted), list[Spot]()
        try:
            spots = [spot for spot in before if spot[0] == worker.worker_id and self._may_take(spot, revision)]
            candidates = sorted(spots, key=self._rank)
            for spot in candidates:
                for _ in range(self._removable(spot, revision)):
                    victims.append(spot)
                    self._wanted[spot] -= 1
                    if self._fits(worker, revision, later=True):
                        return victims
            return []
        finally:
            self._wanted = before

    def _may_take(self, spot: Spot, revision: Revision) -> bool:
        """Tell whether the spot may make room: a deploy takes what requests wait for from its own model alone."""
        own = self._model_of(spot) == revision.model_id
        return own or not self.is_awaited(revision) or not self._is_waited_for(spot[1])

    def _removable(self, spot: Spot, revision: Revision) -> int:
        """Return how many replicas of the spot may go now: those past their floor, or failing to start.

        A deploy takes no replica that came after it: what had to come back meanwhile is not taken again, so that a
        revision which does not start unsettles its pool once, not for as long as it is waited for.
        """
        plan = awaited(self._fleet, revision.revision_id)
        contested = self._is_waited_for(spot[1])
        floor = self._rules.contested_floor_seconds if contested else self._rules.floor_seconds
        free = 0
        for report in self._reports.get(spot, []):
            if plan is not None and report.started_at >= plan.since:
                continue
            if report.state is ReplicaState.BACKOFF:
                free += 1
            elif report.state is ReplicaState.READY:
                since = report.ready_at or report.started_at
                moment = since if contested else max(since, report.last_used_at or since)
                free += _age(self._now, moment) >= floor
        return min(free, self._wanted.get(spot, 0))

    def _rank(self, spot: Spot) -> tuple[int, dt.datetime]:
        """Order victims: unrouted, failing, surplus, then by last use; those that requests wait for come last."""
        reports = self._reports.get(spot, [])
        used = [item.last_used_at or item.ready_at or item.started_at for item in reports]
        last_used = max(used, default=self._now)
        if not self._is_named(spot[1]):
            return _UNROUTED_RANK, last_used
        if reports and all(item.state is ReplicaState.BACKOFF for item in reports):
            return 1, last_used
        if self._is_waited_for(spot[1]):
            return (3 if self._count(spot[1]) > 1 else _LAST_RANK), last_used
        return 2, last_used

    # Growing and shrinking -----------------------------------------------------------------------------------------
    def grow(self) -> None:
        """Add a replica for each revision that requests wait for, where room is left and none is still starting.

        What no route names any more makes room for it: after a deploy the new revision grows as the old one goes.
        """
        for model_id, revision_id, share in self._shares():
            waiting, revision = self._backlog.get(model_id), self._fleet.revisions.get(revision_id)
            spots = self._spots_of(revision_id)
            if waiting is None or revision is None or not spots or not all(self._is_settled(spot) for spot in spots):
                continue
            count = waiting.count * share / BUCKETS
            slots = sum(report.slots for spot in spots for report in self._reports[spot])
            if count > slots or (count > 0 and _age(self._now, waiting.since) > self._rules.grow_after_seconds):
                worker = self._roomiest(revision)
                if worker is not None:
                    wanted = self._wanted.get((worker.worker_id, revision_id), 0) + 1
                    self._want(worker, revision, wanted, f"{waiting.count} requests of {model_id} wait")
                elif not any(self._fits(item, revision, later=True) for item in self._workers.values()):
                    self._make_room(revision, _UNROUTED_RANK)

    def _is_settled(self, spot: Spot) -> bool:
        """Tell whether all that is wanted there is up."""
        reports = self._reports.get(spot, [])
        return len(reports) == self._wanted[spot] and all(item.state is ReplicaState.READY for item in reports)

    def unload_unrouted(self) -> None:
        """Unload what no route names and nobody has used for long."""
        for spot, count in sorted(self._wanted.items()):
            reports = self._reports.get(spot, [])
            if count == 0 or self._is_named(spot[1]):
                continue
            worker, revision = self._workers[spot[0]], self._fleet.revisions[spot[1]]
            plan = self._fleet.pending.get(revision.model_id)
            if plan is not None and plan.revision_id == spot[1]:
                self._want(worker, revision, 0, "its deploy was given up")
                continue
            if any(item.state in _STARTING for item in reports):
                continue
            used = [item.last_used_at or item.ready_at or item.started_at for item in reports]
            if used and _age(self._now, max(used)) > self._rules.unrouted_seconds:
                self._want(worker, revision, 0, f"no route names it, unused for {self._rules.unrouted_seconds:g} s")

    # Room ----------------------------------------------------------------------------------------------------------
    def _roomiest(self, revision: Revision) -> WorkerReport | None:
        """Return the worker where it fits best: not yet holding it, then with the least room left over."""
        fitting = [item for item in self._workers.values() if self._fits(item, revision, later=False)]
        spot_count = {item.worker_id: self._wanted.get((item.worker_id, revision.revision_id), 0) for item in fitting}
        fitting = [item for item in fitting if spot_count[item.worker_id] < _MAX_REPLICAS]
        return min(
            fitting,
            key=lambda item: (
                spot_count[item.worker_id],
                item.devices - self._used(item, later=False)[0],
                item.worker_id,
            ),
            default=None,
        )

    def _fits(self, worker: WorkerReport, revision: Revision, *, later: bool) -> bool:
        """Tell whether one more replica fits: now, or once everything that is to go has gone."""
        if not _could_hold(worker, revision) or (worker.worker_id, revision.revision_id) in self._rules.held:
            return False
        devices, memory = self._used(worker, later=later)
        resources = revision.spec.resources
        has_memory = worker.memory_mb <= 0 or memory + resources.memory_mb <= worker.memory_mb
        return devices + resources.devices <= worker.devices and has_memory

    def _used(self, worker: WorkerReport, *, later: bool) -> tuple[int, int]:
        """Return devices and memory in use: by what is wanted, by what still runs (unless `later`), by promises."""
        devices = memory = 0
        spots = {spot for spot in (*self._wanted, *self._reports) if spot[0] == worker.worker_id}
        for spot in spots:
            revision = self._fleet.revisions.get(spot[1])
            if revision is None:
                continue
            held = 0 if later else len(self._reports.get(spot, []))
            count = max(self._wanted.get(spot, 0), held)
            devices += count * revision.spec.resources.devices
            memory += count * revision.spec.resources.memory_mb
        for revision in self._promised.get(worker.worker_id, []):
            devices += revision.spec.resources.devices
            memory += revision.spec.resources.memory_mb
        return devices, memory

    # Small questions -----------------------------------------------------------------------------------------------
    def _spots_of(self, revision_id: RevisionId) -> list[Spot]:
        return [spot for spot, count in self._wanted.items() if spot[1] == revision_id and count > 0]

    def _is_held(self, revision_id: RevisionId) -> bool:
        """Tell whether it is placed, or still up: what was just taken away is not wanted again before it drains."""
        return bool(self._spots_of(revision_id)) or any(
            report.state is not ReplicaState.DRAINING
            for spot, reports in self._reports.items()
            for report in reports
            if spot[1] == revision_id
        )

    def _count(self, revision_id: RevisionId) -> int:
        return sum(self._wanted[spot] for spot in self._spots_of(revision_id))

    def _model_of(self, spot: Spot) -> ModelId:
        return self._fleet.revisions[spot[1]].model_id

    def _is_routed(self, revision_id: RevisionId) -> bool:
        return any(route.revision_id == revision_id for route in self._fleet.routes)

    def _is_named(self, revision_id: RevisionId) -> bool:
        """Tell whether a route names it, or a deploy that waits for it."""
        return self._is_routed(revision_id) or awaited(self._fleet, revision_id) is not None

    def _is_waited_for(self, revision_id: RevisionId) -> bool:
        waiting = self._backlog.get(self._fleet.revisions[revision_id].model_id)
        return waiting is not None and waiting.count > 0 and self._is_routed(revision_id)

    def _want(self, worker: WorkerReport, revision: Revision, replicas: int, reason: str) -> None:
        spot = (worker.worker_id, revision.revision_id)
        self._wanted[spot] = replicas
        self._reasons[spot] = reason

    def changes(self) -> list[Place]:
        """Return what differs from the placements as they are."""
        return [
            Place(spot[0], spot[1], count, self._reasons[spot])
            for spot, count in sorted(self._wanted.items())
            if count != self._before.get(spot, 0)
        ]


def _could_hold(worker: WorkerReport, revision: Revision) -> bool:
    resources = revision.spec.resources
    fits_memory = worker.memory_mb <= 0 or resources.memory_mb <= worker.memory_mb
    return worker.pool == resources.pool and resources.devices <= worker.devices and fits_memory


def _age(now: dt.datetime, then: dt.datetime) -> float:
    return (now - then).total_seconds()
