"""One detector's lane: its bounds, and what it does when nobody asks."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.clock import SystemClock
from forestay.safety.judge import lanes
from forestay.safety.judge.lanes import Lane, Question, Room
from forestay.safety.model import Content, DetectorInfo, Outcome, Scores, Text, Unscored

CLOCK = SystemClock()


class Gated:
    """A detector that works only while its gate is open, and notes when it settles."""

    info = DetectorInfo("gated@1", "sha256:00", {}, costly=False)

    def __init__(self, *, broken: bool = False) -> None:
        self.gate, self.began, self.settled = threading.Event(), threading.Event(), threading.Event()
        self._broken = broken
        self.settles = 0

    def load(self) -> None:
        """Need nothing."""

    def settle(self) -> None:
        """Note it."""
        self.settles += 1
        self.settled.set()
        if self._broken:
            raise OSError("not now")

    def score(self, content: Content) -> Outcome:
        """Wait for the gate."""
        self.began.set()
        assert self.gate.wait(10)
        return Scores("gated@1", content.where, {})


class Answers:
    """What was answered."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.came = threading.Event()

    def question(self, size_bytes: int = 1) -> Question:
        """A question that is answered here."""
        return Question([Text("a", "x")], ["a"], CLOCK.monotonic() + 60, size_bytes, self.take)

    def take(self, outcomes: object) -> None:
        """Note an answer."""
        self.outcomes += outcomes  # pyright: ignore[reportOperatorIssue] - a sequence of outcomes
        self.came.set()


@pytest.mark.parametrize("broken", [False, True])
def test_what_is_seldom_needed_is_loaded_once_when_nobody_asks(
    monkeypatch: pytest.MonkeyPatch, *, broken: bool
) -> None:
    """A failure then is no failure of the detector."""
    monkeypatch.setattr(lanes, "_QUIET_SECONDS", 0.01)
    detector, answers = Gated(broken=broken), Answers()
    detector.gate.set()
    lane = Lane(detector, Room(100), CLOCK, 4)
    assert detector.settled.wait(10)
    assert lane.offer(answers.question())
    assert answers.came.wait(10)
    assert isinstance(answers.outcomes[0], Scores)
    lane.close(10)
    assert detector.settles == 1


def test_a_question_that_is_given_up_leaves_its_place_and_its_room_at_once() -> None:
    """To those who still wait."""
    detector, answers = Gated(), Answers()
    room = Room(10)
    lane = Lane(detector, room, CLOCK, 1)
    assert lane.offer(answers.question(4))
    assert detector.began.wait(10)  # it is being worked on: the queue is empty
    waiting = answers.question(4)
    assert lane.offer(waiting)
    assert not lane.offer(answers.question(1))
    lane.drop(waiting)
    lane.drop(waiting)
    assert room.held_bytes == 4
    assert lane.offer(answers.question(6))
    detector.gate.set()
    lane.close(10)
    assert not any(isinstance(outcome, Unscored) for outcome in answers.outcomes)


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 100))
def test_room_is_never_overdrawn_but_by_one_alone(sizes: list[int], limit: int) -> None:
    """A picture larger than all room is judged, when nothing else waits."""
    room = Room(limit)
    held: list[int] = []
    for size in sizes:
        if room.take(size):
            held.append(size)
        assert room.held_bytes == sum(held)
        assert sum(held) <= limit or len(held) == 1
    for size in held:
        room.leave(size)
    assert room.held_bytes == 0
