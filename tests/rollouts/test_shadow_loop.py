"""The shadow's loop: copies are nobody's, and a controller that dies anywhere is followed by one that goes on."""

import dataclasses
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import pytest
from tests.conformance.fleet_values import DIGITS, deploy, register
from tests.conformance.memory_fleet import ManualClock, MemoryFleetStore
from tests.conformance.memory_rollouts import MemoryRolloutStore
from tests.conformance.memory_shadow import MemoryShadowStore
from tests.rollouts.schedules import HUMAN, Killed
from tests.rollouts.shadow_values import NEW, OLD, offered

from forestay.chance import SeededChance
from forestay.errors import Unavailable
from forestay.fleet.audit import AuditEntry
from forestay.ids import SHADOW_TENANT, ModelId, RequestId
from forestay.queue.model import Answer, Priority, Shadow, Snapshot, State, Submission
from forestay.queue.store import Stored
from forestay.rollouts.model import Begun, Rollout, RolloutPolicy, Stage, begin
from forestay.rollouts.shadow.compare import Comparison
from forestay.rollouts.shadow.loop import PATIENCE_SECONDS, ShadowLoop, ShadowPorts
from forestay.rollouts.shadow.model import ShadowPolicy

T = TypeVar("T")


class Faults:
    """Fails the I/O with one number, before or after it is done."""

    def __init__(self, place: int = -1, *, after: bool = False, kind: type[BaseException] = Killed) -> None:
        self.place, self.after, self.kind, self.count = place, after, kind, 0

    async def through(self, call: Callable[[], Awaitable[T]]) -> T:
        """Do one I/O."""
        number, self.count = self.count, self.count + 1
        if number == self.place and not self.after:
            raise self.kind("the test says so")
        result = await call()
        if number == self.place:
            raise self.kind("the test says so")
        return result


class Copies:
    """The part of a queue that the loop uses: copies end when the test says so."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.known: dict[RequestId, Submission] = {}
        self.states: dict[RequestId, State] = {}
        self.sent: Counter[RequestId] = Counter()
        self.waiting = 0

    async def submit(self, submissions: Sequence[Submission], max_queue_length: Mapping[RequestId, int]) -> None:
        """Take copies."""
        assert not max_queue_length

        async def do() -> None:
            for item in submissions:
                assert item.request_id not in self.known
                self.known[item.request_id] = item
                self.states[item.request_id] = State.QUEUED
                self.sent[item.request_id] += 1

        await self.faults.through(do)

    async def snapshots(self, request_ids: Sequence[RequestId]) -> dict[RequestId, Snapshot]:
        """Tell how copies stand."""

        async def do() -> dict[RequestId, Snapshot]:
            return {name: self._snapshot(name) for name in request_ids if name in self.known}

        return await self.faults.through(do)

    def _snapshot(self, name: RequestId) -> Snapshot:
        item = self.known[name]
        revision = OLD if item.options.shadow is Shadow.CONTROL else NEW
        return Snapshot(
            name, item.tenant_id, item.key_id, item.model_id, item.endpoint, self.states[name], 1, item.submitted_at,
            item.submitted_at, revision.revision_id, None, 1.5,
        )  # fmt: skip

    async def backlog(self) -> dict[ModelId, int]:
        """Count what waits, copies included."""
        own = sum(state is State.QUEUED for state in self.states.values())
        return {DIGITS: self.waiting + own}

    async def result(self, request_id: RequestId) -> Stored | None:
        """Give the answer of a copy."""

        async def do() -> Stored:
            body = self.known[request_id].options.shadow.encode()
            return Stored(self._snapshot(request_id), Answer(200, {}, body), self.known[request_id].submitted_at)

        return await self.faults.through(do)

    def end_all(self, state: State = State.SUCCEEDED) -> None:
        """End every copy."""
        self.states = dict.fromkeys(self.states, state)


class Compared:
    """Says that the candidate differs by as much as it is told."""

    def __init__(self, level: float) -> None:
        self.level = level
        self.seen: list[tuple[bytes, bytes | None, bytes | None]] = []

    async def compare(self, caption: str, answers: tuple[bytes, bytes | None, bytes | None]) -> Comparison:
        """Compare three answers."""
        assert caption == "/"
        self.seen.append(answers)
        return Comparison({"level": 0.0}, {"level": self.level}, ((), ()), "image", b"png")


class Sheets:
    """Objects in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def put(self, key: str, data: bytes) -> int:
        """Keep one."""
        self.kept[key] = data
        return len(data)

    async def delete(self, keys: Sequence[str]) -> None:
        """Drop some."""
        for key in keys:
            self.kept.pop(key, None)


