"""`forestay judge` as `forestay up` runs it: bare of secrets, gone with its parent, soon back when it died."""

import asyncio
import contextlib
import os
import pathlib
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator

import pytest
from tests.conformance.memory_fleet import ManualClock
from tests.platform.platform import run_cli
from tests.quickest import quickest

from forestay.clock import SystemClock
from forestay.errors import UsageError
from forestay.safety.judge.client import JudgeClient
from forestay.safety.judge.folder import environment_of_judge, is_wanted, missing, socket_in
from forestay.safety.model import Picture, Scores, Trouble, Unscored
from forestay.settings import Judge, process_environment
from forestay.supervisor import ChildProcess, ChildSpec, Keeper, RestartPolicy

CLOCK = SystemClock()
PATIENCE_SECONDS = 60.0  # of a question; a crash is told at once, whatever it is
PICTURE = Picture("image", 64, 64, bytes(64 * 64 * 3))
needs_models = pytest.mark.skipif(bool(missing()), reason="the extra `safety` is not installed")


@contextlib.asynccontextmanager
async def supervised() -> AsyncIterator[tuple[ChildProcess, JudgeClient, float]]:
    """A judge under its keeper, a client, and the seconds that its first start and score took."""
    root = pathlib.Path(tempfile.mkdtemp(prefix="fs-judge-"))
    path = socket_in(root / "judge")
    secrets = {"FORESTAY_KEY_PEPPER": "a secret", "FORESTAY_DATABASE_URL": "postgresql://user:password@host/db"}
    whole = {**process_environment(), **secrets, "FORESTAY_JUDGE_SOCKET": str(path)}
    spec = ChildSpec("judge-1", ("judge",), environment_of_judge(whole), root / "judge.log", root)
    child = ChildProcess(spec, CLOCK)
    keeper = Keeper(child, CLOCK, lambda _: None, lambda: None, RestartPolicy())
    client = JudgeClient(path, CLOCK)
    began = CLOCK.monotonic()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(keeper.run())
        try:
            assert await keeper.until_ready(asyncio.Event())
            [outcome] = await client.ask("nsfw@1", [PICTURE], PATIENCE_SECONDS)
            assert isinstance(outcome, Scores)
            assert 0.0 <= min(outcome.scores.values()) <= 0.5
            yield child, client, CLOCK.monotonic() - began
        finally:
            await client.close()
            await keeper.stop()
            shutil.rmtree(root)


@needs_models
async def test_a_killed_judge_scores_again_within_two_seconds_and_never_holds_a_secret() -> None:
    """Measured by a client that goes on asking; meanwhile every check is a crash, none is a score."""
    async with supervised() as (child, client, first_start_seconds):
        environment = environment_of(child.pid)
        assert b"secret" not in environment
        assert b"password" not in environment
        wanted_seconds = max(2.0, 1.5 * first_start_seconds)  # a machine busy with other things starts nothing sooner
        assert await quickest(lambda: recovery(child, client), wanted_seconds) < wanted_seconds


async def recovery(child: ChildProcess, client: JudgeClient) -> float:
    """Kill the judge and return the seconds until it scores again."""
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    died = CLOCK.monotonic()
    seen: set[Trouble] = set()
    while True:
        [outcome] = await client.ask("nsfw@1", [PICTURE], PATIENCE_SECONDS)
        if isinstance(outcome, Scores) and seen:
            break
        seen |= {outcome.trouble} if isinstance(outcome, Unscored) else set()
        await CLOCK.sleep(0.005)
    assert seen == {Trouble.CRASH}
    return CLOCK.monotonic() - died


def environment_of(pid: int | None) -> bytes:
    """What a process was started with."""
    return pathlib.Path(f"/proc/{pid}/environ").read_bytes()


@pytest.mark.parametrize(("mode", "wanted"), [("on", True), ("off", False), ("auto", not missing())])
def test_a_platform_has_a_judge_when_asked_or_when_the_models_are_there(mode: str, *, wanted: bool) -> None:
    """`auto` goes by what is installed."""
    assert is_wanted(Judge(mode=mode)) is wanted


def test_an_unknown_mode_is_told_with_the_setting_and_what_it_may_be() -> None:
    """Before anything starts."""
    with pytest.raises(UsageError, match="FORESTAY_JUDGE: 'maybe' is unknown; expected auto, on or off"):
        is_wanted(Judge(mode="maybe"))


def test_a_judge_without_a_socket_says_which_setting_is_missing() -> None:
    """One line, exit 2."""
    ended = run_cli("judge")
    assert ended.returncode == 2
    assert "FORESTAY_JUDGE_SOCKET: is not set" in ended.stderr


@needs_models
def test_the_detectors_that_a_judge_would_serve_can_be_listed() -> None:
    """For people and as JSON."""
    assert "nsfw@1" in run_cli("judge", "--list").stdout
    assert '"digest": "sha256:' in run_cli("judge", "--list", "--json").stdout


async def test_no_judge_at_all_is_a_crash_at_once_and_tried_again_at_growing_pauses(tmp_path: pathlib.Path) -> None:
    """A client never waits for a judge that is not there."""
    clock = ManualClock()
    client = JudgeClient(tmp_path / "nothing", clock)
    for pause in (0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5):
        for _ in range(2):
            [outcome] = await client.ask("nsfw@1", [PICTURE], 5.0)
            assert isinstance(outcome, Unscored)
            assert outcome.trouble is Trouble.CRASH
        assert client._not_before == pytest.approx(clock.monotonic() + pause)
        clock.advance(pause)
    await client.close()
