"""Lines of a guarded model: judged before they are stored, and nobody else's wait for that."""

import asyncio
import dataclasses
from collections.abc import Collection, Sequence

import pytest
from tests.conformance.fleet_values import revision_of
from tests.conformance.memory_fleet import ManualClock
from tests.conformance.memory_queue import MemoryQueueStore
from tests.safety.doubles import MARKER, POLICY, GuardWorld, guard_world
from tests.worker.test_slots_and_lines import running

from forestay.errors import Unavailable
from forestay.fleet.model import ReplicaState, Revision
from forestay.fleet.spec import SafetySpec
from forestay.ids import ReplicaId, RequestId, WorkerId
from forestay.queue.model import LINE_WITHHELD, LogLine
from forestay.safety.decide import Judgement
from forestay.safety.guard import Finding, Subject
from forestay.safety.model import Text, Trouble
from forestay.safety.policy import Action
from forestay.settings import Worker
from forestay.telemetry.metrics import WORKER_LOG_LINES, Metrics
from forestay.verdicts import Verdict
from forestay.worker import line_judging
from forestay.worker.hosts.host import Description
from forestay.worker.line_judging import LineJudge
from forestay.worker.logs import LogBook
from forestay.worker.replica import Replica, Running


def guarded_by(policy_id: str) -> Revision:
    """A revision whose spec names a policy."""
    revision = revision_of()
    return dataclasses.replace(revision, spec=dataclasses.replace(revision.spec, safety=SafetySpec(policy=policy_id)))


@dataclasses.dataclass
class Bench:
    """A log book whose lines are judged, and one replica with a call."""

    world: GuardWorld
    queue: MemoryQueueStore
    metrics: Metrics
    book: LogBook
    replica: Replica
    call: Running

    def say(self, *words: str) -> None:
        """Print lines."""
        for line in words:
            self.book.take(self.replica, str(self.call.request_id), "STDOUT", line)

    async def told(self) -> list[str]:
        """What its caller may read."""
        await self.book.ship()
        return await told_of(self.queue, self.call.request_id)


async def told_of(queue: MemoryQueueStore, request_id: RequestId) -> list[str]:
    """The stored lines that are not withheld; `-` for each that is."""
    found = [line for _, line in await queue.logs(request_id, 0)]
    return ["-" if line.source == LINE_WITHHELD else line.message for line in found]


async def bench(policy_id: str = "strict") -> Bench:
    """Put one together."""
    world, clock, metrics = await guard_world(), ManualClock(), Metrics()
    queue = MemoryQueueStore(clock)
    replica = Replica((ReplicaId("r1"), WorkerId("w1")), guarded_by(policy_id), Worker(), clock)
    replica.state, replica.description = ReplicaState.READY, Description(openapi=None, slots=4)
    call = running()
    replica.take(call)
    return Bench(world, queue, metrics, LogBook(queue, clock, metrics, LineJudge(world.guard, metrics)), replica, call)


@pytest.mark.threat("ML01:2023", "AML.T0054")
async def test_a_line_that_says_what_an_output_may_not_is_told_to_no_caller() -> None:
    """It is kept and marked for people of the platform; lines of other moments are told."""
    made = await bench()
    made.say("step 1")
    assert await made.told() == ["step 1"]
    made.say(f"prompt was {MARKER}", "beside it")
    assert await made.told() == ["step 1", "-", "-"]
    made.say("step 2")
    assert await made.told() == ["step 1", "-", "-", "step 2"]
    assert [line.message for _, line in await made.queue.logs(made.call.request_id, 0)][1] == f"prompt was {MARKER}"
    assert made.metrics.value(WORKER_LOG_LINES, "withheld") == 2
    made.say(MARKER)
    assert (await made.told())[-1] == "-"
    await made.world.guard.flush()
    assert len(made.world.verdicts.records) == 1, "one finding of an attempt is recorded once"


@pytest.mark.threat("ML01:2023", "AML.T0015")
async def test_words_that_are_spread_over_two_batches_are_seen_whole() -> None:
    """The end of what was told is judged along with what comes next."""
    made = await bench()
    made.world.detectors.score = lambda item: float(isinstance(item, Text) and "two\nparts" in item.text)
    made.say("in two")
    assert await made.told() == ["in two"]
    made.say("parts it goes on")
    assert await made.told() == ["in two", "-"]


@pytest.mark.threat("ML01:2023", "AML.T0054")
async def test_lines_that_nobody_can_judge_are_withheld_and_a_policy_may_withhold_or_pass_them_all() -> None:
    """A judge that is down, one that hangs, a policy that cannot be read: nothing is told unjudged."""
    down = await bench()
    down.world.detectors.trouble |= {"words@1": Trouble.CRASH, "spare@1": Trouble.CRASH}
    down.say("step 1")
    assert await down.told() == ["-"]
    hangs = await bench()
    hangs.world.store.put("strict", POLICY.replace("deadline: 1s", "deadline: 40ms"))
    await hangs.world.policies.refresh()
    hangs.world.detectors.hanging |= {"words@1", "spare@1"}
    hangs.say("step 1")
    assert await hangs.told() == ["-"]
    unread = await bench("nobody-set-it")
    unread.say("step 1")
    assert await unread.told() == ["-"]
    for mode, said in (("withhold", ["-", "-"]), ("pass", ["step 1", MARKER])):
        made = await bench()
        made.world.store.put("strict", f"{POLICY}logs: {mode}\n")
        await made.world.policies.refresh()
        made.say("step 1", MARKER)
        assert await made.told() == said
        assert made.world.detectors.asked == []


