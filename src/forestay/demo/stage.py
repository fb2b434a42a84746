"""What every scenario stands on: a platform of its own, the record of promises, programs beside it, and its admin API.

It decides how a promise is marked and how a program's lines are read; the courses (`choreography`, `siege`) decide what
happens in which order. Called by both.
"""

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import aiohttp

from forestay.clock import Clock
from forestay.demo.platform import Platform, Ready
from forestay.demo.promises import Kept, Mark, SavedFile
from forestay.demo.screen import Screen
from forestay.errors import ForestayError, Unavailable

WORKERS = 2
LINE_BYTES = 1024 * 1024
_HTTP_SECONDS = 20.0
_MINE = ("FAL_", "FORESTAY_")  # variables of the caller's own platforms must not leak into this one


class Broken(ForestayError):
    """A promise that did not hold, in words."""


@dataclasses.dataclass(frozen=True, slots=True)
class Course:
    """What a run needs."""

    fleet: Path
    data: Path
    output: Path
    environment: Mapping[str, str]
    clock: Clock
    screen: Screen
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])  # settings for its platform


class Stage:
    """One run's platform, and what has been found so far."""

    def __init__(self, course: Course) -> None:
        self.course = course
        self.platform = Platform(course.data, course.clock)
        self.files: list[SavedFile] = []
        self.promises: dict[str, Kept] = {}

    def environment(self) -> dict[str, str]:
        """Return the environment for a child, without what points at other platforms."""
        return {name: value for name, value in self.course.environment.items() if not name.startswith(_MINE)}

    async def start(self, note: str, variables: Mapping[str, str]) -> Ready | None:
        """Start the platform and mark `start`; None when it did not come up."""
        self.course.screen.note(note)
        started = self.course.clock.monotonic()
        self.mark(Kept("start", Mark.RUNNING))
        environment = {**self.environment(), **self.course.variables, **variables}
        try:
            ready = await self.platform.start(self.course.fleet, WORKERS, environment)
        except ForestayError as error:
            self.mark(Kept("start", Mark.BROKEN, str(error), self.since(started)))
            return None
        count = len(self.platform.processes())
        self.mark(Kept("start", Mark.KEPT, f"{count} processes, {ready.url}", self.since(started)))
        return ready

    async def stop(self) -> None:
        """Stop the platform and mark `stop`."""
        started = self.course.clock.monotonic()
        self.mark(Kept("stop", Mark.RUNNING))
        count, left = await self.platform.stop()
        if count == 0 or left:
            evidence = f"left behind: {', '.join(one.command[:60] for one in left)}" if left else "it was not running"
            self.mark(Kept("stop", Mark.BROKEN, evidence, self.since(started)))
        else:
            self.mark(Kept("stop", Mark.KEPT, f"{count} processes ended", self.since(started)))

    async def check(self, name: str, look: Callable[[], Awaitable[str]]) -> None:
        """Run one check of the platform's side: it returns the evidence or raises what is missing."""
        self.mark(Kept(name, Mark.RUNNING))
        started = self.course.clock.monotonic()
        try:
            evidence, mark = await look(), Mark.KEPT
        except Broken as error:
            evidence, mark = str(error), Mark.BROKEN
        except (ForestayError, aiohttp.ClientError, TimeoutError, LookupError, ValueError) as error:
            evidence, mark = f"{type(error).__name__}: {error}", Mark.BROKEN
        self.mark(Kept(name, mark, evidence, self.since(started)))

    def mark(self, promise: Kept) -> None:
        """Record what became of a promise and show it."""
        self.promises[promise.name] = promise
        self.course.screen.show(promise)

    def since(self, started: float) -> float:
        """Return the seconds since `started` (monotonic)."""
        return round(self.course.clock.monotonic() - started, 2)


async def events_of(child: asyncio.subprocess.Process) -> AsyncGenerator[Mapping[str, object]]:
    """Yield what the caller says, line by line; a line that is not JSON is not for us."""
    if child.stdout is None:
        return
    async for line in child.stdout:
        with contextlib.suppress(ValueError):
            said: object = json.loads(line)
            if isinstance(said, dict):
                yield cast("Mapping[str, object]", said)


def admin_session(ready: Ready) -> aiohttp.ClientSession:
    """Return a session that speaks to the platform with its ADMIN key."""
    return aiohttp.ClientSession(
        ready.url,
        headers={"Authorization": f"Key {ready.admin_key}"},
        timeout=aiohttp.ClientTimeout(total=_HTTP_SECONDS),
    )


async def request_of(session: aiohttp.ClientSession, request_id: str) -> Mapping[str, object]:
    """Return what the admin API says of a request."""
    async with session.get(f"/admin/requests/{request_id}") as answer:
        if answer.status != 200:
            raise Unavailable(f"/admin/requests/{request_id} answered {answer.status}")
        return cast("Mapping[str, object]", await answer.json())


def clean(folder: Path, names: Sequence[str] = ("*.png", "*.mp4", "*.wav", "index.html", "upload.url")) -> None:
    """Empty the output folder of an earlier run's files, and of nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in names:
        for path in folder.glob(pattern):
            path.unlink()
