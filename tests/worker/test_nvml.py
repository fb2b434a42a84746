"""The module that speaks NVML: against a library that answers as a driver does, and against a real driver if any."""

import ctypes
import datetime as dt
from typing import Any

import pytest

from forestay.fleet.devices import EccErrors, Identity, Slowdown, XidEvent
from forestay.worker.nvml import Nvml, open_nvml

NOW = dt.datetime(2026, 11, 26, tzinfo=dt.UTC)
NOT_SUPPORTED, TIMEOUT, LOST = 3, 10, 15
NUMBERS = {
    "nvmlDeviceGetCount_v2": (1,),
    "nvmlDeviceGetTemperature": (61,),
    "nvmlDeviceGetPowerUsage": (86_548,),
    "nvmlDeviceGetClockInfo": (1_980,),
    "nvmlDeviceGetCurrentClocksThrottleReasons": (0x1 | 0x4 | 0x40,),
    "nvmlDeviceGetRemappedRows": (3, 1, 1, 0),
}
TEXTS = {"nvmlDeviceGetUUID": b"GPU-1", "nvmlDeviceGetName": b"H100", "nvmlSystemGetDriverVersion": b"580.1"}
FIELDS = {
    "nvmlDeviceGetMemoryInfo": {"total": 100, "used": 40},
    "nvmlDeviceGetUtilizationRates": {"gpu": 25},
}


class Library:
    """Answers as libnvidia-ml does for one device; `codes` are results by function, 0 where none is named."""

    def __init__(self, **codes: int) -> None:
        self.codes = codes
        self.called: list[str] = []
        self.events = [(0x8, 79), (0x2, 1), (0x8, 48)]

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def call(*given: Any) -> int:
            self.called.append(name)
            code = self.codes.get(name, 0)
            if code == 0:
                code = self._answer(name, given)
            return code

        return call

    def _answer(self, name: str, given: tuple[Any, ...]) -> int:
        told = [getattr(item, "_obj", None) for item in given]
        for place, value in enumerate(reversed(NUMBERS.get(name, ())), start=1):
            told[-place].value = value  # type: ignore[union-attr]
        if name in TEXTS:
            given[-2].value = TEXTS[name]
        elif name in FIELDS:
            for field, value in FIELDS[name].items():
                setattr(told[-1], field, value)
        elif name == "nvmlDeviceGetTotalEccErrors":
            told[3].value = 10 * given[1].value + given[2].value  # type: ignore[union-attr]
        elif name == "nvmlDeviceGetComputeRunningProcesses_v3":
            told[1].value = 2  # type: ignore[union-attr]
            given[2][0].pid, given[2][0].used = 457, 30
            given[2][1].pid, given[2][1].used = 458, 2**64 - 1  # not told
        elif name == "nvmlEventSetWait_v2":
            if not self.events:
                return TIMEOUT
            told[1].type, told[1].data = self.events.pop(0)  # type: ignore[union-attr]
        return 0


def test_a_reading_has_the_drivers_numbers_in_our_units() -> None:
    """Bytes, watts, ratios; idle is no slowdown; a process whose memory is not told is left out."""
    read = Nvml(Library())
    (reading,) = read.read(NOW)
    assert reading.device == Identity("GPU-1", "H100", 0, "580.1")
    assert (reading.memory_used_bytes, reading.memory_total_bytes) == (40, 100)
    assert (reading.temperature_celsius, reading.power_watts, reading.utilisation_ratio) == (61, 86.548, 0.25)
    assert reading.slowed == {Slowdown.POWER_CAP, Slowdown.THERMAL}
    assert reading.ecc == EccErrors(0, 10, 1, 11)
    assert (reading.rows_pending, reading.rows_failed, reading.rows_remapped) == (True, False, 4)
    assert dict(reading.processes) == {457: 30}


def test_what_a_device_does_not_support_is_not_told_and_never_0() -> None:
    """A consumer card has no ECC, no rows to replace, no events, and perhaps no power reading."""
    missing = (
        "nvmlDeviceGetTotalEccErrors nvmlDeviceGetRemappedRows nvmlDeviceGetRetiredPagesPendingStatus "
        "nvmlDeviceGetPowerUsage nvmlDeviceGetUtilizationRates nvmlDeviceGetCurrentClocksThrottleReasons "
        "nvmlDeviceGetComputeRunningProcesses_v3 nvmlDeviceRegisterEvents"
    )
    read = Nvml(Library(**dict.fromkeys(missing.split(), NOT_SUPPORTED)))
    (reading,) = read.read(NOW)
    assert reading.ecc == EccErrors()
    assert reading.rows_pending is reading.power_watts is reading.utilisation_ratio is None
    assert reading.slowed == frozenset()
    assert not read.listens
    assert read.wait(60.0, NOW) == [], "and nothing waits for events that never come"


def test_a_device_that_fell_off_the_bus_reads_as_lost() -> None:
    """The driver says so of every question; one is enough."""
    (reading,) = Nvml(Library(nvmlDeviceGetMemoryInfo=LOST)).read(NOW)
    assert reading.lost
    assert reading.memory_used_bytes is None


def test_errors_are_told_with_their_device_and_other_events_are_not() -> None:
    """All that are there already come at once; then there are none until the next."""
    read = Nvml(Library())
    assert read.wait(0.0, NOW) == [XidEvent("GPU-1", 79, NOW), XidEvent("GPU-1", 48, NOW)]
    assert read.wait(0.0, NOW) == []
    assert read.listens


def test_a_machine_without_a_driver_is_quiet() -> None:
    """No library, no error, no device."""
    assert open_nvml("libno-such-library.so.1") is None


def test_a_real_driver_tells_who_its_devices_are() -> None:
    """Where there is one: UUIDs are UUIDs, memory is used within its total, and waiting for errors ends in time."""
    found = open_nvml()
    if found is None:
        pytest.skip("no NVIDIA driver with a device on this machine")
    try:
        for reading in found.read(NOW):
            assert reading.device.uuid.startswith("GPU-")
            assert reading.lost or 0 <= (reading.memory_used_bytes or 0) <= (reading.memory_total_bytes or 0)
        assert found.wait(0.05, NOW) is not None
    finally:
        found.close()


def test_closing_lets_the_driver_go() -> None:
    """The set of events first, then the library; nothing is left to read."""
    library = Library()
    read = Nvml(library)
    read.close()
    assert library.called[-2:] == ["nvmlEventSetFree", "nvmlShutdown"]
    assert list(read.read(NOW)) == []
    assert ctypes.sizeof(ctypes.c_void_p) == 8
