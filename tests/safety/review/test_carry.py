"""What two people released is made once, wherever a process dies: with the real queue and the real store of reviews."""

import asyncio
import dataclasses
import hashlib
import os
import signal
import sys
import textwrap
from pathlib import Path
from typing import Any, cast

import pytest

from forestay.chance import SystemChance
from forestay.clock import SystemClock
from forestay.errors import Unavailable
from forestay.ids import KeyId, ModelId, RequestId, RevisionId, TenantId, new_request_id
from forestay.media.postgres_store import PostgresMediaStore
from forestay.queue.model import Answer, Options, State, Submission
from forestay.queue.postgres_store import PostgresQueueStore, open_queue_store
from forestay.safety.policy import ReviewRules
from forestay.safety.records import Point, PostgresVerdicts
from forestay.safety.review import loop
from forestay.safety.review.desk import ReviewDesk
from forestay.safety.review.events import PostgresReviewEvents
from forestay.safety.review.kept import KeptInput, KeptOutput, packed
from forestay.safety.review.model import Ballot, NewItem, Vote
from forestay.safety.review.sealed import Label
from forestay.safety.review.wiring import ReviewGround, desk_of
from forestay.safety.taxonomy import Category
from forestay.settings import Queue, Secrets, Settings, process_environment
from forestay.storage.objects import ObjectStore, open_object_store
from forestay.storage.postgres import Database
from forestay.storage.valkey import LocalWakeups
from forestay.telemetry.metrics import Metrics
from forestay.verdicts import Verdict
from forestay.worker.releasing import ReleasingGround, releasing_of

BODY = b'{"prompt": "MARKER-52D1"}'
SETTINGS = Settings(secrets=Secrets(internal_key="a long random text"))


class Died(Exception):
    """A process ended here."""


@dataclasses.dataclass
class Ground:
    """A desk on real stores, and what it stands on."""

    desk: ReviewDesk
    queue: PostgresQueueStore
    ground: ReviewGround
    metrics: Metrics


async def ground_of(database: Database, objects: ObjectStore, queue: PostgresQueueStore) -> Ground:
    """Put a desk together as a process does."""
    clock, chance, metrics = SystemClock(), SystemChance(), Metrics()
    media = PostgresMediaStore(database, objects, chance)
    ground = ReviewGround(
        database=database,
        objects=objects,
        queue=queue,
        media=media,
        verdicts=PostgresVerdicts(database),
        wakeups=LocalWakeups(),
        settings=SETTINGS,
        clock=clock,
        chance=chance,
        metrics=metrics,
        finisher=releasing_of(ReleasingGround(database, media, SETTINGS, clock, chance, metrics)),
        writer="test",
    )
    return Ground(desk_of(ground), queue, ground, metrics)


async def appealed(
    ground: Ground, point: Point = Point.INPUT, media: tuple[str, ...] = (), request_id: RequestId | None = None
) -> NewItem:
    """Open an item with its sealed copy, and appeal it."""
    request_id = request_id or new_request_id(ground.ground.clock.now(), 0, ground.ground.chance)
    kept: KeptInput | KeptOutput = KeptInput(BODY, Options(webhook_url="https://example.org/hook"), 2.5)
    if point is Point.OUTPUT:
        kept = KeptOutput(200, {"content-type": "application/json"}, b'{"text": "made"}', list(media), Options())
    label = Label("input" if point is Point.INPUT else "output", str(request_id), "acme")
    sealed_id = await ground.desk.sealed.put(label, packed(kept))
    item = NewItem(
        request_id, 0, point, TenantId("acme"), KeyId("k1"), ModelId("acme/echo"), "/edit", "standard", 0,
        Verdict.BLOCK, Category.VIOLENCE, "prompt", "a score", ReviewRules(), sealed_id,
    )  # fmt: skip
    assert await ground.desk.reviews.open(item)
    assert await ground.desk.reviews.appeal(item.item_id, "caller:k1", "a film title") is not None
    return item


async def released(ground: Ground, item: NewItem) -> RequestId:
    """Two people release it, and the process dies before it does anything about it; returns the linked id."""
    standing = None
    for voter in ("human:ann", "human:bob"):
        said = Vote(voter, is_person=True, ballot=Ballot.RELEASE, reason="fine", at=ground.ground.clock.now())
        standing = await ground.desk.reviews.vote(item.item_id, said)
    assert standing is not None
    assert standing.item.linked_id is not None
    return standing.item.linked_id


async def made(database: Database) -> list[RequestId]:
    """Every request that the queue holds."""
    return [RequestId(row[0]) for row in await database.fetch("SELECT request_id FROM requests")]


