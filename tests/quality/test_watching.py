"""Following the streams of a fleet: references, alarms, and a state that goes on exactly."""

import datetime as dt
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.quality.streams import START, broken, healthy, moved

from forestay.quality.watching import Broke, Drifted, Event, Rules, Watch
from forestay.telemetry.output_facts import OutputFact

RULES = Rules(reference_outputs=150, run_length_outputs=2_000.0)


def watched(*batches: Sequence[OutputFact]) -> tuple[Watch, list[Event]]:
    """Follow outputs, batch by batch."""
    watch = Watch(RULES)
    return watch, [event for batch in batches for event in watch.take(batch)]


def after_restart(watch: Watch, parts: dict[str, bytes]) -> Watch:
    """Return a watch that has read what another stored."""
    parts |= watch.changed_parts()
    fresh = Watch(RULES)
    fresh.restore(parts)
    return fresh


def test_a_healthy_fleet_is_quiet() -> None:
    """No stream alarms in two thousand outputs of three replicas."""
    _, events = watched(healthy(2_000, 1))
    assert events == []


def test_a_replica_whose_pictures_change_alarms_and_its_peers_do_not() -> None:
    """Two standard deviations of sharpness on one replica are seen within forty of its outputs, and dated."""
    later = moved(healthy(150, 2, first=600), "sharpness", 2.5, "b")
    _, events = watched(healthy(600, 1), later)
    drifted = [event for event in events if isinstance(event, Drifted)]
    assert {event.key.replica_id for event in drifted} == {"b"}
    assert "sharpness" in drifted[0].alarm.features
    assert abs(drifted[0].since - (START + dt.timedelta(seconds=600))) < dt.timedelta(seconds=60)


def test_a_replica_whose_pictures_break_alarms_after_three() -> None:
    """Black pictures on one replica alone: named with the check, after three of them."""
    _, events = watched(healthy(600, 1), broken(healthy(12, 2, first=600), "c"))
    broke = [event for event in events if isinstance(event, Broke)]
    assert [(event.key.replica_id, event.check) for event in broke][:1] == [("c", "black")]
    assert broke[0].failed <= 3


def test_a_new_revision_is_held_against_the_one_before() -> None:
    """What is wrong from a revision's first output on is no measure for itself: all of it together alarms."""
    new = moved(healthy(100, 3, first=600, replicas="x", revision_id="r2"), "spread", -2.0)
    watch, events = watched(healthy(600, 1), new)
    assert {(event.key.revision_id, event.key.replica_id) for event in events} == {("r2", "")}
    assert all(watch.streams[event.key].base == "r1" for event in events)


def test_a_new_revision_like_the_one_before_is_quiet() -> None:
    """The same law from a new revision: nothing is said, and it becomes the next measure."""
    watch, events = watched(healthy(600, 1), healthy(400, 3, first=600, replicas="xy", revision_id="r2"))
    assert events == []
    assert watch.references["r2", "image"].frozen


def test_other_prompts_are_no_drift() -> None:
    """Features that depend on the cluster of prompts: another mix alarms nobody, without strata it would."""

    def mixed(count: int, seed: int, first: int, one_in: int) -> list[OutputFact]:
        plain = healthy(count, seed, first)
        return [moved([item], "mean", 6.0)[0] if number % one_in == 0 else item for number, item in enumerate(plain)]

    def told(facts: list[OutputFact]) -> list[OutputFact]:
        return [
            OutputFact(**{**{name: getattr(item, name) for name in OutputFact.__struct_fields__},
                          "cluster": int(item.features[0] > 103)})
            for item in facts
        ]  # fmt: skip

    before, after = mixed(600, 1, 0, 5), mixed(900, 2, 600, 2)
    _, quiet = watched(told(before), told(after))
    _, loud = watched(before, after)
    assert quiet == []
    assert loud


@given(st.lists(st.integers(1, 200), min_size=1, max_size=5), st.sampled_from(["none", "drift", "black"]))
@settings(max_examples=6, deadline=None)
def test_batches_and_restarts_change_nothing(sizes: list[int], fault: str) -> None:
    """However outputs are cut, and wherever the process is killed and begins again, events and state are the same."""
    facts = healthy(240, 1)
    if fault != "none":
        later = healthy(90, 2, first=240)
        facts += moved(later, "dots", 2.0, "a") if fault == "drift" else broken(later, "a")
    whole, expected = watched(facts)
    watch, found, parts = Watch(RULES), list[Event](), dict[str, bytes]()
    place = 0
    for size in [*sizes, len(facts)]:
        found += watch.take(facts[place : place + size])
        place += size
        watch = after_restart(watch, parts)
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert parts == whole.changed_parts()


def test_streams_of_replicas_that_are_gone_are_forgotten() -> None:
    """Their parts are named, so that the store forgets them too."""
    watch, _ = watched(healthy(300, 1))
    assert len(watch.streams) == 3
    gone = watch.forget(frozenset("ab"))
    assert gone == ["stream/r1/image/c"]
    assert {key.replica_id for key in watch.streams} == {"a", "b"}


@pytest.mark.parametrize("kind", ["", "text"])
def test_what_has_no_features_is_passed_over(kind: str) -> None:
    """A file that does not open has no kind: the contract has said so."""
    watch, events = watched(healthy(10, 1, kind=kind))
    assert (watch.streams, events) == ({}, [])


def of_prompts(count: int, seed: int, first: int, share: float) -> list[OutputFact]:
    """Return outputs of two prompts of one cluster that draw different things, so many of them of the first."""
    chance = np.random.default_rng(seed)
    found: list[OutputFact] = []
    for one in healthy(count, seed + 1, first=first):
        prompt = 1 if chance.random() < share else 2
        found += moved([msgspec.structs.replace(one, prompt=prompt)], "red_green", 8.0 * (prompt == 2))
    return found


def test_how_often_two_prompts_of_a_cluster_are_asked_for_is_no_change_of_the_model() -> None:
    """Half and half in the reference, nine of ten of the one later: quiet, though the cluster's numbers have moved."""
    _, events = watched(of_prompts(200, 5, 0, 0.5), of_prompts(600, 6, 200, 0.9))
    assert events == []


def test_a_prompt_that_was_asked_for_often_and_draws_something_else_is_a_change() -> None:
    """Ranked among its own: a shift that the other prompt of the cluster would hide is seen."""
    later = of_prompts(200, 6, 200, 1.0)
    _, events = watched(of_prompts(200, 5, 0, 0.5), moved(later, "red_green", 3.0))
    assert any("red_green" in event.alarm.features for event in events if isinstance(event, Drifted))
