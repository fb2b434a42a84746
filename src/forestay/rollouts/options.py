"""What a person may say of a rollout when it begins, read from outside and checked. Pure.

It decides bounds and defaults. Called by the admin API.
"""

import dataclasses
import itertools

import msgspec

from forestay.errors import UsageError
from forestay.fleet.spec_rollout import RolloutSpec
from forestay.rollouts.canary.model import Inconclusive, Mark, Policy
from forestay.rollouts.model import RolloutPolicy
from forestay.rollouts.shadow.model import Expect, ShadowPolicy

_MOST_STEPS = 20
_MOST_SECONDS = 30 * 86_400.0
_MOST_ALLOWANCE = 1e9
_LEAST_FACTOR, _MOST_FACTOR = 0.5, 5.0
_MOST_MARGIN = 0.45  # points of probability; a proof of less than half says nothing
SHADOW_REQUESTS = 32  # where nobody says
LEAST_SHADOW = 12  # with fewer no candidate can be told from its control
MOST_SHADOW = 200
LEAST_LOAD, MOST_LOAD = 8, 64  # copies of each revision: with fewer nothing can be proved


class RolloutOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What may be chosen; whatever is left out is as in `RolloutPolicy`."""

    steps: list[float] | None = None  # percent, growing
    step_seconds: float | None = None
    step_requests: int | None = None
    allowance: float | None = None  # bad answers beyond control's rate
    deadline_seconds: float | None = None
    watch_seconds: float | None = None
    margin_factor: float | None = None  # every margin times this: wider ones are proved with less traffic
    when_inconclusive: Inconclusive | None = None
    allow_breaking: bool = False  # callers may break: the interface gate says so and passes
    load_requests: int | None = None  # 0: no gate of load
    shadow_requests: int | None = None  # 0: no shadow
    shadow_budget_seconds: float | None = None  # of devices
    shadow_deadline_seconds: float | None = None
    shadow_expect: Expect | None = None


def options_of(spec: RolloutSpec, given: RolloutOptions | None) -> RolloutOptions:
    """Return what is said where the rollout begins, and for the rest what the model's spec says."""
    said = given or RolloutOptions()
    usual = RolloutOptions(
        steps=None if spec.steps is None else list(spec.steps),
        step_seconds=spec.step_seconds,
        step_requests=spec.step_requests,
        allowance=spec.allowance,
        deadline_seconds=spec.deadline_seconds,
        watch_seconds=spec.watch_seconds,
        margin_factor=spec.margin_factor,
        when_inconclusive=None if spec.when_inconclusive is None else Inconclusive(spec.when_inconclusive),
        load_requests=spec.load_requests,
        shadow_requests=spec.shadow.requests,
        shadow_budget_seconds=spec.shadow.budget_seconds,
        shadow_deadline_seconds=spec.shadow.deadline_seconds,
        shadow_expect=None if spec.shadow.expect is None else Expect(spec.shadow.expect),
    )
    chosen = {name: value for name, value in msgspec.structs.asdict(said).items() if value is not None}
    return msgspec.structs.replace(usual, **chosen)


def policy_of(options: RolloutOptions | None) -> RolloutPolicy:
    """Return the policy; raises UsageError naming the field."""
    given = options or RolloutOptions()
    usual = RolloutPolicy()
    canary = Policy(
        marks=_marks(usual.canary.marks, given.margin_factor),
        steps=_steps(given.steps) if given.steps is not None else usual.canary.steps,
        step_seconds=_within("step_seconds", given.step_seconds, usual.canary.step_seconds, _MOST_SECONDS),
        step_requests=int(_within("step_requests", given.step_requests, usual.canary.step_requests, 1e6)),
        allowance=_within("allowance", given.allowance, usual.canary.allowance, _MOST_ALLOWANCE),
        deadline_seconds=_within(
            "deadline_seconds", given.deadline_seconds, usual.canary.deadline_seconds, _MOST_SECONDS
        ),
        when_inconclusive=given.when_inconclusive or usual.canary.when_inconclusive,
    )
    watch = _within("watch_seconds", given.watch_seconds, usual.watch_seconds, _MOST_SECONDS)
    return RolloutPolicy(
        canary=canary,
        watch_seconds=watch,
        allow_breaking=given.allow_breaking,
        load_requests=_load(given.load_requests or 0),
        shadow=_shadow_of(given),
    )


def _load(requests: int) -> int:
    if requests != 0 and not LEAST_LOAD <= requests <= MOST_LOAD:
        raise UsageError("rollout.load_requests", f"must be from {LEAST_LOAD} to {MOST_LOAD}, or 0 for no gate of load")
    return requests


def _shadow_of(given: RolloutOptions) -> ShadowPolicy:
    usual = ShadowPolicy()
    requests = SHADOW_REQUESTS if given.shadow_requests is None else given.shadow_requests
    if requests != 0 and not LEAST_SHADOW <= requests <= MOST_SHADOW:
        raise UsageError("rollout.shadow_requests", f"must be from {LEAST_SHADOW} to {MOST_SHADOW}, or 0 for no shadow")
    return ShadowPolicy(
        requests=requests,
        budget_seconds=_within("shadow_budget_seconds", given.shadow_budget_seconds, usual.budget_seconds, 1e7),
        expect=given.shadow_expect or usual.expect,
        deadline_seconds=_within(
            "shadow_deadline_seconds", given.shadow_deadline_seconds, usual.deadline_seconds, _MOST_SECONDS
        ),
    )


def _steps(steps: list[float]) -> tuple[float, ...]:
    rising = all(before < after for before, after in itertools.pairwise(steps))
    if not steps or len(steps) > _MOST_STEPS or not rising or not all(0.01 <= step < 100 for step in steps):
        raise UsageError("rollout.steps", f"must be 1 to {_MOST_STEPS} growing percentages from 0.01 to below 100")
    return tuple(steps)


def _marks(marks: tuple[Mark, ...], factor: float | None) -> tuple[Mark, ...]:
    """Return the marks with their margins widened or narrowed."""
    if factor is None:
        return marks
    if not _LEAST_FACTOR <= factor <= _MOST_FACTOR:
        raise UsageError("rollout.margin_factor", f"must be from {_LEAST_FACTOR:g} to {_MOST_FACTOR:g}")
    return tuple(
        mark if mark.margin is None else dataclasses.replace(mark, margin=min(_MOST_MARGIN, mark.margin * factor))
        for mark in marks
    )


def _within(field: str, value: float | None, usual: float, most: float) -> float:
    if value is None:
        return usual
    if not 0 <= value <= most:
        raise UsageError(f"rollout.{field}", f"must be from 0 to {most:g}")
    return value