def dying(target: object, name: str, *, after: bool) -> object:
    """Return the port with one method that dies, before or after its work."""
    work = getattr(target, name)

    class Dying:
        def __getattr__(self, asked: str) -> Any:
            return self._die if asked == name else getattr(target, asked)

        async def _die(self, *values: Any) -> Any:
            if after:
                await work(*values)
            raise Died

    return Dying()


@pytest.mark.parametrize(
    ("port", "method", "after"),
    [
        ("sealed", "read", False),
        ("verdicts", "write", False),
        ("verdicts", "write", True),
        ("queue", "submit", False),
        ("queue", "submit", True),
        ("wakeups", "publish", False),
        ("reviews", "done", False),
    ],
)
async def test_a_release_is_made_once_wherever_it_breaks_off(
    database: Database, objects: ObjectStore, port: str, method: str, after: bool
) -> None:
    """The second vote is committed, somebody dies at this step, and the loop makes good what is missing."""
    async with open_queue_store(database, objects, Queue(), SystemChance(), 100) as queue:
        ground = await ground_of(database, objects, queue)
        linked_id = await released(ground, await appealed(ground))
        carrier = ground.desk.carrier
        ports = carrier._ports
        carrier._ports = dataclasses.replace(ports, **{port: dying(getattr(ports, port), method, after=after)})
        found = await ground.desk.reviews.find(str(linked_id))
        assert found is not None
        with pytest.raises(Died):
            await carrier.carry(found.item)
        carrier._ports = ports
        assert await loop.run_once(ground.desk, ground.ground.clock, ground.metrics) == 1
        assert await loop.run_once(ground.desk, ground.ground.clock, ground.metrics) == 0
        assert await made(database) == [linked_id]
        digest = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
        [record] = await PostgresVerdicts(database).of_request(linked_id, 10)
        assert (record.verdict, record.judged, record.policy_id) == ("allow", [digest], "person")


