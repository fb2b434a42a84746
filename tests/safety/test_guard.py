"""The guard from end to end: what fails releases nothing, and what is released has its record."""

import asyncio
import dataclasses
import datetime as dt
from collections.abc import AsyncIterator

import pytest
from tests.safety.doubles import MARKER, POLICY, GuardWorld, guard_world

from forestay.chance import SeededChance
from forestay.errors import Unavailable
from forestay.ids import KeyId, ModelId, RevisionId, TenantId, new_request_id
from forestay.safety.decide import Place
from forestay.safety.guard import Item, Subject, joined
from forestay.safety.model import Picture, Scores, Text, Trouble, Unscored
from forestay.safety.policy import Action
from forestay.safety.records import Point
from forestay.safety.taxonomy import Category, Modality
from forestay.telemetry.metrics import VERDICTS_UNWRITTEN
from forestay.verdicts import Verdict

NOW = dt.datetime(2026, 11, 26, tzinfo=dt.UTC)


def subject(point: Point = Point.OUTPUT, policy_id: str = "strict") -> Subject:
    """Some request's content."""
    request_id = new_request_id(NOW, 0, SeededChance(3))
    ids = (TenantId("acme"), KeyId("k"), ModelId("acme/film"), RevisionId("r1"))
    return Subject(request_id, 1, point, *ids, policy_id)


def text(words: str, where: str = "caption") -> Item:
    """A text to judge."""
    return Item(Place(where, Modality.TEXT), (Text(where, words),))


def picture(where: str, *colours: tuple[int, int, int], modality: Modality = Modality.IMAGE) -> Item:
    """A picture, or a film of pictures, each of one colour."""
    looks = tuple(Picture(f"{where}#{n}", 1, 1, bytes(colour)) for n, colour in enumerate(colours))
    return Item(Place(where, modality), looks)


@pytest.fixture
async def world() -> AsyncIterator[GuardWorld]:
    """A guard that runs."""
    made = await guard_world()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(made.guard.run())
        await asyncio.sleep(0)
        yield made
        running.cancel()


async def test_an_allowed_output_has_its_record_when_it_is_released(world: GuardWorld) -> None:
    """With policy, detectors, digests, what was judged; and without a word of it."""
    judgement = await world.guard.judge(subject(), [text("a lighthouse in a storm")], ["sha256:ab"])
    assert judgement.verdict is Verdict.ALLOW
    [record] = world.verdicts.records
    assert (record.policy_id, record.policy_version, record.verdict, record.judged) == (
        "strict", 1, "allow", ["sha256:ab"],
    )  # fmt: skip
    assert [(check.detector, check.digest, check.score) for check in record.checks] == [("words@1", "sha256:a", 0.0)]
    assert "lighthouse" not in str(record)


async def test_what_is_marked_is_blocked_with_category_and_place(world: GuardWorld) -> None:
    """In a text and in a picture; the record says the same."""
    judgement = await world.guard.judge(
        subject(), [text("calm"), text(MARKER, "alt"), picture("images[0]", (0, 9, 0))], []
    )
    assert (judgement.verdict, judgement.category, judgement.where) == (Verdict.BLOCK, Category.VIOLENCE, "alt")
    judgement = await world.guard.judge(subject(), [picture("images[0]", (255, 0, 0))], [])
    assert (judgement.verdict, judgement.category, judgement.where) == (Verdict.BLOCK, Category.SEXUAL, "images[0]")
    assert [record.place for record in world.verdicts.records] == ["alt", "images[0]"]


async def test_one_frame_is_enough(world: GuardWorld) -> None:
    """A film is as bad as its worst frame; and a film that could not be opened is blocked, as the policy says."""
    calm, marked = (0, 0, 0), (255, 0, 0)
    film = [picture("images[0]", calm, calm, marked, calm)]
    assert (await world.guard.judge(subject(), film, [])).verdict is Verdict.BLOCK
    assert (await world.guard.judge(subject(), [picture("images[0]")], [])).action is Action.BLOCK


