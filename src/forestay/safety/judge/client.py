"""Asks the judge on its socket: the adapter of `model.Detectors` for the gateway and the worker.

Decides what the judge's silence means: dead, unreachable or speaking garbage is a crash, at once; slower than asked is
a time-out; too much on the way to it is overload. It connects when it is first asked, and again after a pause that
grows to half a second. Nothing it meets is raised from `ask`, no answer comes later than asked for, and an answer
that comes too late is dropped by its number. Decides nothing about verdicts.
"""

import asyncio
import math
import pathlib
import socket
from collections.abc import Sequence
from typing import cast

from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.safety.judge.server import is_ours
from forestay.safety.judge.wire import (
    MAX_CONTENT_BYTES,
    MAX_CONTENTS,
    VERSION,
    Answer,
    Ask,
    Failed,
    Forget,
    Frames,
    Garbage,
    Hello,
    Scored,
    detector_of,
    frame,
    outcome_of,
    parts_of,
    read_answer,
    size_of,
)
from forestay.safety.model import Content, DetectorInfo, Outcome, Picture, Sound, Trouble, Unscored
from forestay.telemetry.logs import logger

_LOG = logger("safety")
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5
_KNOWN_SECONDS = 5.0
_MAX_ON_THE_WAY_BYTES = 128 * 1024 * 1024  # written, and not yet read by the judge
_MAX_IN_FLIGHT = 4_096
_SEND_BUFFER_BYTES = 4 * 1024 * 1024


class _Gone(Exception):
    """There is no judge at the other end (any more)."""


class _Full(Exception):
    """Too much is on its way already."""