async def test_lines_of_a_model_without_a_policy_are_told_as_ever_and_wait_for_no_judge() -> None:
    """While lines of a guarded one are being judged, those of others are stored, and their answers go out."""
    made = await bench()
    made.world.store.put("strict", POLICY.replace("deadline: 1s", "deadline: 200ms"))
    await made.world.policies.refresh()
    made.world.detectors.hanging |= {"words@1", "spare@1"}
    free = Replica((ReplicaId("r2"), WorkerId("w1")), revision_of(), Worker(), ManualClock())
    free.state, free.description = ReplicaState.READY, Description(openapi=None, slots=4)
    call = running()
    free.take(call)
    made.say("judged for a while")
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(made.book.keep_flushing())
        slow = group.create_task(made.book.flush(made.call))
        made.book.take(free, str(call.request_id), "STDOUT", MARKER)
        await made.book.flush(call)
        assert not slow.done()
        assert await told_of(made.queue, call.request_id) == [MARKER]
        await slow
        serving.cancel()
    assert await told_of(made.queue, made.call.request_id) == ["-"]


async def test_an_answer_does_not_overtake_lines_that_are_being_judged() -> None:
    """Also those that another round has taken off the shelf already."""
    made = await bench()
    gate, at_gate = asyncio.Event(), asyncio.Event()
    judge_lines = made.world.guard.judge_lines

    async def slowly(subject: Subject, pieces: Sequence[Text], known: Collection[Finding] = ()) -> Judgement:
        at_gate.set()
        await gate.wait()
        return await judge_lines(subject, pieces, known)

    made.world.guard.judge_lines = slowly  # type: ignore[method-assign] - a gate before the real one
    made.say("step 1")
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(made.book.keep_flushing())
        round_of_ship = group.create_task(made.book.ship())
        await at_gate.wait()
        flushed = group.create_task(made.book.flush(made.call))
        await asyncio.sleep(0)
        assert not flushed.done()
        gate.set()
        await flushed
        assert await told_of(made.queue, made.call.request_id) == ["step 1"]
        await round_of_ship
        serving.cancel()


async def test_a_store_that_is_away_keeps_judged_lines_and_they_are_judged_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In their order, with their marks."""
    made = await bench()
    append = made.queue.append_logs

    async def away(lines: Sequence[LogLine]) -> None:
        raise Unavailable(f"{len(lines)} lines for a database that is away")

    monkeypatch.setattr(made.queue, "append_logs", away)
    made.say("step 1", MARKER)
    assert await made.told() == []
    asked = len(made.world.detectors.asked)
    monkeypatch.setattr(made.queue, "append_logs", append)
    made.world.detectors.trouble |= {"words@1": Trouble.CRASH, "spare@1": Trouble.CRASH}
    made.say("step 2")
    assert await made.told() == ["-", "-", "-"]
    assert len(made.world.detectors.asked) == asked + 2, "the third line alone: words@1, then spare@1 in its place"


async def test_a_flood_is_judged_up_to_a_bound_and_the_rest_is_withheld(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that one model cannot keep the judge from all others."""
    monkeypatch.setattr(line_judging, "MAX_JUDGED_CHARS", 100)
    made = await bench()
    made.say("x" * 60)
    assert await made.told() == ["x" * 60]
    made.say("y" * 60)
    assert await made.told() == ["x" * 60, "-"]
    made.book.forget(made.call)
    made.say("z")
    assert (await made.told())[-1] == "z"


class Wordless:
    """A guard that says no, and not of what; or breaks."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def lines(self, subject: Subject) -> str:
        """Judge them."""
        del subject
        return "judge"

    async def judge_lines(self, subject: Subject, pieces: Sequence[Text], known: Collection[Finding] = ()) -> Judgement:
        """Say no."""
        del subject, pieces, known
        if self.error is not None:
            raise self.error
        return Judgement(Verdict.INCONCLUSIVE, Action.REVIEW, None, "", "the policy cannot be read here")


@pytest.mark.parametrize("error", [None, RuntimeError("a bug")])
async def test_where_nobody_can_say_which_line_all_are_withheld(error: Exception | None) -> None:
    """A policy that is lost just then, a guard that breaks: neither tells a line nor ends the worker."""
    made = await bench()
    book = LogBook(made.queue, ManualClock(), made.metrics, LineJudge(Wordless(error), made.metrics))
    for line in ("one", "two"):
        book.take(made.replica, str(made.call.request_id), "STDOUT", line)
    await book.ship()
    assert await told_of(made.queue, made.call.request_id) == ["-", "-"]
