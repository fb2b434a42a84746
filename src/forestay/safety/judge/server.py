"""The judge's end of the socket: takes questions, hands them to lanes, sends answers back by number.

Decides who may ask (processes of our own user alone), what a stranger's words do (end the connection, nothing else) and
that every question gets exactly one answer, unless its connection ends first. Run by `process`.
"""

import asyncio
import contextlib
import os
import pathlib
import socket
import struct
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import cast

from forestay.clock import Clock
from forestay.safety.judge.lanes import Lane, Question
from forestay.safety.judge.wire import (
    MAX_CONTENTS,
    VERSION,
    Answer,
    Ask,
    Forget,
    Frames,
    Garbage,
    Hello,
    content_of,
    frame,
    info_of,
    read_question,
    result_of,
    size_of,
)
from forestay.safety.model import Outcome, Trouble, Unscored
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import JUDGE_ANSWERS, JUDGE_SECONDS, JUDGE_WAITING, Metrics

_LOG = logger("judge")
_MAX_CONNECTIONS = 64
_MAX_UNREAD_BYTES = 8 * 1024 * 1024  # of answers; a client that does not read them is cut off
_BACKLOG = 256


class JudgeServer:
    """What every connection shares."""

    def __init__(self, lanes: Sequence[Lane], clock: Clock, metrics: Metrics) -> None:
        self.lanes: Mapping[str, Lane] = {lane.info.detector_id: lane for lane in lanes}
        self.clock = clock
        self.metrics = metrics
        self.open: set[_Connection] = set()

    def hello(self) -> Hello:
        """Return the first words."""
        return Hello(VERSION, [info_of(lane.info) for lane in self.lanes.values()])

    def count(self, detector_id: str, outcomes: Sequence[Outcome]) -> None:
        """Count what was answered."""
        for outcome in outcomes:
            what = outcome.trouble.value if isinstance(outcome, Unscored) else "scored"
            self.metrics.add(JUDGE_ANSWERS, detector_id, what)
            self.metrics.observe(JUDGE_SECONDS, outcome.seconds, detector_id)
        self.metrics.set(JUDGE_WAITING, self.lanes[detector_id].waiting, detector_id)


class _Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, server: JudgeServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._asked: dict[int, tuple[Lane, Question]] = {}
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello to our own, and nothing to others."""
        self._transport = cast("asyncio.Transport", transport)
        if not is_ours(self._transport) or len(self._server.open) >= _MAX_CONNECTIONS:
            self._transport.abort()
            return
        self._server.open.add(self)
        self._transport.write(frame(self._server.hello()))

    def data_received(self, data: bytes) -> None:
        """Take what came; garbage ends the connection."""
        try:
            for body in self._frames.feed(data):
                self._take(read_question(body))
        except Garbage as error:
            _LOG.warning("judge.garbage", reason=str(error))
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what nobody waits for any more."""
        del exc
        self._server.open.discard(self)
        for lane, question in self._asked.values():
            lane.drop(question)
        self._asked.clear()

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _take(self, said: Ask | Forget) -> None:
        if isinstance(said, Forget):
            forgotten = self._asked.pop(said.number, None)
            if forgotten is not None:
                lane, question = forgotten
                lane.drop(question)
            return
        if len(said.contents) > MAX_CONTENTS or said.number in self._asked:
            raise Garbage("too many contents, or a number used twice")
        lane = self._server.lanes.get(said.detector)
        places = [part.where for part in said.contents]
        if lane is None:
            self._send(said.detector, said.number, [Unscored(said.detector, at, Trouble.CRASH) for at in places])
            return
        contents = [content_of(part) for part in said.contents]
        question = Question(
            contents,
            places,
            self._server.clock.monotonic() + said.left_ms / 1000,
            sum(0 if content is None else size_of(content) for content in contents),
            lambda outcomes: self._answer(said.detector, said.number, outcomes),
        )
        self._asked[said.number] = lane, question
        if not lane.offer(question):
            self._send(said.detector, said.number, [Unscored(said.detector, at, Trouble.OVERLOAD) for at in places])

    def _answer(self, detector_id: str, number: int, outcomes: Sequence[Outcome]) -> None:
        """Send from a lane's thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._send, detector_id, number, outcomes)

    def _send(self, detector_id: str, number: int, outcomes: Sequence[Outcome]) -> None:
        asked = self._asked.pop(number, None)
        known = detector_id in self._server.lanes
        if self._transport is None or self._transport.is_closing() or (known and asked is None):
            return  # nobody waits for it
        if known:
            self._server.count(detector_id, outcomes)
        self._transport.write(frame(Answer(number, [result_of(outcome) for outcome in outcomes])))
        if self._transport.get_write_buffer_size() > _MAX_UNREAD_BYTES:
            _LOG.warning("judge.client_does_not_read")
            self._transport.abort()


@contextlib.asynccontextmanager
async def listening(server: JudgeServer, path: pathlib.Path) -> AsyncGenerator[None]:
    """Serve on a unix socket of our user alone while the block runs; a socket left by an earlier life is replaced."""
    listener = _bound(path)
    loop = asyncio.get_running_loop()
    serving = await loop.create_unix_server(lambda: _Connection(server), sock=listener, backlog=_BACKLOG)
    try:
        yield
    finally:
        serving.close()
        for connection in tuple(server.open):
            connection.abort()


def _bound(path: pathlib.Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    return listener


def is_ours(transport: asyncio.BaseTransport) -> bool:
    """Tell whether the process at the other end has our user.

    Only Linux says so; elsewhere the modes of the socket and of its folder alone keep others out.
    """
    if not sys.platform.startswith("linux"):
        return True
    peer = cast("socket.socket | None", transport.get_extra_info("socket"))
    if peer is None:
        return False
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return uid == os.geteuid()
