"""What `forestay doctor` says of the user that model code runs under."""

import os
import pathlib
import shutil
import sys

import pytest

from forestay.chance import SystemChance
from forestay.clock import SystemClock
from forestay.doctor import Finding, Health, Patient, examine
from forestay.settings import Settings

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a process another user")


async def privileges_of() -> Finding:
    """Examine this machine, and return the one finding."""
    found = await examine(Patient(Settings(), None, SystemClock(), SystemChance()))
    return next(item for item in found if item.check == "privileges")


@root_only
async def test_an_interpreter_that_others_may_not_run_is_told(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root alone separates nothing: packages would be built by the worker's user, and the mend says what to do."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    (private / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(private / "python"))
    finding = await privileges_of()
    assert finding.health is Health.WARNING
    assert "packages are built by our user" in finding.found
    assert "/root" in finding.mend


@root_only
async def test_an_interpreter_that_everyone_may_run_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then models and packages have users of their own."""
    system = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if system is None:
        pytest.skip("no interpreter that other users may run")
    monkeypatch.setattr(sys, "executable", system)
    assert (await privileges_of()).health is Health.OK
