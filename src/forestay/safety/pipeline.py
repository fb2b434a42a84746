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
    """One call of `run_checks`."""

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
        self._deadline_seconds = deadline_seconds
        self._found: dict[int, Sequence[Outcome]] = {}
        self._pending: dict[int, asyncio.Task[None]] = {}
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
        if self._pending:
            tasks = tuple(self._pending.values())
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def outcomes(self) -> list[Outcome]:
        """Return what was found, and trouble for the rest."""
        seconds = self._clock.monotonic() - self._started
        return [
            outcome
            for index, check in enumerate(self._checks)
            for outcome in self._found.get(index) or _all(check, Trouble.TIMEOUT, seconds)
        ]

    def _left(self, share: float = 1.0) -> float:
        return self._deadline_seconds * share - (self._clock.monotonic() - self._started)

    def _ask(self, *, costly: bool) -> None:
        left = self._left()
        if left <= 0:
            return
        for index, check in enumerate(self._checks):
            if check.costly is costly and check.contents:
                self._pending[index] = self._loop.create_task(self._one(index, check, left))

    async def _one(self, index: int, check: Check, left_seconds: float) -> None:
        """Ask a detector, keep what it says, and end the wait if that settles it or was the last."""
        try:
            if check.costly and len(check.contents) > LOOKS_AT_ONCE:
                outcomes = await self._by_parts(check)
            else:
                outcomes = self._taken(
                    check, await self._detectors.ask(check.detector_id, check.contents, left_seconds)
                )
        except Exception:  # noqa: BLE001 - an adapter promises not to raise; if one does, it is trouble like any other
            outcomes = _all(check, Trouble.CRASH, self._clock.monotonic() - self._started)
        finally:
            del self._pending[index]
        self._found[index] = outcomes
        try:
            self._settled = self._settled or self._decisive(outcomes)
        finally:  # a broken judgement of what is decisive leaves the rest to be asked
            if self._turn is not None and (self._settled or not self._pending):
                _wake(self._turn)

    async def _by_parts(self, check: Check) -> list[Outcome]:
        """Return what a costly detector says that is asked a few looks at a time, until they decide."""
        said: list[Outcome] = []
        for first in range(0, len(check.contents), LOOKS_AT_ONCE):
            part = dataclasses.replace(check, contents=check.contents[first : first + LOOKS_AT_ONCE])
            left = self._left()
            if left <= 0 or (said and self._decisive(said)):
                rest = dataclasses.replace(check, contents=check.contents[first:])
                return [*said, *_all(rest, Trouble.TIMEOUT, 0.0)]
            try:
                told = await self._detectors.ask(part.detector_id, part.contents, left)
            except Exception:  # noqa: BLE001 - as in `_one`: what was said of the parts before still counts
                told = ()
            said += self._taken(part, told)
        return said

    def _taken(self, check: Check, said: Sequence[Outcome]) -> list[Outcome]:
        """Return what a detector said, or that it broke its promises: one outcome for each piece, in their order."""
        if len(said) != len(check.contents) or not all(map(_same_place, said, check.contents)):
            return _all(check, Trouble.CRASH, self._clock.monotonic() - self._started)
        return [checked(outcome) if isinstance(outcome, Scores) else outcome for outcome in said]

    async def _turn_within(self, seconds: float) -> None:
        """Wait until all that was asked has ended or one was decisive; one wake-up, however many checks there are."""
        if self._settled or not self._pending or seconds <= 0:
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
