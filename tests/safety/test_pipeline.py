"""Checks of one point: in parallel, under one deadline, cheap before costly; on virtual time."""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import math
import selectors
from collections.abc import Coroutine, Mapping, Sequence
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.safety.model import Content, DetectorInfo, Outcome, Scores, Text, Trouble, Unscored
from forestay.safety.pipeline import LOOKS_AT_ONCE, Check, run_checks
from forestay.safety.taxonomy import Category

T = TypeVar("T")
EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class _Jump(selectors.SelectSelector):
    """Waits for nothing: time moves on instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Let `timeout` pass at once."""
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


class _Loop(asyncio.SelectorEventLoop):
    """An event loop on virtual time."""

    def __init__(self) -> None:
        self.jump = _Jump()
        super().__init__(self.jump)

    def time(self) -> float:
        """Virtual seconds."""
        return self.jump.now


class LoopClock:
    """The clock of the running loop."""

    def now(self) -> dt.datetime:
        """Virtual time of day."""
        return EPOCH + dt.timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        """Virtual seconds."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Sleep virtually."""
        await asyncio.sleep(seconds)


@dataclasses.dataclass
class Behaviour:
    """What a fake detector does."""

    seconds: float = 0.0
    score: float = 0.0
    manner: str = "scores"  # scores, raises, hangs, fewer, misplaced
    at: str = ""  # a piece that it scores 1


class Fakes:
    """Detectors that behave as told; `asked` and `cancelled` note when."""

    def __init__(self, behaviours: Mapping[str, Behaviour]) -> None:
        self._behaviours = behaviours
        self.asked: dict[str, float] = {}
        self.cancelled: list[str] = []
        self.pieces: list[str] = []

    async def known(self) -> Sequence[DetectorInfo]:
        """Not asked here."""
        return ()

    async def ask(self, detector_id: str, contents: Sequence[Content], within_seconds: float) -> Sequence[Outcome]:
        """Behave."""
        assert within_seconds > 0
        own = self._behaviours[detector_id]
        self.pieces += [content.where for content in contents]
        self.asked[detector_id] = asyncio.get_running_loop().time()
        try:
            await asyncio.sleep(1e6 if own.manner == "hangs" else own.seconds)
        except asyncio.CancelledError:
            self.cancelled.append(detector_id)
            raise
        if own.manner == "raises":
            raise OSError("against the promise")
        where = "elsewhere" if own.manner == "misplaced" else ""
        found = [
            Scores(detector_id, where or item.where, {Category.HATE: 1.0 if item.where == own.at else own.score})
            for item in contents
        ]
        return found[1:] if own.manner == "fewer" else found


def on_virtual_time(work: Coroutine[object, object, T]) -> tuple[T, float]:
    """Run it and return its result and how long it took."""
    with contextlib.closing(_Loop()) as loop:
        started = loop.time()
        return loop.run_until_complete(work), loop.time() - started


def high(outcomes: Sequence[Outcome]) -> bool:
    """Scores of 0.9 and more are decisive."""
    return any(isinstance(outcome, Scores) and max(outcome.scores.values()) >= 0.9 for outcome in outcomes)


def check(name: str, *, costly: bool = False, pieces: int = 1) -> Check:
    """A check of so many texts."""
    return Check(name, tuple(Text(f"field {number}", "x") for number in range(pieces)), costly)


