"""Everything that a loop or a person may ask the fleet to become, and the order among them.

Frozen values, each with a reason that is log, metric, timeline and console text at once. They take effect only through
`fleet/apply`, which holds the brakes and writes the audit row in the same transaction.
"""

import dataclasses
import datetime as dt
import enum

from forestay.fleet.model import Revision, Route
from forestay.fleet.standing import Standing
from forestay.ids import ModelId, ReplicaId, RevisionId, TenantId, WorkerId


class Origin(enum.IntEnum):
    """Who wants it; when two actions touch the same thing in one batch, the lower number wins."""

    HUMAN = 0
    SAFETY = 1
    ABUSE = 2
    INCIDENT = 3
    QUALITY = 4
    SLO = 5
    ROLLOUT = 6
    CAPACITY = 7


@dataclasses.dataclass(frozen=True, slots=True)
class RegisterRevision:
    """Add a revision (and its model, when new). Routes stay as they are."""

    revision: Revision
    tenant_id: TenantId
    visibility: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class SetRoutes:
    """Replace a model's routes; together they must cover every bucket exactly once. What was planned is dropped."""

    model_id: ModelId
    routes: tuple[Route, ...]
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class PlanRoute:
    """Send all of a model's traffic to a revision once a replica of it is ready; until then the routes stay."""

    model_id: ModelId
    revision_id: RevisionId
    patience_seconds: float  # given up when no replica is ready by then
    reason: str
    held: bool = False  # only loaded: a rollout gives it traffic


@dataclasses.dataclass(frozen=True, slots=True)
class SettleRoute:
    """Carry out what was planned for a model, or give it up: then the routes stay as they are."""

    model_id: ModelId
    revision_id: RevisionId
    switch: bool
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class ShiftRoutes:
    """Replace a model's routes for a rollout, if they are as it saw them and it has not gone on since.

    What was planned is dropped. `step` is the version of the stored rollout that wants it.
    """

    model_id: ModelId
    routes: tuple[Route, ...]
    seen: tuple[Route, ...]
    step: tuple[str, int]  # the rollout's id and its version
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Want `replicas` of a revision on a worker, none of them in `ending`; 0 drains and unloads it."""

    worker_id: WorkerId
    revision_id: RevisionId
    replicas: int
    reason: str
    ending: tuple[ReplicaId, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Freeze:
    """Stop (or resume) every automatic action; human acts go on."""

    frozen: bool
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class SetStanding:
    """Give a subject a standing, or renew the one that it has."""

    standing: Standing

    @property
    def reason(self) -> str:
        """Return the standing's own reason."""
        return self.standing.reason


@dataclasses.dataclass(frozen=True, slots=True)
class LiftStanding:
    """End a subject's standing before its time; automation sets none on it before `pardon_until`."""

    subject: str
    reason: str
    pardon_until: dt.datetime | None = None


Action = (
    RegisterRevision | SetRoutes | PlanRoute | SettleRoute | ShiftRoutes | Place | Freeze | SetStanding | LiftStanding
)


class Effect(enum.StrEnum):
    """What became of an action."""

    APPLIED = "applied"
    ADVISED = "advised"  # the loop is in `advise` mode: recorded, not done
    OBSERVED = "observed"  # the loop is in `observe` mode: recorded, not done
    REFUSED = "refused"  # a brake held it


@dataclasses.dataclass(frozen=True, slots=True)
class Decided:
    """An action with its effect and, when refused, the brake that held it."""

    action: Action
    effect: Effect
    why: str