async def test_a_detector_that_is_down_is_stood_in_for(world: GuardWorld) -> None:
    """By the cheaper one that the policy names; when that is down too, the output is withheld."""
    world.detectors.trouble["words@1"] = Trouble.CRASH
    assert (await world.guard.judge(subject(), [text("calm")], [])).verdict is Verdict.ALLOW
    assert (await world.guard.judge(subject(), [text(MARKER)], [])).verdict is Verdict.BLOCK
    world.detectors.trouble["spare@1"] = Trouble.OVERLOAD
    assert (await world.guard.judge(subject(), [text("calm")], [])).verdict is Verdict.INCONCLUSIVE


async def test_a_detector_that_hangs_costs_the_deadline_and_no_more(world: GuardWorld) -> None:
    """Within the second that the policy gives, of which a part is kept for the record, the output is withheld."""
    world.detectors.hanging.add("colours@1")
    loop = asyncio.get_running_loop()
    began = loop.time()
    judgement = await world.guard.judge(subject(), [picture("images[0]", (0, 0, 0))], [])
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert 0.7 < loop.time() - began < 1.0


async def test_what_cannot_be_recorded_is_not_released(world: GuardWorld) -> None:
    """The log is down: an output that every check allowed is withheld, and that is counted."""
    world.verdicts.away = True
    judgement = await world.guard.judge(subject(), [text("calm")], [])
    assert (judgement.verdict, judgement.action) == (Verdict.INCONCLUSIVE, Action.REVIEW)
    assert world.metrics.value(VERDICTS_UNWRITTEN, "refused") == 1


@pytest.mark.threat("ML01:2023", "AML.T0054")
async def test_a_log_that_fails_in_whatever_way_withholds_and_ends_nothing(world: GuardWorld) -> None:
    """Not only one that is away: the guard goes on, and so does the process around it."""
    world.verdicts.broken = RuntimeError("could not extend file: no space left on device")
    assert (await world.guard.judge(subject(), [text("calm")], [])).action is Action.REVIEW
    assert (await world.guard.judge(subject(Point.INPUT), [text("calm")], [])).action is Action.ALLOW
    with pytest.raises(Unavailable):
        await world.guard.flush()
    world.verdicts.broken = None
    await world.guard.flush()
    assert [record.point for record in world.verdicts.records] == ["input"]
    assert (await world.guard.judge(subject(), [text("calm")], [])).action is Action.ALLOW


async def test_a_log_that_hangs_costs_the_deadline_and_no_more(world: GuardWorld) -> None:
    """The record is part of what a judgement takes: nobody waits for a log beyond the policy's second."""
    world.verdicts.hanging = True
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert (await world.guard.judge(subject(), [text("calm")], [])).action is Action.REVIEW
    assert loop.time() - began < 1.05


async def test_inputs_wait_for_no_record(world: GuardWorld) -> None:
    """Theirs follow in a batch, and outlast a log that is away for a while."""
    world.verdicts.away = True
    assert (await world.guard.judge(subject(Point.INPUT), [text("calm")], [])).verdict is Verdict.ALLOW
    world.verdicts.away = False
    await world.guard.flush()
    assert [record.point for record in world.verdicts.records] == ["input"]


async def test_without_a_policy_nothing_is_released(world: GuardWorld) -> None:
    """A name that nobody has set, or a version whose seal is broken."""
    judgement = await world.guard.judge(subject(policy_id="nobody-set-this"), [text("calm")], [])
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "cannot be read" in judgement.reason


async def test_a_candidate_judges_in_shadow_and_changes_nothing(world: GuardWorld) -> None:
    """Its judgement is recorded beside the one that counts."""
    world.store.put("strict", POLICY.replace("block_at: 0.9", "block_at: 0.95"), shadow=True)
    await world.policies.refresh()
    assert (await world.guard.judge(subject(), [text("calm")], [])).verdict is Verdict.ALLOW
    async with asyncio.timeout(5):
        while len(world.verdicts.records) < 2:  # noqa: ASYNC110 - the guard tells nobody of what it does in shadow
            await asyncio.sleep(0.02)
    assert [(record.policy_version, record.shadow) for record in world.verdicts.records] == [(1, False), (2, True)]


