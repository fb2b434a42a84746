"""The quality loop on real stores: from noted outputs to a finding, a drained replica, an alert, across restarts."""

import dataclasses
import datetime as dt
import uuid
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from tests.conformance.fleet_values import deploy, place, replica_of, revision_of, worker_of
from tests.conformance.memory_fleet import ManualClock
from tests.quality.streams import broken, fact, healthy, moved, on

from forestay.alerts.sources.quality import QualitySource
from forestay.clock import SystemClock
from forestay.fleet.actions import Origin, Place
from forestay.fleet.apply import Mode
from forestay.fleet.model import WorkerReport
from forestay.fleet.postgres_store import PostgresFleetStore
from forestay.fleet.spec import ResourceSpec
from forestay.ids import ModelId, ReplicaId, RevisionId, WorkerId
from forestay.quality.canary_store import SelfTested, Spot
from forestay.quality.findings import Finding, Source, Where
from forestay.quality.golden import Cause
from forestay.quality.loop import QualityLoop, QualityPorts, SelfTest
from forestay.quality.postgres_canaries import CanarySelfTest, PostgresCanaries
from forestay.quality.postgres_findings import PostgresFindings
from forestay.quality.watch_store import Hold, PostgresWatch
from forestay.quality.watching import Rules
from forestay.storage.postgres import Database
from forestay.storage.valkey import LocalWakeups
from forestay.telemetry.metrics import QUALITY_DECIDED, Metrics
from forestay.telemetry.output_facts import OutputFact, PostgresOutputs

MODEL = ModelId("acme/cat")
JUDGE = "score:judge@1:agreement+"
RULES = Rules(reference_outputs=150, run_length_outputs=2_000.0)


class ToldSelfTest:
    """A self-test whose result the test gives."""

    def __init__(self) -> None:
        self.asked: list[Hold] = []
        self.told: dict[Spot, SelfTested] = {}

    async def ask(self, hold: Hold) -> None:
        """Note it."""
        self.asked.append(hold)

    async def results(self) -> Mapping[Spot, SelfTested]:
        """Tell what the test said."""
        return self.told


@dataclasses.dataclass(slots=True)
class Ground:
    """Stores on one database, and a fleet with three replicas."""

    database: Database
    clock: ManualClock
    outputs: PostgresOutputs
    fleet: PostgresFleetStore
    watch: PostgresWatch
    findings: PostgresFindings
    metrics: Metrics
    tester: ToldSelfTest
    noted: int = 0

    def loop(self, tester: SelfTest | None = None) -> QualityLoop:
        """A controller that has just become the loop's leader."""
        return QualityLoop(QualityPorts(
            self.outputs, self.fleet, self.findings, self.watch, self.watch, self.clock, self.metrics, RULES,
            self_test=tester,
        ))  # fmt: skip

    async def note(self, facts: Sequence[OutputFact]) -> None:
        """Write outputs as workers do, the newest a moment ago."""
        now = await self.database.fetchval("SELECT now()")
        assert isinstance(now, dt.datetime)
        last = facts[-1].at
        self.noted += len(facts)
        await self.outputs.write([
            _changed(item, at=now - (last - item.at) / 100 - dt.timedelta(seconds=1), request_id=uuid.UUID(int=number))
            for number, item in enumerate(facts, start=self.noted)
        ])  # fmt: skip

    def worker(self, name: str) -> WorkerReport:
        """Return what a worker says of itself: it runs since yesterday."""
        report = worker_of(f"w-{name}", devices=2)
        return dataclasses.replace(report, started_at=self.clock.now() - dt.timedelta(days=1))

    async def wanted(self, replica: str) -> int:
        """Return how many replicas a worker shall hold."""
        fleet = await self.fleet.load()
        return sum(item.replicas for item in fleet.placements if item.worker_id == f"w-{replica}")


def _changed(item: OutputFact, **changed: object) -> OutputFact:
    return OutputFact(**{**{name: getattr(item, name) for name in OutputFact.__struct_fields__}, **changed})


