"""The program that opens media: it loads the decoders once and then forks one child for each file.

So every file gets a fresh process for the price of a fork, and a file that takes a child over reaches nothing of the
next one. The program itself never looks at a file. It talks to `media/decode.py` on a socket, one JSON object a line:

    in   {"job": 7, "kind": "image" | "video" | "audio" | null, "limits": {...}}  with descriptors: file, output, reply
    in   {..., "look": {...}}                 looks are taken and written to the output, a pipe; see `looks`
    in   {"kill": 7}
    out  {"ready": {"network": true, "user": true, "calls": true, "memory": true}}
    out  {"ended": 7, "status": 0, "memory_bytes": 61000000, "cpu_seconds": 0.02}

The child writes what it found, or why it refused, to the reply. The end of the socket ends the program and all its
children.
"""

import dataclasses
import errno
import gc
import io
import json
import os
import select
import signal
import socket
import tempfile
from typing import Any, BinaryIO, NoReturn, cast

import av.logging
from PIL import Image

from forestay.media.limits import DecodeLimits, Kind, Looking
from forestay.media.opening import films, job, looks, sandbox
from forestay.media.opening.refusal import Refusal

_READ_BYTES = 65_536
_OPUS = (  # twenty milliseconds of silence in Ogg Opus, written by FFmpeg
    "4f6767530002000000000000000000000000000000000228b57201134f707573486561640101380180bb00000000004f67675300000000000000"
    "0000000000000001000000f3cbd0db01164f707573546167730600000066666d706567000000004f6767530004f804000000000000000000000200"
    "00006b0a45d1020303f8fffef8fffe"
)


def main(control_fd: int) -> None:
    """Serve until the parent closes the socket."""
    control = socket.socket(fileno=control_fd)
    av.logging.set_level(None)
    _warm()
    isolation = sandbox.prepare()
    gc.collect()
    gc.freeze()  # what is shared with the children stays untouched by their collector
    wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _nothing)
    server = _Server(control, isolation)
    server.tell({"ready": dataclasses.asdict(isolation)})
    while True:
        ready, _, _ = select.select([control, wake], [], [])
        if wake in ready:
            os.read(wake, _READ_BYTES)
            server.reap()
        if control in ready and not server.take():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.killpg(0, signal.SIGKILL)


class _Server:
    """The children that run now."""

    def __init__(self, control: socket.socket, isolation: sandbox.Isolation) -> None:
        self._control = control
        self._isolation = isolation
        self._children: dict[int, int] = {}  # process id -> job
        self._started = 0
        self._rest = b""

    def take(self) -> bool:
        """Read what the parent says; False when it has gone."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, _READ_BYTES, 3)
        except OSError:
            return False
        if not data:
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            asked = cast("dict[str, object]", json.loads(line))
            if "kill" in asked:
                self._kill(cast("int", asked["kill"]))
            else:
                self._start(asked, descriptors)
        return True

    def reap(self) -> None:
        """Tell the end of every child that has ended."""
        while self._children:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if not pid:
                return
            ended = self._children.pop(pid, 0)
            memory = usage.ru_maxrss * 1024
            self.tell({"ended": ended, "status": status, "memory_bytes": memory,
                       "cpu_seconds": usage.ru_utime + usage.ru_stime})  # fmt: skip

    def tell(self, message: dict[str, object]) -> None:
        """Say one thing to the parent."""
        try:
            self._control.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            os.killpg(0, signal.SIGKILL)

    def _start(self, asked: dict[str, object], descriptors: list[int]) -> None:
        self._started += 1
        pid = os.fork()
        if not pid:
            self._control.close()
            _open_one(asked, descriptors, self._started, self._isolation)
        self._children[pid] = cast("int", asked["job"])
        for descriptor in descriptors:
            os.close(descriptor)

    def _kill(self, number: int) -> None:
        for pid, running in self._children.items():
            if running == number:
                os.kill(pid, signal.SIGKILL)


def _open_one(asked: dict[str, object], descriptors: list[int], number: int, isolation: sandbox.Isolation) -> NoReturn:
    """Open one file in this forked child, say what came of it, and end."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    reply = descriptors[-1]
    try:
        said: dict[str, object] = _judged(asked, descriptors, number, isolation)
    except Refusal as error:
        said = {"refused": job.verdict_of(error)}
    except MemoryError:
        said = {"refused": job.verdict_of(_too_much_memory(asked))}
    except BaseException as error:  # noqa: BLE001 - whatever a file provokes in a decoder is told, not shown
        said = {"refused": job.verdict_of(Refusal("broken", f"the file does not decode: {type(error).__name__}"))}
    os.write(reply, json.dumps(said).encode()[:_READ_BYTES])
    os._exit(0)


def _judged(
    asked: dict[str, object], descriptors: list[int], number: int, isolation: sandbox.Isolation
) -> dict[str, object]:
    limits = DecodeLimits(**cast("dict[str, int]", asked["limits"]))
    source, out = os.fdopen(descriptors[0], "rb"), os.fdopen(descriptors[1], "wb" if "look" in asked else "w+b")
    sandbox.enter(number, os.fstat(source.fileno()).st_size, limits, isolation)
    try:
        kind = cast("Kind | None", asked["kind"])
        if "look" in asked:
            looking = Looking(**cast("dict[str, Any]", asked["look"]))
            return {"looked": looks.run(source, out, kind, limits, looking, lambda: isolation.hold(limits))}
        return {"opened": job.run(source, out, kind, limits, lambda: isolation.hold(limits))}
    except OSError as error:
        if error.errno not in {errno.EFBIG, errno.ENOSPC}:
            raise
        message = f"the clean copy would be larger than {limits.max_output_bytes} bytes"
        raise Refusal("too_heavy", message, "max_output_bytes", allowed=limits.max_output_bytes) from None


def _too_much_memory(asked: dict[str, object]) -> Refusal:
    allowed = cast("dict[str, int]", asked["limits"])["memory_bytes"]
    return Refusal("too_heavy", f"opening it takes more than {allowed} bytes", "memory_bytes", allowed=allowed)


def _warm() -> None:
    """Open one picture of each format and one recording of our own, so that nothing is left to be loaded later."""
    limits = DecodeLimits()
    picture = Image.new("RGB", (8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("PNG", "JPEG", "GIF", "WEBP", "TIFF"):
        for options in ({"exif": exif}, {"save_all": True, "append_images": [Image.new("RGB", (8, 8), (9, 9, 9))]}):
            if (name, "save_all" in options) in {("JPEG", True), ("GIF", False)}:
                continue
            made = io.BytesIO()
            picture.save(made, format=name, **options)
            _open_own(made.getvalue(), limits)
    _open_own(bytes.fromhex(_OPUS), limits)
    films.picture_of(av.VideoFrame(16, 16, "yuv420p"))


def _open_own(data: bytes, limits: DecodeLimits) -> None:
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as out:
        source.write(data)
        source.flush()
        job.run(cast("BinaryIO", source), cast("BinaryIO", out), None, limits, lambda: None)
        looks.run(cast("BinaryIO", source), cast("BinaryIO", out), None, limits, Looking(measure=True), lambda: None)


def _nothing(number: int, frame: object) -> None:
    """Be there, so that the signal wakes the loop."""
    del number, frame
