"""The one door: what becomes of each action that a person or a loop asks for.

Pure. It decides, by written rules, whether an action is applied, only advised or observed, or refused by a brake; the
stores (`fleet/postgres_store`, the fake) carry the outcome out, with an audit row each, in one transaction. It does not
decide what is wanted: deciders do. The ladder, in order: sense (a wrong action is refused whoever asks) -> precedence
(human > safety > abuse > incident > quality > slo > rollout > capacity) -> freeze -> mode -> removal cap, standing cap.
"""

import dataclasses
import datetime as dt
import enum
from collections.abc import Mapping, Sequence
from typing import assert_never

from forestay.fleet.actions import (
    Action,
    Decided,
    Effect,
    Freeze,
    LiftStanding,
    Origin,
    Place,
    PlanRoute,
    RegisterRevision,
    SetRoutes,
    SetStanding,
    SettleRoute,
    ShiftRoutes,
)
from forestay.fleet.model import Fleet, Placement, Revision
from forestay.fleet.routes import changes_no_route, wrong_route_action
from forestay.fleet.standing import goes_first, is_so_already, restricts, wrong_standing, wrong_subject
from forestay.ids import ModelId, RevisionId

MAX_REPLICAS = 64  # of one revision on one worker
ALREADY_SO = "already so"


class Mode(enum.StrEnum):
    """How far a loop may go."""

    OBSERVE = "observe"
    ADVISE = "advise"
    ACT = "act"


Modes = Mapping[tuple[str, str], Mode]  # (loop, model id or "" for every model) -> mode
_UNSET_MODES = {Origin.CAPACITY: Mode.ACT}  # a loop that nobody has switched on only advises


@dataclasses.dataclass(frozen=True, slots=True)
class Brakes:
    """What holds automation."""

    frozen: bool = False
    frozen_by: str = ""
    frozen_why: str = ""
    removal_cap: float = 0.5  # share of a pool's devices that automation may take out, net, per window
    window_seconds: float = 600.0
    standing_cap: int = 20  # subjects that automation may newly throttle, step up or suspend per window


@dataclasses.dataclass(frozen=True, slots=True)
class Recent:
    """A decided action of the last window, as the audit log tells it."""

    at: dt.datetime
    origin: Origin
    subject: str
    effect: Effect
    why: str = ""
    pool: str = ""
    removed_devices: int = 0  # negative when it added some
    restricted: int = 0  # 1 when it took something from a caller that nothing took before


@dataclasses.dataclass(frozen=True, slots=True)
class Proposal:
    """An action and who wants it."""

    action: Action
    origin: Origin


@dataclasses.dataclass(frozen=True, slots=True)
class Situation:
    """Everything that the rules look at."""

    fleet: Fleet
    modes: Modes
    brakes: Brakes
    recent: Sequence[Recent]
    steps: Mapping[ModelId, tuple[str, int]] = dataclasses.field(
        default_factory=dict[ModelId, tuple[str, int]]
    )  # the last recorded step of each model's rollout


def subject_of(action: Action) -> str:
    """Return what the action touches: two actions with one subject are in conflict."""
    match action:
        case RegisterRevision():
            return f"revision:{action.revision.revision_id}"
        case SetRoutes() | PlanRoute() | SettleRoute() | ShiftRoutes():
            return f"routes:{action.model_id}"
        case Place():
            return f"placement:{action.worker_id}/{action.revision_id}"
        case Freeze():
            return "freeze"
        case SetStanding():
            return f"standing:{action.standing.subject}"
        case LiftStanding():
            return f"standing:{action.subject}"
        case _:
            assert_never(action)