@pytest.fixture
async def ground(database: Database) -> Ground:
    """A model on three workers, and a loop that may act."""
    clock = ManualClock(SystemClock().now())
    fleet = PostgresFleetStore(database, LocalWakeups(), writer="tests")
    revision = revision_of("r1", MODEL, ResourceSpec(memory_mb=100))
    await database.execute("INSERT INTO tenants (tenant_id, name) VALUES ('acme', 'acme') ON CONFLICT DO NOTHING")
    await fleet.apply(deploy(revision), origin=Origin.HUMAN, actor="tests")
    watch = PostgresWatch(database)
    made = Ground(database, clock, PostgresOutputs(database), fleet, watch, PostgresFindings(database), Metrics(),
                  ToldSelfTest())  # fmt: skip
    for name in "abc":
        await fleet.report(made.worker(name), [replica_of(revision, f"w-{name}", name=name)])
    await fleet.apply([place(f"w-{name}", revision) for name in "abc"], origin=Origin.CAPACITY, actor="tests")
    await fleet.set_mode("quality", None, Mode.ACT, actor="tests")
    return made


async def drained(loop: QualityLoop) -> int:
    """Run until everything was read; returns how much that was."""
    total = 0
    while read := await loop.run_once():
        total += read
    return total


async def test_a_worker_that_makes_black_pictures_is_found_drained_and_told_of_once(ground: Ground) -> None:
    """Named, with the replica; its worker shall run none; one alert for it, one for what is held back."""
    loop = ground.loop()
    await ground.note(healthy(450, 1))
    await drained(loop)
    assert await ground.findings.found(None, ground.clock.now() - dt.timedelta(days=9)) == []
    await ground.note(broken(healthy(30, 2), "b"))
    await drained(loop)
    (kept,) = await ground.findings.found(MODEL, ground.clock.now() - dt.timedelta(days=9))
    where = kept.finding.where
    assert (kept.finding.catalogue, where.replica_id, where.worker_id, where.device) == (1, "b", "w-b", "gpu-b")
    assert "failed the check black" in kept.finding.what
    assert (await ground.wanted("b"), await ground.wanted("a"), await ground.wanted("c")) == (0, 1, 1)
    (hold,) = await ground.watch.holds()
    assert (hold.worker_id, hold.finding_id) == ("w-b", kept.finding.finding_id)
    source = QualitySource(ground.findings, ground.watch)
    told = await source.conditions((await ground.fleet.load()).now)
    assert sorted(item.name for item in told) == ["outputs_degraded", "replica_held_back"]
    assert all(item.runbook_path == f"docs/runbooks/{item.name}.md" for item in told)


async def test_a_drained_worker_comes_back_after_a_passed_self_test(ground: Ground) -> None:
    """Asked for once it is due; what passes ends the hold, closes the finding, and the replica is wanted again."""
    loop = ground.loop(ground.tester)
    await ground.note(healthy(450, 1))
    await ground.note(broken(healthy(30, 2), "b"))
    await drained(loop)
    (hold,) = await ground.watch.holds()
    ground.tester.told[hold.worker_id, hold.revision_id] = SelfTested(
        hold.held_at + dt.timedelta(seconds=1), passed=True
    )
    await loop.run_once()
    assert await ground.watch.holds() == []
    (lifted,) = await ground.watch.holds(hold.held_at)
    assert (lifted.lifted_for, lifted.given_back) == ("the self-test passed", False)
    await ground.fleet.report(ground.worker("b"), [])  # it has ended, and its placement with it
    await loop.run_once()
    assert await ground.wanted("b") == 1
    await ground.fleet.apply([Place(hold.worker_id, hold.revision_id, 0, "moved")], origin=Origin.HUMAN, actor="tests")
    await loop.run_once()
    assert await ground.wanted("b") == 0, "given back once: what a person places stays"
    assert await ground.findings.found(MODEL, ground.clock.now() - dt.timedelta(days=9)) == []


