"""A worker that plays golden canaries on its replicas: what it learns, what it finds, and whom it does not disturb."""

import base64
import dataclasses
import datetime as dt
import json
from collections.abc import Callable, Iterator
from unittest import mock

import aiohttp
import pytest
from tests.quality import making
from tests.worker.harness import MODEL, WORKER, Harness, running_worker, spec_of, until

from forestay.fleet.model import Revision
from forestay.fleet.spec import ModelSpec
from forestay.fleet.spec_quality import CanaryInput, CanarySpec, QualityMode, QualitySpec
from forestay.quality import golden
from forestay.quality.canary import CORRUPT, Standing
from forestay.quality.canary_store import ANY_REVISION, EVERYWHERE, Ask, Ended, PlayedRound
from forestay.quality.findings import Source
from forestay.quality.golden import Cause
from forestay.worker import canaries

pytestmark = pytest.mark.slow  # real model processes; the round by itself is in test_canary_round
GOOD = base64.b64encode(making.packed(making.scene())).decode()
OTHER = base64.b64encode(making.packed(making.flat((200, 40, 40)))).decode()
APP = """
import base64, os
import fal
from fal.toolkit import File
from pydantic import BaseModel

class In(BaseModel):
    seed: int = 0
    fall_ill: bool = False

class Out(BaseModel):
    images: list[File] = []

class Draws(fal.App, name="draws"):
    machine_type = "XS"

    def setup(self):
        self.ill = False

    @fal.endpoint("/")
    def run(self, input: In) -> Out:
        self.ill = self.ill or input.fall_ill
        drawn = os.environ["OTHER" if self.ill else "GOOD"]
        return Out(images=[File.from_bytes(base64.b64decode(drawn), content_type="image/png", file_name="a.png")])
"""
CANARIES = CanarySpec((CanaryInput("scene", json.dumps({"seed": 7})),), reruns=2)


def spec(seen: CanarySpec = CANARIES) -> ModelSpec:
    """A model with one canary."""
    made = spec_of(app="app.py::Draws", env={"GOOD": GOOD, "OTHER": OTHER})
    return dataclasses.replace(made, quality=QualitySpec(QualityMode.OFF, canaries=seen))


async def played(worker: Harness, wanted: Callable[[list[PlayedRound]], bool], what: str) -> list[PlayedRound]:
    """Wait until the rounds of the model are as wanted; returns them, the newest first."""

    async def enough() -> bool:
        return wanted(await worker.canaries.rounds(MODEL, 100))

    await until(enough, what)
    return await worker.canaries.rounds(MODEL, 100)


async def ask(worker: Harness) -> dt.datetime:
    """Ask for a round of every replica, as a person does."""
    now = worker.clock.now()
    await worker.canaries.ask(Ask(MODEL, ANY_REVISION, EVERYWHERE, Cause.PERSON, now, "look again"))
    return now


@pytest.fixture
def quick() -> Iterator[None]:
    """Asks and findings are read, and acted on, at once."""
    with (
        mock.patch.object(canaries, "POLL_SECONDS", 0.1),
        mock.patch.object(golden, "SUSPICION_PAUSE", dt.timedelta(0)),
    ):
        yield


async def deployed(worker: Harness, replicas: int, seen: CanarySpec = CANARIES) -> Revision:
    """A revision with ready replicas."""
    revision = await worker.deploy(spec(seen), {"app.py": APP}, replicas)
    await worker.ready(revision, replicas)
    return revision


@pytest.mark.usefixtures("quick")
async def test_a_replica_that_falls_ill_is_found_by_its_canary_and_its_peer_is_not() -> None:
    """Learned at the start by both; then one draws otherwise: a finding with the replica, row 29, and its numbers."""
    async with running_worker() as worker:
        await deployed(worker, 2)
        first = await played(worker, lambda rounds: len(rounds) == 2, "both replicas play at their start")
        assert {(item.cause, item.ended) for item in first} <= {
            (Cause.START, Ended.LEARNING),
            (Cause.START, Ended.PASSED),
        }
        stored = await worker.run({"fall_ill": True})
        assert stored.answer.status_code == 200
        await ask(worker)

        def asked(rounds: list[PlayedRound]) -> list[PlayedRound]:
            return [item for item in rounds if item.cause is Cause.PERSON]

        rounds = asked(await played(worker, lambda rounds: len(asked(rounds)) == 2, "both play again"))
        by_end = {item.ended: item for item in rounds}
        assert set(by_end) == {Ended.PASSED, Ended.FAILED}
        assert by_end[Ended.PASSED].canaries[0].standing is Standing.SAME
        (row,) = by_end[Ended.FAILED].canaries
        assert (row.standing, row.levels > 10, row.band) == (Standing.DIFFERS, True, 0.0)

        async def told() -> bool:
            return bool(worker.findings.kept)

        await until(told, "the finding is stored")
        (kept,) = worker.findings.kept.values()
        assert (kept.finding.source, kept.finding.catalogue) == (Source.CANARY, CORRUPT)
        assert kept.finding.where.replica_id == by_end[Ended.FAILED].replica_id
        rounds = await played(worker, lambda rounds: rounds[0].cause is Cause.SUSPICION, "its sibling is looked at")
        assert (rounds[0].ended, rounds[0].replica_id) == (Ended.PASSED, by_end[Ended.PASSED].replica_id)


