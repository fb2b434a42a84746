"""Gates before any traffic: what a candidate draws, how long that takes, and by which policy it is judged."""

import dataclasses
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.fleet_values import DIGITS, replica_of, revision_of, worker_of
from tests.conformance.memory_fleet import EPOCH
from tests.rollouts.test_rollout_decide import NEW, OLD, rollout_of

from forestay.fleet.model import Fleet, Revision
from forestay.fleet.spec import SafetySpec
from forestay.fleet.spec_quality import CanaryInput, CanarySpec
from forestay.ids import ReplicaId, WorkerId
from forestay.quality.canary import Standing
from forestay.quality.canary_store import EVERYWHERE, Ask, Ended, PlayedCanary, PlayedRound
from forestay.quality.golden import Cause
from forestay.rollouts.golden_gates import (
    MOST_ASKS,
    SLACK_SECONDS,
    SLOWER,
    check_goldens,
    check_policy,
    decide_round,
)
from forestay.rollouts.model import GateResult, GateVerdict, Rollout
from forestay.rollouts.shadow.model import Expect, ShadowPolicy


def fleet_of(*, canaries: bool = True, policies: tuple[str, str] = ("unguarded", "unguarded")) -> Fleet:
    """A control and a candidate."""
    asked = CanarySpec((CanaryInput("a", "{}"),) if canaries else ())
    revisions: list[Revision] = []
    for name, policy in zip((OLD.revision_id, NEW.revision_id), policies, strict=True):
        made = revision_of(str(name))
        quality = dataclasses.replace(made.spec.quality, canaries=asked)
        spec = dataclasses.replace(made.spec, quality=quality, safety=SafetySpec(policy))
        revisions.append(dataclasses.replace(made, spec=spec))
    known = {item.revision_id: item for item in revisions}
    return Fleet(1, EPOCH, {}, known, (), (), {}, {}, {})


def played(
    revision: Revision, ended: Ended = Ended.PASSED, seconds: float = 0.5, environment: str = "cpu"
) -> PlayedRound:
    """A round of one canary."""
    one = PlayedCanary("a@1", environment, Standing.WITHIN)
    words = "" if ended is Ended.PASSED else "a differs by 12 levels"
    where = (DIGITS, revision.revision_id, ReplicaId("r"), WorkerId("w"))
    return PlayedRound(*where, Cause.START, EPOCH, seconds, ended, words, (one,))


def gates(*rounds: PlayedRound, rollout: Rollout | None = None, canaries: bool = True) -> dict[str, GateResult]:
    """What the gates of canaries say, by name."""
    found = check_goldens(rollout or rollout_of(), fleet_of(canaries=canaries), rounds)
    return {item.gate: item for item in found}


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (Ended.PASSED, GateVerdict.PASS),
        (Ended.FAILED, GateVerdict.FAIL),
        (Ended.LEARNING, GateVerdict.INCONCLUSIVE),
        (Ended.CUT_SHORT, GateVerdict.INCONCLUSIVE),
    ],
)
def test_a_candidate_passes_only_when_it_draws_what_the_goldens_show(ended: Ended, said: GateVerdict) -> None:
    """What nobody has seen to the end, or has nothing to be held against, is no pass."""
    assert gates(played(NEW, ended), played(OLD))["canaries"].verdict is said


def test_only_the_candidates_own_newest_round_counts() -> None:
    """Not the control's, and not one before it was mended."""
    assert gates(played(OLD))["canaries"].verdict is GateVerdict.INCONCLUSIVE
    assert gates(played(NEW), played(NEW, Ended.FAILED))["canaries"].verdict is GateVerdict.PASS
    assert gates(played(NEW, Ended.FAILED), played(NEW))["canaries"].verdict is GateVerdict.FAIL


def test_outputs_that_are_meant_to_change_wait_for_a_person_to_approve_them() -> None:
    """Who is told how; it is not rolled back meanwhile."""
    rollout = rollout_of()
    policy = dataclasses.replace(rollout.policy, shadow=ShadowPolicy(expect=Expect.ALIKE))
    gate = gates(played(NEW, Ended.FAILED), rollout=dataclasses.replace(rollout, policy=policy))["canaries"]
    assert gate.verdict is GateVerdict.INCONCLUSIVE
    assert f"forestay quality canary approve {DIGITS} --revision {NEW.revision_id}" in gate.evidence