class _Shadow(MemoryShadowStore):
    """A store under faults."""

    faults = Faults()

    async def begin(self, rollout_id: str, pair: object) -> bool:
        """Note a pair."""
        return await self.faults.through(lambda: MemoryShadowStore.begin(self, rollout_id, pair))  # type: ignore[arg-type]  # as handed in

    async def end(self, rollout_id: str, pair: object) -> None:
        """Note an end."""
        await self.faults.through(lambda: MemoryShadowStore.end(self, rollout_id, pair))  # type: ignore[arg-type]  # as handed in


class World:
    """A rollout in its shadow."""

    def __init__(self, faults: Faults | None = None, level: float = 0.0) -> None:
        self.clock = ManualClock()
        self.fleet = MemoryFleetStore(self.clock)
        self.rollouts = MemoryRolloutStore(self.fleet)
        self.shadow = _Shadow()
        self.faults = self.shadow.faults = faults or Faults()
        self.copies = Copies(self.faults)
        self.comparer, self.sheets = Compared(level), Sheets()
        self.loop = self.controller()

    def controller(self) -> ShadowLoop:
        """A controller that has just started."""
        return ShadowLoop(
            ShadowPorts(
                rollouts=self.rollouts,
                shadow=self.shadow,
                queue=self.copies,  # type: ignore[arg-type]  # what the loop uses of it
                fleet=self.fleet,
                objects=self.sheets,  # type: ignore[arg-type]  # as above
                comparer=self.comparer,
                clock=self.clock,
                chance=SeededChance(self.faults.place + 2),
            )
        )

    async def begin(self, **changes: object) -> Rollout:
        """Store the rollout, and offers."""
        await self.fleet.apply([*deploy(OLD), register(NEW)], **HUMAN)
        now = (await self.fleet.load()).now
        policy = dataclasses.replace(RolloutPolicy(), shadow=ShadowPolicy(requests=6, budget_seconds=100))
        pair = (OLD.revision_id, NEW.revision_id)
        made = begin("r1", DIGITS, pair, policy, Begun(now, "human:k1", "a test"))
        rollout = dataclasses.replace(made, stage=Stage.SHADOW, **changes)
        assert await self.rollouts.begin(rollout, AuditEntry(now, "human:k1", "begin", "rollout:r1", {}, "a test"))
        for number in range(12):
            await self.shadow.offer(offered(number))
        return rollout


async def test_copies_are_nobodys_and_carry_the_same_input_to_both() -> None:
    """Low priority, no webhook, no caller's tenant, no retry, an output that ends within the hour."""
    world = World(level=0.5)
    await world.begin()
    assert await world.loop.run_once() == 2
    assert len(world.copies.known) == 2
    world.copies.end_all()
    await world.loop.run_once()  # they differ, so the control is asked as well
    assert len(world.copies.known) == 4
    for item in world.copies.known.values():
        options = item.options
        assert item.tenant_id == SHADOW_TENANT
        assert (options.priority, options.webhook_url, options.no_retry) == (Priority.LOW, None, True)
        assert options.object_lifetime_seconds is not None
        assert options.object_lifetime_seconds <= 3_600
        assert options.start_deadline is not None
    arms = Counter(item.options.shadow for item in world.copies.known.values())
    assert arms == {Shadow.CONTROL: 2, Shadow.CANDIDATE: 2}
    assert len({(item.body, item.endpoint) for item in world.copies.known.values()}) == 1


async def test_what_came_back_is_compared_with_the_callers_own_answer() -> None:
    """And its picture, its cost and its distances are kept."""
    world = World(level=0.5)
    await world.begin()
    await world.loop.run_once()
    world.copies.end_all()
    await world.loop.run_once()
    assert world.comparer.seen[0] == (b'{"images":[]}', None, b"candidate")
    world.copies.end_all()
    assert await world.loop.run_once() == 2
    pairs = await world.shadow.pairs("r1")
    assert world.comparer.seen[-1] == (b'{"images":[]}', b"control", b"candidate")
    assert [pair.device_seconds for pair in pairs] == [3.0, 3.0]
    assert {pair.outcome.sheet_key for pair in pairs if pair.outcome} == set(world.sheets.kept)
    world.clock.advance(40 * 86_400)
    assert await world.loop.tidy() == 2
    assert world.sheets.kept == {}


