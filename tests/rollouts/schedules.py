"""A small world in which a rollout runs while controllers are killed, stall and lose answers.

The tests and the bench play it. Each story is a kind of candidate, or of person who interferes; each schedule says
which I/O of which run fails and how. After every change of the routes, and at the end, the promises of
`rollouts/decide` are checked.
"""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import enum
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from tests.conformance.fleet_values import DIGITS, deploy, register, replica_of, revision_of, route_all, worker_of
from tests.conformance.memory_rollouts import MemoryRolloutFacts
from tests.conformance.memory_shadow import MemoryShadowStore
from tests.rollouts.shadow_values import compared

from forestay.errors import Unavailable
from forestay.fleet.actions import Action, Decided, Freeze, Origin, PlanRoute
from forestay.fleet.audit import AuditEntry
from forestay.fleet.model import Fleet, Route
from forestay.fleet.routes import wrong_routes
from forestay.fleet.store import FleetStore
from forestay.ids import BUCKETS, ModelId, RequestId, bucket_of
from forestay.rollouts.canary.model import Mark, Policy
from forestay.rollouts.model import (
    TERMINAL,
    Begun,
    Cursor,
    JournalEntry,
    Order,
    Rollout,
    RolloutPolicy,
    Stage,
    begin,
)
from forestay.rollouts.observe import FinishedRequest
from forestay.rollouts.shadow.model import Pair, ShadowPolicy
from forestay.rollouts.shadow.store import ShadowStore
from forestay.rollouts.steer import SteeringLoop
from forestay.rollouts.store import RolloutFacts, RolloutStore

T = TypeVar("T")
OLD, NEW, OTHER = revision_of("digits-1"), revision_of("digits-2"), revision_of("digits-3")
HUMAN = {"origin": Origin.HUMAN, "actor": "human:k1"}
MOST_TICKS = 60
PER_TICK = 24
_STALL_TICKS = 3
QUICK = RolloutPolicy(
    canary=Policy(
        marks=(Mark("errors", "failed", 1.0, margin=0.5, costs_budget=True),),
        steps=(10.0, 50.0),
        step_seconds=0.0,
        step_requests=4,
        allowance=1_000.0,
        look_ahead_seconds=0.0,
    ),
    gate_seconds=20.0,
    settle_seconds=0.0,
    missing_seconds=0.0,
    watch_percent=90.0,
    watch_seconds=0.0,
)


class Fault(enum.StrEnum):
    """How one I/O fails."""

    KILLED_BEFORE = "killed before it"
    KILLED_AFTER = "killed after it"
    AWAY = "the store does not answer"
    ANSWER_LOST = "done, but the answer is lost"
    STALLED = "asleep before it, while another controller goes on"


class Story(enum.StrEnum):
    """What kind of rollout it is."""

    GOOD = "a good candidate"
    BAD = "a candidate that fails"
    LATE = "one that fails once it has half of the traffic"
    SILENT = "one that never starts"
    GONE = "one whose replicas vanish"
    ABORTED = "a person aborts"
    PROMOTED = "a person promotes"
    PAUSED = "a person pauses and goes on"
    OVERTAKEN = "a person sets other routes"
    FROZEN = "a person freezes the fleet for a while"
    SHADOWED = "a good candidate that is compared first"
    DIFFERENT = "one that differs in its shadow"


class Killed(BaseException):
    """The controller died."""


@dataclasses.dataclass
class Schedule:
    """Which I/O, counted over the whole story, fails how."""

    faults: Mapping[int, Fault]
    seed: int = 0
    operations: int = 0
    stalls: "asyncio.Queue[asyncio.Event]" = dataclasses.field(default_factory=asyncio.Queue)

    async def through(self, call: Callable[[], Awaitable[T]]) -> T:
        """Do one I/O as the schedule has it."""
        fault = self.faults.get(self.operations)
        self.operations += 1
        if fault is Fault.KILLED_BEFORE:
            raise Killed
        if fault is Fault.AWAY:
            raise Unavailable("the schedule says so")
        if fault is Fault.STALLED:
            woken = asyncio.Event()
            self.stalls.put_nowait(woken)
            await woken.wait()
        result = await call()
        if fault is Fault.KILLED_AFTER:
            raise Killed
        if fault is Fault.ANSWER_LOST:
            raise Unavailable("the schedule says so")
        return result


class _Fleet:
    """The part of a fleet store that the loop uses, under a schedule."""

    def __init__(self, inner: FleetStore, schedule: Schedule, watch: Callable[[], Awaitable[None]]) -> None:
        self._inner = inner
        self._schedule = schedule
        self._watch = watch

    async def load(self) -> Fleet:
        return await self._schedule.through(self._inner.load)

    async def apply(self, actions: Sequence[Action], *, origin: Origin, actor: str) -> list[Decided]:
        async def do() -> list[Decided]:
            decided = await self._inner.apply(actions, origin=origin, actor=actor)
            await self._watch()
            return decided

        return await self._schedule.through(do)


