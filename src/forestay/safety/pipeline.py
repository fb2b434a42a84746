"""Asks all detectors of one point of a request under one deadline, cheap before costly, until one is decisive.

Decides when costly ones start (when every cheap one has ended and none was decisive, or half of the time is gone), and
that every check has exactly one outcome for each piece of its content, whatever detectors do: what is late, dead or
wrong is trouble, and what a decisive outcome made needless is cut short (a time-out): other checks, and the looks at a
film that a costly detector was not asked about yet. What is decisive is told by the caller; what follows from outcomes
is decided by `decide`. Called by the gateway for inputs and by the worker for media and outputs.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Sequence

from forestay.clock import Clock
from forestay.safety.model import Content, Detectors, Outcome, Scores, Trouble, Unscored, checked

LOOKS_AT_ONCE = 8  # pictures that a costly detector is asked about before what it said may end its work
_CHEAP_SHARE = 0.5  # of the time, after which costly checks no longer wait for cheap ones that hang

Decisive = Callable[[Sequence[Outcome]], bool]


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One detector, and what it is asked about."""

    detector_id: str
    contents: tuple[Content, ...]
    costly: bool = False


def never(outcomes: Sequence[Outcome]) -> bool:
    """Say of no outcomes that they are decisive."""
    del outcomes
    return False


async def run_checks(
    checks: Sequence[Check], detectors: Detectors, deadline_seconds: float, clock: Clock, decisive: Decisive = never
) -> list[Outcome]:
    """Return the outcomes of all checks in their order, one for each piece of content, within the deadline.

    `decisive` is told the outcomes of each check as it ends; once it says yes, the rest is cancelled: a TIMEOUT.
    """
    run = _Run(checks, detectors, deadline_seconds, clock, decisive)
    try:
        await run.until_settled()
    finally:
        await run.end()
    return run.outcomes()


class _Run:
    """One call of `run_checks`. Its parts are counted in microseconds: many calls end in the same instant."""

    __slots__ = (
        "_asked_at",
        "_checks",
        "_clock",
        "_deadline_seconds",
        "_decisive",
        "_detectors",
        "_found",
        "_loop",
        "_settled",
        "_started",
        "_tasks",
        "_turn",
        "_unanswered",
    )

    def __init__(
        self,
        checks: Sequence[Check],
        detectors: Detectors,
        deadline_seconds: float,
        clock: Clock,
        decisive: Decisive,
    ) -> None:
        self._checks = checks
        self._detectors = detectors
        self._clock = clock
        self._decisive = decisive
        self._started = clock.monotonic()
        self._asked_at: dict[bool, float] = {}  # costly -> when those were asked
        self._deadline_seconds = deadline_seconds
        self._found: list[Sequence[Outcome] | None] = [None] * len(checks)
        self._tasks: list[asyncio.Task[None]] = []
        self._unanswered = 0
        self._settled = False
        self._loop = asyncio.get_running_loop()
        self._turn: asyncio.Future[None] | None = None

    async def until_settled(self) -> None:
        """Ask until all have answered, one was decisive, or the time is over."""
        self._ask(costly=False)
        if any(check.costly for check in self._checks):
            await self._turn_within(self._left(_CHEAP_SHARE))
            if not self._settled:
                self._ask(costly=True)
        await self._turn_within(self._left())

    async def end(self) -> None:
        """Leave nothing running that was asked; a group of tasks does no more, and costs half of a check's time."""
        if self._unanswered:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)

    def outcomes(self) -> list[Outcome]:
        """Return what was found, and trouble for the rest; what was never asked took no time."""
        ended = self._clock.monotonic()
        made: list[Outcome] = []
        for check, found in zip(self._checks, self._found, strict=True):
            made += found or _all(check, Trouble.TIMEOUT, ended - self._asked_at.get(check.costly, ended))
        return made

    def _left(self, share: float = 1.0) -> float:
        return self._deadline_seconds * share - (self._clock.monotonic() - self._started)

    def _ask(self, *, costly: bool) -> None:
        now = self._clock.monotonic()
        left = self._deadline_seconds - (now - self._started)
        if left <= 0:
            return
        self._asked_at[costly] = now
        for index, check in enumerate(self._checks):
            if check.costly is costly and check.contents:
                self._unanswered += 1
                self._tasks.append(self._loop.create_task(self._one(index, check, left)))

    async def _one(self, index: int, check: Check, left_seconds: float) -> None:
        """Ask a detector, keep what it says, and end the wait if that settles it or was the last."""
        asked_at = self._asked_at[check.costly]
        try:
            if check.costly and len(check.contents) > LOOKS_AT_ONCE:
                outcomes = await self._by_parts(check)
            else:
                said = await self._detectors.ask(check.detector_id, check.contents, left_seconds)
                outcomes = self._taken(check, said, asked_at)
        except Exception:  # noqa: BLE001 - an adapter promises not to raise; if one does, it is trouble like any other
            outcomes = _all(check, Trouble.CRASH, self._clock.monotonic() - asked_at)
        finally:
            self._unanswered -= 1
        self._found[index] = outcomes
        try:
            self._settled = self._settled or self._decisive(outcomes)
        finally:  # a broken judgement of what is decisive leaves the rest to be asked
            if self._turn is not None and (self._settled or not self._unanswered):
                _wake(self._turn)

    async def _by_parts(self, check: Check) -> list[Outcome]:
        """Return what a costly detector says that is asked a few looks at a time, until they decide."""
        said: list[Outcome] = []
        for first in range(0, len(check.contents), LOOKS_AT_ONCE):
            part = dataclasses.replace(check, contents=check.contents[first : first + LOOKS_AT_ONCE])
            left, asked_at = self._left(), self._clock.monotonic()
            if left <= 0 or (said and self._decisive(said)):
                rest = dataclasses.replace(check, contents=check.contents[first:])
                return [*said, *_all(rest, Trouble.TIMEOUT, 0.0)]
            try:
                told = await self._detectors.ask(part.detector_id, part.contents, left)
            except Exception:  # noqa: BLE001 - as in `_one`: what was said of the parts before still counts
                told = ()
            said += self._taken(part, told, asked_at)
        return said

    def _taken(self, check: Check, said: Sequence[Outcome], asked_at: float) -> list[Outcome]:
        """Return what a detector said, or that it broke its promises: one outcome for each piece, in their order."""
        if len(said) == 1 == len(check.contents) and said[0].where == check.contents[0].where:  # most checks, quickly
            return [checked(said[0]) if isinstance(said[0], Scores) else said[0]]
        if len(said) != len(check.contents) or not all(map(_same_place, said, check.contents)):
            return _all(check, Trouble.CRASH, self._clock.monotonic() - asked_at)
        return [checked(outcome) if isinstance(outcome, Scores) else outcome for outcome in said]

    async def _turn_within(self, seconds: float) -> None:
        """Wait until all that was asked has ended or one was decisive; one wake-up, however many checks there are."""
        if self._settled or not self._unanswered or seconds <= 0:
            return
        turn = self._turn = self._loop.create_future()
        timer = self._loop.call_later(seconds, _wake, turn)
        try:
            await turn
        finally:
            timer.cancel()


def _wake(turn: "asyncio.Future[None]") -> None:
    if not turn.done():
        turn.set_result(None)


def _same_place(outcome: Outcome, content: Content) -> bool:
    return outcome.where == content.where


def _all(check: Check, trouble: Trouble, seconds: float) -> list[Outcome]:
    return [Unscored(check.detector_id, content.where, trouble, seconds) for content in check.contents]
