"""Time limits that hold on a busy machine too: the best of a few tries is compared; what is slow is slow each time."""

from collections.abc import Awaitable, Callable

TRIES = 3


async def quickest(tried: Callable[[], Awaitable[float]], wanted_seconds: float) -> float:
    """Return the least of up to three measurements in seconds, ending with the first below `wanted_seconds`."""
    took = await tried()
    for _ in range(TRIES - 1):
        if took < wanted_seconds:
            break
        took = min(took, await tried())
    return took
