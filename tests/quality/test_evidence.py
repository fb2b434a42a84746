"""Which outputs a finding is shown by, and that a sample of them is sealed once, whoever found it."""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.memory_findings import MemoryFindings
from tests.conformance.memory_fleet import ManualClock
from tests.quality.streams import START, fact, on

from forestay.errors import Unavailable
from forestay.ids import ModelId, ReplicaId, RevisionId, WorkerId
from forestay.quality.evidence import NOTHING, SAMPLE, Copy, Evidence, decide_due, decide_sample, told_of
from forestay.quality.evidence_loop import EvidencePorts, run_once
from forestay.quality.findings import Finding, Kept, Source, Where
from forestay.telemetry.output_facts import OutputFact

OF_A = Where(ModelId("acme/cat"), RevisionId("r1"), WorkerId("w-a"), ReplicaId("a"), "gpu-a")
BLACK = Finding("black pictures", 1, OF_A, {"failed": 3.0}, START + dt.timedelta(seconds=50), Source.CONTRACT)


def outputs(count: int = 100, failed: str = "a") -> list[OutputFact]:
    """One output a second of three replicas in turn; one of them breaks every third of its own."""
    return [
        fact(number, (), **on("abc"[number % 3]), failed="black" if number % 9 == 0 and failed else "")
        for number in range(count)
    ]


def test_broken_outputs_of_the_place_that_is_named_come_first() -> None:
    """Then the newest; never another replica's, nor those from long before it began."""
    sample = decide_sample(dataclasses.replace(BLACK, since=START + dt.timedelta(seconds=140)), outputs(160))
    assert [bool(one.failed) for one in sample] == [True, True, True, True, True, True]
    sample = decide_sample(BLACK, [one for one in outputs(100) if one.position > 60])
    assert {one.replica_id for one in sample} == {"a"}
    assert [one.failed for one in sample] == ["black"] * 5 + [""]
    assert [one.position for one in sample] == [100, 91, 82, 73, 64, 97]


@given(st.lists(st.tuples(st.integers(0, 20), st.sampled_from("abc"), st.booleans(), st.sampled_from(["image", ""]))))
def test_a_sample_is_small_and_of_what_was_found(drawn: list[tuple[int, str, bool, str]]) -> None:
    """At most SAMPLE requests, each once, all of the named replica; scores are no outputs."""
    facts = [
        fact(60 + number, (), request_id=UUID(int=request), kind=kind, failed="black" if bad else "", **on(replica))
        for number, (request, replica, bad, kind) in enumerate(drawn)
    ]
    facts += [fact(500, (), kind="score:judge@1:agreement+", **on("a"))]
    sample = decide_sample(BLACK, facts)
    assert len(sample) <= SAMPLE
    assert len({one.request_id for one in sample}) == len(sample)
    assert {one.replica_id for one in sample} <= {"a"}
    assert not any(one.kind.startswith("score") for one in sample)


def test_a_finding_that_is_told_by_a_parameter_is_shown_by_outputs_with_it() -> None:
    """Such as a size."""
    where = Where(ModelId("acme/cat"), RevisionId("r1"), parameter="parameters=64x64 12 steps")
    facts = [fact(60), fact(61, parameters="128x128 12 steps")]
    assert [one.position for one in decide_sample(dataclasses.replace(BLACK, where=where), facts)] == [61]


def kept(finding: Finding = BLACK, seconds: float = 0.0, **changed: object) -> Kept:
    """A finding as it is stored."""
    at = START + dt.timedelta(seconds=seconds)
    return dataclasses.replace(Kept(finding, at, at, 1), **changed)  # type: ignore[arg-type]


