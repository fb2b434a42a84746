"""Opens untrusted media, always in a limited child, and gives back a clean copy or the reason against it.

The parent never parses a byte of the file: it hands descriptors to the program of `opening`, which forks one child a
file (limits of memory, time and output, no network, no files, a user of its own where we are root). What the child says
is a stranger's word too: it is checked for form, and the size of the copy is measured here. Decides who waits (a few
files at a time), how long (the wall clock is kept here as well), and what an end by signal means. Called by
`worker/inputs.py`.
"""

import asyncio
import dataclasses
import math
import os
import pathlib
import signal
import tempfile
from collections.abc import Awaitable, Callable
from typing import IO, Literal, cast

import msgspec

from forestay.errors import UsageError
from forestay.media.decoder_program import GRACE_SECONDS, READ_BYTES, Ended, OnStart, Program
from forestay.media.limits import DecodeLimits, Kind, Looking
from forestay.settings import Ingress

Fault = Literal["unsupported", "broken", "too_large", "too_long", "too_heavy"]
CONTENT_TYPES: dict[Kind, frozenset[str]] = {
    "image": frozenset({"image/png", "image/jpeg", "image/webp", "image/gif", "image/tiff"}),
    "video": frozenset({"video/mp4", "video/quicktime", "video/webm", "video/x-matroska"}),
    "audio": frozenset(
        {"audio/wav", "audio/flac", "audio/mpeg", "audio/ogg", "audio/mp4", "audio/webm", "audio/x-matroska"}
    ),
}


class MediaRefused(UsageError):
    """A file is not opened; `limit` names a field of `DecodeLimits` where one was exceeded."""

    def __init__(
        self, fault: Fault, message: str, limit: str = "", *, allowed: float = 0.0, given: float = 0.0
    ) -> None:
        super().__init__("file", message)
        self.fault: Fault = fault
        self.limit = limit
        self.allowed = allowed
        self.given = given
        self.child_memory_bytes = 0  # the most the child held


@dataclasses.dataclass(frozen=True, slots=True)
class Clean:
    """What is known of a file that was opened; the clean copy lies in the output that was given."""

    kind: Kind
    content_type: str
    size_bytes: int
    width: int = 0  # pixels; 0 for sound
    height: int = 0
    frames: int = 1
    seconds: float = 0.0
    child_memory_bytes: int = 0  # the most the child held
    child_cpu_seconds: float = 0.0


class _Opened(msgspec.Struct):
    kind: Kind
    content_type: str
    width: int
    height: int
    frames: int
    seconds: float


class _Refused(msgspec.Struct):
    fault: Fault
    message: str
    limit: str
    allowed: float
    given: float


class _Reply(msgspec.Struct):
    opened: _Opened | None = None
    refused: _Refused | None = None


