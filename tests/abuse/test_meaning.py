"""Meanings as bits, and the child process that embeds."""

import pathlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.memory_fleet import ManualClock

from forestay.abuse import minilm_child
from forestay.abuse.meaning import BITS, SIZE, MeaningHasher, apart
from forestay.abuse.minilm_child import AGAIN_SECONDS, MiniLm, missing
from forestay.abuse.probing import NEAR_MEANING_BITS

HASHER = MeaningHasher(b"tests")


@given(st.floats(0.0, 180.0), st.integers(0, 1_000))
def test_bits_differ_by_the_angle_between_two_vectors(angle: float, seed: int) -> None:
    """A share of the angle over pi, within five standard deviations of a fair draw."""
    generator = np.random.default_rng(seed)
    one, other = generator.normal(size=(2, SIZE))
    one /= np.linalg.norm(one)
    other -= other @ one * one
    other /= np.linalg.norm(other)
    turned = np.cos(np.radians(angle)) * one + np.sin(np.radians(angle)) * other
    first, second = HASHER.hash(np.array([one, turned], dtype=np.float32))
    share = angle / 180.0
    assert abs(apart(first, second) - share * BITS) <= 5 * np.sqrt(BITS * share * (1 - share)) + 2


def test_another_deployment_has_other_bits() -> None:
    """Rows of one say nothing beside those of another."""
    vector = np.ones((1, SIZE), dtype=np.float32)
    [one], [other] = HASHER.hash(vector), MeaningHasher(b"another").hash(vector)
    assert len(one) == 32
    assert 80 < apart(one, other) < 176


@pytest.mark.skipif(bool(missing()), reason="the extra `embeddings` is not installed")
async def test_the_child_embeds_near_what_means_the_same_and_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reworded prompt is nearer than a strange one, a small change is a near-duplicate; its environment is bare."""
    monkeypatch.setenv("FORESTAY_KEY_PEPPER", "a secret of the platform")
    model = MiniLm(ManualClock())
    texts = [
        "a red dragon over the burning city at night",
        "a blue dragon over the burning city at night",
        "a crimson wyrm above the town in flames, midnight",
        "a cup of coffee on a wooden table",
    ]
    try:
        vectors = await model.embed(texts)
        assert vectors is not None
        assert vectors.shape == (4, SIZE)
        first, near, reworded, strange = HASHER.hash(vectors)
        assert apart(first, near) <= NEAR_MEANING_BITS < min(apart(first, reworded), apart(first, strange))
        likeness = vectors @ vectors[0]
        assert likeness[1] > 0.8 > likeness[2] > 0.4 > likeness[3] + 0.2
        assert b"FORESTAY" not in environment_of(model.pid)
    finally:
        await model.close()
    assert model.pid is None


def environment_of(pid: int | None) -> bytes:
    """What a process was started with."""
    return pathlib.Path(f"/proc/{pid}/environ").read_bytes()


async def test_a_child_that_fails_costs_no_call_and_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """No vectors, no error; after a minute it is tried again."""
    clock = ManualClock()
    model = MiniLm(clock)
    monkeypatch.setattr(minilm_child, "MODULE", "forestay.abuse.nothing_of_that_name")
    assert await model.embed(["a"]) is None
    assert model.pid is None
    monkeypatch.setattr(minilm_child, "_start", _never)
    assert await model.embed(["a"]) is None
    clock.advance(AGAIN_SECONDS)
    with pytest.raises(AssertionError):
        await model.embed(["a"])
    assert await model.embed([]) is None


async def _never() -> object:
    raise AssertionError("it was started")