class _Rollouts:
    """The part of a rollout store that the loop uses, under a schedule."""

    def __init__(self, inner: RolloutStore, schedule: Schedule) -> None:
        self._inner = inner
        self._schedule = schedule

    async def open(self) -> list[Rollout]:
        return await self._schedule.through(self._inner.open)

    async def save(self, rollout: Rollout, entry: JournalEntry | None = None, audit: AuditEntry | None = None) -> bool:
        return await self._schedule.through(lambda: self._inner.save(rollout, entry, audit))


class _Facts:
    """Facts under a schedule."""

    def __init__(self, inner: RolloutFacts, schedule: Schedule) -> None:
        self._inner = inner
        self._schedule = schedule

    async def after(self, model_id: ModelId, cursor: Cursor, limit: int) -> Sequence[FinishedRequest]:
        return await self._schedule.through(lambda: self._inner.after(model_id, cursor, limit))


class _Shadow:
    """The part of a shadow's store that the loop uses, under a schedule."""

    def __init__(self, inner: ShadowStore, schedule: Schedule) -> None:
        self._inner = inner
        self._schedule = schedule

    async def pairs(self, rollout_id: str) -> Sequence[Pair]:
        return await self._schedule.through(lambda: self._inner.pairs(rollout_id))


class World:
    """One rollout from its beginning to its end."""

    def __init__(
        self, fleet: FleetStore, rollouts: RolloutStore, story: Story, schedule: Schedule, pass_time: Callable[[], None]
    ) -> None:
        self.fleet = fleet
        self._pass_time = pass_time
        self.rollouts = rollouts
        self.facts = MemoryRolloutFacts()
        self.shadow = MemoryShadowStore()
        self.story = story
        self.schedule = schedule
        self.violations: list[str] = []
        self._chance = np.random.default_rng(schedule.seed)
        self._share = 0
        self._sleeping: list[tuple[int, asyncio.Event, asyncio.Task[int]]] = []
        self._journal: list[JournalEntry] = []
        self._meddled = False

    async def run(self) -> Rollout:
        """Play the story; returns the rollout as it ended."""
        await self._begin()
        for tick in range(MOST_TICKS):
            self._pass_time()
            await self._interfere(tick)
            await self._report(tick)
            await self._serve()
            await self._wake(tick)
            await self._controller(tick)
            stored = await self._stored()
            if stored.settled and not self._sleeping:
                break
        while self._sleeping:
            await self._wake(max(item[0] for item in self._sleeping))
        await self._check_end()
        return await self._stored()

    async def _begin(self) -> None:
        plan = PlanRoute(DIGITS, NEW.revision_id, 86_400.0, "a rollout", held=True)
        await self.fleet.apply([*deploy(OLD), register(NEW), register(OTHER)], **HUMAN)
        await self.fleet.apply([plan], **HUMAN)
        await self.fleet.report(worker_of(devices=4), [replica_of(OLD)])
        now = (await self.fleet.load()).now
        pair = (OLD.revision_id, NEW.revision_id)
        policy = QUICK
        if self.story in {Story.SHADOWED, Story.DIFFERENT}:
            policy = dataclasses.replace(QUICK, shadow=ShadowPolicy(requests=12))
        rollout = begin("r1", DIGITS, pair, policy, Begun(now, "human:k1", "a test"))
        assert await self.rollouts.begin(rollout, AuditEntry(now, "human:k1", "begin", "rollout:r1", {}, "a test"))

    async def _stored(self) -> Rollout:
        stored = await self.rollouts.get("r1")
        assert stored is not None
        return stored

    # What happens around it ----------------------------------------------------------------------------------------
    async def _interfere(self, tick: int) -> None:
        if self.story is Story.FROZEN and tick in {3, 9}:
            await self.fleet.apply([Freeze(frozen=tick == 3, reason="a drill")], **HUMAN)
        if self.story is Story.OVERTAKEN and tick == 5:
            await self.fleet.apply([route_all(OTHER)], **HUMAN)
            self._meddled = True
        orders = {Story.ABORTED: Order.ABORT, Story.PROMOTED: Order.PROMOTE}
        if self.story in orders and tick == 4:
            await self._person(lambda rollout: dataclasses.replace(rollout, order=orders[self.story], ordered_by="ada"))
        if self.story is Story.PAUSED and tick in {3, 8}:
            name = "ada" if tick == 3 else ""
            await self._person(lambda rollout: dataclasses.replace(rollout, paused_by=name))

    async def _person(self, change: Callable[[Rollout], Rollout]) -> None:
        """Give an order as the admin API does: on what is stored now, again if it has moved on."""
        while not (stored := await self._stored()).settled:
            if await self.rollouts.save(dataclasses.replace(change(stored), version=stored.version + 1)):
                return

    async def _report(self, tick: int) -> None:
        replicas = [replica_of(OLD)]
        gone = self.story is Story.GONE and tick >= 6
        if self.story is not Story.SILENT and tick >= 1 and not gone:
            replicas.append(replica_of(NEW, name="r2"))
        await self.fleet.report(worker_of(devices=4), replicas)

    async def _serve(self) -> None:
        """Let requests finish by the routes as they are, and copies of two of them be compared."""
        fleet = await self.fleet.load()
        if (await self._stored()).stage is Stage.SHADOW:
            done = len(await self.shadow.pairs("r1"))
            for number in range(done, done + 2):
                await self.shadow.begin("r1", compared(number, 5.0 if self.story is Story.DIFFERENT else 0.0))
        for number in range(PER_TICK):
            request_id = RequestId(uuid.UUID(bytes=self._chance.bytes(16)))
            candidate = fleet.routed(DIGITS, bucket_of(request_id)) == NEW.revision_id
            fails = self.story is Story.BAD or (self.story is Story.LATE and self._share >= BUCKETS // 2)
            failed = candidate and fails and self._chance.random() < 0.8
            at = fleet.now + dt.timedelta(microseconds=number)
            outcome = "model_error" if failed else "succeeded"
            self.facts.finished.append(FinishedRequest(request_id, "/", outcome, at, at, at, 0.0, {}))

    # Controllers ---------------------------------------------------------------------------------------------------
    async def _controller(self, tick: int) -> None:
        loop = SteeringLoop(
            _Rollouts(self.rollouts, self.schedule),  # type: ignore[arg-type]  # what the loop uses of it
            _Facts(self.facts, self.schedule),
            _Fleet(self.fleet, self.schedule, self._watch),  # type: ignore[arg-type]  # as above
            _Shadow(self.shadow, self.schedule),  # type: ignore[arg-type]  # as above
        )
        await self._until_stalled(asyncio.get_running_loop().create_task(loop.run_once()), tick)

    async def _wake(self, tick: int) -> None:
        for due in [item for item in self._sleeping if item[0] <= tick]:
            self._sleeping.remove(due)
            due[1].set()
            await self._until_stalled(due[2], tick)

    async def _until_stalled(self, run: asyncio.Task[int], tick: int) -> None:
        """Let a controller run until it is done, or falls asleep for some ticks."""
        stalled = asyncio.get_running_loop().create_task(self.schedule.stalls.get())
        await asyncio.wait([run, stalled], return_when=asyncio.FIRST_COMPLETED)
        if stalled.done():
            self._sleeping.append((tick + _STALL_TICKS, stalled.result(), run))
            return
        stalled.cancel()
        with contextlib.suppress(Killed, Unavailable):
            await run

    # What must hold ------------------------------------------------------------------------------------------------
    async def _watch(self) -> None:
        fleet = await self.fleet.load()
        stored = await self._stored()
        routes = [route for route in fleet.routes if route.model_id == DIGITS]
        wrong = wrong_routes(DIGITS, routes, fleet.revisions)
        if wrong:
            self.violations.append(f"shares do not sum to 100: {wrong}")
        share = _share_of(routes)
        failed = stored.stage in {Stage.ROLLED_BACK, Stage.HELD}
        if failed and share > self._share:
            self.violations.append(f"more weight on a failed version: {share} after {self._share}")
        self._share = share

    async def _check_end(self) -> None:
        stored, fleet = await self._stored(), await self.fleet.load()
        share = _share_of([route for route in fleet.routes if route.model_id == DIGITS])
        if stored.stage not in TERMINAL or not stored.settled:
            self.violations.append(f"no end: {stored.stage}, settled {stored.settled}, after {MOST_TICKS} ticks")
        elif not self._meddled and share != (BUCKETS if stored.stage is Stage.PROMOTED else 0):
            self.violations.append(f"{stored.stage} with a share of {share}")
        journal = await self.rollouts.journal("r1")
        ends = [entry for entry in journal if entry.stage in TERMINAL]
        if {entry.stage for entry in ends} - {stored.stage}:
            self.violations.append(f"left an end: {[entry.stage for entry in ends]}, then {stored.stage}")
        if self.story is Story.DIFFERENT and any(entry.weight > 0 for entry in journal):
            self.violations.append("traffic for a candidate that was stopped in its shadow")
        if self.story in {Story.BAD, Story.SILENT, Story.GONE, Story.DIFFERENT} and stored.stage is Stage.PROMOTED:
            self.violations.append("a failed candidate was promoted")
        if fleet.pending.get(DIGITS) is not None and stored.settled and not self._meddled:
            self.violations.append("the candidate is still held loaded")


def _share_of(routes: Sequence[Route]) -> int:
    return sum(route.bucket_to - route.bucket_from for route in routes if route.revision_id == NEW.revision_id)


def single_faults(operations: int) -> list[dict[int, Fault]]:
    """Return every schedule with one fault."""
    return [{place: fault} for place in range(operations) for fault in Fault]


def random_faults(chance: np.random.Generator, operations: int) -> dict[int, Fault]:
    """Return a schedule with several faults, anywhere."""
    places = chance.choice(operations, size=min(operations, int(chance.integers(2, 9))), replace=False)
    kinds = list(Fault)
    return {int(place): kinds[int(chance.integers(len(kinds)))] for place in places}