async def test_a_replica_beside_healthy_ones_on_its_worker_is_drained_alone(ground: Ground) -> None:
    """The worker is asked for its sibling alone, and told which one ends; after a passed test it is asked for both."""
    revision = revision_of("r1", MODEL, ResourceSpec(memory_mb=100))
    pair = [replica_of(revision, "w-b", name=name) for name in ("b", "b2")]
    await ground.fleet.report(ground.worker("b"), pair)
    await ground.fleet.apply([place("w-b", revision, 2)], origin=Origin.CAPACITY, actor="tests")
    where = Where(MODEL, RevisionId("r1"), WorkerId("w-b"), ReplicaId("b"), "gpu-b")
    found = Finding("1 of 2 canaries differ", 29, where, {"healthy_peers": 3.0}, ground.clock.now(), Source.CANARY)
    await ground.findings.keep([found], SystemClock().now())
    loop = ground.loop(ground.tester)
    await loop.run_once()
    placed = {item.worker_id: item for item in (await ground.fleet.load()).placements}
    assert (placed[where.worker_id].replicas, placed[where.worker_id].ending) == (1, ("b",))
    (hold,) = await ground.watch.holds()
    assert (hold.replica_id, hold.alone, hold.replicas) == ("b", True, 1)
    assert "1 of the revision stay" in hold.reason
    await ground.fleet.report(ground.worker("b"), pair[1:])
    ground.tester.told[hold.worker_id, hold.revision_id] = SelfTested(
        hold.held_at + dt.timedelta(seconds=9), passed=True
    )
    await loop.run_once()
    await loop.run_once()
    assert (await ground.watch.holds(), await ground.wanted("b")) == ([], 2)


async def test_what_a_canary_finds_is_drained_and_comes_back_by_the_workers_own_self_test(ground: Ground) -> None:
    """Drained at once, asked a minute later, once; a failed test keeps the hold, a passed one lifts it."""
    canaries = PostgresCanaries(ground.database)
    loop = ground.loop(CanarySelfTest(canaries, ground.clock))
    where = Where(MODEL, RevisionId("r1"), WorkerId("w-b"), ReplicaId("b"), "gpu-b")
    found = Finding("1 of 2 canaries differ", 29, where, {"healthy_peers": 2.0}, ground.clock.now(), Source.CANARY)
    dispute = Where(MODEL, RevisionId("r1"), parameter="golden disputed")
    former = Finding("replicas did not agree at first", 0, dispute, {}, ground.clock.now(), Source.CANARY)
    await ground.findings.keep([former, found], SystemClock().now())
    await loop.run_once()
    assert (await ground.wanted("b"), await ground.wanted("a")) == (0, 1)
    await loop.run_once()
    assert await canaries.asks(ground.clock.now() - dt.timedelta(hours=1)) == []
    await ground.database.execute("UPDATE quality_holds SET held_at = held_at - interval '2 minutes'")
    await loop.run_once()
    await loop.run_once()
    (ask,) = await canaries.asks(ground.clock.now() - dt.timedelta(hours=1))
    assert (ask.worker_id, ask.cause) == ("w-b", Cause.SELF_TEST)
    await canaries.answer(ask.ask_id, SelfTested(SystemClock().now(), passed=False, differed=True), "1 of 2 differ")
    await loop.run_once()
    assert len(await ground.watch.holds()) == 1
    again = await canaries.ask(dataclasses.replace(ask, ask_id=0))
    await canaries.answer(again, SelfTested(SystemClock().now(), passed=True), "2 canaries are the same")
    await loop.run_once()
    assert await ground.watch.holds() == []
    left = await ground.findings.found(MODEL, ground.clock.now() - dt.timedelta(days=9))
    assert [item.finding.what for item in left] == ["replicas did not agree at first"]


async def test_a_loop_that_may_not_act_finds_all_the_same(ground: Ground) -> None:
    """In observe mode nothing is drained or held back; the finding is there."""
    await ground.fleet.set_mode("quality", None, Mode.OBSERVE, actor="tests")
    loop = ground.loop()
    await ground.note(healthy(450, 1))
    await ground.note(broken(healthy(30, 2), "b"))
    await drained(loop)
    assert len(await ground.findings.found(MODEL, ground.clock.now() - dt.timedelta(days=9))) == 1
    assert (await ground.wanted("b"), await ground.watch.holds()) == (1, [])


async def test_a_bad_reference_drains_nobody(ground: Ground) -> None:
    """All replicas change at once: the finding is of the revision, and every replica stays."""
    loop = ground.loop()
    await ground.note(healthy(450, 1))
    await ground.note(moved(healthy(150, 2), "spread", 4.0))
    await drained(loop)
    found = await ground.findings.found(MODEL, ground.clock.now() - dt.timedelta(days=9))
    assert found
    assert {item.finding.where.replica_id for item in found} == {ReplicaId("")}
    assert [await ground.wanted(name) for name in "abc"] == [1, 1, 1]


