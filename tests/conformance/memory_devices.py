"""Devices in memory: adapters of the ports for tests. What they read, and what happens to them, is what a test says."""

import dataclasses
import datetime as dt
from collections.abc import Sequence

from forestay.fleet.devices import DeviceState, EccErrors, Identity, Reading, XidEvent
from forestay.ids import WorkerId

GIB = 1024**3


def identity_of(index: int) -> Identity:
    """Return a device as a driver names it."""
    return Identity(f"GPU-{index:08d}-2841-28d6-8a9d-afbefdb30000", "NVIDIA H100 80GB HBM3", index, "580.159.04")


def reading_of(device: Identity, at: dt.datetime, **changes: object) -> Reading:
    """Return what a healthy device reads, changed as a test says."""
    healthy = Reading(
        device,
        at,
        memory_used_bytes=2 * GIB,
        memory_total_bytes=80 * GIB,
        temperature_celsius=55,
        power_watts=86.5,
        utilisation_ratio=0.5,
        sm_clock_mhz=1980,
        memory_clock_mhz=2619,
        ecc=EccErrors(0, 0, 0, 0),
        rows_pending=False,
        rows_failed=False,
        rows_remapped=0,
    )
    return dataclasses.replace(healthy, **changes)  # type: ignore[arg-type]


class MemoryDevices:
    """DeviceSource over what it was given."""

    def __init__(self, count: int) -> None:
        self.devices = [identity_of(index) for index in range(count)]
        self.changes: dict[str, dict[str, object]] = {}  # by UUID, of the readings to come
        self.events: list[XidEvent] = []
        self.closed = False

    def identities(self) -> Sequence[Identity]:
        """Return the devices."""
        return self.devices

    def read(self, now: dt.datetime) -> Sequence[Reading]:
        """Read every device."""
        return [reading_of(item, now, **self.changes.get(item.uuid, {})) for item in self.devices]

    def wait(self, seconds: float, now: dt.datetime) -> Sequence[XidEvent]:
        """Return what happened; waits for nothing."""
        del seconds, now
        found, self.events = self.events, []
        return found

    def close(self) -> None:
        """Note the end."""
        self.closed = True


class MemoryDeviceStore:
    """DeviceStore that is forgotten when it is dropped."""

    def __init__(self) -> None:
        self.kept: dict[WorkerId, Sequence[DeviceState]] = {}

    async def keep(self, worker_id: WorkerId, devices: Sequence[DeviceState]) -> None:
        """Replace what is known of a worker's devices."""
        self.kept[worker_id] = list(devices)

    async def devices(self) -> list[DeviceState]:
        """Read all, by worker and index."""
        found = [item for states in self.kept.values() for item in states]
        return sorted(found, key=lambda item: (item.worker_id, item.reading.device.index))