@given(number=st.integers(0, 39), costly=st.booleans())
def test_looks_after_a_decisive_one_are_not_asked_of_a_costly_detector(number: int, costly: bool) -> None:
    """It stops after the few among which the decisive one was; a cheap detector is asked about all of them at once."""
    fakes = Fakes({"d": Behaviour(0.01, at=f"field {number}")})
    found, _ = on_virtual_time(run_checks([check("d", costly=costly, pieces=40)], fakes, 5.0, LoopClock(), high))
    most = (number // LOOKS_AT_ONCE + 1) * LOOKS_AT_ONCE if costly else 40
    assert fakes.pieces == [f"field {place}" for place in range(most)]
    assert [isinstance(outcome, Scores) for outcome in found] == [place < most for place in range(40)]


BEHAVIOURS = st.builds(
    Behaviour,
    seconds=st.floats(0, 2),
    score=st.sampled_from([0.0, 0.5, 0.95, math.nan, 7.0]),
    manner=st.sampled_from(["scores", "scores", "raises", "hangs", "fewer", "misplaced"]),
)


@given(
    plan=st.lists(st.tuples(BEHAVIOURS, st.booleans(), st.integers(1, 2 * LOOKS_AT_ONCE + 1)), max_size=6),
    deadline=st.floats(0, 1.5),
)
def test_every_check_has_exactly_one_outcome_a_piece_and_none_comes_late(
    plan: list[tuple[Behaviour, bool, int]], deadline: float
) -> None:
    """Whatever detectors do: places in order, scores are scores, nothing takes longer than the deadline."""
    checks = [check(f"d{index}", costly=costly, pieces=pieces) for index, (_, costly, pieces) in enumerate(plan)]
    fakes = Fakes({f"d{index}": behaviour for index, (behaviour, _, _) in enumerate(plan)})
    found, seconds = on_virtual_time(run_checks(checks, fakes, deadline, LoopClock(), high))
    wanted = [(one.detector_id, content.where) for one in checks for content in one.contents]
    assert [(outcome.detector_id, outcome.where) for outcome in found] == wanted
    assert seconds <= deadline + 1e-9
    for outcome in found:
        if isinstance(outcome, Scores):
            assert all(0 <= score <= 1 for score in outcome.scores.values())
        else:
            assert outcome.trouble in {Trouble.CRASH, Trouble.TIMEOUT}


@given(plan=st.lists(st.tuples(BEHAVIOURS, st.booleans()), max_size=6), deadline=st.floats(0, 1.5))
def test_costly_checks_start_only_when_no_cheap_one_was_decisive_before(
    plan: list[tuple[Behaviour, bool]], deadline: float
) -> None:
    """They wait for the cheap ones, but not longer than half of the time."""
    checks = [check(f"d{index}", costly=costly) for index, (_, costly) in enumerate(plan)]
    fakes = Fakes({f"d{index}": behaviour for index, (behaviour, _) in enumerate(plan)})
    on_virtual_time(run_checks(checks, fakes, deadline, LoopClock(), high))
    cheap = [own for own, costly in plan if not costly]
    ends = [1e6 if own.manner == "hangs" else own.seconds for own in cheap]
    decisive = [own.seconds for own in cheap if own.manner == "scores" and own.score == 0.95]
    begin = min(max(ends, default=0.0), deadline / 2)
    for index, (_, costly) in enumerate(plan):
        if costly and f"d{index}" in fakes.asked:
            assert fakes.asked[f"d{index}"] >= begin - 1e-9
            assert all(seconds >= begin for seconds in decisive)


def test_a_decisive_outcome_ends_the_wait_and_cancels_the_rest() -> None:
    """What was needless is no score."""
    fakes = Fakes({"quick": Behaviour(0.01, 0.95), "slow": Behaviour(5.0), "costly": Behaviour(0.0)})
    checks = [check("slow"), check("quick"), check("costly", costly=True)]
    found, seconds = on_virtual_time(run_checks(checks, fakes, 10.0, LoopClock(), high))
    assert seconds == pytest.approx(0.01)
    assert [getattr(outcome, "trouble", None) for outcome in found] == [Trouble.TIMEOUT, None, Trouble.TIMEOUT]
    assert (list(fakes.asked), fakes.cancelled) == (["slow", "quick"], ["slow"])


def test_a_cheap_check_that_hangs_leaves_the_costly_ones_half_of_the_time() -> None:
    """It alone is timed out."""
    fakes = Fakes({"hangs": Behaviour(manner="hangs"), "costly": Behaviour(0.2, 0.3)})
    found, seconds = on_virtual_time(
        run_checks([check("hangs"), check("costly", costly=True)], fakes, 1.0, LoopClock(), high)
    )
    assert seconds == pytest.approx(1.0)
    assert isinstance(found[0], Unscored)
    assert found[0].trouble is Trouble.TIMEOUT
    assert isinstance(found[1], Scores)


@pytest.mark.parametrize("manner", ["raises", "fewer", "misplaced"])
@pytest.mark.parametrize("pieces", [1, LOOKS_AT_ONCE + 1])
def test_what_a_broken_costly_check_took_is_counted_from_when_it_was_asked(manner: str, pieces: int) -> None:
    """Not from when the cheap ones were: they had their own time. Each few looks count from their own question."""
    fakes = Fakes({"cheap": Behaviour(0.4), "costly": Behaviour(0.1, manner=manner)})
    checks = [check("cheap"), check("costly", costly=True, pieces=pieces)]
    found, _ = on_virtual_time(run_checks(checks, fakes, 5.0, LoopClock(), high))
    broken = [outcome for outcome in found if isinstance(outcome, Unscored)]
    assert [outcome.trouble for outcome in broken] == [Trouble.CRASH] * pieces
    assert [outcome.seconds for outcome in broken] == [pytest.approx(0.1)] * pieces


def test_what_a_late_check_took_is_counted_from_when_it_was_asked_and_what_was_not_asked_took_nothing() -> None:
    """A costly check that hangs has half of the time here; one that a decisive outcome made needless has none."""
    late = Fakes({"hangs": Behaviour(manner="hangs"), "costly": Behaviour(manner="hangs")})
    found, _ = on_virtual_time(run_checks([check("hangs"), check("costly", costly=True)], late, 1.0, LoopClock(), high))
    assert [outcome.seconds for outcome in found] == [pytest.approx(1.0), pytest.approx(0.5)]
    needless = Fakes({"quick": Behaviour(0.3, 0.95), "costly": Behaviour()})
    found, _ = on_virtual_time(
        run_checks([check("quick"), check("costly", costly=True)], needless, 1.0, LoopClock(), high)
    )
    assert found[1] == Unscored("costly", "field 0", Trouble.TIMEOUT, 0.0)


def test_a_caller_who_leaves_leaves_nothing_running() -> None:
    """Cancelling the whole cancels each question."""
    fakes = Fakes({"a": Behaviour(5.0), "b": Behaviour(5.0)})

    async def leave() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await run_checks([check("a"), check("b")], fakes, 10.0, LoopClock())

    _, seconds = on_virtual_time(leave())
    assert seconds == pytest.approx(0.5)
    assert sorted(fakes.cancelled) == ["a", "b"]