def fleet_that_is_up() -> Fleet:
    """The candidate has a replica that is ready, on a worker that was heard of."""
    worker, replica = worker_of(), replica_of(NEW)
    return dataclasses.replace(fleet_of(), replicas={replica.replica_id: replica}, workers={worker.worker_id: worker})


def test_a_candidate_that_learns_its_goldens_is_told_how_to_hasten_and_asks_for_rounds_itself() -> None:
    """Once after each round, so that it does not wait for the next one by the clock."""
    rollout, fleet, learning = rollout_of(), fleet_that_is_up(), played(NEW, Ended.LEARNING)
    gate = gates(learning)["canaries"]
    assert f"`forestay quality canary run {DIGITS} --revision {NEW.revision_id}`" in gate.evidence
    ask = decide_round(rollout, fleet, [learning], [], EPOCH + dt.timedelta(seconds=5))
    assert ask is not None
    assert (ask.model_id, ask.revision_id, ask.worker_id) == (DIGITS, NEW.revision_id, EVERYWHERE)
    assert rollout.rollout_id in ask.reason
    assert decide_round(rollout, fleet, [learning], [ask], EPOCH + dt.timedelta(seconds=6)) is None
    later = dataclasses.replace(learning, began_at=ask.asked_at + dt.timedelta(seconds=1))
    assert decide_round(rollout, fleet, [later, learning], [ask], EPOCH + dt.timedelta(seconds=9)) is not None


def test_no_round_is_asked_for_that_helps_nobody() -> None:
    """Not before the first has been played, not once it is learned, not without a replica, not without end."""
    rollout, fleet, learning = rollout_of(), fleet_that_is_up(), played(NEW, Ended.LEARNING)
    assert decide_round(rollout, fleet, [], [], EPOCH) is None
    assert decide_round(rollout, fleet, [played(NEW), learning], [], EPOCH) is None
    assert decide_round(rollout, fleet, [played(NEW, Ended.FAILED)], [], EPOCH) is None
    assert decide_round(rollout, fleet_of(), [learning], [], EPOCH) is None
    old = Ask(DIGITS, NEW.revision_id, EVERYWHERE, Cause.PERSON, EPOCH - dt.timedelta(seconds=1), "before")
    assert decide_round(rollout, fleet, [learning], [old] * (MOST_ASKS - 1), EPOCH) is not None
    assert decide_round(rollout, fleet, [learning], [old] * MOST_ASKS, EPOCH) is None


def test_a_model_without_canaries_has_no_such_gate() -> None:
    """Rather than one that passes without having looked."""
    assert gates(canaries=False) == {}


@given(st.floats(0.01, 100.0), st.floats(0.01, 100.0))
def test_what_takes_much_longer_than_the_control_is_stopped(old: float, new: float) -> None:
    """By the shortest round of each, on the same kind of device; never for a loss within the slack."""
    found = gates(played(NEW, seconds=new), played(NEW, seconds=1e6), played(OLD, seconds=old))["speed"]
    assert (found.verdict is GateVerdict.FAIL) == (new > SLOWER * old + SLACK_SECONDS)


def test_another_kind_of_device_is_no_slower_device() -> None:
    """There is nothing to compare with: no gate."""
    assert "speed" not in gates(played(NEW, seconds=9.0), played(OLD, seconds=0.1, environment="h100"))


@pytest.mark.parametrize(
    ("policies", "said"),
    [
        (("standard", "standard"), GateVerdict.PASS),
        (("unguarded", "standard"), GateVerdict.PASS),
        (("standard", "unguarded"), GateVerdict.FAIL),
        (("standard", "lenient"), GateVerdict.FAIL),
    ],
)
def test_a_candidate_is_judged_at_least_as_its_control(policies: tuple[str, str], said: GateVerdict) -> None:
    """A revision is no way around the staging of a policy."""
    gate = check_policy(rollout_of(), fleet_of(canaries=False, policies=policies))
    assert gate is not None
    assert gate.verdict is said


def test_where_nothing_is_judged_there_is_no_gate_of_safety() -> None:
    """Before and after."""
    assert check_policy(rollout_of(), fleet_of()) is None