class Decoder:
    """The program and its children; started with the first file, and again should it die."""

    def __init__(
        self, limits: DecodeLimits | None = None, *, at_a_time: int = 2, on_start: OnStart | None = None
    ) -> None:
        self.limits = limits or DecodeLimits()
        self._on_start = on_start
        self._gate = asyncio.Semaphore(at_a_time)
        self._starting = asyncio.Lock()
        self._program: Program | None = None
        self._jobs = 0

    async def clean(self, source: IO[bytes], out: IO[bytes], kind: Kind | None) -> Clean:
        """Write a clean copy of `source` to `out`, both real files; None as `kind` takes image, video and audio.

        MediaRefused says why a file is not opened. Unavailable: the program could not be started.
        """
        async with self._gate:
            program = await self._started()
            self._jobs += 1
            ours, theirs = os.pipe()
            try:
                asked: dict[str, object] = {"job": self._jobs, "kind": kind, "limits": dataclasses.asdict(self.limits)}
                ended = await self._run(program, asked, (source.fileno(), out.fileno(), theirs))
                os.close(theirs)
                theirs = -1
                os.set_blocking(ours, False)
                said = _read(ours)
            finally:
                os.close(ours)
                if theirs >= 0:
                    os.close(theirs)
        try:
            return self._judged(said, ended, out, kind)
        except MediaRefused as error:
            error.child_memory_bytes = ended.memory_bytes
            raise

    async def look(
        self, source: IO[bytes], pipe: int, looking: Looking, read: Callable[[], Awaitable[bool]]
    ) -> bytes | None:
        """Have looks at `source` written to `pipe`, which is closed here; `read` takes them at the other end.

        Returns what the child says at its end; None when `read` returned False, which ends the child. MediaRefused and
        Unavailable as in `clean`. The child has `look_seconds` by the clock, since it waits for whoever reads.
        """
        wall = self.limits.look_seconds
        limits = dataclasses.replace(self.limits, wall_seconds=wall, cpu_seconds=max(1, int(wall * 0.8)))
        ours, theirs = os.pipe()
        try:
            async with self._gate:
                program = await self._started()
                self._jobs += 1
                number = self._jobs
                asked: dict[str, object] = {"job": number, "kind": None, "limits": dataclasses.asdict(limits)}
                ended = program.ask(asked | {"look": dataclasses.asdict(looking)}, (source.fileno(), pipe, theirs))
                os.close(pipe)  # so that the child's end is the end of what is read
                pipe = -1
                done = await self._until_read(program, number, ended, read, limits)
        finally:
            for descriptor in (theirs, pipe):
                if descriptor >= 0:
                    os.close(descriptor)
            os.set_blocking(ours, False)
            said = _read(ours)
            os.close(ours)
        if done is None:
            return None
        if done.status:
            raise _by_signal(done, limits)
        _raise_refusal(said)
        return said

    async def _until_read(
        self,
        program: Program,
        number: int,
        ended: "asyncio.Future[Ended]",
        read: Callable[[], Awaitable[bool]],
        limits: DecodeLimits,
    ) -> Ended | None:
        """Return the end of the child once everything is read; None when no more was wanted."""
        over = False
        try:
            async with asyncio.timeout(limits.wall_seconds + GRACE_SECONDS):
                if not await read():
                    return None
                done = await asyncio.shield(ended)
                over = True
                return done
        except TimeoutError:
            over = True
            return await program.kill(number, ended)
        finally:
            if not over:  # enough was seen, what came cannot be believed, or nobody waits any more
                program.forget(number)

    async def close(self) -> None:
        """End the program and whatever it runs."""
        program, self._program = self._program, None
        if program is not None:
            await program.close()

    async def _started(self) -> Program:
        async with self._starting:
            if self._program is not None and self._program.lost:
                await self.close()
            if self._program is None:
                self._program = await Program.start(self._on_start)
            return self._program

    async def _run(self, program: Program, asked: dict[str, object], descriptors: tuple[int, int, int]) -> Ended:
        number = cast("int", asked["job"])
        ended = program.ask(asked, descriptors)
        try:
            async with asyncio.timeout(self.limits.wall_seconds + GRACE_SECONDS):
                return await asyncio.shield(ended)
        except TimeoutError:
            return await program.kill(number, ended)
        except asyncio.CancelledError:
            program.forget(number)
            raise

    def _judged(self, said: bytes, ended: Ended, out: IO[bytes], kind: Kind | None) -> Clean:
        if ended.status:
            raise _by_signal(ended, self.limits)
        reply = _raise_refusal(said)
        opened, size = reply.opened, os.fstat(out.fileno()).st_size
        fits = opened is not None and kind in {None, opened.kind} and 0 < size <= self.limits.max_output_bytes
        if opened is None or not fits or opened.content_type not in CONTENT_TYPES[opened.kind]:
            raise MediaRefused("broken", "the decoder gave no answer that can be believed")
        return Clean(
            opened.kind,
            opened.content_type,
            size,
            opened.width,
            opened.height,
            opened.frames,
            opened.seconds,
            ended.memory_bytes,
            ended.cpu_seconds,
        )


def _raise_refusal(said: bytes) -> _Reply:
    """Read what a child says; MediaRefused when it refuses, or cannot be understood."""
    try:
        reply = msgspec.json.decode(said, type=_Reply)
    except msgspec.DecodeError:
        raise MediaRefused("broken", "the decoder gave no answer that can be read") from None
    if reply.refused is not None:
        refused = reply.refused
        raise MediaRefused(
            refused.fault, refused.message[:500], refused.limit, allowed=refused.allowed, given=refused.given
        )
    return reply


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, READ_BYTES)
    except BlockingIOError:
        return b""


def _by_signal(ended: Ended, limits: DecodeLimits) -> MediaRefused:
    """Say what the end of a child by a signal means."""
    number = os.WTERMSIG(ended.status) if os.WIFSIGNALED(ended.status) else 0
    if number in {signal.SIGALRM, signal.SIGXCPU}:
        return MediaRefused(
            "too_heavy",
            f"opening it takes longer than {limits.wall_seconds:g} seconds",
            "wall_seconds",
            allowed=limits.wall_seconds,
        )
    if number == signal.SIGKILL:
        return MediaRefused(
            "too_heavy",
            f"opening it takes more than {limits.memory_bytes} bytes",
            "memory_bytes",
            allowed=limits.memory_bytes,
        )
    return MediaRefused("broken", f"the decoder ended on it (status {ended.status})")


def limits_of(settings: Ingress) -> DecodeLimits:
    """Read the limits from the settings; those without a setting keep their defaults."""
    return DecodeLimits(
        max_pixels=settings.max_pixels,
        max_side=settings.max_side,
        max_frames=settings.max_frames,
        max_pages=settings.max_pages,
        max_total_pixels=settings.max_total_pixels,
        max_seconds=settings.max_seconds,
        max_streams=settings.max_streams,
        max_frame_rate=settings.max_frame_rate,
        max_sample_rate=settings.max_sample_rate,
        max_channels=settings.max_channels,
        max_output_bytes=settings.max_bytes,
        memory_bytes=settings.decode_memory_mb * 1024 * 1024,
        cpu_seconds=max(1, math.ceil(settings.decode_seconds * 0.8)),
        wall_seconds=settings.decode_seconds,
    )


def open_scratch(folder: pathlib.Path) -> IO[bytes]:
    """Open a file without a name in `folder`; it is gone once it is closed."""
    return cast("IO[bytes]", tempfile.TemporaryFile(dir=folder))
