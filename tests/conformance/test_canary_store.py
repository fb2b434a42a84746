"""One behaviour suite for every adapter of the canaries' port: Postgres, and the fake that other tests use."""

import dataclasses
import datetime as dt

import pytest
from tests.conformance.memory_canaries import MemoryCanaries

from forestay.clock import SystemClock
from forestay.ids import ModelId, ReplicaId, RevisionId, WorkerId
from forestay.quality.canary import Look, Standing
from forestay.quality.canary_store import EVERYWHERE, Ask, CanaryStore, Ended, PlayedCanary, PlayedRound, SelfTested
from forestay.quality.golden import Baseline, Cause, Taught
from forestay.quality.postgres_canaries import CanarySelfTest, PostgresCanaries
from forestay.quality.watch_store import Hold
from forestay.storage.postgres import Database

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
DIGITS, FIRST, SECOND = ModelId("acme/digits"), RevisionId("digits-1"), RevisionId("digits-2")
LOOK = Look("ab" * 32, (2, 1), (1, 2, 3), (0.5, 0.25))


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest, database: Database) -> CanaryStore:
    """Each adapter in turn."""
    return MemoryCanaries() if request.param == "memory" else PostgresCanaries(database)


def baseline(revision: RevisionId, at: dt.datetime = NOW, by: str = "") -> Baseline:
    """A baseline of this revision."""
    return Baseline(DIGITS, revision, at, at, by, "wanted" if by else "")


def taught(canary: str = "a@1", environment: str = "cpu", *, settled: bool = False) -> Taught:
    """One look."""
    return Taught(canary, environment, ReplicaId("r1"), LOOK, "canaries/1.png", settled)


def played(at: dt.datetime, key: str = "canaries/1.png", replica: str = "r1") -> PlayedRound:
    """A round of one canary."""
    row = PlayedCanary("a@1", "cpu", Standing.DIFFERS, 3.5, 0.25, "spread", LOOK, key, "f" * 16,
                       parts={"scheduler": {"setting.beta_end": "0.012"}})  # fmt: skip
    place = ReplicaId(replica), WorkerId("w1"), Cause.SCHEDULE
    return PlayedRound(DIGITS, FIRST, *place, at, 0.5, Ended.FAILED, "1 of 1 differs", (row,))


async def test_a_model_has_one_first_baseline_and_those_that_people_approve(store: CanaryStore) -> None:
    """A later revision does not begin one by itself; they come in the order of their revisions."""
    await store.begin(baseline(FIRST))
    await store.begin(baseline(SECOND, NOW + HOUR))
    assert await store.baselines(DIGITS) == [baseline(FIRST)]
    await store.approve(baseline(SECOND, NOW + HOUR, "ada"), [taught(settled=True)])
    assert await store.baselines(DIGITS) == [baseline(FIRST), baseline(SECOND, NOW + HOUR, "ada")]
    assert [dataclasses.replace(item, look_id=0) for item in await store.taught(DIGITS, SECOND)] == [
        taught(settled=True)
    ]
    assert await store.baselines(ModelId("acme/other")) == []


async def test_looks_are_settled_once(store: CanaryStore) -> None:
    """What two workers settle at the same time ends as one golden; other canaries are not touched."""
    await store.teach(DIGITS, FIRST, [taught(), taught(), taught("b@1")])
    one, two, other = await store.taught(DIGITS, FIRST)
    await store.settle([one.look_id])
    await store.settle([two.look_id])
    assert [item.settled for item in await store.taught(DIGITS, FIRST)] == [True, False, False]
    await store.settle([other.look_id])
    assert [item.settled for item in await store.taught(DIGITS, FIRST)] == [True, False, True]


async def test_an_approval_replaces_what_a_revision_had_taught(store: CanaryStore) -> None:
    """So that nothing of the former golden stays beside the new one."""
    await store.teach(DIGITS, FIRST, [taught("b@1")])
    await store.approve(baseline(FIRST, by="ada"), [taught()])
    assert [item.canary for item in await store.taught(DIGITS, FIRST)] == ["a@1"]


