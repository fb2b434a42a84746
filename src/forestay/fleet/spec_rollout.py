"""The `rollout` section of a model spec as values: how a further revision of the model gets its traffic.

It decides nothing: whatever is not said is the platform's default, and what is said where a rollout begins goes before
both (`rollouts/options`). The file's form is `spec_rollout_file`.
"""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class ShadowSpec:
    """What is compared before any traffic."""

    requests: int | None = None  # 0: no shadow
    budget_seconds: float | None = None  # of devices
    deadline_seconds: float | None = None
    expect: str | None = None  # same | alike | changed


@dataclasses.dataclass(frozen=True, slots=True)
class RolloutSpec:
    """How a further revision gets its traffic; None: as the platform does."""

    strategy: str | None = None  # canary | rolling | recreate
    steps: tuple[float, ...] | None = None  # percent, growing
    step_seconds: float | None = None
    step_requests: int | None = None
    allowance: float | None = None  # bad answers beyond the control's rate
    deadline_seconds: float | None = None
    watch_seconds: float | None = None
    margin_factor: float | None = None
    when_inconclusive: str | None = None  # hold | roll_back
    load_requests: int | None = None  # of each revision under load before any traffic; 0: none
    shadow: ShadowSpec = dataclasses.field(default_factory=ShadowSpec)
