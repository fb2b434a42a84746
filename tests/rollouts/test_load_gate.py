"""The gate of load: waves to the candidate and to the control, and what their times prove."""

import dataclasses
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.fleet_values import DIGITS
from tests.rollouts.test_golden_gates import fleet_of, fleet_that_is_up
from tests.rollouts.test_rollout_decide import rollout_of

from forestay.errors import UsageError
from forestay.fleet.model import Fleet
from forestay.ids import SHADOW_TENANT, ModelId, RequestId
from forestay.queue.model import Priority, Shadow, Snapshot, State, Submission
from forestay.rollouts.load_gate import Copy, LoadGate, decide_load, judge_load
from forestay.rollouts.model import GateResult, GateVerdict, Rollout, RolloutPolicy, Stage
from forestay.rollouts.options import RolloutOptions, policy_of

PAIRS = 12


class Queue:
    """Copies end when the test says so, each revision with its own time."""

    def __init__(self, candidate: float | None = 1.0, control: float | None = 1.0, waiting: int = 0) -> None:
        self.seconds = {Shadow.CANDIDATE: candidate, Shadow.CONTROL: control}
        self.known: dict[RequestId, Submission] = {}
        self.over: set[RequestId] = set()
        self.waiting = waiting
        self.waves: list[list[Shadow]] = []

    async def submit(self, submissions: Sequence[Submission], max_queue_length: Mapping[RequestId, int]) -> None:
        """Take copies, each once."""
        assert not max_queue_length
        assert not {item.request_id for item in submissions} & set(self.known)
        self.known |= {item.request_id: item for item in submissions}
        self.waves.append([item.options.shadow for item in submissions])

    async def snapshots(self, request_ids: Sequence[RequestId]) -> dict[RequestId, Snapshot]:
        """Tell how copies stand."""
        return {name: self._snapshot(name) for name in request_ids if name in self.known}

    def _snapshot(self, name: RequestId) -> Snapshot:
        item = self.known[name]
        seconds = self.seconds[item.options.shadow]
        state = State.QUEUED if name not in self.over else State.SUCCEEDED if seconds is not None else State.FAILED
        return Snapshot(
            name, item.tenant_id, item.key_id, item.model_id, item.endpoint, state, 1, item.submitted_at,
            item.submitted_at, inference_seconds=seconds if name in self.over else None,
        )  # fmt: skip

    async def backlog(self) -> dict[ModelId, int]:
        """Count what waits, copies included."""
        return {DIGITS: self.waiting + len(set(self.known) - self.over)}


def loaded(pairs: int = PAIRS) -> Rollout:
    """A rollout at its gates that asks for load."""
    return dataclasses.replace(
        rollout_of(Stage.GATES), policy=dataclasses.replace(RolloutPolicy(), load_requests=pairs)
    )


def fleet_with(slots: int) -> Fleet:
    """A candidate that is ready, with so many slots."""
    fleet = fleet_that_is_up()
    replicas = {name: dataclasses.replace(item, slots=slots) for name, item in fleet.replicas.items()}
    return dataclasses.replace(fleet, replicas=replicas)


async def played(queue: Queue, slots: int = 4, rollout: Rollout | None = None) -> GateResult:
    """Let controllers come and go until the copies are over."""
    said: GateResult | None = None
    for _ in range(4 * PAIRS):
        said = await LoadGate(queue, 0).about(rollout or loaded(), fleet_with(slots))
        queue.over = set(queue.known)
    assert said is not None
    return said


@pytest.mark.parametrize(
    ("candidate", "control", "verdict"),
    [
        (1.0, 1.0, GateVerdict.PASS),
        (1.2, 1.0, GateVerdict.PASS),
        (2.0, 1.0, GateVerdict.FAIL),
        (None, 1.0, GateVerdict.FAIL),
        (1.0, None, GateVerdict.PASS),
        (None, None, GateVerdict.INCONCLUSIVE),
    ],
)
async def test_a_candidate_that_is_slower_or_fails_under_load_gets_no_traffic(
    candidate: float | None, control: float | None, verdict: GateVerdict
) -> None:
    """Against the control on the same inputs at the same load."""
    assert (await played(Queue(candidate, control))).verdict is verdict


