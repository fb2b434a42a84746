"""Which rights a model process has: none but its own folders'."""

# ruff: noqa: ASYNC240 - tests may touch the disk while they wait

import asyncio
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest
from tests.worker.harness import APP, running_worker, spec_of

from forestay.fleet.spec import LimitSpec
from forestay.queue.model import State
from forestay.worker.hosts.privileges import FIRST_UID, choose_identity

LIMITS = LimitSpec(startup_timeout_seconds=30, termination_grace_seconds=3)
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a process another user")


def _public_interpreter(folder: pathlib.Path) -> str:
    """Make an interpreter that every user may run and that sees fal; skips where this machine has none."""
    system = shutil.which(f"python3.{sys.version_info.minor}", path="/usr/bin:/usr/local/bin")
    here = next(path for path in sys.path if path.endswith("site-packages"))
    if system is None or not all(parent.stat().st_mode & 0o001 for parent in pathlib.Path(here).parents):
        pytest.skip("no interpreter of this version that other users may run")
    subprocess.run([system, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    target = next((folder / "venv").glob("lib/python*/site-packages"))
    (target / "borrowed.pth").write_text(here + "\n")
    return str(folder / "venv" / "bin" / "python")


@pytest.mark.threat("AML.T0010")
@root_only
async def test_under_root_a_model_gets_a_user_of_its_own() -> None:
    """Another uid, no groups, no capabilities; neither the worker's environment nor its secrets can be read."""
    with tempfile.TemporaryDirectory(prefix="fp-", dir="/tmp") as name:
        pathlib.Path(name).chmod(0o755)
        python = await asyncio.to_thread(_public_interpreter, pathlib.Path(name))
        async with running_worker() as harness:
            secret = harness.folder / "secrets" / "TOKEN"
            secret.write_text("value")
            secret.chmod(0o600)
            revision = await harness.deploy(spec_of(limits=LIMITS, python=python), {"app.py": APP})
            await harness.ready(revision)
            seen = json.loads(
                json.loads((await harness.run({"do": "whoami", "text": str(secret)})).answer.body)["text"]
            )
            file = await harness.run({"do": "file"})
    assert seen["uid"] >= FIRST_UID
    assert seen["groups"] == []
    assert int(seen["capabilities"], 16) == 0
    assert seen["no_new_privs"] == "1"
    assert (seen["reads_worker"], seen["reads_secrets"]) == (False, False)
    assert file.snapshot.state is State.SUCCEEDED


@root_only
async def test_an_interpreter_out_of_reach_keeps_the_user_but_no_capability() -> None:
    """Where the interpreter lies in a private folder the reason is told, and capabilities are dropped all the same."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o700)
        link = folder / "python"
        link.symlink_to(sys.executable)
        identity = await choose_identity("probe-1", str(link), [])
    assert identity.uid is None
    assert "keeps the worker's user" in identity.reason


async def test_without_root_the_reason_is_told() -> None:
    """Nothing is promised that does not hold."""
    if os.geteuid() == 0:
        pytest.skip("this is root")
    identity = await choose_identity("probe-1", sys.executable, [])
    assert identity.uid is None
    assert "no security boundary" in identity.reason
