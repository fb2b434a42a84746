"""Golden canaries: what counts as the same, and what a round says."""

import datetime as dt

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.quality import making

from forestay.ids import ModelId, ReplicaId
from forestay.quality import canary
from forestay.quality.canary import Compared, Golden, Round, Standing, compare, decide_round, learn, look_of
from forestay.quality.findings import Source, Where
from forestay.quality.pipeline_parts import CHANGED, Change

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
WHERE = Where(ModelId("acme/digits"), replica_id=ReplicaId("r1"))
SCENE = making.scene()


def noisy(seed: int, levels: int = 2) -> npt.NDArray[np.uint8]:
    """The scene as a kernel that is not deterministic gives it."""
    noise = np.random.default_rng(seed).integers(-levels, levels + 1, SCENE.shape)
    return np.clip(SCENE.astype(int) + noise, 0, 255).astype(np.uint8)


def golden(*pictures: npt.NDArray[np.uint8]) -> Golden:
    """What is learned of healthy reruns."""
    learned = learn("cpu", [look_of(picture) for picture in pictures])
    assert learned is not None
    return learned


def test_where_reruns_are_equal_to_the_last_bit_every_difference_counts() -> None:
    """One value of one pixel by one level is another picture."""
    touched = SCENE.copy()
    touched[0, 0, 0] ^= 1
    known = golden(SCENE, SCENE)
    assert compare("a", look_of(SCENE), known).standing is Standing.SAME
    assert compare("a", look_of(touched), known).standing is Standing.DIFFERS


def test_where_reruns_differ_a_further_one_lies_within_and_a_changed_one_does_not() -> None:
    """The band is learned from reruns in the same environment."""
    known = golden(*(noisy(seed) for seed in range(4)))
    assert compare("a", look_of(noisy(9)), known).standing is Standing.WITHIN
    brighter = np.clip(SCENE.astype(int) + 6, 0, 255).astype(np.uint8)
    found = compare("a", look_of(brighter), known)
    assert (found.standing, found.levels > known.band) == (Standing.DIFFERS, True)


def test_a_missing_picture_or_another_size_is_no_healthy_look() -> None:
    """Both fail, whatever the band."""
    known = golden(noisy(1), noisy(2))
    assert compare("a", None, known).standing is Standing.MISSING
    assert compare("a", look_of(making.scene(32, 32)), known).failed


def test_one_run_is_no_golden() -> None:
    """It says nothing of how far healthy reruns lie apart; nor do pictures of two sizes."""
    assert learn("cpu", [look_of(SCENE)]) is None
    assert learn("cpu", [look_of(SCENE), look_of(making.scene(32, 32))]) is None


def compared(*failed: str, names: tuple[str, ...] = ("a", "b", "styled")) -> tuple[Compared, ...]:
    """A round in which these canaries differ."""
    return tuple(Compared(name, Standing.DIFFERS if name in failed else Standing.SAME, 3.0, 0.0) for name in names)


STYLED = frozenset({"styled"})


@pytest.mark.parametrize(
    ("played", "row"),
    [
        (Round(compared("a"), STYLED, peers_whole=2), canary.CORRUPT),
        (Round(compared("a", "b"), STYLED), CHANGED),
        (Round(compared("a", "b"), STYLED, changes=(Change("scheduler", "class", "DDIM", "Euler"),)), 13),
        (Round(compared("a"), STYLED, after_adapter=True), canary.LEAKED),
        (Round(compared("styled"), STYLED, peers_whole=2), canary.NOT_APPLIED),
    ],
    ids=[
        "one replica of three",
        "all of a revision",
        "and its scheduler is another",
        "after a request with an adapter",
        "only with an adapter",
    ],
)
def test_a_round_says_what_the_difference_points_to(played: Round, row: int) -> None:
    """The row of the catalogue, with numbers, at the replica that played."""
    found = decide_round(played, WHERE, NOW)
    assert found is not None
    assert (found.catalogue, found.where, found.source) == (row, WHERE, Source.CANARY)
    assert found.evidence["differing_canaries"] >= 1


@given(
    failing=st.frozensets(st.sampled_from(["a", "b", "styled"])),
    peers=st.integers(0, 5),
    after=st.booleans(),
)
def test_a_round_finds_something_exactly_when_a_canary_failed(failing: frozenset[str], peers: int, after: bool) -> None:
    """Nothing is found in a whole round, whatever else is known."""
    found = decide_round(Round(compared(*failing), STYLED, after_adapter=after, peers_whole=peers), WHERE, NOW)
    assert (found is not None) == bool(failing)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 50), min_size=2, max_size=5, unique=True))
def test_what_was_learned_from_is_never_a_difference(seeds: list[int]) -> None:
    """Every healthy rerun passes against the golden that it is part of."""
    known = golden(*(noisy(seed) for seed in seeds))
    assert all(not compare("a", look_of(noisy(seed)), known).failed for seed in seeds)
