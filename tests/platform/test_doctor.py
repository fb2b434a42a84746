"""What `forestay doctor` finds wrong with a machine, and what it says to do."""

import collections
import datetime as dt
import pathlib
import shutil

import pytest

from forestay import doctor
from forestay.chance import SystemChance
from forestay.clock import Clock, SystemClock
from forestay.data_dir import DataDir
from forestay.doctor import Finding, Health, Patient
from forestay.settings import Gateway, Settings
from forestay.tls import ensure_tls

Usage = collections.namedtuple("Usage", "total used free")  # noqa: PYI024 - as shutil returns it


async def examined(check: str, patient: Patient | None = None) -> Finding:
    """Return what one check finds."""
    [chosen] = [one for one in doctor.CHECKS if one.__name__ == f"_{check}"]
    return await chosen(patient or Patient(Settings(), None, SystemClock(), SystemChance()))


@pytest.mark.parametrize(
    ("check", "free_mib", "health", "words"),
    [
        ("disk", 500, Health.FAILURE, "--data-dir"),
        ("disk", 3_000, Health.WARNING, "--data-dir"),
        ("disk", 9_000, Health.OK, ""),
        ("shared_memory", 64, Health.WARNING, "--shm-size"),
        ("shared_memory", 1_024, Health.OK, ""),
    ],
)
async def test_too_little_room_is_told_with_the_way_to_more(
    monkeypatch: pytest.MonkeyPatch, check: str, free_mib: int, health: Health, words: str
) -> None:
    """On the disk, and in the memory that processes share."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**40, 0, free_mib * 2**20))
    found = await examined(check)
    assert found.health is health
    assert words in found.mend


async def test_few_open_files_are_told_with_the_command_that_allows_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection takes one."""
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, 256))
    found = await examined("open_files")
    assert (found.health, "ulimit -n 4096" in found.mend) == (Health.WARNING, True)


class Later(Clock):
    """The system's clock, some days ahead."""

    def __init__(self, days: float) -> None:
        self._ahead = dt.timedelta(days=days)

    def now(self) -> dt.datetime:
        """Return a moment to come."""
        return SystemClock().now() + self._ahead

    def monotonic(self) -> float:
        """Return what the system's clock says."""
        return SystemClock().monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await SystemClock().sleep(seconds)


async def test_certificates_that_end_or_that_others_may_read_are_told(tmp_path: pathlib.Path) -> None:
    """Fine while they are new; a warning in the last month, a failure when they are over or readable by others."""
    folder = DataDir(tmp_path / "data")
    folder.prepare()
    files = ensure_tls(folder.tls, SystemClock().now(), ("127.0.0.1",))
    left = (files.expires_at - SystemClock().now()).days

    async def after(days: float) -> Finding:
        return await examined("tls", Patient(Settings(gateway=Gateway()), folder, Later(days), SystemChance()))

    assert (await after(0)).health is Health.OK
    assert (await after(left - 10)).health is Health.WARNING
    over = await after(left + 2)
    assert (over.health, "restart" in over.mend) == (Health.FAILURE, True)
    files.key.chmod(0o644)
    loose = await after(0)
    assert (loose.health, "chmod 600" in loose.mend) == (Health.FAILURE, True)
