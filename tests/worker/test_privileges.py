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
from forestay.worker.hosts.confinement import FIRST_UID, SCRATCH
from forestay.worker.hosts.environment import build_environment
from forestay.worker.hosts.privileges import BUILDER_UIDS, FIRST_BUILDER_UID, reach_problem

LIMITS = LimitSpec(startup_timeout_seconds=30, termination_grace_seconds=3)
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a process another user")


def _public_interpreter(folder: pathlib.Path) -> str:
    """Make an interpreter that every user may run and that sees fal; skips where this machine has none."""
    system = shutil.which(f"python3.{sys.version_info.minor}", path="/usr/bin:/usr/local/bin")
    here = next(path for path in sys.path if path.endswith("site-packages"))
    if system is None or not all(parent.stat().st_mode & 0o001 for parent in pathlib.Path(here).parents):
        pytest.skip("no interpreter of this version that other users may run")
    if any(pathlib.Path(here).is_relative_to(covered) for covered in SCRATCH):
        pytest.skip("the packages lie where a model sees a folder of its own")
    subprocess.run([system, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    target = next((folder / "venv").glob("lib/python*/site-packages"))
    (target / "borrowed.pth").write_text(here + "\n")
    return str(folder / "venv" / "bin" / "python")


BACKEND = """
import base64, hashlib, os, subprocess, sys, zipfile

def _wheel(folder):
    status = open("/proc/self/status").read()
    try:
        kept = bool(open(os.environ.get("PEEK", "/etc/shadow"), "rb").read(1))
    except OSError:
        kept = False
    capabilities = status.partition("CapEff:\\t")[2].split()[0]
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True,
                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    name = "built_by-1.0-py3-none-any.whl"
    files = {
        "built_by.py": f"UID, GROUPS, CAPABILITIES, READS = {os.getuid()}, {os.getgroups()}, {capabilities!r}, {kept}",
        "built_by-1.0.dist-info/METADATA": "Metadata-Version: 2.1\\nName: built-by\\nVersion: 1.0\\n",
        "built_by-1.0.dist-info/WHEEL":
            "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        "built_by-1.0.dist-info/RECORD": "",
    }
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
    return name

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    return _wheel(wheel_directory)
"""
PROJECT = """[project]
name = "built-by"
version = "1.0"
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""


@pytest.mark.threat("AML.T0010")
@root_only
async def test_under_root_packages_are_built_by_a_user_of_their_own() -> None:
    """Their scripts have no rights, what they leave running ends with the build, and nobody may change the result."""
    with tempfile.TemporaryDirectory(prefix="fp-", dir="/tmp") as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        python = await asyncio.to_thread(_public_interpreter, folder)
        package, cache, secret = folder / "package", folder / "environments", folder / "secret"
        package.mkdir()
        (package / "backend.py").write_text(BACKEND)
        (package / "pyproject.toml").write_text(PROJECT)
        secret.write_text("value")
        secret.chmod(0o600)
        told: list[str] = []
        variables = {"PATH": "/usr/bin:/bin", "PEEK": str(secret)}
        made = await build_environment([f"built-by @ file://{package}"], python, cache, variables, told.append)
        code = "import built_by as b, json; print(json.dumps([b.UID, b.GROUPS, b.CAPABILITIES, b.READS, b.__file__]))"
        shown = await asyncio.to_thread(subprocess.check_output, [made, "-c", code], text=True)
        uid, groups, capabilities, reads, file = json.loads(shown)
        owners = {path.lstat().st_uid for path in pathlib.Path(file).parents[3].rglob("*")}
        running = [item for item in pathlib.Path("/proc").iterdir() if item.name.isdigit() and _runs_as(item, uid)]
    assert FIRST_BUILDER_UID <= uid < FIRST_BUILDER_UID + BUILDER_UIDS < FIRST_UID
    assert (groups, int(capabilities, 16), reads) == ([], 0, False)
    assert owners == {0}
    assert running == []
    assert f"packages are built by user {uid}" in told


def _runs_as(process: pathlib.Path, uid: int) -> bool:
    try:
        status = (process / "status").read_text()
    except OSError:
        return False
    return f"\nUid:\t{uid}\t" in status and "\nState:\tZ" not in status


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
async def test_an_interpreter_out_of_reach_is_told(tmp_path: pathlib.Path) -> None:
    """Where the interpreter lies in a private folder, the reason says what that user could not do."""
    tmp_path.chmod(0o700)
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    problem = await asyncio.to_thread(reach_problem, FIRST_UID, str(link), [])
    assert "cannot run" in problem
