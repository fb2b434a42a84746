"""Asks all detectors of one point of a request under one deadline, cheap before costly, until one is decisive.

Decides when costly ones start (when every cheap one has ended and none was decisive, or half of the time is gone), and
that every check has exactly one outcome for each piece of its content, whatever detectors do: what is late, dead or
wrong is trouble, and what a decisive outcome made needless is cut short (a time-out). What is decisive is told by the
caller; what follows from outcomes is decided by `decide`. Called by the gateway for inputs and by the worker for media
and outputs.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Sequence

from forestay.clock import Clock
from forestay.safety.model import Content, Detectors, Outcome, Scores, Trouble, Unscored, checked

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
    async with asyncio.TaskGroup() as tasks:
        await run.until_settled(tasks)
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
        self._pending: dict[asyncio.Task[Sequence[Outcome]], int] = {}
        self._settled = False

    async def until_settled(self, tasks: asyncio.TaskGroup) -> None:
        """Ask until all have answered, one was decisive, or the time is over; nothing asked is left running."""
        costly_asked = False
        self._ask(tasks, costly=False)
        while not self._settled:
            if not costly_asked and (not self._pending or self._left(_CHEAP_SHARE) <= 0):
                costly_asked = True
                self._ask(tasks, costly=True)
            if not self._pending or self._left() <= 0:
                break
            wait = self._left() if costly_asked else self._left(_CHEAP_SHARE)
            done, _ = await asyncio.wait(self._pending, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                self._take(self._pending.pop(task), task)
        for task in self._pending:
            task.cancel()

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

    def _ask(self, tasks: asyncio.TaskGroup, *, costly: bool) -> None:
        left = self._left()
        if left <= 0:
            return
        for index, check in enumerate(self._checks):
            if check.costly is costly and check.contents:
                self._pending[tasks.create_task(self._one(check, left))] = index

    async def _one(self, check: Check, left_seconds: float) -> Sequence[Outcome]:
        """Return what a detector says of a check, or that it broke its promises."""
        started = self._clock.monotonic()
        try:
            said = await self._detectors.ask(check.detector_id, check.contents, left_seconds)
        except Exception:  # noqa: BLE001 - an adapter promises not to raise; if one does, it is trouble like any other
            return _all(check, Trouble.CRASH, self._clock.monotonic() - started)
        fits = [outcome.where for outcome in said] == [content.where for content in check.contents]
        if not fits:
            return _all(check, Trouble.CRASH, self._clock.monotonic() - started)
        return [checked(outcome) if isinstance(outcome, Scores) else outcome for outcome in said]

    def _take(self, index: int, task: "asyncio.Task[Sequence[Outcome]]") -> None:
        self._found[index] = task.result()
        self._settled = self._settled or self._decisive(self._found[index])


def _all(check: Check, trouble: Trouble, seconds: float) -> list[Outcome]:
    return [Unscored(check.detector_id, content.where, trouble, seconds) for content in check.contents]
