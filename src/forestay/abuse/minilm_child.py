"""Starts the program that embeds (`minilm`) and asks it: the adapter of `meaning.Embedder`.

The child is started when it is first needed, asked one batch at a time, and killed when it is silent too long. What
fails means no vectors, for a while: nobody waits for it, and calls are noted without their meaning. It gets no secret:
its environment is empty but for paths. Used by the gateway's call notes.
"""

import asyncio
import contextlib
import pathlib
import struct
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import Sequence

import msgspec
import numpy as np

import forestay
from forestay import sentences
from forestay.abuse.meaning import MAX_CHARS, SIZE, Vectors
from forestay.clock import Clock
from forestay.telemetry.logs import logger

MODULE = "forestay.abuse.minilm"
START_SECONDS = 10.0
ANSWER_SECONDS = 10.0
AGAIN_SECONDS = 60.0  # after a failure
MAX_TEXTS = 64
_LOG = logger("abuse")


def missing() -> str:
    """Return which package of the extra `embeddings` is not installed; empty when all are."""
    return sentences.missing()


class MiniLm:
    """The child process, or none."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._child: Process | None = None
        self._asking = asyncio.Lock()
        self._not_before = 0.0

    @property
    def pid(self) -> int | None:
        """Return the child's process id, None while there is none."""
        return None if self._child is None else self._child.pid

    async def embed(self, texts: Sequence[str]) -> Vectors | None:
        """Return `[len(texts), 384] float32` for at most MAX_TEXTS texts; None when the child fails or rests."""
        if not texts or self._clock.monotonic() < self._not_before:
            return None
        async with self._asking:
            wait = ANSWER_SECONDS if self._child is not None else START_SECONDS
            try:
                async with asyncio.timeout(wait):
                    return await self._ask([text[:MAX_CHARS] for text in texts[:MAX_TEXTS]])
            except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
                self._not_before = self._clock.monotonic() + AGAIN_SECONDS
                _LOG.warning("abuse.embedder_failed", reason=type(error).__name__, again_seconds=AGAIN_SECONDS)
                await self._end()
                return None
            except BaseException:
                await self._end()  # cancelled in the middle of an answer: the next one would be read for it
                raise

    async def close(self) -> None:
        """End the child."""
        async with self._asking:
            await self._end()

    async def _ask(self, texts: list[str]) -> Vectors:
        child = self._child = self._child or await _start()
        if child.stdin is None or child.stdout is None:
            raise OSError("the child has no pipes")
        body = msgspec.msgpack.encode(texts)
        child.stdin.write(struct.pack("!I", len(body)) + body)
        await child.stdin.drain()
        (size,) = struct.unpack("!I", await child.stdout.readexactly(4))
        raw = msgspec.msgpack.decode(await child.stdout.readexactly(size), type=bytes)
        return np.frombuffer(raw, dtype=np.float32).reshape(len(texts), SIZE)

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if child.stdin is not None:
            child.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def _start() -> Process:
    """Start the program; it is ready when it answers."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", MODULE),
        env={"PYTHONPATH": str(pathlib.Path(forestay.__file__).parents[1]), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