async def test_canaries_leave_no_request_no_file_and_no_use_behind_but_a_picture_for_people() -> None:
    """They are nobody's traffic: a replica that only played them was never used."""
    async with running_worker() as worker:
        revision = await deployed(worker, 1)
        (round_,) = await played(worker, lambda rounds: len(rounds) == 1, "the replica plays at its start")
        assert round_.ended is Ended.LEARNING
        assert worker.media.saved == 2
        assert worker.media.items == {}
        (report,) = await worker.replicas(revision)
        assert report.last_used_at is None
        (row,) = round_.canaries
        png = await worker.objects.get(row.picture_key)
        assert png is not None
        assert png.startswith(b"\x89PNG")
        looks = await worker.canaries.taught(MODEL, revision.revision_id)
        assert [item.settled for item in looks] == [True, True]


@pytest.mark.usefixtures("quick")
async def test_a_spent_budget_ends_rounds_until_a_person_asks() -> None:
    """With nothing to spend, the start's round is not played."""
    async with running_worker() as worker:
        await deployed(worker, 1, dataclasses.replace(CANARIES, budget_seconds_per_hour=0.0))
        await ask(worker)
        (round_,) = await played(worker, lambda rounds: len(rounds) == 1, "the round that a person asked for")
        assert round_.cause is Cause.PERSON


@pytest.mark.usefixtures("quick")
async def test_a_canary_waits_while_users_want_the_slot() -> None:
    """Whoever waits is served first: no round begins beside a queue that wants the replica."""
    async with running_worker() as worker:
        await deployed(worker, 1, dataclasses.replace(CANARIES, reruns=10))
        results = [await worker.submit({"seed": number}) for number in range(6)]
        for request_id in results:
            assert (await worker.result(request_id)).answer.status_code == 200
        await played(worker, lambda rounds: len(rounds) == 1, "the round is played in the end")


async def test_a_request_with_an_adapter_on_either_lane_makes_a_round_due() -> None:
    """A minute after the last one at the earliest, as an adapter's."""
    with mock.patch.object(golden, "ADAPTER_PAUSE", dt.timedelta(0)):
        async with running_worker() as worker:
            await deployed(worker, 1)
            await played(worker, lambda rounds: len(rounds) == 1, "the replica plays at its start")
            await worker.run({"seed": 1})
            await worker.run({"seed": 1, "loras": [{"path": "noir"}]})
            rounds = await played(worker, lambda rounds: len(rounds) == 2, "a round because of the queued request")
            assert (rounds[0].cause, rounds[0].ended) == (Cause.ADAPTER, Ended.PASSED)
            (report,) = await worker.ready(await the_revision(worker))
            path = f"/direct/{report.replica_id}/"
            headers = {**worker.proof("POST", path), "content-type": "application/json"}
            async with aiohttp.ClientSession() as session:
                body = json.dumps({"loras": [{"path": "noir"}]})
                async with session.post(worker.address + path, data=body, headers=headers) as answer:
                    assert answer.status == 200
            await played(worker, lambda rounds: len(rounds) == 3, "a round because of the direct call")


async def the_revision(worker: Harness) -> Revision:
    """The only one."""
    (revision,) = (await worker.fleet.load()).revisions.values()
    return revision


@pytest.mark.usefixtures("quick")
async def test_a_worker_that_is_held_back_tests_itself_on_a_replica_that_serves_nobody() -> None:
    """What it draws is the golden: passed. With another golden it fails, and nobody ever sees the replica."""
    async with running_worker(devices=1) as worker:
        revision = await deployed(worker, 1)
        await played(worker, lambda rounds: len(rounds) == 1, "the replica plays at its start")
        await worker.place(revision, 0)
        assert await result_of(worker, revision) == (True, "1 canaries are the same and 0 within their bands")
        assert await worker.replicas(revision) == []
        key = MODEL, revision.revision_id
        changed = dataclasses.replace(worker.canaries.looks[key][0].look, digest="0" * 64)
        worker.canaries.looks[key] = [dataclasses.replace(item, look=changed) for item in worker.canaries.looks[key]]
        passed, words = await result_of(worker, revision)
        assert (passed, "1 of 1 canaries differ" in words) == (False, True)
        assert worker.findings.kept == {}
        await worker.place(revision, 1)
        await worker.ready(revision, 1)


async def result_of(worker: Harness, revision: Revision) -> tuple[bool, str]:
    """Ask for a self-test of the worker and wait for its result."""
    asked = Ask(MODEL, revision.revision_id, WORKER, Cause.SELF_TEST, worker.clock.now(), "held back")
    number = await worker.canaries.ask(asked)

    async def answered() -> bool:
        return number in worker.canaries.answered

    await until(answered, "the self-test is answered")
    tested, words = worker.canaries.answered[number]
    return tested.passed, words