def test_evidence_is_taken_once_each_time_a_finding_opens() -> None:
    """Not of what is over, not of scorers or devices, not where no revision is named; again when it opens again."""
    known = {BLACK.finding_id: Evidence(BLACK.finding_id, START + dt.timedelta(seconds=5), "")}
    assert decide_due([kept()], {}) == [kept()]
    assert decide_due([kept()], known) == []
    assert decide_due([kept(seconds=9)], known) == [kept(seconds=9)]
    assert decide_due([kept(closed_at=START)], {}) == []
    scorer = dataclasses.replace(BLACK, source=Source.SCORER)
    nowhere = dataclasses.replace(BLACK, where=Where(ModelId("acme/cat")))
    assert decide_due([kept(scorer), kept(nowhere)], {}) == []


class Evidences:
    """EvidenceStore in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, Evidence] = {}

    async def keep(self, evidence: Evidence) -> None:
        """Note it."""
        self.rows[evidence.finding_id] = evidence

    async def of(self, finding_ids: Sequence[str]) -> Mapping[str, Evidence]:
        """Read some."""
        return {name: self.rows[name] for name in finding_ids if name in self.rows}

    async def forget(self, before: dt.datetime) -> None:
        """Keep all."""
        del before


class Sealer:
    """Seals a file of each request, or is silent."""

    def __init__(self) -> None:
        self.silent = False
        self.asked: list[list[UUID]] = []
        self.files = 1

    async def seal(self, finding_id: str, request_ids: Sequence[UUID]) -> Sequence[Copy]:
        """Say that it is done."""
        if self.silent:
            raise Unavailable("the object store does not answer")
        self.asked.append(list(request_ids))
        return [Copy(f"{finding_id}/{one}", str(one), "image/png", 9) for one in request_ids for _ in range(self.files)]


class Outputs:
    """OutputSource over a list."""

    def __init__(self, facts: Sequence[OutputFact]) -> None:
        self.facts = facts

    async def after(self, position: int, since: dt.datetime, limit: int) -> list[OutputFact]:
        """Nobody asks."""
        raise NotImplementedError

    async def of_revision(self, revision_id: str, kind: str, since: dt.datetime, limit: int) -> list[OutputFact]:
        """Return the newest of a kind."""
        return [one for one in self.facts if (one.revision_id, one.kind) == (revision_id, kind) and one.at >= since][
            -limit:
        ]


async def test_the_loop_seals_once_and_writes_down_what_it_sealed() -> None:
    """By the replica whose output each copy is; a store that does not answer is asked again."""
    clock, findings, store, sealer = ManualClock(START), MemoryFindings(), Evidences(), Sealer()
    ports = EvidencePorts(findings, Outputs(outputs()), store, sealer, clock, 60.0)
    await findings.keep([BLACK], clock.now())
    sealer.silent = True
    assert await run_once(ports) == 0
    assert store.rows == {}
    sealer.silent = False
    assert await run_once(ports) == 1
    assert await run_once(ports) == 0
    evidence = store.rows[BLACK.finding_id]
    assert len(evidence.copies) == SAMPLE
    assert {copy.replica_id for copy in evidence.copies} == {"a"}
    assert evidence.words.startswith(f"{SAMPLE} files of {SAMPLE} requests")


async def test_outputs_that_cannot_be_kept_are_told_after_a_while() -> None:
    """For ten minutes they may still end; then it says why there is nothing."""
    clock, findings, store, sealer = ManualClock(START), MemoryFindings(), Evidences(), Sealer()
    sealer.files = 0
    ports = EvidencePorts(findings, Outputs(outputs()), store, sealer, clock, 60.0)
    await findings.keep([BLACK], clock.now())
    assert await run_once(ports) == 0
    clock.advance(601)
    assert await run_once(ports) == 1
    assert store.rows[BLACK.finding_id].words == NOTHING


def test_what_is_written_down_holds_ids_and_no_content() -> None:
    """Copies by their sealed ids; inputs are counted apart from files."""
    copies = [Copy("sealed_1", "r", "image/png", 9), Copy("sealed_2", "r", "input", 3)]
    told = told_of(BLACK, [], copies, START)
    assert told.words == "1 files of 1 requests, with their inputs where they are kept"
