"""What a rollout was, in one value that a page is made of: what changed, every gate, shadow, canary, exposure. Pure.

It judges nothing anew except what the stored evidence says. Renderers (`report_pages`) and `--json` show it; the admin
API makes it.
"""

import dataclasses
import datetime as dt
import math
from collections import Counter
from collections.abc import Sequence

from forestay.diffs.noise import ranked, strength
from forestay.fleet.model import Revision
from forestay.fleet.spec import spec_to_json
from forestay.fleet.spec_changes import spec_changes
from forestay.rollouts.canary.evidence import judge
from forestay.rollouts.canary.worst import worst_slice
from forestay.rollouts.model import GateResult, JournalEntry, Rollout
from forestay.rollouts.shadow.model import Pair

MOST_DIVERGENCES = 12
_QUIET_FIELDS = frozenset({"version"})


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One field of the spec; or the files, as a digest."""

    field: str
    before: object
    after: object


@dataclasses.dataclass(frozen=True, slots=True)
class Divergence:
    """One mirrored request. Distances in tolerances; `noise` is None where the control was not asked again."""

    request_id: str
    stratum: str
    excess: float
    noise: float | None
    measure: str
    said: str
    has_sheet: bool


@dataclasses.dataclass(frozen=True, slots=True)
class ShadowPart:
    """What the shadow came to; `reason` is empty where there was none."""

    said: str = ""
    reason: str = ""
    expect: str = ""
    compared: int = 0
    differing: int = 0
    spent_seconds: float = 0.0
    budget_seconds: float = 0.0
    log_capital: float = 0.0
    alarm_at: float = 0.0
    left_out: tuple[tuple[str, int], ...] = ()
    divergences: tuple[Divergence, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class CanaryPart:
    """What the canary came to. Capitals are natural logarithms."""

    control_requests: int
    candidate_requests: int
    log_capital: float
    alarm_at: float
    excess: float
    allowance: float
    worst: str  # the slice that what is worse comes from; empty where it is everywhere
    suspects: tuple[str, ...]
    unproved: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """Everything that a page shows."""

    rollout_id: str
    model_id: str
    control: str
    candidate: str
    stage: str
    reason: str
    started_at: dt.datetime
    started_by: str
    changes: tuple[Change, ...]
    gates: tuple[GateResult, ...]
    shadow: ShadowPart
    canary: CanaryPart
    timeline: tuple[JournalEntry, ...]
    ended: bool


def report_of(
    rollout: Rollout,
    revisions: tuple[Revision | None, Revision | None],
    journal: Sequence[JournalEntry],
    pairs: Sequence[Pair],
) -> Report:
    """Put a rollout's page together; `revisions` are its control and its candidate, None where one is forgotten."""
    return Report(
        rollout_id=rollout.rollout_id,
        model_id=rollout.model_id,
        control=rollout.control,
        candidate=rollout.candidate,
        stage=rollout.stage.value,
        reason=rollout.reason,
        started_at=rollout.started_at,
        started_by=rollout.started_by,
        changes=tuple(changes_of(*revisions)),
        gates=rollout.gates,
        shadow=_shadow(rollout, pairs),
        canary=_canary(rollout),
        timeline=tuple(journal),
        ended=rollout.settled,
    )


def changes_of(control: Revision | None, candidate: Revision | None) -> list[Change]:
    """Say what the candidate changes: fields of the spec, its files, its interface."""
    if control is None or candidate is None:
        return [Change("revision", control and control.revision_id, candidate and candidate.revision_id)]
    found = [
        Change(field, before, after)
        for field, before, after in spec_changes(spec_to_json(control.spec), spec_to_json(candidate.spec))
        if field not in _QUIET_FIELDS
    ]
    if control.bundle_key != candidate.bundle_key:
        found.append(Change("files", control.bundle_key, candidate.bundle_key))
    if control.openapi != candidate.openapi:
        found.append(Change("interface", "as declared before", "as declared now"))
    return found


def _shadow(rollout: Rollout, pairs: Sequence[Pair]) -> ShadowPart:
    policy, verdict = rollout.policy.shadow, rollout.shadow
    if policy.requests == 0 or verdict is None:
        return ShadowPart()
    sheets = {str(pair.request_id) for pair in pairs if pair.outcome is not None and pair.outcome.sheet_key}
    order = ranked([pair.compared() for pair in pairs if pair.outcome is not None])
    skipped = Counter(pair.skipped for pair in pairs if pair.skipped)
    return ShadowPart(
        said=verdict.said.value,
        reason=verdict.reason,
        expect=policy.expect.value,
        compared=verdict.compared,
        differing=verdict.differing,
        spent_seconds=verdict.spent_seconds,
        budget_seconds=policy.budget_seconds,
        log_capital=verdict.log_capital,
        alarm_at=-math.log(policy.alpha),
        left_out=tuple(sorted(skipped.items())),
        divergences=tuple(
            Divergence(
                item.name,
                item.stratum,
                round(min(item.excess, 1e6), 3),
                round(min(item.noise, 1e6), 3) if item.floor else None,
                strength(item.found)[1],
                item.said.value,
                item.name in sheets,
            )
            for item in order[:MOST_DIVERGENCES]
        ),
    )


def _canary(rollout: Rollout) -> CanaryPart:
    judged = judge(rollout.evidence, rollout.policy.canary)
    control, candidate = rollout.evidence.requests
    worst = worst_slice(rollout.evidence, judged.suspects)
    return CanaryPart(
        control_requests=control,
        candidate_requests=candidate,
        log_capital=judged.log_capital,
        alarm_at=-math.log(rollout.policy.canary.alpha),
        excess=judged.excess,
        allowance=rollout.policy.canary.allowance,
        worst="" if worst is None else worst.told(),
        suspects=tuple(item.told() for item in judged.suspects) if candidate else (),
        unproved=tuple(item.told() for item in judged.unproved) if candidate else (),
    )