def decide_effects(proposals: Sequence[Proposal], situation: Situation) -> list[Decided]:
    """Decide what becomes of each proposal, in the order given."""
    known = dict(situation.fleet.revisions)
    frozen = situation.brakes.frozen or any(
        isinstance(item.action, Freeze) and item.action.frozen and item.origin is Origin.HUMAN for item in proposals
    )
    winners = _winners(proposals)
    ledger = _Ledger(situation)
    decided: list[Decided] = []
    for index, proposal in enumerate(proposals):
        action = proposal.action
        nonsense = _nonsense(action, situation.fleet, known)
        if nonsense:
            decided.append(Decided(action, Effect.REFUSED, nonsense))
            continue
        verdict = _judge(proposal, situation, frozen=frozen, wins=winners[subject_of(action)] == index, ledger=ledger)
        if verdict.effect is Effect.APPLIED:
            ledger.note(action, proposal.origin)
            if isinstance(action, RegisterRevision):
                known[action.revision.revision_id] = action.revision
        decided.append(verdict)
    return decided


def _judge(  # noqa: PLR0911 - a flat ladder reads as the policy itself
    proposal: Proposal, situation: Situation, *, frozen: bool, wins: bool, ledger: "_Ledger"
) -> Decided:
    action, origin = proposal.action, proposal.origin
    if not wins:
        return Decided(action, Effect.REFUSED, "another action of this batch on the same thing goes first")
    if origin is Origin.HUMAN:
        return Decided(action, Effect.APPLIED, ALREADY_SO if _changes_nothing(action, situation) else action.reason)
    if isinstance(action, Freeze) and not action.frozen:
        return Decided(action, Effect.REFUSED, "only a person may end a freeze")
    if _changes_nothing(action, situation):
        return Decided(action, Effect.APPLIED, ALREADY_SO)
    held = _held_by_standing(action, situation.fleet) or _held_by_step(action, situation)
    if held:
        return Decided(action, Effect.REFUSED, held)
    if frozen and not isinstance(action, Freeze):
        why = situation.brakes.frozen_why or "no reason given"
        return Decided(action, Effect.REFUSED, f"the fleet is frozen by {situation.brakes.frozen_by or '?'}: {why}")
    higher = _held_by(action, origin, situation.recent)
    if higher is not None:
        window = situation.brakes.window_seconds
        return Decided(
            action, Effect.REFUSED, f"{higher.name.lower()} changed this within the last {window:g} s and goes first"
        )
    mode = _mode(action, origin, situation)
    if mode is not Mode.ACT:
        effect = Effect.ADVISED if mode is Mode.ADVISE else Effect.OBSERVED
        return Decided(action, effect, f"the {origin.name.lower()} loop is in {mode} mode")
    over = ledger.over_cap(action)
    if over:
        return Decided(action, Effect.REFUSED, over)
    return Decided(action, Effect.APPLIED, action.reason)


def _winners(proposals: Sequence[Proposal]) -> dict[str, int]:
    """Return for each subject the index of the proposal that goes first: lowest origin, then the latest."""
    winners: dict[str, int] = {}
    for index, proposal in enumerate(proposals):
        subject = subject_of(proposal.action)
        best = winners.get(subject)
        if best is None or proposal.origin <= proposals[best].origin:
            winners[subject] = index
    return winners


def _held_by(action: Action, origin: Origin, recent: Sequence[Recent]) -> Origin | None:
    if isinstance(action, SettleRoute | ShiftRoutes):
        return None  # carries out what was begun: whoever has changed the routes since then has ended it
    subject = subject_of(action)
    return min(
        (
            item.origin
            for item in recent
            if item.subject == subject and item.effect is Effect.APPLIED and item.origin < origin
        ),
        default=None,
    )


def _held_by_standing(action: Action, fleet: Fleet) -> str:
    """Return why automation may not set this standing: a person's word, or a graver one, is there already."""
    match action:
        case SetStanding(standing=wanted):
            pardoned = fleet.pardons.get(wanted.subject)
            if pardoned is not None and pardoned > fleet.now:
                return (
                    f"a person lifted the standing of {wanted.subject} and pardons it until {pardoned:%Y-%m-%d %H:%M}"
                )
            return goes_first(wanted, fleet.standings.get(wanted.subject))
        case LiftStanding(subject=subject):
            current = fleet.standings.get(subject)
            return "only a person lifts what a person set" if current and current.origin == "human" else ""
        case _:
            return ""


