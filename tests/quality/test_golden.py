"""When a golden is learned, which one counts, and when canaries are due."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.fleet.spec_quality import CanaryInput, CanarySpec
from forestay.ids import ModelId, ReplicaId, RevisionId
from forestay.quality.canary import Golden, Look, Standing
from forestay.quality.golden import (
    ADAPTER_PAUSE,
    Baseline,
    Cause,
    Taught,
    Times,
    choose_baseline,
    compare_across,
    decide_due,
    learned,
)

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
SPEC = CanarySpec((CanaryInput("a", "{}"),), every_seconds=600, budget_seconds_per_hour=10)


def seconds(count: float) -> dt.timedelta:
    """So many seconds."""
    return dt.timedelta(seconds=count)


def drew(replica: str, level: int, *, times: int = 2, settled: bool = False) -> list[Taught]:
    """Looks of a replica that draws one grey."""
    look = Look(f"{level}", (4, 4), (level,) * 12, (1.0,))
    return [Taught("a@1", "cpu", ReplicaId(replica), look, "", settled)] * times


def test_one_replica_alone_teaches_where_the_revision_has_no_other() -> None:
    """Of two there must be two."""
    assert learned("cpu", drew("r1", 10), replicas=1, reruns=2).golden is not None
    known = learned("cpu", drew("r1", 10), replicas=3, reruns=2)
    assert (known.golden, known.words) == (None, "1 of 2 replicas have drawn it 2 times")
    assert learned("cpu", drew("r1", 10, times=1), replicas=1, reruns=2).golden is None


def test_an_ill_replica_that_draws_first_does_not_teach() -> None:
    """Two that disagree teach nothing; the third tells which of them is ill."""
    two = [*drew("ill", 0), *drew("r1", 90)]
    assert (learned("cpu", two, 3, 2).golden, learned("cpu", two, 3, 2).disputed) == (None, True)
    known = learned("cpu", [*two, *drew("r2", 90)], replicas=3, reruns=2)
    assert {item.replica_id for item in known.of} == {"r1", "r2"}
    assert known.golden is not None
    assert known.golden.exact


def test_what_is_settled_stays_whatever_is_drawn_later() -> None:
    """A fleet that grows does not unlearn."""
    known = learned("cpu", [*drew("r1", 10, settled=True), *drew("r2", 90)], replicas=9, reruns=2)
    assert {item.replica_id for item in known.of} == {"r1"}


@given(
    st.dictionaries(st.sampled_from(["r1", "r2", "r3", "r4", "r5"]), st.sampled_from([10, 90, 200]), min_size=1),
    st.integers(1, 6),
)
def test_a_golden_is_what_more_than_half_of_those_that_drew_agree_on(drawn: dict[str, int], replicas: int) -> None:
    """Never what one of several alone has drawn."""
    known = learned("cpu", [look for name, level in drawn.items() for look in drew(name, level)], replicas, 2)
    if known.golden is None:
        return
    teachers = {item.replica_id for item in known.of}
    assert len({drawn[name] for name in teachers}) == 1
    assert 2 * len(teachers) > len(drawn)
    assert len(teachers) >= min(2, replicas)


def baseline(name: str, minute: int) -> Baseline:
    """A baseline of a revision of that minute."""
    at = NOW + dt.timedelta(minutes=minute)
    return Baseline(ModelId("acme/digits"), RevisionId(name), at, at)


def test_a_revision_is_held_against_the_newest_baseline_that_is_no_younger_than_it() -> None:
    """So that the old revision is still whole after its successor was approved."""
    known = [baseline("v3", 30), baseline("v1", 10)]
    chosen = [choose_baseline(known, NOW + dt.timedelta(minutes=minute)) for minute in (5, 10, 20, 30, 99)]
    assert [item.revision_id for item in chosen if item is not None] == ["v1", "v1", "v1", "v3", "v3"]
    assert choose_baseline([], NOW) is None


def test_another_environment_may_draw_a_little_otherwise_but_not_black() -> None:
    """It has no golden of its own yet, and must not teach what is broken."""
    other = [Golden("gpu", tuple(item.look for item in drew("r1", 90)))]
    near, black = drew("r9", 93)[0].look, drew("r9", 0)[0].look
    assert compare_across("a@1", near, []) is None
    found = [compare_across("a@1", look, other) for look in (near, black, None)]
    assert [item.standing for item in found if item is not None] == [
        Standing.WITHIN,
        Standing.DIFFERS,
        Standing.MISSING,
    ]


@pytest.mark.parametrize(
    ("times", "cause"),
    [
        (Times(NOW), Cause.START),
        (Times(NOW, played_at=NOW), None),
        (Times(NOW, played_at=NOW - seconds(600)), Cause.SCHEDULE),
        (Times(NOW, played_at=NOW - ADAPTER_PAUSE, adapter_at=NOW), Cause.ADAPTER),
        (Times(NOW, played_at=NOW - seconds(5), adapter_at=NOW), None),
        (Times(NOW, played_at=NOW - seconds(90), adapter_at=NOW - seconds(91)), None),
        (Times(NOW, played_at=NOW - seconds(60), adapter_at=NOW, suspected_at=NOW), Cause.SUSPICION),
        (Times(NOW, played_at=NOW - seconds(5), asked_at=NOW), Cause.PERSON),
        (Times(NOW, asked_at=NOW - seconds(5)), Cause.START),
        (Times(NOW, spent_seconds=10), None),
        (Times(NOW, played_at=NOW - seconds(5), asked_at=NOW, spent_seconds=10), Cause.PERSON),
    ],
)
def test_a_round_is_due_at_the_start_on_schedule_after_adapters_on_suspicion_and_when_asked(
    times: Times, cause: Cause | None
) -> None:
    """Within the budget, which a person may exceed."""
    assert decide_due(times, SPEC, NOW) is cause
    assert decide_due(times, CanarySpec(), NOW) is None


MOMENTS = st.none() | st.integers(-7200, 0).map(lambda count: NOW + seconds(count))


@given(MOMENTS, MOMENTS, MOMENTS, MOMENTS, st.floats(0, 20))
def test_a_round_that_was_just_played_asks_for_no_other(
    played: dt.datetime | None,
    adapter: dt.datetime | None,
    asked: dt.datetime | None,
    suspected: dt.datetime | None,
    spent: float,
) -> None:
    """Playing what is due ends it; with the budget spent only a person makes one due."""
    times = Times(NOW - seconds(7200), played, adapter, asked, suspected, spent)
    cause = decide_due(times, SPEC, NOW)
    assert cause in {None, Cause.PERSON} or spent < SPEC.budget_seconds_per_hour
    after = Times(times.ready_at, NOW, adapter, asked, suspected, spent)
    assert decide_due(after, SPEC, NOW) is None
