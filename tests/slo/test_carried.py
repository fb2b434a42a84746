"""Late facts: carried again from a saved minute on, everything is as if it had been known from the beginning."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.slo.objectives import slo

from forestay.slo.carried import REWOUND_MINUTES
from forestay.slo.fleet import WindowRing
from forestay.slo.model import Counts, Measure, Minute, Part, Sli, SliKind, Slo, SloId, Subject, SubjectKind
from forestay.slo.standing import Standing
from forestay.slo.watching import Watching

START = 29_000_002  # in the middle of five minutes
Seen = dict[SloId, Counts]


def fleet() -> list[Slo]:
    """Return SLOs of every kind that is carried: busy, thin, sliced, on throughput, and a composite."""
    sliced = Sli(SliKind.TIME_SLICE, Measure.AVAILABILITY, slice_minutes=7, slice_objective=0.9)
    flow = Sli(SliKind.TIME_SLICE, Measure.THROUGHPUT, 90.0, 5, 0.95, per_second=0.2)
    plain = {"busy": slo(), "thin": slo(0.99), "sliced": slo(0.95, sli=sliced), "flow": slo(0.95, sli=flow)}
    named = [dataclasses.replace(one, slo_id=SloId(name)) for name, one in plain.items()]
    parts = Part(SloId("busy")), Part(SloId("thin"), 2.0)
    return [
        *named,
        dataclasses.replace(slo(), slo_id=SloId("all"), subject=Subject(SubjectKind.COMPOSITE), parts=parts),
    ]


def lived(chance: np.random.Generator, minutes: int) -> list[Seen]:
    """Return what minutes held, in fits of harm."""
    found: list[Seen] = []
    harm = 0.0
    for _ in range(minutes):
        harm = chance.choice([0.0, 0.3, 1.0]) if chance.random() < 0.1 else harm
        counts = {"busy": chance.poisson(40), "thin": chance.poisson(0.3), "sliced": 3, "flow": chance.poisson(10)}
        bad = {name: int(chance.binomial(count, harm)) for name, count in counts.items()}
        found.append({
            SloId(name): Counts(good=int(count) - bad[name], bad=bad[name], asked=int(chance.poisson(10)))
            for name, count in counts.items()
            if count
        })  # fmt: skip
    return found


def standings(watching: Watching, minutes: Sequence[Seen]) -> list[Standing]:
    """Return how SLOs stand after minutes, of which the first is the watching's next."""
    for seen in minutes:
        watching.take(seen)
    return watching.standings()


def watched(minutes: Sequence[Seen]) -> tuple[Watching, list[Standing]]:
    """Return a watching that has taken all of these minutes, and how SLOs stand."""
    watching = Watching(fleet(), Minute(START), Minute(START + 3))
    return watching, standings(watching, minutes)


@settings(max_examples=4)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 90), min_size=1, max_size=3))
def test_late_facts_change_what_they_change_and_nothing_else(seed: int, ages: list[int]) -> None:
    """To the last bit, in the same words; once more when other minutes change again, and as time goes on."""
    chance = np.random.default_rng(seed)
    truth, later = lived(chance, 120), lived(chance, 10)
    told: dict[int, Seen] = {}
    for age in ages:  # what was known of a minute before its late facts came
        told[len(truth) - age] = lived(chance, 1)[0]
    watching, _ = watched([told.get(at, seen) for at, seen in enumerate(truth)])
    for at in sorted(told, reverse=True):
        assert watching.back_to(Minute(START + at))
        assert watching.until <= START + at < watching.until + 5
        del told[at]
        again = [told.get(number, seen) for number, seen in enumerate(truth)][watching.until - START :]
        standings(watching, again)
    whole, expected = watched(truth)
    assert watching.standings() == expected
    assert standings(watching, later) == standings(whole, later)


def test_what_is_longer_ago_than_is_saved_is_told() -> None:
    """Whoever watches starts anew then."""
    watching, _ = watched([dict[SloId, Counts]()] * 300)
    assert watching.back_to(Minute(START + 300 - REWOUND_MINUTES + 10))
    assert not watching.back_to(Minute(START + 10))


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=30, max_size=60), st.integers(0, 20))
def test_a_window_that_is_rewound_is_as_it_was(steps: list[tuple[int, int]], back: int) -> None:
    """And goes on as if what was taken back had never been added."""
    ring, same = (WindowRing(1, 1, (1, 5, 17), 20) for _ in range(2))
    for pair in steps:
        ring.add(np.array(pair, dtype=np.float64)[:, None])
    ring.rewind(back)
    kept: Mapping[int, tuple[int, int]] = dict(enumerate(steps[: len(steps) - back]))
    for pair in kept.values():
        same.add(np.array(pair, dtype=np.float64)[:, None])
    for pair in [None, *steps]:
        if pair is not None:
            ring.add(np.array(pair, dtype=np.float64)[:, None])
            same.add(np.array(pair, dtype=np.float64)[:, None])
        assert all((ring[minutes] == same[minutes]).all() for minutes in (1, 5, 17))
