"""What is known of the devices (GPUs) of workers: who they are, what they read now, and a port for where that is kept.

Values and ports. It decides nothing: `quality/device_health` says what readings mean, `worker/device_watch` takes them.
Where a device or its driver does not tell a number, the number is None: never 0.
"""

import dataclasses
import datetime as dt
import enum
from collections.abc import Mapping, Sequence
from typing import Protocol

from forestay.ids import WorkerId


class Slowdown(enum.StrEnum):
    """Why a device's clocks are held down, beside having nothing to do."""

    POWER_CAP = "power_cap"  # ordinary under load: the device holds to its limit of power
    THERMAL = "thermal"  # too hot, as the driver or the device sees it
    POWER_BRAKE = "power_brake"  # the machine's supply asks for less
    HARDWARE = "hardware"  # one of the two above, or the device does not say which


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """Which device it is. `uuid` stays the same over restarts and in whatever order devices are counted."""

    uuid: str
    name: str
    index: int  # as the driver counts
    driver: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class EccErrors:
    """Errors of a device's memories; `since_boot` are counted since the driver was loaded, `ever` in its life."""

    corrected_since_boot: int | None = None
    uncorrected_since_boot: int | None = None
    corrected_ever: int | None = None
    uncorrected_ever: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """What a device said at one moment."""

    device: Identity
    at: dt.datetime
    lost: bool = False  # the driver no longer reaches it
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_celsius: int | None = None
    power_watts: float | None = None
    utilisation_ratio: float | None = None  # of the time, that any kernel ran
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    slowed: frozenset[Slowdown] = frozenset()
    ecc: EccErrors = EccErrors()
    rows_pending: bool | None = None  # rows or pages of memory are to be replaced at the next reset
    rows_failed: bool | None = None  # such a replacement failed once
    rows_remapped: int | None = None
    processes: Mapping[int, int] = dataclasses.field(default_factory=dict[int, int])  # bytes held, by process id


@dataclasses.dataclass(frozen=True, slots=True)
class XidEvent:
    """An error that the driver has noted of a device."""

    uuid: str
    xid: int
    at: dt.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class DeviceState:
    """A device as its worker told of it last. `told` are sentences on what is wrong with it."""

    worker_id: WorkerId
    reading: Reading
    told: tuple[str, ...] = ()
    replicas: tuple[str, ...] = ()  # that run on it


class DeviceSource(Protocol):
    """Where a worker reads its devices. All methods block, and are called from one thread at a time."""

    def identities(self) -> Sequence[Identity]:
        """Return the devices of this machine, in the driver's order; empty where there are none."""
        ...

    def read(self, now: dt.datetime) -> Sequence[Reading]:
        """Read every device; takes some milliseconds. Never raises: what is not told is None."""
        ...

    def wait(self, seconds: float, now: dt.datetime) -> Sequence[XidEvent]:
        """Return errors as soon as there are any, at the latest after `seconds`; they are said to be of `now`."""
        ...

    def close(self) -> None:
        """Let the driver go."""
        ...


class DeviceStore(Protocol):
    """Where the last reading of every device of the fleet lies."""

    async def keep(self, worker_id: WorkerId, devices: Sequence[DeviceState]) -> None:
        """Replace what is known of a worker's devices. Raises Unavailable."""
        ...

    async def devices(self) -> list[DeviceState]:
        """Read those of workers that the fleet knows, by worker and index."""
        ...