async def test_rounds_come_back_as_they_were_kept_the_newest_first(store: CanaryStore) -> None:
    """With looks and numbers."""
    await store.note(played(NOW))
    await store.note(played(NOW + HOUR, replica="r2"))
    found = await store.rounds(DIGITS, 10)
    assert [dataclasses.replace(item, round_id=0) for item in found] == [played(NOW + HOUR, replica="r2"), played(NOW)]
    assert len(await store.rounds(DIGITS, 1)) == 1


async def test_a_self_test_is_asked_for_once_and_its_result_is_told(store: CanaryStore) -> None:
    """The same ask is the same while workers look at it; what people ask for has no answer and is asked each time."""
    test = Ask(DIGITS, FIRST, WorkerId("w1"), Cause.SELF_TEST, NOW, "held")
    number = await store.ask(test)
    assert await store.ask(dataclasses.replace(test, asked_at=NOW + HOUR / 8)) == number
    by_person = Ask(DIGITS, FIRST, EVERYWHERE, Cause.PERSON, NOW, "look again")
    assert await store.ask(by_person) != await store.ask(by_person)
    assert [item.cause for item in await store.asks(NOW)] == [Cause.SELF_TEST, Cause.PERSON, Cause.PERSON]
    await store.answer(number, SelfTested(NOW + HOUR, passed=True), "all the same")
    await store.answer(number, SelfTested(NOW + HOUR * 2, passed=False), "a later word does not count")
    assert await store.results(NOW) == {(WorkerId("w1"), FIRST): SelfTested(NOW + HOUR, passed=True)}
    assert Cause.SELF_TEST not in {item.cause for item in await store.asks(NOW)}


async def test_a_self_test_that_found_no_room_is_asked_for_anew_before_workers_forget_it(store: CanaryStore) -> None:
    """A worker looks at asks of the last fifteen minutes: one that is older than ten is no answer to another."""
    test = Ask(DIGITS, FIRST, WorkerId("w1"), Cause.SELF_TEST, NOW, "held")
    number = await store.ask(test)
    later = NOW + HOUR / 5
    assert await store.ask(dataclasses.replace(test, asked_at=later)) != number
    assert [item.asked_at for item in await store.asks(later)] == [later]


async def test_old_rounds_go_with_the_pictures_that_nothing_else_shows(store: CanaryStore) -> None:
    """A picture of a golden, or of a round that stays, is kept."""
    await store.teach(DIGITS, FIRST, [taught()])
    for number, at in enumerate((NOW, NOW, NOW + HOUR)):
        await store.note(played(at, f"canaries/{number + 1}.png"))
    await store.note(played(NOW, "canaries/3.png"))
    assert await store.forget(NOW + HOUR / 2, 100) == ["canaries/2.png"]
    assert len(await store.rounds(DIGITS, 10)) == 1


async def test_the_loops_self_test_is_an_ask_to_the_held_worker_and_its_answer(database: Database) -> None:
    """Asked twice it is one ask; what the worker answers is what the loop reads."""
    store = PostgresCanaries(database)
    tester = CanarySelfTest(store, SystemClock())
    hold = Hold(WorkerId("w1"), FIRST, DIGITS, ReplicaId("r1"), "f" * 16, "row 29", SystemClock().now())
    await tester.ask(hold)
    await tester.ask(hold)
    (ask,) = await store.asks(hold.held_at)
    assert (ask.cause, ask.worker_id, ask.revision_id) == (Cause.SELF_TEST, WorkerId("w1"), FIRST)
    assert await tester.results() == {}
    told = SelfTested(SystemClock().now(), passed=False, differed=True)
    await store.answer(ask.ask_id, told, "1 of 1 differs")
    assert await tester.results() == {(WorkerId("w1"), FIRST): told}
