"""The bench's world is no easier than the real one where that was measured: how near prompts lie to earlier ones."""

import numpy as np
import pytest
from bench.abuse_attacks import RANGES
from bench.abuse_words import TOPICS, Ids, Writer, make_words

MEASURED_PEOPLE = 0.148  # least share of prompts with one of the 128 before within 16 bits, in four public sets
MEASURED_MADE_UP = 0.020  # of words drawn evenly from those sets' vocabulary


def near_share(hashes: list[int]) -> float:
    """The share of prompts that have a neighbour among the 128 before."""
    near = [
        min((hashes[at] ^ other).bit_count() for other in hashes[max(0, at - 128) : at]) <= 16
        for at in range(1, len(hashes))
    ]
    return sum(near) / len(near)


@pytest.fixture(scope="module")
def writer() -> Writer:
    """Writes prompts."""
    return Writer(make_words(), np.random.default_rng(1))


def test_hashes_of_many_at_once_are_the_gateways(writer: Writer) -> None:
    """Sums over word ids give the bits that the text gives."""
    for _ in range(50):
        prompt = writer.natural(np.arange(TOPICS, dtype=np.int32))
        assert int(writer.hashes([prompt])[0]) == writer.words.hasher.hash(writer.text(prompt))


def test_people_and_machines_are_as_near_to_themselves_as_real_ones(writer: Writer) -> None:
    """The most diverse honest stream is about as diverse as the most diverse real one; made-up ones are as lonely."""
    topics = np.arange(TOPICS, dtype=np.int32)

    def share(prompts: list[Ids]) -> float:
        return near_share(writer.hashes(prompts).tolist())

    people = share([writer.natural(topics) for _ in range(800)])
    made_up = share([writer.soup() for _ in range(800)])
    assert MEASURED_PEOPLE * 0.8 <= people <= MEASURED_PEOPLE * 1.6
    assert MEASURED_MADE_UP * 0.5 <= made_up <= MEASURED_MADE_UP * 2.5


@pytest.mark.parametrize("name", sorted(RANGES))
def test_the_test_draws_outside_of_what_tuning_draws(name: str) -> None:
    """No parameter of a test's attack lies strictly inside the range that tuning saw."""
    rng, wanted = np.random.default_rng(3), RANGES[name]
    for _ in range(200):
        outside, inside = wanted.draw(rng, outside=True), wanted.draw(rng, outside=False)
        assert outside <= wanted.low or outside >= wanted.high
        assert wanted.low <= inside <= wanted.high
        assert outside > 0
