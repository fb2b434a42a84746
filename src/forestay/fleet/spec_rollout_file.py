"""The `rollout` section of a spec's file: how a further revision of the model gets its traffic.

It decides what is a valid section; its bounds are those of `rollouts/options`, which a test holds them to. Used by
`spec_file`.
"""

import itertools
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from forestay.fleet.spec_fields import Strict
from forestay.fleet.spec_rollout import RolloutSpec, ShadowSpec

_Seconds = Annotated[float, Field(ge=0, le=30 * 86_400, allow_inf_nan=False)]


def _growing(steps: tuple[float, ...]) -> tuple[float, ...]:
    if not all(before < after for before, after in itertools.pairwise(steps)):
        message = "write growing percentages, such as [5, 10, 25, 50]"
        raise ValueError(message)
    return steps


def _enough(requests: int) -> int:
    if 0 < requests < 12:
        message = "write 0 for no shadow, or from 12 to 200"
        raise ValueError(message)
    return requests


def _loaded(requests: int) -> int:
    if 0 < requests < 8:
        message = "write 0 for no gate of load, or from 8 to 64"
        raise ValueError(message)
    return requests


_Step = Annotated[float, Field(ge=0.01, lt=100, allow_inf_nan=False)]
_Steps = Annotated[tuple[_Step, ...], Field(min_length=1, max_length=20), AfterValidator(_growing)]


class ShadowFile(Strict):
    """What is compared before any traffic."""

    requests: Annotated[int, Field(ge=0, le=200), AfterValidator(_enough)] | None = None
    """Requests that are compared, 12 to 200; 0: no shadow. Left out: 32."""
    budget_seconds: Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)] | None = None
    """Device-seconds that the copies may take. Left out: 600."""
    deadline_seconds: _Seconds | None = None
    """A shadow without a verdict ends then. Left out: 3,600."""
    expect: Literal["same", "alike", "changed"] | None = None
    """same: pixels of a seed; alike: the kind of output; changed: any output. Left out: same."""


class RolloutFile(Strict):
    """How a further revision gets its traffic; what is left out is the platform's default."""

    strategy: Literal["canary", "rolling", "recreate"] | None = None
    """canary: gates, shadow and a share that grows with the evidence; rolling: once a replica is ready; recreate: at
    once. Left out: rolling while it serves; `forestay rollout start` is always a canary."""
    steps: _Steps | None = None
    """Shares of the traffic in percent, growing. Left out: 5, 10, 25, 50."""
    step_seconds: _Seconds | None = None
    """Least time at one share."""
    step_requests: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Least requests of the candidate at one share."""
    allowance: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None = None
    """Bad answers beyond the control's rate that a rollout may cost."""
    deadline_seconds: _Seconds | None = None
    """A canary without a verdict ends then."""
    watch_seconds: _Seconds | None = None
    """How long the last 5 % stay with the control."""
    margin_factor: Annotated[float, Field(ge=0.5, le=5, allow_inf_nan=False)] | None = None
    """Times the usual margins of the proof: 3 asks for about a third of the traffic."""
    when_inconclusive: Literal["hold", "roll_back"] | None = None
    """What follows a deadline without a verdict."""
    load_requests: Annotated[int, Field(ge=0, le=64), AfterValidator(_loaded)] | None = None
    """Inputs of its canaries, 8 to 64, that candidate and control answer at full load before any traffic; 0: none."""
    shadow: ShadowFile = Field(default_factory=lambda: ShadowFile.model_validate({}))

    def frozen(self) -> RolloutSpec:
        """Return it as values."""
        told = self.model_dump(exclude={"shadow"})
        return RolloutSpec(**told, shadow=ShadowSpec(**self.shadow.model_dump()))