def _held_by_step(action: Action, situation: Situation) -> str:
    """Return why a rollout's shift comes too late: a controller that fell asleep must not undo what another did."""
    if not isinstance(action, ShiftRoutes) or situation.steps.get(action.model_id) == action.step:
        return ""
    return f"rollout {action.step[0]} has gone on since its step {action.step[1]}"


def _mode(action: Action, origin: Origin, situation: Situation) -> Mode:
    if isinstance(action, SettleRoute | ShiftRoutes):
        return Mode.ACT  # the plan or the rollout was judged when it was made
    loop, model_id = origin.name.lower(), model_of(action, situation.fleet)
    fallback = situation.modes.get((loop, ""), _UNSET_MODES.get(origin, Mode.ADVISE))
    return situation.modes.get((loop, model_id), fallback) if model_id else fallback


def model_of(action: Action, fleet: Fleet) -> ModelId | None:
    """Return the model that an action is about, None when it is about the whole fleet."""
    match action:
        case RegisterRevision():
            return action.revision.model_id
        case SetRoutes() | PlanRoute() | SettleRoute() | ShiftRoutes():
            return action.model_id
        case Place():
            revision = fleet.revisions.get(action.revision_id)
            return revision.model_id if revision else None
        case Freeze() | SetStanding() | LiftStanding():
            return None
        case _:
            assert_never(action)


def _changes_nothing(action: Action, situation: Situation) -> bool:
    fleet = situation.fleet
    match action:
        case RegisterRevision():
            entry = fleet.models.get(action.revision.model_id)
            return (
                action.revision.revision_id in fleet.revisions
                and entry is not None
                and entry.visibility == action.visibility
                and entry.spec == action.revision.spec
            )
        case SetRoutes() | PlanRoute() | SettleRoute() | ShiftRoutes():
            return changes_no_route(action, fleet)
        case Place():
            now = _placement_of(action, fleet) or Placement(action.worker_id, action.revision_id, 0, "")
            return now.replicas == action.replicas and set(action.ending) <= set(now.ending)
        case Freeze():
            return situation.brakes.frozen == action.frozen
        case SetStanding():
            return is_so_already(action.standing, fleet.standings.get(action.standing.subject))
        case LiftStanding():
            return action.subject not in fleet.standings
        case _:
            assert_never(action)


def wanted_replicas(place: Place, fleet: Fleet) -> int | None:
    """Return how many replicas the placement wants now, None when there is no such placement."""
    return None if (placement := _placement_of(place, fleet)) is None else placement.replicas


def _placement_of(place: Place, fleet: Fleet) -> Placement | None:
    spot = (place.worker_id, place.revision_id)
    return next((item for item in fleet.placements if (item.worker_id, item.revision_id) == spot), None)


def _nonsense(action: Action, fleet: Fleet, known: Mapping[RevisionId, Revision]) -> str:
    """Return why the action makes no sense, empty when it does."""
    match action:
        case RegisterRevision():
            return _wrong_revision(action, fleet)
        case SetRoutes() | PlanRoute() | SettleRoute() | ShiftRoutes():
            return wrong_route_action(action, fleet, known)
        case Place():
            return _wrong_place(action, fleet, known)
        case Freeze():
            return ""
        case SetStanding():
            return wrong_standing(action.standing, fleet.now)
        case LiftStanding():
            return wrong_subject(action.subject)
        case _:
            assert_never(action)


def _wrong_revision(action: RegisterRevision, fleet: Fleet) -> str:
    revision = action.revision
    before = fleet.revisions.get(revision.revision_id)
    if before is not None and (before.digest, before.model_id) != (revision.digest, revision.model_id):
        return f"revision {revision.revision_id} exists with another digest ({before.digest}); revisions never change"
    owner = fleet.models.get(revision.model_id)
    if owner is not None and owner.tenant_id != action.tenant_id:
        return f"model {revision.model_id} belongs to another tenant; choose another owner or name"
    return ""


