"""What a sample of releases says of all: the share that is wrong, its interval, how many must be looked at."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.safety.audit import CONFIDENCE, Labels, estimate_of, looks_needed, wilson, words_of

COUNTS = st.integers(1, 5_000).flatmap(lambda looked: st.tuples(st.integers(0, looked), st.just(looked)))


@given(COUNTS)
def test_the_interval_holds_the_share_and_narrows_with_the_sample(counts: tuple[int, int]) -> None:
    """Within 0 and 1; four times as many looks make it narrower; right and wrong are mirror images."""
    wrong, looked = counts
    low, high = wilson(wrong, looked)
    assert 0.0 <= low <= wrong / looked <= high <= 1.0
    more = wilson(4 * wrong, 4 * looked)
    assert more[1] - more[0] < high - low
    mirrored = wilson(looked - wrong, looked)
    assert (1 - mirrored[1], 1 - mirrored[0]) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))


@pytest.mark.parametrize("share", [0.002, 0.01, 0.1, 0.5])
@pytest.mark.parametrize("looked", [300, 2_000])
def test_it_holds_the_true_share_about_as_often_as_it_says(share: float, looked: int) -> None:
    """Summed over every outcome of the binomial, without chance: near 95 % even for rare ones."""
    held = 0.0
    for wrong in range(looked + 1):
        low, high = wilson(wrong, looked)
        if low <= share <= high:
            logarithm = math.lgamma(looked + 1) - math.lgamma(wrong + 1) - math.lgamma(looked - wrong + 1)
            held += math.exp(logarithm + wrong * math.log(share) + (looked - wrong) * math.log1p(-share))
    assert held == pytest.approx(CONFIDENCE, abs=0.035)


def test_the_interval_is_that_of_the_books() -> None:
    """10 wrong of 100, and none of 30, to four places (Brown, Cai and DasGupta's formula, worked by hand)."""
    assert wilson(10, 100) == (pytest.approx(0.0552, abs=5e-5), pytest.approx(0.1744, abs=5e-5))
    assert wilson(0, 30) == (0.0, pytest.approx(0.1135, abs=5e-5))


@given(st.floats(0.0, 1.0), st.floats(0.001, 0.4))
def test_the_sample_that_is_asked_for_is_large_enough_and_one_less_is_not(ratio: float, half: float) -> None:
    """Half widths are those of the interval itself."""

    def width(looked: int) -> float:
        square = 1.959963984540054**2 / looked
        return math.sqrt(square) * math.sqrt(ratio * (1 - ratio) + square / 4) / (1 + square)

    needed = looks_needed(ratio, half)
    assert width(needed) <= half * (1 + 1e-9)
    assert needed == 1 or width(needed - 1) > half * (1 - 1e-9)


def test_nothing_looked_at_says_nothing_and_one_look_says_little() -> None:
    """No data is neither good nor bad."""
    assert estimate_of(Labels(0, 0)) is None
    assert "is not known" in words_of(None)
    one = estimate_of(Labels(1, 0))
    assert one is not None
    assert (one.ratio, one.low, one.high > 0.7) == (0.0, 0.0, True)
    some = estimate_of(Labels(right=119, wrong=1))
    assert some is not None
    assert some.looks_for_half > 2 * 120
    assert "120 released outputs were looked at again, 1 should not have gone out: 0.833 %" in words_of(some)
