"""Errors (Xid) that NVIDIA's driver notes of a device and that speak of the device itself, as data.

Meanings are NVIDIA's: "Xid Errors" (https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html) and, for
retired pages, "Dynamic Page Retirement" (https://docs.nvidia.com/deploy/dynamic-page-retirement/). Errors that a
program brings upon itself (13, 31, 43, 45: a bad kernel, a bad address, its end) are not here: they say nothing of the
device. Read by `device_health`.
"""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, slots=True)
class Xid:
    """What one error means. `unfit`: outputs may be wrong or none may come, so nothing more should run there."""

    meaning: str
    unfit: bool


XIDS: Mapping[int, Xid] = {
    46: Xid("the device stopped processing", unfit=True),
    48: Xid("double-bit ECC error: data in memory was lost", unfit=True),
    61: Xid("the device's own controller hit a breakpoint", unfit=True),
    62: Xid("the device's own controller halted", unfit=True),
    63: Xid("a row or page of memory was marked to be replaced at the next reset", unfit=False),
    64: Xid("a row or page of memory could not be replaced", unfit=True),
    74: Xid("error on an NVLink connection", unfit=True),
    79: Xid("the device has fallen off the bus", unfit=True),
    92: Xid("many single-bit ECC errors", unfit=False),
    94: Xid("uncorrectable ECC error, contained in one program", unfit=True),
    95: Xid("uncorrectable ECC error, not contained", unfit=True),
    119: Xid("the device's system processor did not answer in time", unfit=True),
    120: Xid("error of the device's system processor", unfit=True),
    140: Xid("ECC error that was not recovered from", unfit=True),
}


def label_of(xid: int) -> str:
    """Return an error's number as the label of a metric; those that are not known share one."""
    return str(xid) if xid in XIDS else "other"
