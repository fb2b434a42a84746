"""Takes looks at a file in the limited child: a still as it is, frames of animations and films one by one.

The parent parses nothing but the head of each look, which is a stranger's word too: sizes are checked against what was
asked for before a byte is read. A caller that has seen enough ends the child. Called by those who judge content; the
program and its limits are those of `decode`.
"""

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import IO, cast

import msgspec

from forestay.media.decode import Decoder, MediaRefused
from forestay.media.limits import Kind, Looking
from forestay.media.measures import Measured
from forestay.media.opening.looks import GROUNDS, HEAD

_PIPE_BYTES = 1024 * 1024
_F_SETPIPE_SZ = 1031  # linux/fcntl.h


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """One look: `[height, width, 3] uint8` RGB, when in the file, and on what it was laid, if on anything."""

    width: int
    height: int
    rgb: bytes
    seconds: float
    ground: str = ""
    moves: bool = False  # one of a film or an animation


@dataclasses.dataclass(frozen=True, slots=True)
class Looked:
    """What is known of a file after looking."""

    kind: Kind
    content_type: str
    width: int
    height: int
    frames: int  # decoded, or of a film key frames
    seconds: float
    missed: int  # changes of scene beyond the number of looks
    whole: bool = True  # False: the caller had seen enough
    measured: Measured | None = None  # where that was asked for


class _Told(msgspec.Struct):
    kind: Kind
    content_type: str
    width: int
    height: int
    frames: int
    seconds: float
    missed: int
    measured: Measured | None = None


class _Reply(msgspec.Struct):
    looked: _Told | None = None


Take = Callable[[Look], Awaitable[bool]]  # False: enough


async def look(decoder: Decoder, source: IO[bytes], looking: Looking, take: Take) -> Looked | None:
    """Give `take` each look at `source`, a real file, as it comes; None when `take` had seen enough.

    MediaRefused says why a file is not opened, or not seen whole; looks taken before count for nothing then.
    Unavailable: the program could not be started.
    """
    async with _pipe() as (reader, theirs):

        async def read() -> bool:
            return await _take_all(reader, looking, take)

        said = await decoder.look(source, theirs, looking, read)
    if said is None:
        return None
    try:
        told = msgspec.json.decode(said, type=_Reply).looked
    except msgspec.DecodeError:
        told = None
    if told is None:
        raise MediaRefused("broken", "the decoder gave no answer that can be believed")
    return Looked(
        kind=told.kind,
        content_type=told.content_type,
        width=told.width,
        height=told.height,
        frames=told.frames,
        seconds=told.seconds,
        missed=told.missed,
        measured=told.measured,
    )


async def _take_all(reader: asyncio.StreamReader, looking: Looking, take: Take) -> bool:
    """Read looks until the child has no more; False when `take` had seen enough."""
    for _ in range(looking.most * (len(GROUNDS) - 1) + 1):
        try:
            head = await reader.readexactly(HEAD.size)
        except asyncio.IncompleteReadError:
            return True  # the end, or the child's death: its status tells
        width, height, seconds, ground, moves = cast("tuple[int, int, float, int, int]", HEAD.unpack(head))
        pixels = width * height
        if not 0 < pixels <= max(looking.most_pixels, looking.long_side**2) or ground >= len(GROUNDS):
            raise MediaRefused("broken", "the decoder gave a picture that was not asked for")
        try:
            rgb = await reader.readexactly(pixels * 3)
        except asyncio.IncompleteReadError:
            return True
        if not await take(Look(width, height, rgb, seconds, GROUNDS[ground], bool(moves))):
            return False
    raise MediaRefused("broken", "the decoder gave more pictures than were asked for")


@contextlib.asynccontextmanager
async def _pipe() -> AsyncGenerator[tuple[asyncio.StreamReader, int]]:
    """Yield a reader, and the descriptor of the end that is written; whoever is given that closes it."""
    ours, theirs = os.pipe()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(_PIPE_BYTES)
    with contextlib.suppress(OSError):
        import fcntl  # noqa: PLC0415 - absent where this is not supported

        fcntl.fcntl(ours, _F_SETPIPE_SZ, _PIPE_BYTES)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", buffering=0)
    )
    try:
        yield reader, theirs
    finally:
        transport.close()
