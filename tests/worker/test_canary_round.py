"""One round of canaries on a replica whose model is a fake: what is learned, found, counted, and when it waits."""

import base64
import dataclasses
import datetime as dt
import json
import pathlib
from collections.abc import AsyncIterator
from typing import cast
from unittest import mock

import msgspec
import pytest
from tests.conformance.memory_canaries import MemoryCanaries
from tests.quality import making
from tests.worker.harness import MODEL, MemoryMedia, spec_of

from forestay.chance import SystemChance
from forestay.clock import SystemClock
from forestay.fleet.model import ReplicaState, Revision
from forestay.fleet.spec_quality import CanaryInput, CanarySpec, QualitySpec
from forestay.ids import ReplicaId, RevisionId, TenantId, WorkerId, new_request_id
from forestay.media.decode import Decoder
from forestay.quality.canary import CORRUPT, LEAKED, Standing
from forestay.quality.canary_store import Ended, PlayedRound
from forestay.quality.findings import Finding
from forestay.quality.golden import Cause
from forestay.quality.pipeline_parts import CHANGED
from forestay.quality.probes import PROBE_HEADER, PipelineCall, Report
from forestay.settings import Worker
from forestay.storage.objects import ObjectStore, open_object_store
from forestay.telemetry.metrics import Metrics
from forestay.worker import canary_round
from forestay.worker.canary_looks import CanaryLooks
from forestay.worker.canary_round import CanaryPorts, CanaryRound, Known, NoSlot
from forestay.worker.hosts.host import Answered, CallRequest, CallResult, Crashed, Description, Host
from forestay.worker.inputs import Inputs
from forestay.worker.replica import Replica, Running

SCENE, OTHER = making.scene(), making.scene(shift=11)
CANARIES = CanarySpec((CanaryInput("scene", '{"seed": 7}'),), reruns=2)


class DrawingHost:
    """A model that draws one picture, or crashes."""

    def __init__(self) -> None:
        self.picture: making.Picture | None = SCENE
        self.calls: list[CallRequest] = []
        self.beta_end = ""  # of its scheduler, where its pipeline is watched

    async def call(self, request: CallRequest) -> CallResult:
        """Answer with the picture inline."""
        self.calls.append(request)
        if self.picture is None:
            return Crashed("it ended")
        url = "data:image/png;base64," + base64.b64encode(making.packed(self.picture)).decode()
        body = json.dumps({"images": [{"url": url}]}).encode()
        return Answered(200, {"content-type": "application/json", **self._probed()}, body)

    def _probed(self) -> dict[str, str]:
        if not self.beta_end:
            return {}
        report = Report(
            calls=(PipelineCall(pipeline="P"),),
            prints=({"pipeline": "P", "parts": {"scheduler": {"class": "DDIM", "config": f"of {self.beta_end}"}}},),
            settings={"P": {"beta_end": self.beta_end}},
            environment="cpu",
        )
        return {PROBE_HEADER: msgspec.json.encode(report).decode()}


class NoFiles:
    """Inputs without files."""

    async def prepare(self, body: bytes, endpoint: object) -> bytes:
        """Return the body."""
        del endpoint
        return body


@dataclasses.dataclass
class World:
    """A store, and replicas that play on it."""

    objects: ObjectStore
    looks: CanaryLooks
    placed: int = 1
    store: MemoryCanaries = dataclasses.field(default_factory=MemoryCanaries)
    found: list[Finding] = dataclasses.field(default_factory=list)
    clock: SystemClock = dataclasses.field(default_factory=SystemClock)
    known: Known = dataclasses.field(default_factory=Known)

    def replica(
        self, name: str, revision: str = "digits-1", spec: CanarySpec = CANARIES
    ) -> tuple[Replica, DrawingHost]:
        """A ready replica and its model."""
        model = dataclasses.replace(spec_of(), quality=QualitySpec(canaries=spec))
        at = dt.datetime(2030, 1, int(revision[-1]), tzinfo=dt.UTC)
        made = Revision(RevisionId(revision), MODEL, revision, model, None, None, at)
        replica = Replica((ReplicaId(name), WorkerId("w1")), made, Worker(), self.clock)
        host = DrawingHost()
        replica.host, replica.state, replica.ready_at = cast("Host", host), ReplicaState.READY, self.clock.now()
        replica.description = Description(openapi=None, slots=1)
        return replica, host

    async def play(self, replica: Replica, cause: Cause = Cause.SCHEDULE) -> PlayedRound:
        """Play a round and keep it."""
        ports = CanaryPorts(
            store=self.store,
            findings=None,
            found=self.found.extend,
            objects=self.objects,
            inputs=cast("Inputs", NoFiles()),
            looks=self.looks,
            replicas=list,
            placed=lambda _: self.placed,
            device="gpu-0",
            clock=self.clock,
            chance=SystemChance(),
            metrics=Metrics(),
        )
        round_ = CanaryRound(ports, replica, cause, self.known)
        await round_.read()
        played = await round_.play(self.clock.now())
        await self.store.note(played)
        return played


@pytest.fixture
async def world(tmp_path: pathlib.Path) -> AsyncIterator[World]:
    """An empty store."""
    (tmp_path / "scratch").mkdir()
    decoder = Decoder()
    looks = CanaryLooks(MemoryMedia(SystemClock()), decoder, tmp_path / "scratch", 10.0)
    with mock.patch.object(canary_round, "PAUSE_SECONDS", 0.0), mock.patch.object(canary_round, "SLOT_SECONDS", 0.05):
        yield World(open_object_store(f"file://{tmp_path}/objects"), looks)
    await decoder.close()


