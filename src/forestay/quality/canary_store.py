"""Where rounds of canaries, goldens and requests for rounds lie. Values and a port; it decides nothing."""

import dataclasses
import datetime as dt
import enum
from collections.abc import Mapping, Sequence
from typing import Protocol

from forestay.ids import ModelId, ReplicaId, RevisionId, WorkerId
from forestay.quality.canary import Look, Standing
from forestay.quality.golden import Baseline, Cause, Taught
from forestay.quality.pipeline_parts import Parts

EVERYWHERE = WorkerId("")
ANY_REVISION = RevisionId("")
Spot = tuple[WorkerId, RevisionId]


class Ended(enum.StrEnum):
    """How a round ended."""

    PASSED = "passed"
    FAILED = "failed"
    LEARNING = "learning"  # at least one canary has no golden yet, and no other differs
    CUT_SHORT = "cut_short"  # the budget or the replica ended before the round


@dataclasses.dataclass(frozen=True, slots=True)
class PlayedCanary:
    """One canary of a round. `standing` is empty while it has no golden."""

    canary: str
    environment: str
    standing: Standing | None
    levels: float = 0.0
    band: float = 0.0
    feature: str = ""
    look: Look | None = None
    picture_key: str = ""
    fingerprint: str = ""  # of the pipeline, weights read again
    words: str = ""
    parts: Parts = dataclasses.field(default_factory=dict[str, Mapping[str, str]])  # of the pipeline that drew it


@dataclasses.dataclass(frozen=True, slots=True)
class PlayedRound:
    """One round of one replica."""

    model_id: ModelId
    revision_id: RevisionId
    replica_id: ReplicaId
    worker_id: WorkerId
    cause: Cause
    began_at: dt.datetime
    device_seconds: float
    ended: Ended
    words: str
    canaries: tuple[PlayedCanary, ...]
    round_id: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Ask:
    """A request for a round: of every replica by a person, or of a worker that is held back."""

    model_id: ModelId
    revision_id: RevisionId  # ANY_REVISION: each
    worker_id: WorkerId  # EVERYWHERE, or the one to be tested
    cause: Cause
    asked_at: dt.datetime
    reason: str
    ask_id: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class SelfTested:
    """The last self-test of a worker. One that did not pass has `differed`, or could not be made."""

    at: dt.datetime
    passed: bool
    differed: bool = False


class CanaryStore(Protocol):
    """Rounds, goldens and asks."""

    async def baselines(self, model_id: ModelId) -> list[Baseline]:
        """Read from which revisions on goldens of a model hold."""
        ...

    async def begin(self, baseline: Baseline) -> None:
        """Note a model's first baseline; nothing where it has one."""
        ...

    async def approve(self, baseline: Baseline, taught: Sequence[Taught]) -> None:
        """Note a baseline that a person approved, with looks of its revision; what it held before is replaced."""
        ...

    async def taught(self, model_id: ModelId, revision_id: RevisionId) -> list[Taught]:
        """Read the looks of one baseline."""
        ...

    async def teach(self, model_id: ModelId, revision_id: RevisionId, taught: Sequence[Taught]) -> None:
        """Add looks to a baseline that is being learned."""
        ...

    async def settle(self, look_ids: Sequence[int]) -> None:
        """Note that these looks are a golden; nothing where one of the same canary and environment is settled."""
        ...

    async def note(self, played: PlayedRound) -> None:
        """Keep a round."""
        ...

    async def rounds(self, model_id: ModelId, limit: int) -> list[PlayedRound]:
        """Read the newest rounds of a model."""
        ...

    async def ask(self, ask: Ask) -> int:
        """Ask for a round; returns the id. An open ask of the same kind for the same worker is returned instead."""
        ...

    async def asks(self, since: dt.datetime) -> list[Ask]:
        """Read the open asks made at `since` or later."""
        ...

    async def answer(self, ask_id: int, tested: SelfTested, words: str) -> None:
        """Note the result of a self-test."""
        ...

    async def results(self, since: dt.datetime) -> Mapping[Spot, SelfTested]:
        """Return the last self-test of each worker and revision."""
        ...

    async def forget(self, before: dt.datetime, most: int) -> list[str]:
        """Remove rounds from before then, at most so many, and old asks; returns keys of pictures nobody shows."""
        ...
