"""`safety_latency`: how long judging takes on loopback, against a real judge process, 20 questions a second.

Open loop: questions leave on a fixed beat whatever the answers do, so that a slow answer makes the next ones wait and
is counted. A text is a prompt of 4 to 20 words, asked of the text detectors of `standard`. The picture is 1,024 x 1,024
and decoded: what is measured is the way to the judge, its preparation and the network, and the way back. `overhead` is
the pipeline's own time: 32 callers at once, each running four checks by stub detectors that take ten milliseconds,
less those ten, before the judge is asked anything in a round; beside it stands what the event loop itself adds to such
a wait. The machine must have nothing else to do: all of it is about milliseconds on two cores.
"""

import asyncio
import contextlib
import itertools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import numpy as np

from bench.table import Row, median
from forestay.clock import SystemClock
from forestay.processes import calm_collector
from forestay.safety.judge.client import JudgeClient
from forestay.safety.judge.folder import environment_of_judge
from forestay.safety.model import Content, DetectorInfo, Outcome, Picture, Scores, Text
from forestay.safety.pipeline import Check, run_checks
from forestay.safety.policy_file import standard_policy
from forestay.safety.taxonomy import Category, Modality
from forestay.settings import process_environment

RATE = 20.0
SECONDS = 8.0  # a round
WARM_UP = 20
CALLERS = 32
STUB_SECONDS = 0.010
_SUBJECTS = ("a lighthouse", "two foxes", "an old sailor", "a glass city", "the last train", "a bowl of pears")
_PLACES = ("on a cliff at dawn", "in deep snow", "by a harbour in the rain", "under a violet sky", "in a quiet library")
_STYLES = (
    "oil painting",
    "35mm photograph, soft light, shallow depth of field, highly detailed",
    "watercolour with visible brush strokes, muted colours, wide composition, trending style of the nineties",
)
RUNS = 40  # of each caller and round
CLOCK = SystemClock()
_FRESH = itertools.count(1)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of them lie."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


@contextlib.asynccontextmanager
async def judge() -> AsyncIterator[tuple[JudgeClient, int]]:
    """Run `forestay judge` while the block runs; yields a client and the process id."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fs-bench-"))
    path = folder / "judge.sock"
    environment = environment_of_judge({**process_environment(), "FORESTAY_JUDGE_SOCKET": str(path)})
    command = [sys.executable, "-P", "-m", "forestay", "judge"]
    process = subprocess.Popen(  # noqa: ASYNC220 - a bench
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    client = JudgeClient(path, CLOCK)
    try:
        async with asyncio.timeout(30):
            while not path.exists():
                await asyncio.sleep(0.02)
            await client.known()
        yield client, process.pid
    finally:
        await client.close()
        os.kill(process.pid, signal.SIGTERM)
        process.wait(10)
        shutil.rmtree(folder)


async def open_loop(ask: Callable[[int], Awaitable[Sequence[Outcome]]], count: int) -> list[float]:
    """Ask `count` times on a fixed beat; returns milliseconds from when each was due, the whole round for one unscored.

    So a judge that turns questions away on a machine that is too slow shows as slow, never as quick.
    """
    took: list[float] = []
    begin = time.perf_counter() + 0.05

    async def one(number: int) -> None:
        due = begin + number / RATE
        await asyncio.sleep(due - time.perf_counter())
        outcomes = await ask(number)
        scored = all(isinstance(outcome, Scores) for outcome in outcomes)
        took.append((time.perf_counter() - due if scored else count / RATE) * 1000)

    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            tasks.create_task(one(number))
    return took


class Stubs:
    """Detectors that take ten milliseconds."""

    async def known(self) -> Sequence[DetectorInfo]:
        """Not asked here."""
        return ()

    async def ask(self, detector_id: str, contents: Sequence[Content], within_seconds: float) -> Sequence[Outcome]:
        """Answer after the wait."""
        del within_seconds
        await asyncio.sleep(STUB_SECONDS)
        return [Scores(detector_id, content.where, {Category.SEXUAL: 0.1}) for content in contents]


async def overhead(*, bare: bool) -> list[float]:
    """Return milliseconds beyond the stubs' ten, of the pipeline or of waits alone."""
    picture = Picture("image", 1, 1, b"\0\0\0")
    checks = [Check(f"stub-{number}", (picture,)) for number in range(4)]
    took: list[float] = []

    async def caller() -> None:
        for _ in range(RUNS):
            started = time.perf_counter()
            if bare:
                await asyncio.gather(*(asyncio.sleep(STUB_SECONDS) for _ in checks))
            else:
                await run_checks(checks, Stubs(), 1.0, CLOCK)
            took.append((time.perf_counter() - started - STUB_SECONDS) * 1000)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return took


