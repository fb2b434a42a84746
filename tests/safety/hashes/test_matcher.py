"""The detector of known pictures: drawn pictures only, under marker names."""

import dataclasses

import numpy as np
import pytest
from tests.safety.doubles import guard_world
from tests.safety.hashes.drawn import drawn
from tests.safety.test_guard import subject

from forestay.clock import SystemClock
from forestay.ids import TenantId
from forestay.safety.decide import Place
from forestay.safety.guard import Guard, Item
from forestay.safety.hashes.banks import Hint, NewBank, NewEntry
from forestay.safety.hashes.flood import FloodLimits
from forestay.safety.hashes.follow import Banks
from forestay.safety.hashes.matcher import DETECTOR_ID, FloodWatch, HashMatcher
from forestay.safety.hashes.pdq import Pixels, hash_of
from forestay.safety.hashes.postgres_store import PostgresBankStore
from forestay.safety.model import Outcome, Picture, Scores, Text, Trouble, Unscored
from forestay.safety.policy import Action
from forestay.safety.records import Point
from forestay.safety.routed import RoutedDetectors
from forestay.safety.taxonomy import Category, Modality
from forestay.storage.postgres import Database
from forestay.storage.valkey import Wakeups
from forestay.telemetry.metrics import HASH_MATCHES, HASH_SUSPENDED, Metrics

KNOWN_POLICY = """\
version: 1
deadline: 5s
rules:
  - modality: image
    categories: [minors]
    detectors: [hash-pdq@1]
    flag_at: 0.5
    block_at: 1
    trouble: {crash: review, timeout: review, overload: review, language: review, unreadable: block}
"""
KNOWN, OTHER = drawn(3, 512, 384), drawn(11, 400, 300)


def shown(pixels: Pixels, where: str = "images[0].url") -> Picture:
    """A picture as a judge is handed it."""
    pixels = np.ascontiguousarray(pixels)
    return Picture(where, pixels.shape[1], pixels.shape[0], pixels.tobytes())


@pytest.fixture
async def store(database: Database, wakeups: Wakeups) -> PostgresBankStore:
    """A store in which the marker picture is known, as what must be reported."""
    store = PostgresBankStore(database, wakeups, SystemClock())
    await store.create(NewBank("marker-7f3a", "tests", Category.MINORS, hint=Hint.REPORT), actor="system:test")
    await store.create(NewBank("off", "tests", Category.HATE, enabled_ratio=0.0), actor="system:test")
    await store.add("marker-7f3a", [NewEntry(hash_of(KNOWN).value)], actor="system:test", reason="a test")
    return store


@pytest.fixture
async def banks(store: PostgresBankStore) -> Banks:
    """What a process knows of it."""
    banks = Banks(store)
    await banks.refresh()
    return banks


async def asked(banks: Banks, *pictures: Picture | Text) -> list[Outcome]:
    """Ask the detector."""
    return list(await HashMatcher(banks, SystemClock()).ask(DETECTOR_ID, pictures, 30.0))


async def test_a_known_picture_scores_one_in_the_category_of_its_bank_and_another_scores_nothing(banks: Banks) -> None:
    """The notes say which bank, how near, and what the bank hints at."""
    known, other = await asked(banks, shown(KNOWN), shown(OTHER))
    assert isinstance(known, Scores)
    assert known.scores == {Category.MINORS: 1.0}
    assert (known.notes["bank"], known.notes["distance"], known.notes["hint"]) == ("marker-7f3a", "0", "report")
    assert isinstance(other, Scores)
    assert other.scores == {}


@pytest.mark.parametrize("quarter", [1, 2, 3])
async def test_turning_or_mirroring_a_known_picture_hides_nothing(banks: Banks, quarter: int) -> None:
    """In any of its eight positions."""
    turned = np.rot90(KNOWN, quarter)
    for picture in (turned, turned[:, ::-1]):
        (outcome,) = await asked(banks, shown(picture))
        assert isinstance(outcome, Scores)
        assert outcome.scores == {Category.MINORS: 1.0}


async def test_it_covers_the_categories_of_banks_that_are_on(banks: Banks) -> None:
    """Pictures and frames; a bank that is off covers nothing."""
    info = HashMatcher(banks, SystemClock()).info()
    assert info.covers == {
        Modality.IMAGE: frozenset({Category.MINORS}),
        Modality.VIDEO: frozenset({Category.MINORS}),
    }


