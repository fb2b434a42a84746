"""Reads NVIDIA devices through the driver's own library, libnvidia-ml.so.1: the one module that speaks NVML.

It decides nothing. The library comes with the driver, so nothing has to be installed, and where there is no driver
`open_nvml` returns None in silence. Names, numbers and layouts are those of nvml.h (NVML API Reference,
https://docs.nvidia.com/deploy/nvml-api/). What a device does not support is None. Called by `device_watch`.
"""

import ctypes
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from forestay.fleet.devices import EccErrors, Identity, Reading, Slowdown, XidEvent

LIBRARY = "libnvidia-ml.so.1"
MAX_PROCESSES = 256
NAME_CHARS = 96
_OK, _NOT_FOUND, _TIMEOUT, _LOST, _RESET = 0, 6, 10, 15, 16  # nvmlReturn_t
_XID_EVENTS = 0x8  # nvmlEventTypeXidCriticalError
_CORRECTED, _UNCORRECTED, _SINCE_BOOT, _EVER = 0, 1, 0, 1
_SM_CLOCK, _MEMORY_CLOCK = 1, 2
_NOT_TOLD = 2**64 - 1  # NVML_VALUE_NOT_AVAILABLE
# nvmlClocksEventReasons: what is left out is ordinary (idle, a clock that was asked for, devices that keep step)
_REASONS: Mapping[int, Slowdown] = {
    0x4: Slowdown.POWER_CAP,
    0x8: Slowdown.HARDWARE,
    0x20: Slowdown.THERMAL,
    0x40: Slowdown.THERMAL,
    0x80: Slowdown.POWER_BRAKE,
}


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Utilisation(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Process(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class _Event(ctypes.Structure):
    _fields_ = (
        ("device", ctypes.c_void_p),
        ("type", ctypes.c_ulonglong),
        ("data", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


def open_nvml(library: str = LIBRARY) -> "Nvml | None":
    """Return the devices of this machine; None where there is no driver, no device, or no right to ask."""
    try:
        loaded = ctypes.CDLL(library)
        if loaded.nvmlInit_v2() != _OK:
            return None
    except (OSError, AttributeError):
        return None
    found = Nvml(loaded)
    if not found.identities():
        found.close()
        return None
    return found


class Nvml:
    """DeviceSource over NVML."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._driver = self._text("nvmlSystemGetDriverVersion")
        self._devices: list[tuple[Identity, ctypes.c_void_p]] = []
        for index in range(self._number("nvmlDeviceGetCount_v2") or 0):
            handle = ctypes.c_void_p()
            if self._ask("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle)) == _OK:
                uuid, name = self._text("nvmlDeviceGetUUID", handle), self._text("nvmlDeviceGetName", handle)
                self._devices.append((Identity(uuid, name, index, self._driver), handle))
        self._events: ctypes.c_void_p | None = None
        self._listen()

    def identities(self) -> Sequence[Identity]:
        """Return the devices, in the driver's order."""
        return [device for device, _ in self._devices]

    def read(self, now: dt.datetime) -> Sequence[Reading]:
        """Read every device."""
        return [self._reading(device, handle, now) for device, handle in self._devices]

    def wait(self, seconds: float, now: dt.datetime) -> Sequence[XidEvent]:
        """Return errors as soon as there are any; without support for events, none after no time."""
        found: list[XidEvent] = []
        most, milliseconds = 64, int(seconds * 1000)
        while self._events is not None and len(found) < most:
            event = _Event()
            code = self._ask("nvmlEventSetWait_v2", self._events, ctypes.byref(event), ctypes.c_uint(milliseconds))
            if code != _OK:
                if code != _TIMEOUT and not found:  # a lost device ends waiting for good; readings say that it is lost
                    self._events = None
                break
            if event.type & _XID_EVENTS:
                uuid = self._text("nvmlDeviceGetUUID", ctypes.c_void_p(event.device))
                found.append(XidEvent(uuid or self._uuid_of(event.device), int(event.data), now))
            milliseconds = 0  # what else is there already
        return found

    @property
    def listens(self) -> bool:
        """Tell whether errors are told as they happen."""
        return self._events is not None

    def close(self) -> None:
        """Let the driver go."""
        if self._events is not None:
            self._ask("nvmlEventSetFree", self._events)
            self._events = None
        self._devices = []
        self._ask("nvmlShutdown")

    def _listen(self) -> None:
        events = ctypes.c_void_p()
        if not self._devices or self._ask("nvmlEventSetCreate", ctypes.byref(events)) != _OK:
            return
        kinds = ctypes.c_ulonglong(_XID_EVENTS)
        heard = [self._ask("nvmlDeviceRegisterEvents", handle, kinds, events) == _OK for _, handle in self._devices]
        if any(heard):
            self._events = events
        else:
            self._ask("nvmlEventSetFree", events)

    def _reading(self, device: Identity, handle: ctypes.c_void_p, now: dt.datetime) -> Reading:
        memory, busy = _Memory(), _Utilisation()
        code = self._ask("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory))
        if code in {_LOST, _RESET}:
            return Reading(device, now, lost=True)
        told = code == _OK
        is_busy = self._ask("nvmlDeviceGetUtilizationRates", handle, ctypes.byref(busy)) == _OK
        milliwatts = self._number("nvmlDeviceGetPowerUsage", handle)
        pending, failed, remapped = self._rows(handle)
        return Reading(
            device=device,
            at=now,
            memory_used_bytes=int(memory.used) if told else None,
            memory_total_bytes=int(memory.total) if told else None,
            temperature_celsius=self._number("nvmlDeviceGetTemperature", handle, ctypes.c_uint(0)),
            power_watts=None if milliwatts is None else milliwatts / 1000,
            utilisation_ratio=busy.gpu / 100 if is_busy else None,
            sm_clock_mhz=self._number("nvmlDeviceGetClockInfo", handle, ctypes.c_uint(_SM_CLOCK)),
            memory_clock_mhz=self._number("nvmlDeviceGetClockInfo", handle, ctypes.c_uint(_MEMORY_CLOCK)),
            slowed=self._slowed(handle),
            ecc=EccErrors(
                self._errors(handle, _CORRECTED, _SINCE_BOOT),
                self._errors(handle, _UNCORRECTED, _SINCE_BOOT),
                self._errors(handle, _CORRECTED, _EVER),
                self._errors(handle, _UNCORRECTED, _EVER),
            ),
            rows_pending=pending,
            rows_failed=failed,
            rows_remapped=remapped,
            processes=self._processes(handle),
        )

    def _slowed(self, handle: ctypes.c_void_p) -> frozenset[Slowdown]:
        bits = ctypes.c_ulonglong()
        if self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle, ctypes.byref(bits)) != _OK:
            return frozenset()
        return frozenset(reason for bit, reason in _REASONS.items() if bits.value & bit)

    def _errors(self, handle: ctypes.c_void_p, kind: int, since: int) -> int | None:
        count = ctypes.c_ulonglong()
        where = (handle, ctypes.c_uint(kind), ctypes.c_uint(since), ctypes.byref(count))
        return int(count.value) if self._ask("nvmlDeviceGetTotalEccErrors", *where) == _OK else None

    def _rows(self, handle: ctypes.c_void_p) -> tuple[bool | None, bool | None, int | None]:
        """Return whether rows wait to be replaced, whether that failed once, and how many were; older: pages."""
        corrected, uncorrected, pending, failed = (ctypes.c_uint() for _ in range(4))
        told = tuple(ctypes.byref(item) for item in (corrected, uncorrected, pending, failed))
        if self._ask("nvmlDeviceGetRemappedRows", handle, *told) == _OK:
            return bool(pending.value), bool(failed.value), int(corrected.value + uncorrected.value)
        pages = self._number("nvmlDeviceGetRetiredPagesPendingStatus", handle)
        return (None if pages is None else bool(pages)), None, None

    def _processes(self, handle: ctypes.c_void_p) -> dict[int, int]:
        count, room = ctypes.c_uint(MAX_PROCESSES), (_Process * MAX_PROCESSES)()
        if self._ask("nvmlDeviceGetComputeRunningProcesses_v3", handle, ctypes.byref(count), room) != _OK:
            return {}
        items = [room[place] for place in range(min(count.value, MAX_PROCESSES))]
        return {int(item.pid): int(item.used) for item in items if item.used != _NOT_TOLD}

    def _uuid_of(self, handle: int | None) -> str:
        return next((device.uuid for device, known in self._devices if known.value == handle), "")

    def _number(self, name: str, *where: Any) -> int | None:
        value = ctypes.c_uint()
        return int(value.value) if self._ask(name, *where, ctypes.byref(value)) == _OK else None

    def _text(self, name: str, *where: Any) -> str:
        room = ctypes.create_string_buffer(NAME_CHARS)
        return room.value.decode("ascii", "replace") if self._ask(name, *where, room, NAME_CHARS) == _OK else ""

    def _ask(self, name: str, *given: Any) -> int:
        """Call a function of the library; one that an old driver lacks is not found."""
        function = getattr(self._library, name, None)
        return _NOT_FOUND if function is None else int(function(*given))
