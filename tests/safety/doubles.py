"""Detectors, policies and records as tests need them: adapters of the guard's ports."""

import asyncio
import dataclasses
import datetime as dt
import hashlib
from collections.abc import Callable, Sequence
from typing import cast

from forestay.chance import SeededChance
from forestay.clock import SystemClock
from forestay.errors import Unavailable
from forestay.ids import TenantId
from forestay.safety.chain import ChainFault
from forestay.safety.guard import Guard, GuardPorts
from forestay.safety.model import Content, DetectorInfo, Outcome, Picture, Scores, Sound, Text, Trouble, Unscored
from forestay.safety.policies import Policies
from forestay.safety.records import VerdictRecord
from forestay.safety.review.carrying import LetGo, Whole
from forestay.safety.sealing import PolicySeal
from forestay.safety.staging import Staging
from forestay.safety.store import SafetyState, SafetyStore, StoredPolicy, TenantPolicy, Waiver
from forestay.safety.taxonomy import Category, Modality
from forestay.telemetry.metrics import Metrics

SEAL = PolicySeal("a long random text")
MARKER = "MARKER-VIOLENCE"  # the text that the stub detector knows
RED = (255, 0, 0)  # the colour that the stub detector of pictures knows
POLICY = """\
version: 1
deadline: 1s
streams: judge
rules:
  - modality: text
    categories: [violence]
    detectors: [words@1]
    flag_at: 0.4
    review_at: 0.6
    block_at: 0.9
    trouble: {crash: {degrade: spare@1, else: review}, timeout: review, overload: review, language: review,
              unreadable: block}
  - modality: image
    categories: [sexual]
    detectors: [colours@1]
    flag_at: 0.4
    block_at: 0.9
    trouble: {crash: review, timeout: review, overload: review, language: review, unreadable: block}
"""
TEXTS = {Modality.TEXT: frozenset({Category.VIOLENCE})}
PICTURES = {Modality.IMAGE: frozenset({Category.SEXUAL}), Modality.VIDEO: frozenset({Category.SEXUAL})}


@dataclasses.dataclass
class StubDetectors:
    """`words@1` and `spare@1` know one marker word, `colours@1` red pixels; each can be told to fail."""

    trouble: dict[str, Trouble] = dataclasses.field(default_factory=dict[str, Trouble])
    hanging: set[str] = dataclasses.field(default_factory=set[str])
    asked: list[tuple[str, str]] = dataclasses.field(default_factory=list[tuple[str, str]])
    score: Callable[[Content], float] | None = None

    async def known(self) -> Sequence[DetectorInfo]:
        """Say what there is."""
        return [
            DetectorInfo("words@1", "sha256:a", TEXTS, costly=False),
            DetectorInfo("spare@1", "sha256:b", TEXTS, costly=False),
            DetectorInfo("colours@1", "sha256:c", PICTURES, costly=True),
        ]

    async def ask(self, detector_id: str, contents: Sequence[Content], within_seconds: float) -> Sequence[Outcome]:
        """Score, or fail as told."""
        del within_seconds
        self.asked += [(detector_id, content.where) for content in contents]
        if detector_id in self.hanging:
            await asyncio.sleep(3600)
        if detector_id in self.trouble:
            return [Unscored(detector_id, content.where, self.trouble[detector_id]) for content in contents]
        category = Category.SEXUAL if detector_id == "colours@1" else Category.VIOLENCE
        return [Scores(detector_id, item.where, {category: (self.score or score_of)(item)}) for item in contents]


class AsItIs:
    """Finishes released outputs without doing anything to them."""

    async def whole(self, let_go: LetGo) -> Whole:
        """Return it as it was judged."""
        return Whole(let_go.answer, (f"sha256:{hashlib.sha256(let_go.answer.body).hexdigest()}",))

    async def forget(self, media_ids: Sequence[str]) -> None:
        """Nothing is left."""


def score_of(content: Content) -> float:
    """1 for what is marked, 0 for all else."""
    match content:
        case Text(_, text):
            return 1.0 if MARKER in text else 0.0
        case Picture(_, _, _, rgb):
            red, green, blue = rgb[0], rgb[1], rgb[2]
            return 1.0 if red > 200 and green < 60 and blue < 60 else 0.0
        case Sound():
            return 0.0


@dataclasses.dataclass
class MemoryVerdicts:
    """Records in memory."""

    records: list[VerdictRecord] = dataclasses.field(default_factory=list[VerdictRecord])
    away: bool = False
    broken: Exception | None = None
    hanging: bool = False

    async def write(self, batch: Sequence[VerdictRecord]) -> None:
        """Keep them, or be away."""
        if self.away:
            raise Unavailable("no facts database")
        if self.broken is not None:
            raise self.broken
        if self.hanging:
            await asyncio.sleep(3600)
        self.records += batch


class MemorySafetyStore:
    """A store that holds policies that were set at once for all."""

    def __init__(self) -> None:
        self.policies: dict[str, list[StoredPolicy]] = {}
        self.stages: dict[str, Staging] = {}
        self.waivers: list[Waiver] = []
        self.tenants: dict[TenantId, str] = {}

    def put(self, policy_id: str, text: str, *, shadow: bool = False) -> None:
        """Set a version in force, or let it judge in shadow."""
        version = len(self.policies.setdefault(policy_id, [])) + 1
        at = SystemClock().now()
        seal = SEAL.make(policy_id, version, text)
        self.policies[policy_id].append(StoredPolicy(policy_id, version, text, seal, "a test", at, "test"))
        before = self.stages.get(policy_id, Staging(policy_id, 0))
        self.stages[policy_id] = Staging(policy_id, before.live, version) if shadow else Staging(policy_id, version)

    async def strengthen(self, tenant_id: TenantId, policy_id: str | None, *, actor: str, reason: str) -> bool:
        """Set or end a tenant's policy."""
        del actor, reason
        before = self.tenants.pop(tenant_id, None)
        if policy_id is not None:
            self.tenants[tenant_id] = policy_id
        return before != policy_id

    async def state(self) -> SafetyState:
        """Read it all."""
        return SafetyState(
            tuple(item for versions in self.policies.values() for item in versions),
            tuple(self.stages.values()),
            tuple(self.waivers),
            tuple(TenantPolicy(*item) for item in self.tenants.items()),
        )


@dataclasses.dataclass
class GuardWorld:
    """A guard with everything around it."""

    detectors: StubDetectors
    store: MemorySafetyStore
    verdicts: MemoryVerdicts
    policies: Policies
    metrics: Metrics
    guard: Guard

    async def verify(self, since: dt.datetime) -> tuple[int, list[ChainFault]]:
        """Find nothing altered."""
        del since
        return 0, []


async def guard_world() -> GuardWorld:
    """A guard under the policy `strict`; its `run` is for the caller to run."""
    detectors, store, verdicts, metrics = StubDetectors(), MemorySafetyStore(), MemoryVerdicts(), Metrics()
    store.put("strict", POLICY)
    policies = Policies(cast("SafetyStore", store), SEAL, SystemClock())
    await policies.refresh()
    ports = GuardPorts(detectors, policies, verdicts, SystemClock(), SeededChance(1), metrics)
    return GuardWorld(detectors, store, verdicts, policies, metrics, Guard(ports))
