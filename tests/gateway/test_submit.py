"""Wake-ups of workers: at once where little comes, fewer in a flood."""

from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.world import World

from forestay.gateway.submit import LONG_WAKE_PAUSE_SECONDS, WAKE_PAUSE_SECONDS, decide_wake_pause


@given(carried=st.integers(0, 100_000), more=st.integers(0, 100_000))
def test_the_pause_between_wake_ups_grows_with_what_they_carry_within_its_bounds(carried: int, more: int) -> None:
    """A flood wakes nobody more than fifty times a second, a trickle nobody less often than before."""
    pause = decide_wake_pause(carried)
    assert WAKE_PAUSE_SECONDS <= pause <= decide_wake_pause(carried + more) <= LONG_WAKE_PAUSE_SECONDS
    assert decide_wake_pause(min(carried, 4)) == WAKE_PAUSE_SECONDS


async def test_a_submit_wakes_the_workers_that_have_its_model(world: World) -> None:
    """The message names the model."""
    async with world.ports.wakeups.subscribe("forestay:queue") as messages:
        await world.submit()
        assert await anext(messages) == ("forestay:queue", "acme/echo")