async def test_copies_go_in_waves_of_what_the_candidate_takes_and_every_copy_is_sent_once() -> None:
    """To the candidate and then to the control; a controller that has just started goes on where one died."""
    queue = Queue()
    await played(queue, slots=5)
    assert [len(wave) for wave in queue.waves] == [5, 5, 5, 5, 2, 2]
    assert [set(wave) for wave in queue.waves] == [{Shadow.CANDIDATE}, {Shadow.CONTROL}] * 3
    for item in queue.known.values():
        assert (item.tenant_id, item.options.priority, item.options.webhook_url) == (SHADOW_TENANT, Priority.LOW, None)
        assert item.options.no_retry


async def test_nothing_is_sent_while_callers_wait_or_a_person_has_paused() -> None:
    """And the gate has no answer meanwhile."""
    for queue, rollout in ((Queue(waiting=1), loaded()), (Queue(), dataclasses.replace(loaded(), paused_by="ada"))):
        assert (await played(queue, rollout=rollout)).verdict is GateVerdict.INCONCLUSIVE
        assert not queue.known


async def test_without_inputs_or_a_replica_there_is_no_pass_and_unasked_no_gate() -> None:
    """Each says what would help."""
    bare = await LoadGate(Queue(), 0).about(loaded(), fleet_of(canaries=False))
    down = await LoadGate(Queue(), 0).about(loaded(), fleet_of())
    assert bare is not None
    assert down is not None
    assert (bare.verdict, down.verdict) == (GateVerdict.INCONCLUSIVE, GateVerdict.INCONCLUSIVE)
    assert "quality.canaries" in bare.evidence
    assert await LoadGate(Queue(), 0).about(loaded(0), fleet_with(4)) is None


TIMES = st.none() | st.floats(0.01, 100.0)
COPIES = st.lists(st.tuples(TIMES, TIMES), min_size=PAIRS, max_size=PAIRS)


def copies(times: Sequence[tuple[float | None, float | None]]) -> dict[tuple[Shadow, int], Copy]:
    """Copies that are over."""
    arms = (Shadow.CANDIDATE, Shadow.CONTROL)
    return {
        (arm, number): Copy(over=True, seconds=pair[place])
        for number, pair in enumerate(times)
        for place, arm in enumerate(arms)
    }


@given(COPIES, st.integers(1, 40), st.integers(0, PAIRS - 1))
def test_a_faster_candidate_is_never_judged_more_harshly(
    times: list[tuple[float | None, float | None]], at_once: int, number: int
) -> None:
    """And a control that is alike in everything never fails it."""
    order = [GateVerdict.FAIL, GateVerdict.INCONCLUSIVE, GateVerdict.PASS]
    before = judge_load(PAIRS, at_once, copies(times)).verdict
    quick = [(0.001, old) if place == number else (new, old) for place, (new, old) in enumerate(times)]
    assert order.index(judge_load(PAIRS, at_once, copies(quick)).verdict) >= order.index(before)
    alike = [(old, old) for _, old in times]
    assert judge_load(PAIRS, at_once, copies(alike)).verdict is not GateVerdict.FAIL


@given(st.integers(8, 64), st.integers(1, 32), st.sets(st.integers(0, 200)), st.integers(0, 2))
def test_never_more_at_a_time_than_the_candidate_takes(pairs: int, at_once: int, done: set[int], waiting: int) -> None:
    """Whatever a controller before has sent; and none while a caller waits."""
    arms = (Shadow.CANDIDATE, Shadow.CONTROL)
    seen = {(arms[item % 2], item // 2): Copy(over=item % 3 > 0) for item in done if item // 2 < pairs}
    due = decide_load(pairs, at_once, seen, waiting)
    assert len(due) <= at_once
    assert not set(due) & set(seen)
    assert len({arm for arm, _ in due}) <= 1
    assert waiting == 0 or not due


def test_what_is_asked_for_is_bounded_and_named() -> None:
    """With fewer than eight inputs nothing can be proved."""
    assert policy_of(RolloutOptions(load_requests=16)).load_requests == 16
    assert policy_of(None).load_requests == 0
    for wrong in (3, 65):
        with pytest.raises(UsageError, match="load_requests"):
            policy_of(RolloutOptions(load_requests=wrong))
