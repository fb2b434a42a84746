"""The `rollout` section of a spec, and what is said where a rollout begins."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cli.broken_models import SPEC
from tests.conformance.fleet_values import DIGITS, replica_of, revision_of, worker_of
from tests.conformance.memory_fleet import EPOCH

from forestay.fleet import spec_file
from forestay.fleet.model import Fleet, Route
from forestay.fleet.spec import spec_to_json
from forestay.fleet.spec_changes import spec_changes
from forestay.fleet.spec_rollout import RolloutSpec
from forestay.fleet.spec_rollout_file import RolloutFile
from forestay.ids import BUCKETS
from forestay.rollouts.canary.model import Inconclusive
from forestay.rollouts.options import RolloutOptions, options_of, policy_of
from forestay.rollouts.rolling import Strategy, strategy_of
from forestay.rollouts.shadow.model import Expect

_SECONDS = st.none() | st.floats(0, 2_592_000)
_SECTIONS = st.fixed_dictionaries(
    {},
    optional={
        "strategy": st.sampled_from(["canary", "rolling", "recreate"]),
        "steps": st.lists(st.floats(0.01, 99.99), min_size=1, max_size=20, unique=True).map(sorted),
        "step_seconds": _SECONDS,
        "step_requests": st.integers(0, 1_000_000),
        "allowance": st.floats(0, 1e9),
        "deadline_seconds": _SECONDS,
        "watch_seconds": _SECONDS,
        "margin_factor": st.floats(0.5, 5),
        "when_inconclusive": st.sampled_from(["hold", "roll_back"]),
        "load_requests": st.sampled_from([0, 8, 64]),
        "shadow": st.fixed_dictionaries(
            {},
            optional={
                "requests": st.sampled_from([0, 12, 32, 200]),
                "budget_seconds": st.floats(0, 1e7),
                "expect": st.sampled_from(["same", "alike", "changed"]),
            },
        ),
    },
)


@settings(deadline=None)
@given(_SECTIONS)
def test_whatever_a_spec_may_say_is_a_policy(section: dict[str, object]) -> None:
    """The bounds of the file and those of the rollout agree, and nothing that was said is lost."""
    spec = RolloutFile.model_validate(section).frozen()
    policy = policy_of(options_of(spec, None))
    if "steps" in section:
        assert list(policy.canary.steps) == section["steps"]
    if "when_inconclusive" in section:
        assert policy.canary.when_inconclusive == section["when_inconclusive"]
    assert policy_of(options_of(RolloutSpec(), None)) == policy_of(None)


def test_what_is_said_where_it_begins_goes_before_the_spec() -> None:
    """Field by field."""
    spec = RolloutSpec(allowance=20.0, steps=(1.0, 50.0), when_inconclusive="roll_back")
    policy = policy_of(options_of(spec, RolloutOptions(steps=[10.0], shadow_expect=Expect.ALIKE)))
    assert policy.canary.steps == (10.0,)
    assert policy.canary.allowance == 20.0
    assert policy.canary.when_inconclusive is Inconclusive.ROLL_BACK
    assert policy.shadow.expect is Expect.ALIKE


def test_a_diff_of_specs_names_what_changed_of_the_rollout() -> None:
    """As it stands in the file."""
    before, after = (
        spec_to_json(spec_file.parse(SPEC + text, "model.yaml"))
        for text in ("", "rollout: {strategy: canary, shadow: {expect: alike}}\n")
    )
    assert {field for field, _, _ in spec_changes(before, after)} == {"rollout.strategy", "rollout.shadow.expect"}


@pytest.mark.parametrize(
    ("named", "up", "strategy"),
    [
        (None, True, None),
        ("recreate", True, Strategy.RECREATE),
        ("canary", True, Strategy.CANARY),
        ("canary", False, None),
    ],
)
def test_a_deploy_follows_the_spec_and_a_canary_needs_a_control(
    named: str | None, strategy: Strategy | None, *, up: bool
) -> None:
    """With nothing that serves there is nothing to compare with."""
    revision = revision_of("digits-1")
    spec = dataclasses.replace(revision.spec, rollout=RolloutSpec(strategy=named))
    worker, replica = worker_of(), replica_of(revision)
    fleet = Fleet(
        version=1,
        now=EPOCH,
        models={},
        revisions={revision.revision_id: revision},
        routes=(Route(DIGITS, revision.revision_id, 0, BUCKETS),),
        placements=(),
        workers={worker.worker_id: dataclasses.replace(worker, seen_at=EPOCH)},
        replicas={replica.replica_id: dataclasses.replace(replica, seen_at=EPOCH)} if up else {},
        demand={},
    )
    assert strategy_of(fleet, spec) is strategy