async def test_another_mix_of_prompts_tells_nobody(ground: Ground) -> None:
    """Strange prompts of one cluster draw something else, and the other clusters draw as ever: nothing is found."""
    loop = ground.loop()
    everything = [healthy(150, seed, cluster=seed) for seed in (1, 2, 3)]
    await ground.note([item for three in zip(*everything, strict=True) for item in three])
    later = [moved(healthy(60, 4, cluster=1), "red_green", 6.0), healthy(60, 5, cluster=2), healthy(60, 6, cluster=3)]
    await ground.note([item for three in zip(*later, strict=True) for item in three])
    await drained(loop)
    assert await ground.findings.found(None, ground.clock.now() - dt.timedelta(days=9), closed=True) == []
    assert ground.metrics.value(QUALITY_DECIDED, "PromptMix", "passed over") >= 1


async def test_a_killed_loop_goes_on_to_the_same_state(ground: Ground) -> None:
    """Killed after findings were kept and before its state was: read again, nothing is found twice or forgotten."""
    first = ground.loop()
    await ground.note(healthy(450, 1))
    await drained(first)
    await first.save()
    await ground.note(moved(healthy(150, 2), "dots", 4.0, "c"))
    await drained(first)  # its state of these is lost with it
    (before,) = await ground.findings.found(MODEL, ground.clock.now() - dt.timedelta(days=9))
    second = ground.loop()
    assert await drained(second) == 150
    await second.save()
    (after,) = await ground.findings.found(MODEL, ground.clock.now() - dt.timedelta(days=9))
    assert after.finding.finding_id == before.finding.finding_id
    expected = await ground.watch.load()
    await first.save()  # as if it had not been killed
    kept = await ground.watch.load()
    assert {name: data for name, data in kept.items() if name != "meta"} == {
        name: data for name, data in expected.items() if name != "meta"
    }


async def test_another_tenants_output_is_found_by_digests_alone(ground: Ground) -> None:
    """Row 34, told as a page; the row that is stored holds numbers and no tenant's name."""
    loop = ground.loop()
    facts = healthy(60, 1, content=7)
    await ground.note([*healthy(60, 3), facts[0], _changed(facts[1], tenant_id="other", prompt=99, **on("b"))])
    await drained(loop)
    (kept,) = await ground.findings.found(MODEL, ground.clock.now() - dt.timedelta(days=9))
    assert kept.finding.catalogue == 34
    assert "acme" not in kept.finding.what
    assert "other" not in kept.finding.what.replace("another", "")


def scores(count: int, first: int, shift: float) -> list[OutputFact]:
    """Scores of three replicas in turn; those of one moved by so many standard deviations."""
    drawn = np.random.default_rng(first).standard_normal(count)
    return [
        fact(first + number, [0.8 + 0.02 * (value + shift * (number % 3 == 1))], kind=JUDGE, **on("abc"[number % 3]))
        for number, value in enumerate(drawn.tolist())
    ]


@pytest.mark.parametrize(("shift", "way", "drained"), [(-3.0, "worse", True), (3.0, "better", False)])
async def test_scores_that_fall_drain_a_replica_and_those_that_rise_are_only_told(
    ground: Ground, shift: float, way: str, drained: bool
) -> None:
    """By the scorer's name and the way it went; better is no fault."""
    loop = ground.loop()
    await ground.note(scores(300, 0, 0.0))
    await loop.run_once()
    await ground.note(scores(240, 300, shift))
    await loop.run_once()
    await loop.run_once()
    kept = await ground.findings.found(MODEL, ground.clock.now() - dt.timedelta(hours=1))
    told = [item.finding for item in kept if item.finding.where.replica_id == "b"]
    assert told, [item.finding.what for item in kept]
    assert told[0].what.startswith(f"scorer judge@1 rates outputs {way} than it did: outputs of replica b")
    assert told[0].catalogue == 0
    assert (await ground.wanted("b") == 0) is drained