async def test_what_it_cannot_score_is_trouble_and_never_zero(banks: Banks) -> None:
    """Text, pixels that are missing, no time, and another detector's name."""
    broken = Picture("b", 10, 10, b"12")
    outcomes = await asked(banks, Text("prompt", "a"), broken)
    assert [item.trouble for item in outcomes if isinstance(item, Unscored)] == [Trouble.UNREADABLE] * 2
    matcher = HashMatcher(banks, SystemClock())
    (late,) = await matcher.ask(DETECTOR_ID, [shown(KNOWN)], 0.0)
    assert isinstance(late, Unscored)
    assert late.trouble is Trouble.TIMEOUT
    (strange,) = await matcher.ask("another@1", [shown(KNOWN)], 1.0)
    assert isinstance(strange, Unscored)


async def test_a_flat_picture_does_not_match_another_flat_one(store: PostgresBankStore, banks: Banks) -> None:
    """A nearly blank page in a bank must not block every other nearly blank page."""
    page = np.full((200, 200, 3), 255, np.uint8)
    page[100, 100] = 0
    blank = hash_of(page)
    await store.add("marker-7f3a", [NewEntry(blank.value ^ 1)], actor="system:test", reason="a test")
    await banks.refresh()
    (outcome,) = await asked(banks, shown(page))
    assert isinstance(outcome, Scores)
    assert outcome.scores == {}


async def test_an_entry_that_matches_for_everybody_is_suspended_with_a_reason(
    store: PostgresBankStore, banks: Banks
) -> None:
    """It then hints at review, here at once and in the store for all; a person is told by a metric and an audit row."""
    metrics = Metrics()
    watch = FloodWatch(banks, store, SystemClock(), metrics, FloodLimits(max_tenants=2))
    (outcome,) = await asked(banks, shown(KNOWN))
    assert isinstance(outcome, Scores)
    actions = [action for tenant in "aabc" for action in watch.note(outcome, tenant)]
    assert [action.reason for action in actions] == ["matched for more than 2 tenants within 3600 s"]
    assert metrics.value(HASH_SUSPENDED) == 1
    (again,) = await asked(banks, shown(KNOWN))
    assert isinstance(again, Scores)
    assert (again.notes["hint"], again.scores) == ("review", {Category.MINORS: 0.5})
    await watch.keep()
    (bank,) = await store.banks("marker-7f3a")
    assert bank.suspended == 1


async def test_a_guard_suspends_what_matches_everywhere_and_a_person_lets_it_block_again(
    store: PostgresBankStore, banks: Banks, database: Database
) -> None:
    """Stored and audited; it leads to review, also under a policy that has no such band, until it is restored."""
    world, others, metrics = await guard_world(), Banks(store), Metrics()
    watch = FloodWatch(banks, store, SystemClock(), metrics, FloodLimits(max_tenants=2))
    world.store.put("known", KNOWN_POLICY)
    await world.policies.refresh()
    detectors = RoutedDetectors({DETECTOR_ID: HashMatcher(banks, SystemClock())}, None)
    guard = Guard(dataclasses.replace(world.guard._ports, detectors=detectors, matches=watch))

    async def judged(tenant: str) -> Action:
        asked = dataclasses.replace(subject(Point.INPUT, "known"), tenant_id=TenantId(tenant))
        return (await guard.judge(asked, [Item(Place("file", Modality.IMAGE), (shown(KNOWN),))], [])).action

    assert [await judged(tenant) for tenant in "abcd"] == [Action.BLOCK, Action.BLOCK, Action.BLOCK, Action.REVIEW]
    assert metrics.value(HASH_MATCHES, "marker-7f3a", "report") == 3
    await watch.keep()
    await others.refresh()
    (outcome,) = await asked(others, shown(KNOWN))  # another process, that saw none of it
    assert isinstance(outcome, Scores)
    assert outcome.notes["hint"] == "review"
    [entry] = await store.entries("marker-7f3a", 0, 10)
    assert entry.suspended_reason == "matched for more than 2 tenants within 3600 s"
    said = await database.fetch("SELECT actor, reason FROM audit_log WHERE action = 'suspend_entry'")
    assert [tuple(row) for row in said] == [("loop:hashes", entry.suspended_reason)]
    await store.restore(entry.entry_id, actor="human:ada", reason="the flood was an attack")
    await banks.refresh()
    assert await judged("e") is Action.BLOCK


async def test_until_the_banks_are_read_nothing_is_called_unknown(store: PostgresBankStore) -> None:
    """A process that has just started, and one that only declares what there is: trouble, never a score of zero."""
    for with_entries in (True, False):
        banks = Banks(store, with_entries=with_entries)
        if not with_entries:
            await banks.refresh()
            assert HashMatcher(banks, SystemClock()).info().covers[Modality.IMAGE] == frozenset({Category.MINORS})
        (outcome,) = await asked(banks, shown(KNOWN))
        assert isinstance(outcome, Unscored)
