"""Prompts as bits: near ones near, respelt ones the same, and nothing to be guessed without the key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.abuse.recent import FAR, RecentHashes
from forestay.abuse.simhash import MAX_CHARS, PromptHasher, distance, words_of

HASHER = PromptHasher(b"key")
TEXT = "a violent scene with a knife in the dark kitchen of an old house"


def bits(one: str, other: str) -> int:
    """How far two prompts are apart."""
    first, second = HASHER.hash(one), HASHER.hash(other)
    assert first is not None
    assert second is not None
    return distance(first, second)


@pytest.mark.parametrize(
    "respelt",
    [
        TEXT.upper(),
        "".join(f"{letter}\u200b" for letter in TEXT),
        TEXT.replace("a", "\u0430").replace("e", "\u0435"),
        TEXT.replace("i", "1").replace("o", "0").replace("e", "3"),
        TEXT.replace("knife", "k.n.i.f.e"),
        TEXT.replace("knife", "k n i f e").replace("a k", "a, k"),
        "\U000e0041".join(TEXT),
        "in the dark kitchen of an old house, a violent scene with a knife!",
    ],
)
def test_a_prompt_spelt_otherwise_is_nearly_the_same(respelt: str) -> None:
    """Invisible letters, look-alikes, digits for letters, separators and another order hide nothing."""
    assert bits(TEXT, respelt) <= 8


def test_a_changed_word_moves_a_few_bits_and_another_prompt_half_of_them() -> None:
    """What near means: one word of twelve is near, a different wish is not."""
    assert bits(TEXT, TEXT.replace("kitchen", "cellar")) <= 14
    assert bits(TEXT, "portrait of a smiling cat, oil on canvas, studio light") >= 18


def test_without_the_key_the_bits_say_nothing() -> None:
    """Another deployment's key gives unrelated bits."""
    mine, theirs = HASHER.hash(TEXT), PromptHasher(b"other").hash(TEXT)
    assert mine is not None
    assert theirs is not None
    assert 16 <= distance(mine, theirs) <= 48


@given(st.text(max_size=200))
def test_any_text_is_hashed_or_has_no_words(text: str) -> None:
    """No text breaks it; the same text gives the same bits."""
    first = HASHER.hash(text)
    assert first == HASHER.hash(text)
    assert (first is None) == (not words_of(text))
    assert first is None or 0 <= first < 1 << 64


def test_a_very_long_prompt_costs_no_more_than_a_long_one() -> None:
    """Beyond the bound nothing is looked at."""
    assert HASHER.hash("word " * MAX_CHARS) == HASHER.hash("word " * (MAX_CHARS // 5))


@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=40), st.integers(0, (1 << 64) - 1), st.integers(1, 8))
def test_the_nearest_of_the_last_few_is_found(values: list[int], wanted: int, most: int) -> None:
    """As a plain search over the last `most` values finds it."""
    ring = RecentHashes(most)
    for value in values:
        ring.add(value)
    kept = values[-most:]
    assert sorted(ring.values()) == sorted(kept)
    assert ring.nearest(wanted) == min([distance(wanted, value) for value in kept], default=FAR)
