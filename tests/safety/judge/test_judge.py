"""The judge as a process, and its client: what trouble looks like from outside, and how quickly it is told."""

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest
from tests.quickest import quickest
from tests.safety.judge.stubs import ACTS, Stub, Unloadable, command, running, surroundings

from forestay.clock import SystemClock
from forestay.errors import Unavailable
from forestay.safety.judge import client as client_module
from forestay.safety.judge import wire
from forestay.safety.judge.client import JudgeClient
from forestay.safety.judge.process import JudgePorts, judging
from forestay.safety.model import Outcome, Picture, Scores, Text, Trouble, Unscored
from forestay.safety.taxonomy import Category
from forestay.settings import Judge
from forestay.telemetry.metrics import Metrics

CLOCK = SystemClock()
WORD = Text("prompt", "twelve chars")


@pytest.fixture(scope="module")
def shared() -> Iterator[pathlib.Path]:
    """The socket of a judge that tests share which leave it as they find it; a queue of eight."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fs-judge-"))
    process = subprocess.Popen(command(folder / "s", queue=8), stdout=subprocess.PIPE, **surroundings())
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield folder / "s"
    process.kill()
    process.communicate()
    shutil.rmtree(folder)


@pytest.fixture
async def client(shared: pathlib.Path) -> AsyncIterator[JudgeClient]:
    """A client of the shared judge."""
    made = JudgeClient(shared, CLOCK)
    yield made
    await made.close()


@pytest.fixture
def folder() -> Iterator[pathlib.Path]:
    """A short folder for a socket."""
    made = pathlib.Path(tempfile.mkdtemp(prefix="fs-judge-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
async def judge(folder: pathlib.Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A judge of stubs, with a queue of eight."""
    async with running(folder / "s", queue=8) as process:
        yield process


@pytest.fixture
async def own_client(folder: pathlib.Path) -> AsyncIterator[JudgeClient]:
    """A client of it, or of whatever else listens there."""
    made = JudgeClient(folder / "s", CLOCK)
    yield made
    await made.close()


def trouble_of(outcomes: "list[Outcome] | tuple[Outcome, ...]") -> list[Trouble | None]:
    """What went wrong with each, None for scores."""
    return [outcome.trouble if isinstance(outcome, Unscored) else None for outcome in outcomes]


async def troubles(client: JudgeClient, detector: str, within: float = 5.0) -> list[Trouble | None]:
    """Ask about one word."""
    return trouble_of(list(await client.ask(detector, [WORD], within)))


async def test_the_judge_says_which_detectors_it_has_and_scores_each_piece_of_content(client: JudgeClient) -> None:
    """One outcome for each, in order, under the name of its place; pictures arrive whole."""
    known = await client.known()
    assert {info.detector_id for info in known} == {"unloadable@1", *(f"{name}@1" for name in ACTS)}
    assert all(info.covers and info.digest for info in known)
    picture = Picture("image", 1024, 768, bytes(1024 * 768 * 3 - 1) + b"\xff")
    found = await client.ask("plain@1", [WORD, picture, Text("other", "")], 5.0)
    assert [outcome.where for outcome in found] == ["prompt", "image", "other"]
    scores = [outcome.scores[Category.HATE] for outcome in found if isinstance(outcome, Scores)]
    assert scores == [0.012, 1.0, 0.0]
    assert await client.ask("plain@1", [], 5.0) == []


@pytest.mark.parametrize("name", ["crash", "oom", "nan", "huge", "unloadable", "unknown"])
async def test_what_a_detector_does_wrong_is_a_crash_and_the_others_go_on(client: JudgeClient, name: str) -> None:
    """Exceptions, memory, scores that are none, weights that are not there, names that nobody has: all are no score."""
    assert await troubles(client, f"{name}@1") == [Trouble.CRASH]
    assert await troubles(client, "plain@1") == [None]


async def test_a_picture_that_lies_about_its_size_or_is_too_large_to_send_is_unreadable(client: JudgeClient) -> None:
    """Beside it, the rest is scored."""
    lying, vast = Picture("a", 9, 9, bytes(3)), Picture("b", 1, 1, bytes(wire.MAX_CONTENT_BYTES + 1))
    found = list(await client.ask("plain@1", [lying, vast, WORD], 5.0))
    assert trouble_of(found) == [Trouble.UNREADABLE, Trouble.UNREADABLE, None]


async def test_an_answer_that_does_not_come_in_time_is_a_timeout_on_the_dot(client: JudgeClient) -> None:
    """The deadline is kept on our side too, and what comes late is dropped: the next answer is the next question's."""
    await client.known()

    async def told() -> float:
        started = CLOCK.monotonic()
        late = list(await client.ask("slow@1", [Text("a", "0.3")], 0.05))
        assert trouble_of(late) == [Trouble.TIMEOUT]
        return CLOCK.monotonic() - started

    assert await quickest(told, 0.05 + 0.1) < 0.05 + 0.1
    found = list(await client.ask("slow@1", [Text("b", "0")], 5.0))
    assert (found[0].where, trouble_of(found)) == ("b", [None])


