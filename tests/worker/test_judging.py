"""Judging an answer whatever happens meanwhile."""

import asyncio
import base64
import dataclasses
import json
import pathlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import IO, cast

import pytest
from tests.safety.doubles import MARKER, POLICY, GuardWorld, guard_world
from tests.safety.test_guard import subject
from tests.worker.harness import MemoryMedia

from forestay.clock import SystemClock
from forestay.media.fetch import Fetcher
from forestay.queue.model import Answer
from forestay.safety.decide import Place
from forestay.safety.guard import Item
from forestay.safety.model import Picture
from forestay.safety.policy import Action
from forestay.safety.taxonomy import Modality
from forestay.worker.input_judging import InputJudge
from forestay.worker.input_media import Reader
from forestay.worker.judging import OutputJudge
from forestay.worker.opening import JudgingPorts

PICTURES_ALONE = POLICY[: POLICY.index("  - modality: text")] + POLICY[POLICY.index("  - modality: image") :]


@dataclasses.dataclass
class Viewer:
    """Sees a calm picture in every file; something happens while it looks."""

    meanwhile: Callable[[], Awaitable[None]]
    looked: int = 0

    async def look(self, file: IO[bytes], where: str, prompt_score: float) -> Sequence[Item]:
        """Look."""
        del file, prompt_score
        self.looked += 1
        await self.meanwhile()
        return [Item(Place(where, Modality.IMAGE), (Picture(where, 1, 1, b"\0\0\0"),))]


@pytest.fixture
async def world() -> AsyncIterator[GuardWorld]:
    """A guard that runs, under a policy that looks at pictures alone."""
    made = await guard_world()
    made.store.put("strict", PICTURES_ALONE)
    await made.policies.refresh()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(made.guard.run())
        await asyncio.sleep(0)
        yield made
        running.cancel()


def ports_of(world: GuardWorld, folder: pathlib.Path, viewer: Viewer) -> JudgingPorts:
    """Return what judging needs of the world."""
    return JudgingPorts(
        guard=world.guard,
        media=MemoryMedia(SystemClock()),
        fetcher=cast("Fetcher", None),
        viewer=viewer,
        folder=folder,
        clock=SystemClock(),
        file_seconds=5.0,
    )


URI = f"data:image/png;base64,{base64.b64encode(b'a picture').decode()}"
BODY = f'{{"text": "{MARKER}", "image": "{URI}"}}'.encode()


Judging = Callable[[GuardWorld, pathlib.Path, Viewer], Awaitable[tuple[Action, int]]]


async def judged(world: GuardWorld, folder: pathlib.Path, viewer: Viewer) -> tuple[Action, int]:
    """Judge an answer with a picture and a marked text; returns what follows, and how often it was looked at."""
    judge = OutputJudge(ports_of(world, folder, viewer))
    ruled = await judge.judge(subject(), Answer(200, {"content-type": "application/json"}, BODY))
    return ruled.judgement.action, viewer.looked


async def judged_frame(world: GuardWorld, folder: pathlib.Path, viewer: Viewer) -> tuple[Action, int]:
    """Judge a frame that says and shows the same; returns as `judged`."""
    judge, reader = InputJudge(ports_of(world, folder, viewer)), Reader({}, fetches=False)
    judgement = await judge.judge_frame(subject(), json.loads(BODY), BODY, reader)
    assert judgement is not None
    return judgement.action, viewer.looked


@pytest.mark.parametrize("judging", [judged, judged_frame])
async def test_a_policy_that_asks_for_more_meanwhile_is_judged_by_in_full(
    world: GuardWorld, tmp_path: pathlib.Path, judging: Judging
) -> None:
    """What was gathered for the old version leaves out what the new one looks at: it is gathered again."""

    async def nothing() -> None:
        return

    async def reload() -> None:
        world.store.put("strict", POLICY)
        await world.policies.refresh()

    assert await judging(world, tmp_path, Viewer(nothing)) == (Action.ALLOW, 1)
    assert await judging(world, tmp_path, Viewer(reload)) == (Action.BLOCK, 2)


@pytest.mark.parametrize("judging", [judged, judged_frame])
async def test_a_policy_that_never_stands_still_releases_nothing(
    world: GuardWorld, tmp_path: pathlib.Path, judging: Judging
) -> None:
    """After two looks it is left for later: to be judged again, or withheld."""
    versions = [POLICY, POLICY.replace("modality: text", "modality: audio")]

    async def reload() -> None:
        world.store.put("strict", versions.pop(0))
        await world.policies.refresh()

    assert (await judging(world, tmp_path, Viewer(reload)))[0] is Action.REVIEW