async def test_two_texts_of_one_place_are_both_judged(world: GuardWorld) -> None:
    """Whatever order they come in; and a place of which a part could not be read is not judged by the rest."""
    for texts in ([MARKER, "calm"], ["calm", MARKER]):
        judgement = await world.guard.judge(subject(), [text(words, "prompt") for words in texts], [])
        assert judgement.verdict is Verdict.BLOCK
    cut = [text("calm", "prompt"), Item(Place("prompt", Modality.TEXT), ())]
    assert (await world.guard.judge(subject(), cut, [])).action is Action.BLOCK


def test_looks_at_one_place_are_put_together_by_the_worst() -> None:
    """The highest score counts; a look without a score leaves the place without one, unless another look blocks."""
    place = Place("film", Modality.VIDEO)
    low, high = (Scores("d", f"film#{n}", {Category.SEXUAL: score}) for n, score in enumerate((0.1, 0.7)))
    late = Unscored("d", "film#2", Trouble.TIMEOUT)
    whole = Scores("d", "film", {Category.SEXUAL: 0.7})
    assert joined("d", place, [low, high], lambda _: False) == whole
    assert joined("d", place, [low, high, late], lambda _: False) == Unscored("d", "film", Trouble.TIMEOUT)
    assert joined("d", place, [low, high, late], lambda _: True) == whole
    assert joined("d", place, [], lambda _: True) == Unscored("d", "film", Trouble.UNREADABLE)
    crashed = [Unscored("d", f"film {number}", Trouble.CRASH, 2.0) for number in range(8)]
    assert joined("d", place, crashed, lambda _: False).seconds == 2.0, "they waited side by side"


async def test_a_tenants_own_policy_judges_beside_the_models(world: GuardWorld) -> None:
    """The more severe decides, the record names both, and each detector is asked once; others are not touched."""
    world.store.put("careful", POLICY.replace("flag_at: 0.4\n    review_at: 0.6\n    block_at: 0.9", "block_at: 0.2"))
    world.store.tenants[TenantId("acme")] = "careful"
    await world.policies.refresh()
    world.detectors.score = lambda _: 0.5
    judgement = await world.guard.judge(subject(), [text("calm")], [])
    assert (judgement.action, judgement.reason) == (
        Action.BLOCK, "by the tenant's policy: violence 0.500 reached 0.2 by words@1",
    )  # fmt: skip
    assert world.detectors.asked == [("words@1", "caption")]
    [record] = world.verdicts.records
    assert (record.policy_id, record.beside, record.action) == ("strict", "careful@1", "block")
    other = dataclasses.replace(subject(), tenant_id=TenantId("other"))
    assert (await world.guard.judge(other, [text("calm")], [])).action is Action.FLAG
    assert world.verdicts.records[-1].beside == ""


@pytest.mark.threat("ML01:2023", "AML.T0054")
async def test_a_tenants_policy_judges_unguarded_models_too_and_loosens_nothing(world: GuardWorld) -> None:
    """A lenient one leaves the model's as strict as it is; one that cannot be read releases nothing."""
    lenient = POLICY.replace("block_at: 0.9", "block_at: 1.0").replace("streams: judge", "streams: pass")
    world.store.put("lenient", lenient)
    world.store.tenants[TenantId("acme")] = "lenient"
    await world.policies.refresh()
    world.detectors.score = lambda _: 0.95
    assert (await world.guard.judge(subject(), [text("calm")], [])).action is Action.BLOCK
    assert world.guard.streams(subject()) == "judge"
    free = subject(policy_id="unguarded")
    assert world.guard.guards("unguarded", TenantId("acme"), free.request_id)
    assert not world.guard.guards("unguarded", TenantId("other"), free.request_id)
    assert (await world.guard.judge(free, [text("calm")], [])).action is Action.REVIEW
    world.store.tenants[TenantId("acme")] = "gone"
    await world.policies.refresh()
    judgement = await world.guard.judge(free, [text("calm")], [])
    assert (judgement.releases, judgement.again) == (False, True)
