"""The words of a rollout: its stages, what is stored of it, and the one transition table. Pure values.

A rollout is the journey of a candidate revision: gates, shadow, canary, watch, and one of three ends. It decides
nothing; `rollouts/decide` does. What is stored says what is *wanted* (`weight`) and what the routes were last seen to
be (`routed`): the difference is work that is left to do, so a controller that dies anywhere leaves nothing to remember.
"""

import dataclasses
import datetime as dt
import enum
import uuid

from forestay.ids import ModelId, RevisionId
from forestay.rollouts.canary.model import Evidence, Policy
from forestay.rollouts.shadow.decide import Verdict as ShadowVerdict
from forestay.rollouts.shadow.model import ShadowPolicy

MOST_PHASES = 50
MOST_SETS = 10  # of labelled content, of one rollout
FIRST_ID = uuid.UUID(int=0)


class Stage(enum.StrEnum):
    """Where a rollout is."""

    GATES = "gates"  # loaded and checked; no traffic
    SHADOW = "shadow"  # answers copies of requests that the control has answered; no caller sees it
    CANARY = "canary"  # a share of the traffic that grows with the evidence
    WATCH = "watch"  # proved; has almost all traffic, while a little stays with the control to compare with
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    HELD = "held"  # nothing was proved: a person looks, the control serves


TERMINAL = frozenset({Stage.PROMOTED, Stage.ROLLED_BACK, Stage.HELD})
TRANSITIONS: dict[Stage, frozenset[Stage]] = {
    Stage.GATES: frozenset({Stage.SHADOW, Stage.CANARY, Stage.PROMOTED, Stage.ROLLED_BACK, Stage.HELD}),
    Stage.SHADOW: frozenset({Stage.CANARY, Stage.PROMOTED, Stage.ROLLED_BACK, Stage.HELD}),
    Stage.CANARY: frozenset({Stage.WATCH, Stage.PROMOTED, Stage.ROLLED_BACK, Stage.HELD}),
    Stage.WATCH: frozenset({Stage.PROMOTED, Stage.ROLLED_BACK, Stage.HELD}),
    Stage.PROMOTED: frozenset(),
    Stage.ROLLED_BACK: frozenset(),
    Stage.HELD: frozenset(),
}


class Order(enum.StrEnum):
    """What a person wants of a running rollout."""

    NONE = ""
    PROMOTE = "promote"
    ABORT = "abort"


class GateVerdict(enum.StrEnum):
    """What a gate says; inconclusive is never pass."""

    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclasses.dataclass(frozen=True, slots=True)
class GateResult:
    """One check before any traffic, with its evidence in words."""

    gate: str
    verdict: GateVerdict
    evidence: str


@dataclasses.dataclass(frozen=True, slots=True)
class Replayed:
    """Labelled content that the policies of control and candidate have judged; counts of what they judge differently.

    `newly_...`: what the candidate's policy does and the control's does not.
    """

    source: str  # where the content comes from, in words
    unsafe: int = 0
    newly_passed: int = 0
    newly_stopped: int = 0
    safe: int = 0
    newly_blocked: int = 0
    newly_freed: int = 0
    unknown: int = 0  # that one of them needs a detector for which was not asked
    by: str = ""  # who has replayed it; empty: the platform


@dataclasses.dataclass(frozen=True, slots=True)
class RolloutPolicy:
    """How a rollout goes."""

    canary: Policy = dataclasses.field(default_factory=Policy)
    gate_seconds: float = 900.0  # inconclusive gates are waited for this long, then a person has to look
    settle_seconds: float = 2.0  # until every gateway and worker goes by new routes; requests of meanwhile do not count
    missing_seconds: float = (
        20.0  # without a ready replica, while the control has one: then its callers wait for nothing
    )
    watch_percent: float = 95.0
    watch_seconds: float = 600.0
    allow_breaking: bool = False  # the interface may lose what callers use
    load_requests: int = 0  # of each revision, at as many at a time as the candidate takes; 0: no gate of load
    shadow: ShadowPolicy = dataclasses.field(default_factory=ShadowPolicy)


@dataclasses.dataclass(frozen=True, slots=True)
class Phase:
    """A time in which the candidate had one share (percent) of the traffic everywhere; open while `until` is None."""

    weight: float
    since: dt.datetime
    until: dt.datetime | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Cursor:
    """The last fact that was looked at."""

    finished_at: dt.datetime
    request_id: uuid.UUID


@dataclasses.dataclass(frozen=True, slots=True)
class Rollout:
    """Everything that is stored of a rollout, written whole under a version number."""

    rollout_id: str
    model_id: ModelId
    control: RevisionId
    candidate: RevisionId
    policy: RolloutPolicy
    started_at: dt.datetime
    started_by: str
    stage: Stage
    stage_since: dt.datetime
    step_since: dt.datetime
    cursor: Cursor
    version: int = 1
    weight: float = 0.0  # percent that is wanted
    routed: float = 0.0  # percent that the routes were last seen to give
    unsure: tuple[float, ...] = ()  # percents that were wanted since then and may have been set meanwhile
    settled: bool = False
    reason: str = ""
    order: Order = Order.NONE
    ordered_by: str = ""
    paused_by: str = ""
    despite_budget: str = ""  # who lets it go on although an error budget holds it, and why
    missing_since: dt.datetime | None = None
    gates: tuple[GateResult, ...] = ()
    safety_sets: tuple[Replayed, ...] = ()  # that people have replayed for its gate
    shadow: ShadowVerdict | None = None  # what the shadow has said last
    phases: tuple[Phase, ...] = ()
    evidence: Evidence = dataclasses.field(default_factory=Evidence)
    step_requests: int = 0  # of the candidate, at this weight
    last_seen_at: dt.datetime | None = None  # when the candidate's newest request ended
    requests_per_second: float = 0.0
    looked_at: dt.datetime | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class JournalEntry:
    """One step as it was decided, before it was done."""

    version: int
    at: dt.datetime
    actor: str
    stage: Stage
    weight: float
    reason: str


def begin(
    rollout_id: str, model_id: ModelId, pair: tuple[RevisionId, RevisionId], policy: RolloutPolicy, by: "Begun"
) -> Rollout:
    """Return a new rollout from a control to a candidate."""
    control, candidate = pair
    return Rollout(
        rollout_id=rollout_id,
        model_id=model_id,
        control=control,
        candidate=candidate,
        policy=policy,
        started_at=by.at,
        started_by=by.actor,
        stage=Stage.GATES,
        stage_since=by.at,
        step_since=by.at,
        cursor=Cursor(by.at, FIRST_ID),
        reason=by.reason,
        phases=(Phase(0.0, by.at),),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Begun:
    """Who began a rollout, when and why."""

    at: dt.datetime
    actor: str
    reason: str
