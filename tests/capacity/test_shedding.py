"""What is given up when admitted deadlines can no longer be kept."""

import datetime as dt
import uuid
from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from forestay.capacity.admission import Rules, Slots
from forestay.capacity.shedding import Shed, decide_shed
from forestay.ids import ModelId, RequestId, TenantId
from forestay.queue.fairness import Waiting
from forestay.queue.pressure import Pressure, Queued

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
SURE = Rules(spread=0.0, risk=0.0)


def queued(
    number: int, cost: float, start: float | None, *, tenant: str = "ant", low: bool = False, total: float | None = None
) -> Queued:
    """A waiting request due in so many seconds; a low one is past its bound."""
    deadline = None if start is None else NOW + dt.timedelta(seconds=start)
    due_at = deadline or NOW + dt.timedelta(hours=1)
    ordered = NOW - dt.timedelta(seconds=10)
    waiting = Waiting(RequestId(uuid.UUID(int=number)), TenantId(tenant), cost, due_at, ordered, low)
    return Queued(waiting, deadline, None if total is None else NOW + dt.timedelta(seconds=total), 0)


def shed(items: Sequence[Queued], slots: Slots, rules: Rules = SURE) -> list[Shed]:
    """Decide, with the pressure that these requests are."""
    costs = [item.waiting.predicted_seconds for item in items]
    pressure = [
        Pressure(
            ModelId("a/b"), TenantId("ant"), low=False, waiting=len(costs), waiting_seconds=sum(costs),
            squares=sum(cost**2 for cost in costs),
        )
    ]  # fmt: skip
    return decide_shed(items, pressure, slots, ((), 0.0), (NOW, rules))


def numbers(found: Sequence[Shed]) -> list[int]:
    """The numbers of what is given up, in order."""
    return [item.request_id.int for item in found]


def test_nothing_is_given_up_while_everything_can_start() -> None:
    """A queue that fits is left alone, and so is one without deadlines, however long."""
    assert shed([queued(n, 5.0, 100.0) for n in range(1, 10)], Slots(1, 1.0)) == []
    assert shed([queued(n, 50.0, None) for n in range(1, 100)], Slots(1, 1.0)) == []


def test_what_cannot_start_any_more_is_told_now() -> None:
    """Of six requests of five seconds due in twelve, one slot starts three; the reason says when it would have been."""
    found = shed([queued(n, 5.0, 12.0) for n in range(1, 7)], Slots(1, 1.0))
    assert sorted(numbers(found)) == [4, 5, 6]
    assert all("cannot start in time" in item.reason and not item.for_others for item in found)


def test_without_any_slot_all_with_a_deadline_are_told() -> None:
    """Nothing serves and nothing is starting."""
    found = shed([queued(1, 1.0, 60.0), queued(2, 1.0, None)], Slots(0, 0.0))
    assert numbers(found) == [1]
    assert "never" in found[0].reason


def test_low_requests_go_before_a_normal_one_does() -> None:
    """One that would start in time gives its place up; of several, the latest and largest first."""
    items = [queued(1, 8.0, 9.0, low=True), queued(2, 1.0, 9.5, low=True), queued(3, 5.0, 10.0), queued(4, 1.0, 11.0)]
    found = shed(items, Slots(1, 1.0))
    assert numbers(found) == [2, 1]
    assert all(item.for_others for item in found)


def test_what_can_start_but_not_end_in_time_takes_no_capacity() -> None:
    """Its total deadline lies before its predicted end."""
    found = shed([queued(1, 20.0, None, total=10.0), queued(2, 5.0, None, total=10.0)], Slots(1, 1.0))
    assert (numbers(found), found[0].in_total) == ([1], True)


def test_a_doubtful_case_is_left_to_wait() -> None:
    """With predictions that err by half, being late by a little is no certainty."""
    items = [queued(n, 5.0, 12.0) for n in range(1, 5)]
    assert numbers(shed(items, Slots(1, 1.0))) == [4]
    assert shed(items, Slots(1, 1.0), Rules(spread=0.5)) == []


cases = st.lists(
    st.tuples(st.floats(0.1, 30.0), st.none() | st.floats(0.1, 100.0), st.sampled_from("ab"), st.booleans()),
    max_size=25,
)


@given(cases, st.integers(0, 4))
@example([(1.0, None, "a", False), (1.0, 7.0, "b", False), (3.0, 1.0, "a", False), (1.0, 1.0, "a", False),
          (4.0, 3.0, "b", False)], 1)  # fmt: skip  # the turn of what is given up must not be counted
def test_shedding_ends_and_spares_what_has_no_limit(
    rows: list[tuple[float, float | None, str, bool]], count: int
) -> None:
    """Low first; nobody twice; and what is left, looked at again, is left alone."""
    items = [queued(n, cost, start, tenant=t, low=low) for n, (cost, start, t, low) in enumerate(rows, 1)]
    slots = Slots(count, float(count))
    found = shed(items, slots)
    gone = set(numbers(found))
    by_number = {item.waiting.request_id.int: item for item in items}
    assert len(gone) == len(found)
    assert all(by_number[number].start_deadline is not None for number in gone)
    lows = [by_number[number].waiting.low for number in numbers(found)]
    assert lows == sorted(lows, reverse=True)
    if not any(item.for_others for item in found):
        rest = [item for item in items if item.waiting.request_id.int not in gone]
        again = decide_shed(rest, [], slots, ((), 0.0), (NOW, SURE))
        assert again == [] or count > 1