async def test_a_full_queue_is_an_overload_at_once(client: JudgeClient) -> None:
    """Eight wait, one is worked on; the others are told before the first has ended."""
    await client.known()
    started = CLOCK.monotonic()
    ended: list[tuple[float, Trouble | None]] = []

    async def one() -> None:
        [outcome] = trouble_of(list(await client.ask("slow@1", [Text("a", "0.05")], 5.0)))
        ended.append((CLOCK.monotonic() - started, outcome))

    await asyncio.gather(*(one() for _ in range(30)))
    overloaded = [seconds for seconds, trouble in ended if trouble is Trouble.OVERLOAD]
    assert 30 - 9 <= len(overloaded) <= 30 - 8
    assert max(overloaded) < min(seconds for seconds, trouble in ended if trouble is None)


async def test_what_nobody_waits_for_any_more_is_not_worked_on(client: JudgeClient) -> None:
    """A cancelled question leaves the queue to those behind it."""
    await client.known()
    async with asyncio.timeout(6.0):
        waiting = [asyncio.ensure_future(client.ask("slow@1", [Text("a", "1")], 60.0)) for _ in range(8)]  # noqa: TID251 - cancelled one by one
        await asyncio.sleep(0)
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert trouble_of(list(await client.ask("slow@1", [Text("b", "0")], 60.0))) == [None]


async def test_a_judge_that_dies_is_a_crash_within_milliseconds_and_is_used_again_when_it_is_back(
    folder: pathlib.Path, own_client: JudgeClient
) -> None:
    """Killed in the middle of a question, away, and back under the same path."""
    async with running(folder / "s"):
        await own_client.known()
        started = CLOCK.monotonic()
        both = await asyncio.gather(troubles(own_client, "slow@1", 60.0), troubles(own_client, "die@1", 60.0))
        assert both == [[Trouble.CRASH], [Trouble.CRASH]]
        assert CLOCK.monotonic() - started < 10.0  # a busy machine is slow to end a process; the limit was a minute

    async def refused() -> float:
        started = CLOCK.monotonic()
        assert await troubles(own_client, "plain@1", 60.0) == [Trouble.CRASH]
        return CLOCK.monotonic() - started

    assert await quickest(refused, 0.2) < 0.2
    with pytest.raises(Unavailable, match="forestay judge"):
        await own_client.known()
    async with running(folder / "s"):
        started = CLOCK.monotonic()
        while await troubles(own_client, "plain@1") == [Trouble.CRASH]:
            await CLOCK.sleep(0.01)
        assert CLOCK.monotonic() - started < client_module._LONGEST_PAUSE_SECONDS + 5.0


async def test_a_judge_that_stands_still_is_a_timeout_and_its_late_answers_are_dropped(
    judge: asyncio.subprocess.Process, own_client: JudgeClient
) -> None:
    """Stopped by a signal, as a machine that swaps would stop it; then it goes on."""
    await own_client.known()
    judge.send_signal(signal.SIGSTOP)
    assert await troubles(own_client, "plain@1", 0.05) == [Trouble.TIMEOUT]
    stranger = JudgeClient(own_client._path, CLOCK)
    assert await troubles(stranger, "plain@1", 0.05) == [Trouble.TIMEOUT]
    judge.send_signal(signal.SIGCONT)
    assert await troubles(own_client, "plain@1") == [None]
    assert await troubles(stranger, "plain@1") == [None]
    await stranger.close()


