"""The gate of safety reads what people found and what detectors scored then, and never the content itself."""

import dataclasses
import datetime as dt
import uuid
from collections.abc import Sequence

import pytest
from tests.conformance.fleet_values import DIGITS
from tests.conformance.memory_fleet import EPOCH
from tests.rollouts.test_golden_gates import fleet_of
from tests.rollouts.test_rollout_decide import rollout_of

from forestay.ids import ModelId
from forestay.rollouts.model import GateVerdict, Replayed, Stage
from forestay.rollouts.safety_gate import REREAD, SafetyGate
from forestay.safety.records import CheckRecord, Point, VerdictRecord
from forestay.safety.sealing import PolicySeal
from forestay.safety.staging import Staging
from forestay.safety.store import SafetyState, StoredPolicy

SEAL = PolicySeal("k" * 32)
POLICY = """version: 1
deadline: 5s
streams: judge
rules:
  - modality: text
    categories: [violence]
    detectors: [text-lexicon@1]
    flag_at: 0.1
    block_at: {block}
    trouble: {{crash: review, timeout: review, overload: review, language: review, unreadable: block}}
"""


@dataclasses.dataclass(frozen=True)
class Label:
    """What a person found."""

    request_id: uuid.UUID
    label: str
    position: int
    point: str = Point.INPUT


def stored(name: str, block: str, *, seal: bytes | None = None) -> StoredPolicy:
    """A policy that blocks from this score on."""
    text = POLICY.format(block=block)
    return StoredPolicy(name, 1, text, seal or SEAL.make(name, 1, text), "a test", EPOCH, "ada")


class World:
    """Two policies, labels and the scores of then."""

    def __init__(self, *policies: StoredPolicy) -> None:
        self.policies = policies or (stored("strict", "0.5"), stored("lenient", "0.9"))
        self.rows: list[tuple[Label, VerdictRecord]] = []
        self.reads = 0
        self.gate = SafetyGate(self, SEAL, self, self)  # type: ignore[arg-type]  # what the gate uses of them

    async def state(self) -> SafetyState:
        """Policies in force."""
        return SafetyState(self.policies, tuple(Staging(item.policy_id, 1) for item in self.policies), ())

    async def labels(self, after: int, limit: int) -> list[Label]:
        """What people found."""
        self.reads += 1
        return [label for label, _ in self.rows if label.position > after][:limit]

    async def of_requests(self, request_ids: Sequence[uuid.UUID], model_id: ModelId, limit: int) -> list[VerdictRecord]:
        """What was judged then."""
        found = [record for _, record in self.rows if record.request_id in request_ids]
        return [record for record in found if record.model_id == model_id][:limit]

    def judged(self, label: str, score: float, times: int, detector: str = "text-lexicon@1") -> None:
        """Add labelled content that scored this much."""
        for _ in range(times):
            name = uuid.UUID(int=len(self.rows) + 1)
            check = CheckRecord(
                detector, "", "prompt", "text", "violence", score, 0.5, "flag", None, 0.0, {"violence": score}
            )
            record = VerdictRecord(
                at=EPOCH,
                verdict_id=name,
                request_id=name,
                attempt=0,
                point=Point.INPUT,
                tenant_id="acme",
                key_id="k",
                model_id=DIGITS,
                revision_id="r",
                policy_id="strict",
                policy_version=1,
                policy_digest="",
                shadow=False,
                verdict="flag",
                action="flag",
                category="violence",
                place="prompt",
                reason="",
                checks=[check],
                judged=[],
                seconds=0.0,
                salt=bytes(16),
            )
            self.rows.append((Label(name, label, len(self.rows) + 1), record))

    async def verdict(self, sets: tuple[Replayed, ...] = (), seconds: float = 0.0) -> tuple[GateVerdict, str]:
        """What the gate says."""
        rollout = dataclasses.replace(rollout_of(Stage.GATES), safety_sets=sets)
        fleet = dataclasses.replace(fleet_of(policies=("strict", "lenient")), now=EPOCH + dt.timedelta(seconds=seconds))
        gate = await self.gate.about(rollout, fleet)
        assert gate is not None
        return gate.verdict, gate.evidence


@pytest.mark.threat("ML01:2023", "AML.T0054")
async def test_unsafe_content_that_the_new_policy_would_let_through_stops_the_candidate() -> None:
    """Before any traffic, from scores that were stored then."""
    world = World()
    world.judged("unsafe", 0.7, 12)
    verdict, evidence = await world.verdict()
    assert verdict is GateVerdict.FAIL
    assert "lenient passes 12 of 12 unsafe rows that strict does not" in evidence


async def test_enough_labelled_content_that_is_judged_alike_passes() -> None:
    """Of both kinds; a set that a person has replayed counts beside the traffic."""
    world = World()
    world.judged("unsafe", 0.95, 120)
    assert (await world.verdict())[0] is GateVerdict.INCONCLUSIVE
    own = Replayed("prompts.csv", safe=120, by="ada")
    verdict, evidence = await world.verdict((own,))
    assert verdict is GateVerdict.PASS
    assert "120 of labelled content of its traffic, 120 of prompts.csv" in evidence


async def test_what_nobody_labelled_or_a_detector_was_not_asked_for_proves_nothing() -> None:
    """Inconclusive is never pass."""
    assert (await World().verdict())[0] is GateVerdict.INCONCLUSIVE
    world = World(stored("strict", "0.5"), stored("lenient", "0.9"))
    world.judged("unsafe", 0.2, 200, detector="another@1")
    verdict, evidence = await world.verdict()
    assert verdict is GateVerdict.INCONCLUSIVE
    assert "200 that nobody can judge anew" in evidence


@pytest.mark.threat("ML01:2023", "AML.T0054")
@pytest.mark.parametrize("lenient", [None, stored("lenient", "0.9", seal=b"x" * 32)])
async def test_a_policy_that_is_not_in_force_or_that_somebody_forged_is_never_compared(
    lenient: StoredPolicy | None,
) -> None:
    """A text without the platform's seal is nobody's policy."""
    world = World(*[item for item in (stored("strict", "0.5"), lenient) if item is not None])
    world.judged("unsafe", 0.95, 120)
    world.judged("safe", 0.05, 120)
    verdict, evidence = await world.verdict()
    assert verdict is GateVerdict.INCONCLUSIVE
    assert "policy lenient is not in force" in evidence


async def test_a_gate_that_is_asked_every_second_reads_now_and_then() -> None:
    """And sees new labels within half a minute."""
    world = World()
    for second in range(5):
        await world.verdict(seconds=float(second))
    assert world.reads == 1
    world.judged("unsafe", 0.7, 12)
    assert (await world.verdict(seconds=REREAD.total_seconds() + 1))[0] is GateVerdict.FAIL


async def test_one_policy_for_both_or_none_at_all_is_not_this_gates_question() -> None:
    """The names answer it."""
    world = World()
    for policies in (("strict", "strict"), ("unguarded", "strict"), ("strict", "unguarded")):
        assert await world.gate.about(rollout_of(), fleet_of(policies=policies)) is None
