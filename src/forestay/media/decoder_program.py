"""Starts the program that opens media and speaks with it: what it is asked, and the ends of children that it tells.

It decides nothing about files; see `opening/zygote` for the other side and the words they use. A program that ends is
noticed at once and counts as the end of whatever it ran. Used by `media/decode.py` alone.
"""

import asyncio
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import cast

from forestay.errors import Unavailable

START_SECONDS = 30.0
GRACE_SECONDS = 1.0  # beyond the wall clock of a child, before it is killed from here, and again before the program is
READ_BYTES = 65_536
_ROOT = pathlib.Path(__file__).resolve().parents[2]
_CODE = (
    "import sys; sys.path.insert(0, sys.argv[1]); from forestay.media.opening import zygote; "
    "zygote.main(int(sys.argv[2]))"
)

_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}  # a program that forks has no threads

OnStart = Callable[[int, Mapping[str, object]], None]  # gets the process id and what could be taken from children


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended."""

    status: int  # as waitpid gives it
    memory_bytes: int
    cpu_seconds: float


class Program:
    """One run of the program: what it is asked, and the ends that it tells."""

    def __init__(self, process: "subprocess.Popen[bytes]", control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[Mapping[str, object]] = self._loop.create_future()
        self._waiting: dict[int, asyncio.Future[Ended]] = {}
        self._rest = b""
        self.lost = False
        self._loop.add_reader(control.fileno(), self._hear)

    @classmethod
    async def start(cls, on_start: OnStart | None) -> "Program":
        """Start it and wait until it is ready; Unavailable when it does not become so."""
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-I", "-c", _CODE, str(_ROOT), str(theirs.fileno())]
            process = await asyncio.to_thread(
                functools.partial(
                    subprocess.Popen,
                    command,
                    cwd="/",
                    env=_ENVIRONMENT,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                    umask=0o077,
                )
            )
        ours.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        program = cls(process, ours)
        try:
            async with asyncio.timeout(START_SECONDS):
                isolation = await program._ready
        except TimeoutError:
            await program.close()
            raise Unavailable("the program that opens media did not start", retry_after_seconds=5.0) from None
        if on_start is not None:
            on_start(process.pid, isolation)
        return program

    def ask(self, asked: dict[str, object], descriptors: tuple[int, int, int]) -> "asyncio.Future[Ended]":
        """Have one file opened; the future tells the end of its child."""
        ended: asyncio.Future[Ended] = self._loop.create_future()
        self._waiting[cast("int", asked["job"])] = ended
        self._send(asked, descriptors)
        return ended

    async def kill(self, number: int, ended: "asyncio.Future[Ended]") -> Ended:
        """Have a child killed that overstays; if even that does not help, end the program."""
        self._send({"kill": number}, ())
        try:
            async with asyncio.timeout(GRACE_SECONDS):
                await asyncio.shield(ended)
        except TimeoutError:
            await self.close()
        self._waiting.pop(number, None)
        return Ended(signal.SIGALRM, 0, 0.0)

    def forget(self, number: int) -> None:
        """Have a child killed whose file nobody waits for any more."""
        self._waiting.pop(number, None)
        self._send({"kill": number}, ())

    async def close(self) -> None:
        """End it with everything that it runs."""
        self._lose()
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _send(self, message: dict[str, object], descriptors: tuple[int, ...]) -> None:
        try:
            socket.send_fds(self._control, [json.dumps(message).encode() + b"\n"], list(descriptors))
        except OSError:
            self._lose()

    def _hear(self) -> None:
        try:
            data = self._control.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(cast("dict[str, object]", json.loads(line)))

    def _take(self, message: dict[str, object]) -> None:
        if "ready" in message:
            if not self._ready.done():
                self._ready.set_result(cast("Mapping[str, object]", message["ready"]))
            return
        ended = self._waiting.pop(cast("int", message["ended"]), None)
        if ended is not None and not ended.done():
            ended.set_result(
                Ended(
                    cast("int", message["status"]),
                    cast("int", message["memory_bytes"]),
                    cast("float", message["cpu_seconds"]),
                )
            )

    def _lose(self) -> None:
        """The program is gone: whoever waits learns it as the death of the child."""
        if self.lost:
            return
        self.lost = True
        self._loop.remove_reader(self._control.fileno())
        self._control.close()
        for ended in self._waiting.values():
            if not ended.done():
                ended.set_result(Ended(signal.SIGKILL, 0, 0.0))
        self._waiting.clear()
        if not self._ready.done():
            self._ready.set_exception(Unavailable("the program that opens media ended at its start"))