class _Line(asyncio.Protocol):
    """One connection, from its hello to its end."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.hello: asyncio.Future[Hello] = loop.create_future()
        self._frames = Frames()
        self._asked: dict[int, asyncio.Future[Answer]] = {}
        self._next = 0
        self._transport: asyncio.Transport | None = None
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Look who is there."""
        self._transport = cast("asyncio.Transport", transport)
        if not is_ours(transport):
            self._end("the socket belongs to another user's process")
            return
        peer = cast("socket.socket | None", transport.get_extra_info("socket"))
        if peer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        """Take what came; garbage ends the connection."""
        try:
            for body in self._frames.feed(data):
                self._take(read_answer(body))
        except Garbage as error:
            self._end(f"garbage: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everyone who waits."""
        del exc
        self.lost = True
        for waiting in (self.hello, *self._asked.values()):
            if not waiting.done():
                waiting.set_exception(_Gone())
                waiting.exception()  # whoever waited may have left
        self._asked.clear()

    def close(self) -> None:
        """Cut it."""
        if self._transport is not None:
            self._transport.abort()
        self.connection_lost(None)

    async def ask(self, detector_id: str, contents: Sequence[Content], left_seconds: float) -> Answer:
        """Return the answer to one question; _Gone, _Full."""
        if self.lost or self._transport is None or self._transport.is_closing():
            raise _Gone
        on_the_way = self._transport.get_write_buffer_size()
        if len(self._asked) >= _MAX_IN_FLIGHT or on_the_way > _MAX_ON_THE_WAY_BYTES:
            raise _Full
        self._next += 1
        number = self._next
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        left_ms = max(1, math.floor(left_seconds * 1000))
        try:
            self._transport.write(frame(Ask(number, detector_id, left_ms, parts_of(contents))))
            return await answer
        finally:
            if self._asked.pop(number, None) is not None and not self._transport.is_closing():
                self._transport.write(frame(Forget(number)))  # nobody waits any more: it need not be worked on

    def _take(self, said: Hello | Answer) -> None:
        if isinstance(said, Hello):
            if said.version != VERSION or self.hello.done():
                raise Garbage(f"version {said.version}; {VERSION} is spoken here")
            self.hello.set_result(said)
            return
        waiting = self._asked.pop(said.number, None)  # None: it comes too late
        if waiting is not None and not waiting.done():
            waiting.set_result(said)

    def _end(self, reason: str) -> None:
        _LOG.warning("safety.judge_cut_off", reason=reason)
        self.close()


class JudgeClient:
    """The judge of this host, as `Detectors`."""

    def __init__(self, path: pathlib.Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._line: _Line | None = None
        self._connecting = asyncio.Lock()
        self._not_before = 0.0
        self._pause_seconds = 0.0

    async def known(self) -> Sequence[DetectorInfo]:
        """Return the judge's detectors; raises Unavailable when it does not answer."""
        try:
            async with asyncio.timeout(_KNOWN_SECONDS):
                line = await self._connected()
                return [detector_of(info) for info in line.hello.result().detectors]
        except (TimeoutError, _Gone):
            raise Unavailable(f"no judge answers on {self._path}; see `forestay judge --help`") from None

    async def ask(self, detector_id: str, contents: Sequence[Content], within_seconds: float) -> Sequence[Outcome]:
        """Return one outcome for each piece of content; never raises for trouble, and never takes longer."""
        started = self._clock.monotonic()
        found: list[Outcome | None] = [None] * len(contents)
        trouble = Trouble.CRASH
        try:
            async with asyncio.timeout(max(0.0, within_seconds)):
                for group in _groups(contents):
                    left = within_seconds - (self._clock.monotonic() - started)
                    outcomes = await self._ask_group(detector_id, [contents[index] for index in group], left)
                    for index, outcome in zip(group, outcomes, strict=True):
                        found[index] = outcome
        except TimeoutError:
            trouble = Trouble.TIMEOUT
        except _Gone:
            trouble = Trouble.CRASH
        except _Full:
            trouble = Trouble.OVERLOAD
        seconds = self._clock.monotonic() - started
        return [
            outcome or Unscored(detector_id, content.where, _without(content, trouble), seconds)
            for outcome, content in zip(found, contents, strict=True)
        ]

    async def close(self) -> None:
        """Hang up."""
        line, self._line = self._line, None
        if line is not None:
            line.close()

    async def _ask_group(self, detector_id: str, contents: Sequence[Content], left_seconds: float) -> list[Outcome]:
        line = await self._connected()
        said = await line.ask(detector_id, contents, left_seconds)
        results: list[Scored | Failed] = list(said.results)
        if len(results) != len(contents):  # a judge that answers something else cannot be believed in anything
            results = [Failed(Trouble.CRASH, 0.0)] * len(contents)
        return [
            outcome_of(result, detector_id, content.where) for result, content in zip(results, contents, strict=True)
        ]

    async def _connected(self) -> _Line:
        """Return a connection that has said hello; _Gone when there is none, or the last try was just now."""
        if self._line is not None and not self._line.lost:
            return self._line
        async with self._connecting:
            if self._line is not None and not self._line.lost:
                return self._line
            if self._clock.monotonic() < self._not_before:
                raise _Gone
            self._line = await self._connect()
            self._pause_seconds = 0.0
            return self._line

    async def _connect(self) -> _Line:
        line: _Line | None = None
        try:
            loop = asyncio.get_running_loop()
            _, line = await loop.create_unix_connection(_Line, str(self._path))
            await asyncio.shield(line.hello)
        except (OSError, _Gone) as error:
            self._pause_seconds = min(_LONGEST_PAUSE_SECONDS, max(_FIRST_PAUSE_SECONDS, self._pause_seconds * 2))
            self._not_before = self._clock.monotonic() + self._pause_seconds
            if line is not None:
                line.close()
            _LOG.warning("safety.judge_away", reason=type(error).__name__, again_seconds=self._pause_seconds)
            raise _Gone from None
        except BaseException:
            if line is not None:
                line.close()  # cancelled before the hello: the next question tries anew
            raise
        return line


def _groups(contents: Sequence[Content]) -> list[list[int]]:
    """Return the places of contents as questions that fit on the wire; what can never fit is in none."""
    groups: list[list[int]] = []
    held = 0
    for index, content in enumerate(contents):
        size = size_of(content)
        if size > MAX_CONTENT_BYTES or isinstance(content, Sound):
            continue
        if not groups or held + size > MAX_CONTENT_BYTES or len(groups[-1]) >= MAX_CONTENTS:
            groups.append([])
            held = 0
        groups[-1].append(index)
        held += size
    return groups


def _without(content: Content, trouble: Trouble) -> Trouble:
    """Return why a content has no outcome: none to be asked about, or what befell the question."""
    too_large = size_of(content) > MAX_CONTENT_BYTES
    wrong = isinstance(content, Picture) and len(content.rgb) != content.width * content.height * 3
    return Trouble.UNREADABLE if too_large or wrong or isinstance(content, Sound) else trouble