def _wrong_place(  # noqa: PLR0911 - one guard a line
    action: Place, fleet: Fleet, known: Mapping[RevisionId, Revision]
) -> str:
    revision, worker = known.get(action.revision_id), fleet.workers.get(action.worker_id)
    if revision is None:
        return f"revision {action.revision_id} is not known; register it first"
    if not 0 <= action.replicas <= MAX_REPLICAS:
        return f"{action.replicas} replicas are outside 0..{MAX_REPLICAS}"
    if action.replicas == 0:
        return ""  # taking away is always meaningful, even from a worker that is gone
    if worker is None:
        return f"worker {action.worker_id} is not known; `forestay fleet status` lists those that are"
    resources = revision.spec.resources
    if resources.pool != worker.pool:
        return f"worker {worker.worker_id} is of pool {worker.pool}, the model wants {resources.pool}"
    if resources.devices > worker.devices:
        return f"worker {worker.worker_id} owns {worker.devices} devices, one replica takes {resources.devices}"
    return ""


class _Ledger:
    """What automation did in the window: net devices taken out of each pool, and callers newly restricted.

    A device put back repays, never in advance. A caller set free does not: whoever sees one must think again first.
    """

    def __init__(self, situation: Situation) -> None:
        self._fleet = situation.fleet
        self._brakes = situation.brakes
        self._taken: dict[str, int] = {}
        self._restricted = sum(
            item.restricted
            for item in situation.recent
            if item.effect is Effect.APPLIED and item.origin is not Origin.HUMAN
        )
        for item in sorted(situation.recent, key=lambda item: item.at):
            if item.effect is Effect.APPLIED and item.origin is not Origin.HUMAN and item.pool:
                self._add(item.pool, item.removed_devices)

    def over_cap(self, action: Action) -> str:
        if restriction(action, self._fleet) and self._restricted >= self._brakes.standing_cap:
            window = self._brakes.window_seconds
            return f"automation restricted {self._restricted} callers within {window:g} s, which is its cap"
        pool, removed = removal(action, self._fleet)
        if removed <= 0:
            return ""
        owned = sum(worker.devices for worker in self._fleet.workers.values() if worker.pool == pool)
        # One replica may always be swapped: a pool of a single device must be able to change its model.
        cap = max(self._brakes.removal_cap * owned, _devices_of_one(action, self._fleet))
        taken = self._taken.get(pool, 0)
        if taken + removed <= cap:
            return ""
        window = self._brakes.window_seconds
        return f"automation took {taken} devices out of pool {pool} within {window:g} s; {removed} more exceed {cap:g}"

    def note(self, action: Action, origin: Origin) -> None:
        pool, removed = removal(action, self._fleet)
        if pool and origin is not Origin.HUMAN:
            self._add(pool, removed)
        if origin is not Origin.HUMAN:
            self._restricted += restriction(action, self._fleet)

    def _add(self, pool: str, removed: int) -> None:
        self._taken[pool] = max(0, self._taken.get(pool, 0) + removed)


def removal(action: Action, fleet: Fleet) -> tuple[str, int]:
    """Return the pool and how many devices the action takes out of use in it (negative: puts to use)."""
    if not isinstance(action, Place):
        return "", 0
    worker, revision = fleet.workers.get(action.worker_id), fleet.revisions.get(action.revision_id)
    if worker is None or revision is None:
        return "", 0  # a worker that is gone serves nothing: forgetting its placement takes nothing out
    before = wanted_replicas(action, fleet) or 0
    return worker.pool, (before - action.replicas) * revision.spec.resources.devices


def restriction(action: Action, fleet: Fleet) -> int:
    """Return 1 when the action takes something from a caller that nothing took before, else 0."""
    if not isinstance(action, SetStanding):
        return 0
    return int(restricts(action.standing, fleet.standings.get(action.standing.subject)))


def _devices_of_one(action: Action, fleet: Fleet) -> int:
    revision = fleet.revisions.get(action.revision_id) if isinstance(action, Place) else None
    return revision.spec.resources.devices if revision else 0