async def _pictures(client: JudgeClient) -> list[float]:
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    pictures = [
        Picture("image", 1024, 1024, np.roll(np.kron(coarse, np.ones((16, 16, 1), np.uint8)), turn, 0).tobytes())
        for turn in range(4)
    ]
    return await open_loop(lambda number: client.ask("nsfw@1", [pictures[number % 4]], 5.0), int(RATE * SECONDS))


async def _texts(client: JudgeClient) -> list[float]:
    """The text detectors of the policy that comes along, as a guard asks them: through the pipeline."""
    named = sorted({name for rule in standard_policy().rules_for(Modality.TEXT) for name in rule.detectors})
    prompts = [f"{subject} {place}, {style}" for subject in _SUBJECTS for place in _PLACES for style in _STYLES]

    async def ask(number: int) -> Sequence[Outcome]:
        # No prompt comes twice: the judge remembers what it has scored.
        content = (Text("prompt", f"{prompts[number * 7 % len(prompts)]} {next(_FRESH)}"),)
        checks = [Check(name, content, costly=True) for name in named]
        return await run_checks(checks, client, 5.0, CLOCK)

    return await open_loop(ask, int(RATE * SECONDS))


async def _recovery(client: JudgeClient, pid: int) -> float:
    """Return milliseconds until a question to a judge that was just killed is told so."""
    picture = Picture("image", 64, 64, bytes(64 * 64 * 3))
    os.kill(pid, signal.SIGKILL)
    started = time.perf_counter()
    await client.ask("nsfw@1", [picture], 5.0)
    return (time.perf_counter() - started) * 1000


async def _measure(rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {
        name: [] for name in ("text p50", "text p99", "p50", "p99", "overhead p50", "overhead p99", "bare p99")
    }
    async with judge() as (client, pid):
        for _ in range(WARM_UP):
            await client.ask("nsfw@1", [Picture("image", 64, 64, bytes(64 * 64 * 3))], 10.0)
            await client.ask("text-meaning@1", [Text("prompt", "a lighthouse at dawn")], 10.0)
        for _ in range(rounds):
            own = await overhead(bare=False)
            found["overhead p50"].append(percentile(own, 0.5))
            found["overhead p99"].append(percentile(own, 0.99))
            found["bare p99"].append(percentile(await overhead(bare=True), 0.99))
            read = await _texts(client)
            found["text p50"].append(percentile(read, 0.5))
            found["text p99"].append(percentile(read, 0.99))
            took = await _pictures(client)
            found["p50"].append(percentile(took, 0.5))
            found["p99"].append(percentile(took, 0.99))
        found["dead"] = [await _recovery(client, pid)]
    return found


def run(rounds: int) -> list[Row]:
    """Measure `rounds` rounds; the median of each figure counts."""
    import uvloop  # noqa: PLC0415 - as the processes that ask run on it

    calm_collector()  # as they do when they are ready
    found = uvloop.run(_measure(rounds))
    cores = f"{os.cpu_count()} cores"
    return [
        Row("text, p50", median(found["text p50"]), "ms", 8.0, "<=", "as the policy `standard` asks"),
        Row("text, p99", median(found["text p99"]), "ms", 30.0, "<="),
        Row("picture 1,024 px, p50", median(found["p50"]), "ms", 45.0, "<=", f"20 a second, {cores}"),
        Row("picture 1,024 px, p99", median(found["p99"]), "ms", 90.0, "<="),
        Row("pipeline overhead, p50", median(found["overhead p50"]), "ms", note="32 callers, 4 stubs of 10 ms each"),
        Row("pipeline overhead, p99", median(found["overhead p99"]), "ms", 3.0, "<="),
        Row("the same waits without it, p99", median(found["bare p99"]), "ms", note="what the event loop adds"),
        Row("a killed judge is told after", median(found["dead"]), "ms"),
    ]
