"""Which replicas a drill reaches, and what may be asked for."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.drills.model import LONGEST, MAX_DRILLS, Drill, Spot, checked, decide_faults, fault_named, faults_known
from forestay.errors import UsageError
from forestay.ids import ModelId, ReplicaId, RevisionId, WorkerId

NOW = dt.datetime(2026, 11, 26, 12, tzinfo=dt.UTC)
FROZEN, STEPS = "clip is frozen", "2 steps"


def drill(
    fault: str = FROZEN,
    *,
    worker: str = "w1",
    revision: str = "",
    model: str = "a/b",
    start: float = 0,
    seconds: float = 60,
) -> Drill:
    """Return one that began `start` seconds from now."""
    began = NOW + dt.timedelta(seconds=start)
    return Drill(
        f"drill-{fault}-{worker}-{revision}-{start}", fault, ModelId(model), RevisionId(revision), WorkerId(worker),
        "game day", "person:a", began, began + dt.timedelta(seconds=seconds),
    )  # fmt: skip


def spot(worker: str = "w1", revision: str = "r1", model: str = "a/b") -> Spot:
    """Return a replica."""
    return Spot(ReplicaId("b-1"), WorkerId(worker), RevisionId(revision), ModelId(model))


@pytest.mark.parametrize(
    ("asked", "place", "reached"),
    [
        (drill(), spot(), True),
        (drill(), spot(worker="w2"), False),
        (drill(), spot(model="a/c"), False),
        (drill(worker="", revision="r1"), spot(worker="w9"), True),
        (drill(worker="", revision="r1"), spot(revision="r2"), False),
        (drill(worker="w1", revision="r2"), spot(), False),
        (drill(worker="", revision=""), spot(), False),
        (drill(start=-61), spot(), False),
        (drill(start=1), spot(), False),
    ],
    ids=["its worker", "another worker", "another model", "its revision", "another revision", "one of two", "nowhere",
         "over", "to come"],
)  # fmt: skip
def test_a_drill_reaches_its_own_place_for_its_own_time(asked: Drill, place: Spot, reached: bool) -> None:
    """One worker or one revision of one model, from its beginning to its end."""
    assert bool(decide_faults([asked], place, NOW)) is reached


@given(st.lists(st.builds(
    drill, st.sampled_from([FROZEN, STEPS]), worker=st.sampled_from(["", "w1", "w2"]),
    revision=st.sampled_from(["", "r1", "r2"]), start=st.integers(-90, 30),
), max_size=8))  # fmt: skip
def test_whatever_is_asked_each_fault_is_in_force_once_and_only_where_it_was_named(drills: list[Drill]) -> None:
    """No order of drills, and no overlap, puts a fault in twice or beside its place; deciding again changes nothing."""
    found = decide_faults(drills, spot(), NOW)
    assert len({item.fault for item in found}) == len(found)
    assert all(item.worker_id == "w1" or item.revision_id == "r1" for item in found)
    assert all(item.started_at <= NOW < item.ends_at for item in found)
    assert decide_faults(list(reversed(drills)), spot(), NOW) == found


def test_a_drill_is_never_for_a_whole_model_nor_without_end() -> None:
    """The field that stands against it is named."""
    with pytest.raises(UsageError, match="worker_id"):
        checked(drill(worker="", revision=""), [])
    with pytest.raises(UsageError, match="seconds"):
        checked(drill(seconds=LONGEST.total_seconds() + 1), [])
    with pytest.raises(UsageError, match="20 drills"):
        checked(drill(), [drill()] * MAX_DRILLS)
    assert checked(drill(), []) == drill()


def test_faults_are_named_in_words_or_with_dashes() -> None:
    """Every name finds its own fault; another is told how to find one."""
    for name in faults_known():
        assert fault_named(name.replace(" ", "-")) == fault_named(name.upper()) == name
    with pytest.raises(UsageError, match="drill faults"):
        fault_named("a fire")
