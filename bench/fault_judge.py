"""A judge that fails as it is told: the real server, lanes, wire and memory limit around two detectors of the bench.

`words@1` knows the marker's text, `reds@1` red pictures. What goes wrong stands in the file FORESTAY_FAULT_FILE and is
read at every question, so that a fault begins and ends under traffic. What cannot be told to a detector (a kill, a
stop) `fault_world` does to the process. Run as `python -m bench.fault_judge` with the judge's own settings.
"""

import asyncio
import contextlib
import itertools
import math
import os
import pathlib
import signal
import time
from collections.abc import Sequence

from bench.fault_model.marks import MARK
from forestay.clock import SystemClock
from forestay.safety.judge import server as judge_server
from forestay.safety.judge import wire
from forestay.safety.judge.lanes import Lane
from forestay.safety.judge.process import JudgePorts, judging, limit_process
from forestay.safety.model import Content, DetectorInfo, Outcome, Picture, Scores, Text
from forestay.safety.taxonomy import Category, Modality
from forestay.settings import Settings, process_environment
from forestay.telemetry.metrics import Metrics

SLOW_SECONDS = 0.25  # of each question while it is slow
FULL_SECONDS = 0.05  # of each question while queues are full
CHUNK_BYTES = 32 * 1024 * 1024


class Fault:
    """What goes wrong now."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._turn = itertools.count(1)

    def now(self) -> str:
        """Read it; empty while nothing does."""
        with contextlib.suppress(FileNotFoundError):
            return self._path.read_text().strip()
        return ""

    def turn(self) -> int:
        """Count questions, so that a fault may show in several forms by turns."""
        return next(self._turn)


class Words:
    """Knows one text."""

    info = DetectorInfo("words@1", "sha256:words", {Modality.TEXT: frozenset({Category.VIOLENCE})}, costly=False)

    def __init__(self, fault: Fault) -> None:
        self._fault = fault

    def load(self) -> None:
        """Need nothing."""

    def settle(self) -> None:
        """Need nothing more."""

    def score(self, content: Content) -> Outcome:
        """Score, unless told to fail."""
        score = 1.0 if isinstance(content, Text) and MARK in content.text else 0.0
        return Scores(self.info.detector_id, content.where, {Category.VIOLENCE: failed(self._fault, score)})


class Reds:
    """Knows red."""

    info = DetectorInfo(
        "reds@1",
        "sha256:reds",
        {Modality.IMAGE: frozenset({Category.SEXUAL}), Modality.VIDEO: frozenset({Category.SEXUAL})},
        costly=True,
    )

    def __init__(self, fault: Fault) -> None:
        self._fault = fault

    def load(self) -> None:
        """Need nothing."""

    def settle(self) -> None:
        """Need nothing more."""

    def score(self, content: Content) -> Outcome:
        """Score, unless told to fail."""
        red = isinstance(content, Picture) and sum(content.rgb[0::3]) > 2 * sum(content.rgb[2::3])
        score = 1.0 if red else 0.0
        return Scores(self.info.detector_id, content.where, {Category.SEXUAL: failed(self._fault, score)})


def failed(fault: Fault, score: float) -> float:
    """Return the score, after what goes wrong on the way to it."""
    match fault.now():
        case "slow":
            time.sleep(SLOW_SECONDS)
        case "full":
            time.sleep(FULL_SECONDS)
        case "garbage":
            return 7.5 if fault.turn() % 2 else -1.0
        case "nan":
            return math.nan if fault.turn() % 2 else math.inf
        case "memory":
            run_out(fault)
        case _:
            pass
    return score


def run_out(fault: Fault) -> None:
    """Take memory until there is none: the limit of the process says no, or the kernel kills it."""
    if fault.turn() % 8 == 0:
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel's own killer does, which asks nobody
    held: list[bytearray] = []
    while True:
        held.append(bytearray(CHUNK_BYTES))


def speak_badly(fault: Fault) -> None:
    """Let the judge say what its own checks would have caught: clients must not rest on them."""
    honest, plain = judge_server.result_of, judge_server.frame

    def result_of(outcome: Outcome) -> wire.Scored | wire.Failed:
        wrong = {"garbage": 99.0, "nan": math.nan}.get(fault.now())
        if wrong is None or fault.turn() % 2:
            return honest(outcome)
        return wire.Scored({Category.VIOLENCE: wrong, Category.SEXUAL: wrong}, 0.0, {})

    def frame(message: wire.Ask | wire.Forget | wire.Hello | wire.Answer) -> bytearray:
        if fault.now() == "garbage" and isinstance(message, wire.Answer) and fault.turn() % 5 == 0:
            return bytearray(b"\xff\xff\xff\xff no frame of this protocol")
        return plain(message)

    judge_server.result_of, judge_server.frame = result_of, frame


async def fill_queues(lanes: Sequence[Lane], fault: Fault, longest: int) -> None:
    """Give queues room for one question while they are to be full."""
    while True:
        for lane in lanes:
            lane._longest = 1 if fault.now() == "full" else longest  # noqa: SLF001 - a double: no setting changes it
        await asyncio.sleep(0.02)


async def serve(settings: Settings, fault: Fault) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    limit_process(settings.judge)
    ports = JudgePorts([Words(fault), Reds(fault)], settings.judge, SystemClock(), Metrics())
    async with judging(ports) as server, asyncio.TaskGroup() as group:
        filling = group.create_task(fill_queues(list(server.lanes.values()), fault, settings.judge.queue))
        await stop.wait()
        filling.cancel()


def main() -> None:
    """Run it."""
    environment = process_environment()
    fault = Fault(pathlib.Path(environment["FORESTAY_FAULT_FILE"]))
    speak_badly(fault)
    asyncio.run(serve(Settings.from_environment(environment), fault))


if __name__ == "__main__":
    main()
