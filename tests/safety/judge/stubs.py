"""A judge with detectors that misbehave on request, as a process of its own: `python -m` with a socket's path.

Each detector does what its id says; `slow` takes the seconds that the text names, `names` gives the text back.
"""

import asyncio
import contextlib
import dataclasses
import math
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TypedDict

from forestay.clock import SystemClock
from forestay.safety.judge.process import JudgePorts, judging, limit_process
from forestay.safety.model import Content, DetectorInfo, Outcome, Picture, Scores, Text
from forestay.safety.taxonomy import Category, Modality
from forestay.settings import Judge
from forestay.telemetry.logs import configure
from forestay.telemetry.metrics import Metrics

COVERS: Mapping[Modality, frozenset[Category]] = {Modality.TEXT: frozenset({Category.HATE})}


def _slow(content: Content) -> float:
    SystemClock().block(float(content.text) if isinstance(content, Text) else 0.0)
    return 0.5


def _crash(content: Content) -> float:
    raise ValueError(content.where)


def _oom(content: Content) -> float:
    return float(len(bytearray(1 << 40)) + len(content.where))


def _die(content: Content) -> float:
    os.kill(os.getpid(), signal.SIGKILL)
    return float(len(content.where))


def _plain(content: Content) -> float:
    if isinstance(content, Text):
        return len(content.text) / 1000
    assert isinstance(content, Picture)
    return content.rgb[-1] / 255


ACTS: Mapping[str, Callable[[Content], float]] = {
    "plain": _plain,
    "slow": _slow,
    "crash": _crash,
    "oom": _oom,
    "nan": lambda _: math.nan,
    "huge": lambda _: 1.5,
    "die": _die,
}


class Stub:
    """One of them."""

    def __init__(self, name: str) -> None:
        self._act = ACTS[name]
        self.info = DetectorInfo(f"{name}@1", "sha256:00", COVERS, costly=False)

    def load(self) -> None:
        """Need nothing."""

    def settle(self) -> None:
        """Need nothing more."""

    def score(self, content: Content) -> Outcome:
        """Do what it is for."""
        return Scores(self.info.detector_id, content.where, {Category.HATE: self._act(content)})


class Unloadable(Stub):
    """One that cannot be loaded."""

    def __init__(self) -> None:
        super().__init__("plain")
        self.info = DetectorInfo("unloadable@1", "sha256:00", COVERS, costly=False)

    def load(self) -> None:
        """Fail."""
        raise OSError("no such weights")


async def serve(settings: Judge) -> None:
    """Serve until killed."""
    configure("judge")
    limit_process(settings)
    detectors = [Unloadable(), *(Stub(name) for name in ACTS)]
    async with judging(JudgePorts(detectors, settings, SystemClock(), Metrics())):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


ROOT = pathlib.Path(__file__).parents[3]


def command(path: pathlib.Path, **settings: float) -> list[str]:
    """The command that starts one on `path`."""
    words = [f"{name}={value}" for name, value in settings.items()]
    return [sys.executable, "-m", "tests.safety.judge.stubs", str(path), *words]


def surroundings() -> "Surroundings":
    """Where it runs."""
    return {"cwd": ROOT, "env": {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}, "stderr": subprocess.DEVNULL}


class Surroundings(TypedDict):
    """What is passed to the start of a process."""

    cwd: pathlib.Path
    env: dict[str, str]
    stderr: int


@contextlib.asynccontextmanager
async def running(path: pathlib.Path, **settings: float) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run one on `path` while the block runs."""
    process = await asyncio.create_subprocess_exec(*command(path, **settings), stdout=subprocess.PIPE, **surroundings())
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


if __name__ == "__main__":
    given = dict(word.split("=") for word in sys.argv[2:])
    defaults = Judge()
    wanted = {name: type(getattr(defaults, name))(value) for name, value in given.items()}
    asyncio.run(serve(dataclasses.replace(defaults, socket=sys.argv[1], **wanted)))