PROGRAM = """
import asyncio, os, signal, sys
from tests.safety.review.test_carry import ground_of, SystemChance, Queue, Database, open_queue_store, open_object_store
from forestay.safety.review.model import Ballot, Vote

async def main(url, objects_url, item_id, after):
    database = await Database.connect(url, pool_size=4, statement_timeout_seconds=15.0, application_name="reviewer")
    objects = open_object_store(objects_url)
    async with open_queue_store(database, objects, Queue(), SystemChance(), 100) as queue:
        ground = await ground_of(database, objects, queue)
        submit = queue.submit
        async def die(*values):
            if after:
                await submit(*values)
            os.kill(os.getpid(), signal.SIGKILL)
        queue.submit = die
        now = ground.ground.clock.now()
        said = Vote("human:bob", is_person=True, ballot=Ballot.RELEASE, reason="fine", at=now)
        standing = await ground.desk.reviews.vote(item_id, said)
        await ground.desk.carry(standing.item)

asyncio.run(main(*sys.argv[1:4], sys.argv[4] == "after"))
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.slow
async def test_a_gateway_that_is_killed_between_the_second_vote_and_the_submit_loses_nothing(
    database: Database, database_url: str, tmp_path: Any, when: str
) -> None:
    """SIGKILL in a process of its own: the vote stands, the loop elsewhere makes the request, once."""
    objects_url = f"file://{tmp_path}/objects"
    objects = open_object_store(objects_url)
    async with open_queue_store(database, objects, Queue(), SystemChance(), 100) as queue:
        ground = await ground_of(database, objects, queue)
        item = await appealed(ground)
        said = Vote("human:ann", is_person=True, ballot=Ballot.RELEASE, reason="fine", at=ground.ground.clock.now())
        await ground.desk.reviews.vote(item.item_id, said)
        command = [sys.executable, "-c", textwrap.dedent(PROGRAM), database_url, objects_url, item.item_id, when]
        paths = os.pathsep.join([str(Path(__file__).parents[3]), *sys.path])
        child = await asyncio.create_subprocess_exec(
            *command, env={**process_environment(), "PYTHONPATH": paths}, stderr=asyncio.subprocess.PIPE
        )
        _, said_of_it = await child.communicate()
        assert child.returncode == -signal.SIGKILL, said_of_it.decode()
        assert len(await made(database)) == (1 if when == "after" else 0)
        assert await loop.run_once(ground.desk, ground.ground.clock, ground.metrics) == 1
        found = await ground.desk.reviews.find(item.item_id)
        assert found is not None
        assert await made(database) == [found.item.linked_id]


async def test_facts_that_are_away_delay_a_release_and_lose_none(database: Database, objects: ObjectStore) -> None:
    """The item says why; the next round makes it."""
    async with open_queue_store(database, objects, Queue(), SystemChance(), 100) as queue:
        ground = await ground_of(database, objects, queue)
        linked_id = await released(ground, await appealed(ground))
        carrier = ground.desk.carrier
        ports = carrier._ports

        class Away:
            async def write(self, _batch: object) -> None:
                raise Unavailable("no facts database")

        carrier._ports = dataclasses.replace(ports, verdicts=cast("Any", Away()))
        assert await loop.run_once(ground.desk, ground.ground.clock, ground.metrics) == 0
        assert await made(database) == []
        carrier._ports = ports
        await database.execute("UPDATE reviews SET due_at = now()")  # its lease is over
        assert await loop.run_once(ground.desk, ground.ground.clock, ground.metrics) == 1
        assert await made(database) == [linked_id]


async def test_a_blocked_output_that_is_released_is_published_under_a_linked_id(
    database: Database, objects: ObjectStore
) -> None:
    """Its files are read from then on; what is gone is not released, and the item says so."""
    async with open_queue_store(database, objects, Queue(), SystemChance(), 100) as queue:
        ground = await ground_of(database, objects, queue)
        media, request_id = ground.ground.media, new_request_id(ground.ground.clock.now(), 0, ground.ground.chance)
        held = await media.save(
            b"a marker picture", tenant_id=TenantId("acme"), file_name="a.png", content_type="image/png",
            request_id=request_id, attempt=0, lifetime_seconds=None, state="quarantine",
        )  # fmt: skip
        linked_id = await released(ground, await appealed(ground, Point.OUTPUT, (held.media_id,), request_id))
        assert await loop.run_once(ground.desk, ground.ground.clock, ground.metrics) == 1
        stored = await queue.result(linked_id)
        assert stored is not None
        assert (stored.snapshot.state, stored.answer.body) == (State.SUCCEEDED, b'{"text": "made"}')
        found = await media.find(held.media_id)
        assert found is not None
        assert found.state == "released"
        gone = await appealed(ground, Point.OUTPUT, ("no-such-file",))
        missing_id = await released(ground, gone)
        assert await loop.run_once(ground.desk, ground.ground.clock, ground.metrics) == 1
        assert await queue.result(missing_id) is None
        standing = await ground.desk.reviews.find(gone.item_id)
        assert standing is not None
        assert (standing.item.linked_id, standing.item.done_at is not None) == (None, True)


async def test_copies_are_forgotten_but_not_those_that_are_owed(database: Database, objects: ObjectStore) -> None:
    """Old and undecided: closed and forgotten. Appealed, held or reported by law: kept."""
    async with open_queue_store(database, objects, Queue(), SystemChance(), 100) as queue:
        ground = await ground_of(database, objects, queue)
        waiting = await appealed(ground)
        old = await appealed(ground)
        await database.execute("UPDATE reviews SET appealed_at = NULL WHERE item_id = $1", old.item_id)
        big = Label("media", str(old.request_id), "acme", "images[0]", held=True)
        large = b"MARKER-7F3A" * 20_000
        sealed_id = await ground.desk.sealed.put(big, large)
        await database.execute("UPDATE sealed SET sealed_at = now() - interval '31 days'")
        await database.execute("UPDATE reviews SET opened_at = now() - interval '31 days'")
        assert await loop.forget_once(ground.desk, PostgresReviewEvents(database), 30 * 86400.0) == 1
        assert await ground.desk.sealed.has(waiting.sealed_id)
        assert not await ground.desk.sealed.has(old.sealed_id)
        standing = await ground.desk.reviews.find(old.item_id)
        assert standing is not None
        assert standing.item.decided is not None
        assert standing.item.decided.outcome == "lapsed"
        stored = await objects.get(f"sealed/{sealed_id}")
        assert stored is not None
        assert b"MARKER" not in stored


async def test_a_publication_a_second_time_changes_nothing(database: Database, objects: ObjectStore) -> None:
    """However often it is tried: one answer, one fact."""
    async with open_queue_store(database, objects, Queue(), SystemChance(), 100) as queue:
        now, chance = SystemClock().now(), SystemChance()
        submission = Submission(
            new_request_id(now, 0, chance), TenantId("acme"), KeyId("k1"), ModelId("acme/echo"), "/", b"", now
        )
        for body in (b'{"n": 1}', b'{"n": 2}'):
            await queue.publish(submission, Answer(200, {"content-type": "application/json"}, body))
        stored = await queue.result(submission.request_id)
        assert stored is not None
        assert stored.answer.body == b'{"n": 1}'
        assert len(await database.fetch("SELECT FROM fact_outbox")) == 1
        assert stored.snapshot.revision_id in {None, RevisionId("")}
