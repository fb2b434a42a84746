"""Queue positions from a sample."""

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from forestay.queue.positions import queue_position

START = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)


@given(st.lists(st.integers(0, 50)), st.integers(0, 50))
def test_a_position_counts_who_comes_before(offsets: list[int], own: int) -> None:
    """It is the number of sampled requests with an earlier order time, zero at the front."""
    times = sorted(START + dt.timedelta(seconds=offset) for offset in offsets)
    position = queue_position(times, START + dt.timedelta(seconds=own))
    assert position == sum(offset < own for offset in offsets)