async def test_what_a_standing_judge_does_not_read_is_not_piled_up(
    judge: asyncio.subprocess.Process, own_client: JudgeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a limit of bytes on the way a question is an overload at once."""
    monkeypatch.setattr(client_module, "_MAX_ON_THE_WAY_BYTES", 1024)
    await own_client.known()
    judge.send_signal(signal.SIGSTOP)
    picture = Picture("a", 1024, 4096, bytes(1024 * 4096 * 3))
    assert trouble_of(list(await own_client.ask("plain@1", [picture], 0.05))) == [Trouble.TIMEOUT]
    assert await troubles(own_client, "plain@1", 60.0) == [Trouble.OVERLOAD]


async def test_a_detector_that_hangs_ends_the_judge_and_whoever_waits_is_told(
    folder: pathlib.Path, own_client: JudgeClient
) -> None:
    """Its supervisor would start it again."""
    async with running(folder / "s", hang_seconds=0.3) as process:
        started = CLOCK.monotonic()
        assert trouble_of(list(await own_client.ask("slow@1", [Text("a", "30")], 60.0))) == [Trouble.CRASH]
        assert CLOCK.monotonic() - started < 10.0  # the detector would hang for 30 s
        assert await process.wait() == 4


async def test_a_thousand_questions_at_once_have_each_their_own_answer(client: JudgeClient) -> None:
    """Each is scored for its own text, or an overload; none is lost, none is another's."""

    async def one(size: int) -> Trouble | None:
        [outcome] = await client.ask("plain@1", [Text(f"field {size}", "x" * size)], 10.0)
        assert outcome.where == f"field {size}"
        if isinstance(outcome, Scores):
            assert outcome.scores == {Category.HATE: size / 1000}
            return None
        return outcome.trouble

    found = await asyncio.gather(*(one(size) for size in range(1000)))
    assert set(found) <= {None, Trouble.OVERLOAD}
    assert found.count(None) >= 8


@pytest.mark.parametrize(
    "garbage",
    [
        struct.pack("!I", wire.MAX_FRAME_BYTES + 1),
        struct.pack("!I", 3) + b"\xc1\xc1\xc1",
        struct.pack("!I", 6) + msgspec.msgpack.encode(["ask"])[:6].ljust(6, b"\0"),
        bytes(wire.frame(wire.Ask(1, "slow@1", 500, [wire.TextPart("a", "1")]))) * 2,
        bytes(wire.frame(wire.Ask(1, "plain@1", 500, [wire.TextPart("a", "1")] * (wire.MAX_CONTENTS + 1)))),
    ],
)
async def test_a_client_that_sends_garbage_is_cut_off_and_nobody_else(
    shared: pathlib.Path, client: JudgeClient, garbage: bytes
) -> None:
    """Its connection ends; the judge goes on."""
    reader, writer = await asyncio.open_unix_connection(str(shared))
    writer.write(garbage)
    async with asyncio.timeout(5.0):
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
    writer.close()
    assert await troubles(client, "plain@1") == [None]


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        struct.pack("!I", 2) + b"\xc1\xc1",
        bytes(wire.frame(wire.Hello(99, []))),
        bytes(wire.frame(wire.Hello(wire.VERSION, []))) + bytes(wire.frame(wire.Answer(1, []))),
        bytes(wire.frame(wire.Hello(wire.VERSION, []))) * 2,
    ],
)
async def test_a_judge_that_speaks_garbage_is_a_crash(
    folder: pathlib.Path, own_client: JudgeClient, said: bytes
) -> None:
    """Nothing of what it says afterwards is believed."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await reader.read(1 << 16)
        writer.close()

    server = await asyncio.start_unix_server(speak, str(folder / "s"))
    assert await troubles(own_client, "plain@1", 5.0) == [Trouble.CRASH]
    server.close()


@pytest.mark.threat("API8:2023")
async def test_the_socket_opens_for_our_user_alone(folder: pathlib.Path, judge: asyncio.subprocess.Process) -> None:
    """By its mode, and by asking the kernel who is there even where the mode would let others in."""
    path = folder / "s"
    assert mode_of(path) == 0o600
    if os.geteuid() != 0:
        pytest.skip("needs root, to be someone else")
    set_mode(folder, 0o755)
    assert await _heard_by_another_user(path) == b"PermissionError"
    set_mode(path, 0o666)
    assert await _heard_by_another_user(path) in {b"", b"ConnectionResetError"}
    assert judge.returncode is None


def mode_of(path: pathlib.Path) -> int:
    """Permission bits of a file."""
    return path.stat().st_mode & 0o777


def set_mode(path: pathlib.Path, mode: int) -> None:
    """Change them."""
    path.chmod(mode)


async def _heard_by_another_user(path: pathlib.Path) -> bytes:
    """What user 65534 hears on the socket."""
    code = (
        "import os, socket, sys\nos.setgid(65534); os.setuid(65534)\ns = socket.socket(socket.AF_UNIX)\n"
        "try:\n    s.connect(sys.argv[1]); print(s.recv(99))\nexcept OSError as e:\n    print(type(e).__name__)"
    )
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-c", code, str(path)), stdout=subprocess.PIPE, cwd="/"
    )
    said, _ = await child.communicate()
    return said.strip().removeprefix(b"b''")


async def test_what_follows_the_loading_of_all_is_done_once_though_one_cannot_be_loaded() -> None:
    """The collector is calmed then; earlier it would still look through what is being made."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fs-judge-"))
    done, loop = asyncio.Queue[None](), asyncio.get_running_loop()
    detectors = [Unloadable(), Stub("plain"), Stub("slow")]
    settings = dataclasses.replace(Judge(), socket=str(folder / "s"))
    ports = JudgePorts(
        detectors, settings, CLOCK, Metrics(), lambda: loop.call_soon_threadsafe(done.put_nowait, None) and None
    )
    async with judging(ports):
        await asyncio.wait_for(done.get(), 10)
    assert done.empty()
    shutil.rmtree(folder)
