"""How much memory a replica holds while it works on one request of a profile run: the most, of host and devices.

It decides which requests are watched (those that `forestay model profile` tags), and that requests beside it count in:
it is the replica that has to fit. Reading it costs the host a look at a few files of /proc four times a second, so
nobody else's requests are watched. What it finds goes into the attempt's fact, beside what the input asked for. Called
by `attempt`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from forestay.clock import Clock
from forestay.worker.hosts.child import MEMORY_SECONDS, memory_bytes_of

PEAK, DEVICE_PEAK = "peak_memory_bytes", "peak_device_memory_bytes"
"""Names of what is found, in a fact's `work`."""
TAG = ("purpose", "profile")

DeviceBytes = Callable[[Sequence[int]], int | None]
"""Memory of devices that these processes hold, as last read; None where no device is ours."""


@runtime_checkable
class LocalHost(Protocol):
    """A host whose processes run on this machine."""

    def processes(self) -> Sequence[int]:
        """Return their ids."""
        ...


def no_devices(pids: Sequence[int]) -> int | None:
    """Return None: there is no device to read."""
    del pids


def is_watched(tags: Mapping[str, str]) -> bool:
    """Tell whether a request's memory is wanted."""
    return tags.get(TAG[0]) == TAG[1]


class PeakMemory:
    """The most that was seen; `processes` are the replica's."""

    def __init__(self, processes: Callable[[], Sequence[int]], devices: DeviceBytes, clock: Clock) -> None:
        self._processes = processes
        self._devices = devices
        self._clock = clock
        self._peak = 0
        self._device_peak: int | None = None

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await self._clock.sleep(MEMORY_SECONDS)

    def look(self) -> None:
        """Look once."""
        pids = self._processes()
        self._peak = max(self._peak, memory_bytes_of(pids, self._peak))
        held = self._devices(pids)
        if held is not None:
            self._device_peak = max(self._device_peak or 0, held)

    def found(self) -> dict[str, float]:
        """Look a last time; returns what was found, nothing where no process was."""
        self.look()
        found = {PEAK: float(self._peak)} if self._peak else {}
        return found if self._device_peak is None else {**found, DEVICE_PEAK: float(self._device_peak)}
