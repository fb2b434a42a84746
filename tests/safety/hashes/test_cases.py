"""A match that the law asks to report has its case before its judgement is told; markers only, nothing real."""

import dataclasses
from collections.abc import Sequence

from tests.safety.doubles import StubDetectors, guard_world

from forestay.chance import SeededChance
from forestay.clock import SystemClock
from forestay.errors import Unavailable
from forestay.ids import KeyId, ModelId, RequestId, RevisionId, TenantId, new_request_id
from forestay.safety.decide import Place
from forestay.safety.guard import Guard, GuardPorts, Item, Subject
from forestay.safety.hashes.cases import CaseOpener
from forestay.safety.hashes.report import NewCase
from forestay.safety.model import HINT, Content, Outcome, Picture, Scores
from forestay.safety.records import Point
from forestay.safety.taxonomy import Category, Modality
from forestay.telemetry.metrics import HASH_REPORTS, Metrics

NOTES = {"bank": "marker-7f3a", "entry": "7", "distance": "3", HINT: "report"}


class Kept:
    """Cases in memory; can be away."""

    def __init__(self) -> None:
        self.cases: list[NewCase] = []
        self.away = False

    async def open(self, case: NewCase) -> bool:
        """Keep it, or be away."""
        if self.away:
            raise Unavailable("no database")
        self.cases.append(case)
        return True


class Matching(StubDetectors):
    """`colours@1` matches a marker hash of a bank whose hint is `report`."""

    async def ask(self, detector_id: str, contents: Sequence[Content], within_seconds: float) -> Sequence[Outcome]:
        """Score as the matcher would."""
        said = await super().ask(detector_id, contents, within_seconds)
        if detector_id != "colours@1":
            return said
        return [Scores(detector_id, item.where, {Category.SEXUAL: 1.0}, notes=NOTES) for item in contents]


def a_request() -> RequestId:
    """Some request."""
    return new_request_id(SystemClock().now(), 0, SeededChance(5))


async def test_a_match_that_must_be_reported_opens_its_case_with_the_judgement() -> None:
    """Entry, bank, distance, place and request; a shadow judgement opens none."""
    world, kept = await guard_world(), Kept()
    opener = CaseOpener(kept, SystemClock(), Metrics())
    ports = GuardPorts(
        Matching(), world.policies, world.verdicts, SystemClock(), SeededChance(1), world.metrics, cases=opener
    )
    request_id = a_request()
    subject = Subject(
        request_id, 1, Point.INPUT, TenantId("acme"), KeyId("k"), ModelId("acme/film"), RevisionId("r"), "strict"
    )
    picture = Picture("images[0]", 1, 1, b"\xff\0\0")
    await Guard(ports).judge(subject, [Item(Place("images[0]", Modality.IMAGE), (picture,))], ())
    [case] = kept.cases
    assert (case.entry_id, case.bank_id, case.distance, case.place) == (7, "marker-7f3a", 3, "images[0]")
    assert (case.request_id, case.tenant_id) == (str(request_id), "acme")


async def test_a_case_that_cannot_be_opened_now_is_owed_and_counted() -> None:
    """It is opened once the store is back, under the same id; what needs no report opens none."""
    kept, metrics = Kept(), Metrics()
    opener = CaseOpener(kept, SystemClock(), metrics)
    kept.away = True
    scores = Scores("hash-pdq@1", "images[0]", {Category.MINORS: 1.0}, notes=NOTES)
    request_id = a_request()
    await opener.note(scores, request_id, TenantId("acme"))
    assert (len(opener.owed), metrics.value(HASH_REPORTS, "owed")) == (1, 1.0)
    kept.away = False
    await opener.settle()
    assert (opener.owed, len(kept.cases)) == ({}, 1)
    blocked = dataclasses.replace(scores, notes={**NOTES, HINT: "block"})
    await opener.note(blocked, request_id, TenantId("acme"))
    assert len(kept.cases) == 1