async def test_a_golden_is_learned_of_reruns_then_held_against_and_an_ill_replica_is_named(world: World) -> None:
    """Learning, the same, and then row 29 on this replica, whose revision drew the golden itself."""
    replica, host = world.replica("r1")
    learning = await world.play(replica, Cause.START)
    assert (learning.ended, len(host.calls)) == (Ended.LEARNING, 2)
    whole = await world.play(replica)
    assert (whole.ended, whole.canaries[0].standing, len(host.calls)) == (Ended.PASSED, Standing.SAME, 3)
    assert world.found == []
    host.picture = OTHER
    ill = await world.play(replica)
    (finding,) = world.found
    assert (ill.ended, finding.catalogue, finding.where.replica_id) == (Ended.FAILED, CORRUPT, "r1")
    assert finding.where.device == "gpu-0"
    assert ill.words == finding.what
    assert await world.objects.get(ill.canaries[0].picture_key) is not None
    assert replica.last_used_at is None
    assert replica.idle


async def test_a_replica_that_was_ill_from_the_start_is_outvoted(world: World) -> None:
    """It drew first; two that agree make the golden, and it is the one that differs."""
    world.placed = 3
    ill, bad = world.replica("ill")
    bad.picture = OTHER
    for replica in (ill, world.replica("r1")[0], world.replica("r2")[0]):
        await world.play(replica, Cause.START)
    (dispute,) = world.found  # after the second, before the third
    assert (dispute.where.replica_id, dispute.where.parameter) == ("", "golden disputed")
    assert (await world.play(ill)).ended is Ended.FAILED
    assert [item.where.replica_id for item in world.found] == ["", "ill"]


async def test_a_revision_that_draws_otherwise_is_told_as_a_whole_and_after_an_adapter_it_is_a_leak(
    world: World,
) -> None:
    """Row 12 without a replica; row 23 with one."""
    replica, host = world.replica("r1")
    await world.play(replica, Cause.START)
    later, other = world.replica("r9", "digits-2")
    other.picture = OTHER
    assert (await world.play(later, Cause.START)).ended is Ended.FAILED
    assert [(item.catalogue, item.where.replica_id) for item in world.found] == [(CHANGED, "")]
    host.picture = OTHER
    await world.play(replica, Cause.ADAPTER)
    assert (world.found[-1].catalogue, world.found[-1].where.replica_id) == (LEAKED, "r1")


async def test_a_setting_that_changed_with_a_revision_is_named_with_its_row(world: World) -> None:
    """The noise schedule ends elsewhere: row 10 of the whole revision, the setting in words and in numbers."""
    replica, host = world.replica("r1")
    host.beta_end = "0.012"
    await world.play(replica, Cause.START)
    later, other = world.replica("r9", "digits-2")
    other.picture, other.beta_end = OTHER, "0.004"
    played = await world.play(later, Cause.START)
    (finding,) = world.found
    assert (finding.catalogue, finding.where.replica_id, finding.where.parameter) == (10, "", "")
    assert finding.what.endswith("; scheduler.beta_end 0.012, now 0.004")
    assert finding.evidence["scheduler.beta_end_now"] == 0.004
    assert played.canaries[0].parts["scheduler"]["setting.beta_end"] == "0.004"


async def test_a_model_that_does_not_answer_its_canary_fails_it_and_teaches_nothing(world: World) -> None:
    """Whatever it did before: without a golden it is still learning."""
    replica, host = world.replica("r1")
    host.picture = None
    played = await world.play(replica, Cause.START)
    assert (played.ended, played.words) == (Ended.LEARNING, "no answer: Crashed")
    assert await world.store.taught(MODEL, RevisionId("digits-1")) == []
    host.picture = SCENE
    await world.play(replica)
    host.picture = None
    assert (await world.play(replica)).canaries[0].standing is Standing.MISSING


async def test_a_spent_budget_cuts_a_round_short_unless_a_person_asked(world: World) -> None:
    """What was played is kept."""
    replica, host = world.replica("r1", spec=dataclasses.replace(CANARIES, budget_seconds_per_hour=0.0))
    assert ((await world.play(replica)).ended, len(host.calls)) == (Ended.CUT_SHORT, 0)
    assert (await world.play(replica, Cause.PERSON)).ended is Ended.LEARNING
    assert len(host.calls) == 2
    assert world.known.spent_within_hour(world.clock.monotonic()) > 0
    assert world.known.spent_within_hour(world.clock.monotonic() + 3601) == 0


async def test_no_canary_takes_a_slot_that_anybody_waits_for(world: World) -> None:
    """A queue that wants the replica, a claim on its way, or a call on its only slot: the round is given up."""
    replica, host = world.replica("r1")
    replica.turns.want_queue()
    with pytest.raises(NoSlot):
        await world.play(replica)
    replica.turns.claimed(all_filled=False)
    replica.turns.queue_wants = False
    replica.turns.offer(1)
    with pytest.raises(NoSlot):
        await world.play(replica)
    replica.turns.claimed(all_filled=False)
    call = Running(new_request_id(world.clock.now(), 0, SystemChance()), 1, TenantId("acme"))
    assert replica.take(call)
    with pytest.raises(NoSlot):
        await world.play(replica)
    assert host.calls == []
    replica.release(call)
    assert (await world.play(replica)).ended is Ended.LEARNING