async def test_the_control_is_not_asked_again_while_nothing_differs() -> None:
    """One copy a request, half of the cost; what is never asked for is not waited for."""
    world = World(level=0.001)
    await world.begin()
    await _to_the_end(world)
    pairs = await world.shadow.pairs("r1")
    assert len(pairs) == 6
    assert {item.options.shadow for item in world.copies.known.values()} == {Shadow.CANDIDATE}
    assert all(pair.outcome is not None and not pair.outcome.floor for pair in pairs)
    assert sum(pair.device_seconds for pair in pairs) == 6 * 1.5


async def test_once_an_answer_differed_both_are_asked_at_once() -> None:
    """The next requests of that endpoint and size buy the control's noise beforehand."""
    world = World(level=0.5)
    await world.begin()
    await _to_the_end(world)
    pairs = await world.shadow.pairs("r1")
    assert [pair.asks_first for pair in pairs] == [False, False, True, True, True, True]
    assert all(pair.outcome is not None and pair.outcome.floor for pair in pairs)


async def test_a_copy_that_fails_counts_and_one_that_found_no_room_does_not() -> None:
    """A failure of the candidate is a missing answer; idle capacity that was not there is nobody's fault."""
    world = World()
    await world.begin()
    await world.loop.run_once()
    world.copies.end_all(State.FAILED)
    await world.loop.run_once()
    world.copies.end_all(State.FAILED)
    await world.loop.run_once()
    assert world.comparer.seen[-1][1:] == (None, None)
    await world.loop.run_once()
    world.copies.end_all(State.EXPIRED)
    await world.loop.run_once()
    skipped = [pair.skipped for pair in await world.shadow.pairs("r1") if pair.skipped]
    assert len(skipped) == 2
    assert "no idle replica" in skipped[0]


async def test_nothing_is_sent_while_callers_wait_or_a_person_has_paused() -> None:
    """Copies that wait themselves are not taken for callers."""
    world = World()
    await world.begin()
    world.copies.waiting = 1
    assert await world.loop.run_once() == 0
    world.copies.waiting = 0
    assert await world.loop.run_once() == 2
    paused = World()
    await paused.begin(paused_by="ada")
    assert await paused.loop.run_once() == 0
    elsewhere = World()
    await elsewhere.begin()
    for name, item in list(elsewhere.shadow.offered.items()):
        elsewhere.shadow.offered[name] = dataclasses.replace(item, revision_id=NEW.revision_id)
    assert await elsewhere.loop.run_once() == 0  # answers of another revision are no control's


async def test_copies_that_never_end_are_given_up() -> None:
    """After their patience, whatever the queue says."""
    world = World()
    await world.begin()
    await world.loop.run_once()
    world.clock.advance(3 * PATIENCE_SECONDS + 1)
    assert await world.loop.run_once() == 2
    assert not any(pair.open for pair in await world.shadow.pairs("r1"))


async def _to_the_end(world: World) -> None:
    for _ in range(16):
        world.clock.advance(1.0)
        try:
            await world.loop.run_once()
        except (Killed, Unavailable):
            world.loop = world.controller()
        world.copies.end_all()


@pytest.mark.parametrize("kind", [Killed, Unavailable])
@pytest.mark.parametrize("after", [False, True])
async def test_no_fault_of_any_io_loses_or_doubles_a_copy(kind: type[BaseException], *, after: bool) -> None:
    """Every request is compared once, every copy sent once, wherever the controller dies."""
    quiet = World(level=0.5)
    await quiet.begin()
    await _to_the_end(quiet)
    places = quiet.faults.count
    assert places > 20
    for place in range(places):
        world = World(Faults(place, after=after, kind=kind), level=0.5)
        await world.begin()
        await _to_the_end(world)
        pairs = await world.shadow.pairs("r1")
        assert len(pairs) == 6, place
        assert all(pair.outcome is not None for pair in pairs), place
        assert set(world.copies.sent.values()) == {1}, place
        assert len(world.copies.known) == 12, place
