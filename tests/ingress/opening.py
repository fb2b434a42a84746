"""Running files through the real decoder, and what of it is counted; for the tests and the bench."""

import asyncio
import dataclasses
import pathlib
import re
from collections.abc import Sequence

from tests.ingress.bombs import Bomb
from tests.ingress.good import MARK, Good

from forestay.media.decode import Clean, Decoder, MediaRefused, open_scratch
from forestay.media.limits import Kind

AT_A_TIME = 2


@dataclasses.dataclass(slots=True)
class Tally:
    """What came of a corpus."""

    tried: int = 0
    failures: dict[str, str] = dataclasses.field(default_factory=dict[str, str])
    slowest_seconds: float = 0.0
    child_memory_bytes: int = 0
    parent_growth_bytes: int = 0


async def opened(decoder: Decoder, folder: pathlib.Path, data: bytes, kind: Kind | None = None) -> tuple[Clean, bytes]:
    """Open one file; returns what is known of it and its clean copy."""
    with open_scratch(folder) as source, open_scratch(folder) as out:
        source.write(data)
        source.flush()
        clean = await decoder.clean(source, out, kind)
        out.seek(0)
        return clean, out.read()


async def defused(decoder: Decoder, folder: pathlib.Path, bombs: Sequence[Bomb]) -> Tally:
    """Try to open every bomb."""
    tally, gate, loop = Tally(), asyncio.Semaphore(AT_A_TIME), asyncio.get_running_loop()

    async def attempt(bomb: Bomb, data: bytes) -> None:
        async with gate:
            before, started = resident_bytes(), loop.time()
            try:
                clean, _ = await opened(decoder, folder, data)
                tally.failures[bomb.name] = f"was opened: {clean}"
            except MediaRefused as error:
                if error.fault != bomb.fault or not re.search(bomb.says, error.message):
                    tally.failures[bomb.name] = f"{error.fault}: {error.message}"
                tally.child_memory_bytes = max(tally.child_memory_bytes, error.child_memory_bytes)
            tally.tried += 1
            tally.slowest_seconds = max(tally.slowest_seconds, loop.time() - started)
            tally.parent_growth_bytes = max(tally.parent_growth_bytes, resident_bytes() - before)

    await opened(decoder, folder, FIRST)  # starts the program
    built = [(bomb, bomb.build()) for bomb in bombs]
    async with asyncio.TaskGroup() as group:
        for bomb, data in built:
            group.create_task(attempt(bomb, data))
    return tally


def fault_of(good: Good, clean: Clean, copy: bytes) -> str | None:
    """Return what is wrong with the clean copy of an honest file."""
    if clean.kind != good.kind:
        return f"is said to be {clean.kind}"
    if MARK in copy:
        return "keeps the marks of its maker"
    if good.size not in {(0, 0), (clean.width, clean.height)}:
        return f"measures {clean.width} x {clean.height}"
    if good.kind != "audio" and clean.frames != good.frames:
        return f"has {clean.frames} frames"
    return None


def resident_bytes() -> int:
    """Return how much memory this process holds."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096


FIRST = bytes.fromhex(  # a GIF of one pixel
    "47494638396101000100800000ffffff00000021f90401000000002c00000000010001000002024401003b"
)
