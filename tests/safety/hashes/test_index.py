"""The index: what a flat reading finds, and nothing else, whatever is added, removed or merged meanwhile."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.safety.hashes import banked

from forestay.errors import UsageError
from forestay.safety.hashes.index import HashIndex
from forestay.safety.hashes.segment import Segment, Words, value_of

Bank = Callable[[int, np.random.Generator], Words]
BANKS = (
    banked.random_words,
    banked.clustered_words,
    banked.crowded_words,
    banked.leaning_words,
    banked.related_words,
)
# A step is: add (True) or remove, which of 12 keys, which of 4 clusters, and which bits of the hash are turned.
STEPS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 11), st.integers(0, 3), st.sets(st.integers(0, 255), max_size=20)),
    max_size=60,
)


def pairs(index: HashIndex, value: int, radius: int = 31) -> list[tuple[int, int]]:
    """What the index finds, as (distance, key)."""
    return [(match.distance, match.key) for match in index.find(value, radius)]


@pytest.mark.parametrize("bank", BANKS)
@pytest.mark.parametrize("radius", [0, 7, 31])
def test_a_segment_finds_what_a_flat_reading_finds(bank: Bank, radius: int) -> None:
    """Questions about 24 bits off a stored hash, in banks of every shape."""
    chance = np.random.default_rng(7)
    words = bank(30_000, chance)
    rows = banked.rows_of(words)
    made = Segment.built(banked.rows_of(words.copy()))
    asked = words[chance.integers(0, len(words), 40)]
    asked[:36] ^= banked.flips(36, chance)
    for wanted in asked:
        expected, found = banked.flat(rows, wanted, radius), made.find(value_of(wanted), radius)
        assert dict(zip(found.keys, found.distances, strict=True)) == dict(
            zip(expected.keys, expected.distances, strict=True)
        )
        assert len(found.keys) == len(expected.keys)


def test_hashes_at_the_very_edge_are_found_and_those_one_bit_further_are_not() -> None:
    """31 bits off in the worst way: two in every chunk but one, which has one and alone can lead to the row."""
    chance = np.random.default_rng(8)
    words = banked.random_words(20_000, chance)
    made = Segment.built(banked.rows_of(words))
    order, starts = made._order.tolist(), made._probes.starts
    for row in range(20):
        value = value_of(made.original(np.array([row])).words[0])
        for sole in range(len(starts)):
            turned = [
                order[start + place] for chunk, start in enumerate(starts) for place in range(1 if chunk == sole else 2)
            ]
            assert len(turned) == 31
            edge = value ^ sum(1 << bit for bit in turned)
            assert row in made.find(edge, 31).keys
            assert row not in made.find(edge, 30).keys
            assert row not in made.find(edge ^ 1 << order[starts[sole] + 1], 31).keys


@settings(max_examples=25, deadline=None)
@given(STEPS, st.integers(0, 31), st.randoms(use_true_random=False))
def test_any_order_of_changes_and_merges_leaves_what_a_flat_reading_finds(
    steps: list[tuple[bool, int, int, set[int]]], threshold: int, random: object
) -> None:
    """Additions and removals come before, during and after merges, on a buffer of a few rows."""
    chance = np.random.default_rng(len(steps))
    centres = [value_of(words) for words in banked.random_words(4, chance)]
    index, kept, merge, running = HashIndex(buffer_rows=8), dict[tuple[int, int], int](), None, None
    for adds, key, cluster, bits in steps:
        value = centres[cluster] ^ sum(1 << bit for bit in bits)
        if adds:
            index.add(key, value, threshold)
            kept[key, value] = threshold
        else:
            gone = sorted(kept)[key % len(kept)] if kept else (key, value)
            assert index.remove(*gone) == (kept.pop(gone, None) is not None)
        if merge is None and (merge := index.begin_merge()) is not None:
            running = merge.steps()
        elif merge is not None and running is not None and getattr(random, "random")() < 0.3:  # noqa: B009 - hypothesis
            for _ in running:
                pass
            index.finish_merge(merge)
            merge = None
        asked = centres[cluster]
        expected = sorted(
            ((value ^ asked).bit_count(), key)
            for (key, value), most in kept.items()
            if (value ^ asked).bit_count() <= min(most, 31)
        )
        assert pairs(index, asked) == expected
        assert len(index) == len(kept)


def test_a_change_is_seen_while_a_merge_is_under_way_and_after_it() -> None:
    """Added in the middle: found. Removed in the middle: gone, and it stays gone when the merge is done."""
    chance = np.random.default_rng(9)
    index = HashIndex(buffer_rows=64)
    values = [value_of(words) for words in banked.random_words(80, chance)]
    for key, value in enumerate(values[:64]):
        index.add(key, value)
    merge = index.begin_merge()
    assert merge is not None
    assert index.begin_merge() is None
    steps = merge.steps()
    next(steps)
    index.add(64, values[64])
    assert index.remove(3, values[3])
    assert pairs(index, values[64]) == [(0, 64)]
    assert pairs(index, values[3]) == []
    for _ in steps:
        pass
    index.finish_merge(merge)
    assert pairs(index, values[64]) == [(0, 64)]
    assert pairs(index, values[3]) == []
    assert pairs(index, values[4]) == [(0, 4)]


def test_a_thousand_changes_that_cancel_out_take_no_memory() -> None:
    """What is added and removed again leaves the index as large as it was."""
    chance = np.random.default_rng(10)
    index = HashIndex(banked.rows_of(banked.random_words(20_000, chance)))
    before = index.size_bytes
    for number, words in enumerate(banked.random_words(1_000, chance)):
        index.add(1_000_000 + number, value_of(words))
        assert index.remove(1_000_000 + number, value_of(words))
        index.merge()
    assert index.size_bytes == before
    assert len(index) == 20_000


def test_rows_that_were_removed_are_let_go_by_a_merge() -> None:
    """When much of a bank is removed, its memory is free after the next merge."""
    chance = np.random.default_rng(11)
    words = banked.random_words(4_000, chance)
    index = HashIndex(banked.rows_of(words.copy()), buffer_rows=100)
    before = index.size_bytes
    for key in range(3_900):
        assert index.remove(key, value_of(words[key]))
        index.merge()
    assert len(index) == 100
    assert index.size_bytes < before
    assert pairs(index, value_of(words[3_950])) == [(0, 3_950)]


def test_an_entry_matches_up_to_its_own_threshold() -> None:
    """One bit beyond what was said for it, it is silent, and adding it again sets the distance anew."""
    index = HashIndex()
    index.add(1, 0b111, threshold=2)
    assert pairs(index, 0b1) == [(2, 1)]
    assert pairs(index, 0b0) == []
    index.add(1, 0b111, threshold=3)
    assert pairs(index, 0b0) == [(3, 1)]
    assert len(index) == 1


@pytest.mark.parametrize("wrong", [-1, 32])
def test_a_distance_that_cannot_be_promised_is_refused(wrong: int) -> None:
    """The tables promise 0 to 31 bits."""
    index = HashIndex()
    with pytest.raises(UsageError, match="threshold"):
        index.add(1, 1, threshold=wrong)
    with pytest.raises(UsageError, match="radius"):
        index.find(1, radius=wrong)
