"""The fal_app host with real children: what a model process gets, sees and leaves behind."""

# ruff: noqa: ASYNC240 - tests may touch the disk while they wait

import asyncio
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from tests.worker.harness import APP, spec_of, until

from forestay.chance import SystemChance
from forestay.clock import SystemClock
from forestay.fleet.spec import LimitSpec, ModelSpec
from forestay.ids import RevisionId, new_request_id
from forestay.settings import process_environment
from forestay.worker.hosts.confinement import SCRATCH
from forestay.worker.hosts.fal_app import FalAppHost, FalAppPlan, describe
from forestay.worker.hosts.host import Answered, CallRequest, Description, StartFailed

ROOT = pathlib.Path(__file__).parents[2]
LIMITS = LimitSpec(max_multiplexing=2, startup_timeout_seconds=30, termination_grace_seconds=3)


class NoMedia:
    """A door that nobody uses."""

    async def open(self, path: pathlib.Path, uid: int | None) -> None:
        """Nothing to open."""

    def admit(self, session_id: int) -> None:
        """Nobody to admit."""

    async def close(self) -> None:
        """Nothing to close."""


@asynccontextmanager
async def hosted(
    spec: ModelSpec,
    environment: dict[str, str] | None = None,
    app: str = APP,
    files: dict[str, str] | None = None,
    *,
    drills: bool = False,
    devices: tuple[str, ...] | None = None,
) -> AsyncGenerator[tuple[FalAppHost, Description, pathlib.Path, list[str]], None]:
    """Run the probe app; yields the host, its description, its folder and what it told."""
    with tempfile.TemporaryDirectory(prefix="fh-", dir="/tmp") as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        (folder / "bundle").mkdir()
        for file, text in {"app.py": app, **(files or {})}.items():
            (folder / "bundle" / file).write_text(text)
        (folder / "secrets").mkdir()
        (folder / "secrets" / "UPSTREAM_TOKEN").write_text("very secret\n")
        told: list[str] = []

        def on_log(request_id: str | None, level: str, message: str) -> None:
            del request_id, level
            told.append(message)

        plan = FalAppPlan(
            RevisionId("probe-1"),
            spec,
            folder / "bundle",
            folder / "run",
            folder / "envs",
            str(folder / "secrets"),
            environment or {},
            devices=devices,
            allow_unisolated=True,  # these tests are about the process itself; `test_isolation` is about its walls
            drills=drills,
        )
        host = FalAppHost(plan, NoMedia(), on_log, told.append)
        try:
            yield host, await host.start(), folder, told
        finally:
            await host.stop(3.0)
            assert not (folder / "run").exists()


async def ask(host: FalAppHost, **body: object) -> str:
    """Call the app and return its text."""
    request_id = new_request_id(SystemClock().now(), 0, SystemChance())
    headers = {"x-fal-request-id": str(request_id), "content-type": "application/json"}
    result = await host.call(CallRequest(request_id, 1, "/", headers, json.dumps(body).encode(), 10))
    assert isinstance(result, Answered), result
    return str(json.loads(result.body)["text"])


@pytest.mark.threat("AML.T0055")
async def test_the_environment_holds_what_is_declared_and_nothing_else() -> None:
    """Declared env and secrets are there; ours, the machine's and undeclared secrets are not."""
    spec = spec_of(limits=LIMITS, secrets=("UPSTREAM_TOKEN",), env={"STYLE": "plain"})
    ours = {"FORESTAY_DATABASE_URL": "postgresql://secret", "AWS_SECRET_ACCESS_KEY": "x", "TZ": "UTC"}
    async with hosted(spec, ours) as (host, _, folder, _):
        raw = await ask(host, do="environ")
        names = dict(entry.split("=", 1) for entry in raw.split("\0") if entry)
        later = json.loads(await ask(host, do="getenv"))
    assert (names["UPSTREAM_TOKEN"], names["STYLE"], names["TZ"]) == ("very secret", "plain", "UTC")
    assert names["OMP_NUM_THREADS"] == "1"
    assert names["HOME"].startswith(str(folder))
    expected = {
        *("PATH", "LANG", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONNOUSERSITE", "TZ", "HOME", "TMPDIR"),
        *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "IS_ISOLATE_AGENT", "FAL_RUNNER_STATE"),
        *("STYLE", "UPSTREAM_TOKEN", "USER", "LOGNAME"),
    }
    assert set(names) == expected
    assert not [name for name in later if name.startswith("FORESTAY")]
    assert later["FAL_RUNNER_STATE"] == "RUNNING"


async def test_a_replica_sees_the_devices_that_it_was_given_whatever_its_worker_or_its_spec_says() -> None:
    """By UUID, in CUDA's own variable; the processes that use them are those of the model."""
    spec = spec_of(limits=LIMITS, env={"CUDA_VISIBLE_DEVICES": "7"})
    async with hosted(spec, {"CUDA_VISIBLE_DEVICES": "0,1"}, devices=("GPU-a", "GPU-b")) as (host, _, _, _):
        raw = await ask(host, do="environ")
        assert host.processes()
    assert "CUDA_VISIBLE_DEVICES=GPU-a,GPU-b" in raw.split("\0")
    assert host.processes() == []


async def test_a_stop_calls_handle_exit_and_teardown() -> None:
    """SIGTERM: handle_exit at once, then teardown, then a clean end."""
    with tempfile.TemporaryDirectory() as name:
        marks = pathlib.Path(name) / "marks"
        pathlib.Path(name).chmod(0o777)  # the model is another user, and sees this folder because it is mounted
        spec = spec_of(limits=LIMITS, env={"MARKS": "seen/marks"}, data_mounts=(f"{name}:seen",))
        async with hosted(spec) as (host, _, _, _):
            await host.stop(3.0)
            ended = await host.exited()
        assert marks.read_text().split("\n")[:3] == ["setup SETUP", "handle_exit", "teardown"]
        assert ended.code == 0


async def test_a_model_that_will_not_stop_is_killed_after_the_grace() -> None:
    """A hanging request does not hold up the end for longer than the grace."""
    async with hosted(spec_of(limits=LIMITS)) as (host, _, _, _):
        hanging = asyncio.ensure_future(ask(host, do="hang"))  # noqa: TID251 - a call that never ends
        await asyncio.sleep(0.2)
        began = asyncio.get_running_loop().time()
        await host.stop(0.3)
        assert asyncio.get_running_loop().time() - began < 2
        assert (await host.exited()).code == -signal.SIGKILL
        with pytest.raises(AssertionError, match="Crashed"):
            await hanging


async def test_a_failing_setup_says_why() -> None:
    """The reason holds the app's own traceback, for its owner."""
    with pytest.raises(StartFailed, match="weights are missing"):
        async with hosted(spec_of(limits=LIMITS, env={"FAIL_SETUP": "1"})):
            pass


async def test_a_broken_module_says_why() -> None:
    """A module that does not load is a failed start with the error in it."""
    with pytest.raises(StartFailed, match="No module named 'nothing_of_that_name'"):
        async with hosted(spec_of(limits=LIMITS), app="import nothing_of_that_name"):
            pass


async def test_a_process_that_ends_before_it_is_ready_says_how() -> None:
    """An exit in the module is told with its last words."""
    with pytest.raises(StartFailed, match=r"(?s)ended with exit code 3.*last words"):
        async with hosted(spec_of(limits=LIMITS), app="import os\nos.write(2, b'last words\\n')\nos._exit(3)"):
            pass


async def test_an_undeclared_secret_file_fails_the_start() -> None:
    """A secret that this worker does not hold is named, with what to do."""
    with pytest.raises(StartFailed, match="secret OTHER cannot be read"):
        async with hosted(spec_of(limits=LIMITS, secrets=("OTHER",))):
            pass


async def test_data_mounts_are_folders_in_the_working_folder() -> None:
    """A mounted folder and the bundle's files are seen from the app's working folder."""
    with tempfile.TemporaryDirectory() as mounted:
        async with hosted(spec_of(limits=LIMITS, data_mounts=(f"{mounted}:weights",))) as (host, _, _, _):
            assert (await ask(host, do="cwd")).split() == ["app.py", "weights"]


async def test_a_mount_that_is_no_folder_fails_the_start() -> None:
    """The error names the mount."""
    with pytest.raises(StartFailed, match="is no folder of this machine"):
        async with hosted(spec_of(limits=LIMITS, data_mounts=("/nowhere/at/all:weights",))):
            pass


async def test_another_interpreter_needs_no_forestay() -> None:
    """The shim runs under an interpreter that sees fal but not this package."""
    with tempfile.TemporaryDirectory() as name:
        python = await asyncio.to_thread(_interpreter_without_forestay, pathlib.Path(name))
        app = APP + _LOOK_FOR_FORESTAY
        async with hosted(spec_of(limits=LIMITS, python=python), app=app) as (host, _, _, _):
            assert json.loads(await ask(host, do="getenv"))["SEEN"] == "no"


async def test_the_child_dies_with_its_worker() -> None:
    """Kill -9 of the worker leaves no model process behind."""
    with tempfile.TemporaryDirectory(prefix="fo-", dir="/tmp") as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)  # as bundles are
        (folder / "app.py").write_text(APP)
        parent = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _PARENT,
            str(folder),
            stdout=subprocess.PIPE,
            env={**process_environment(), "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])},
        )
        assert parent.stdout is not None
        child = int(await asyncio.wait_for(parent.stdout.readline(), 20))
        parent.kill()
        await parent.wait()
        await until(lambda: _gone(child), "the child is gone", 5)


def test_describe_reads_the_app_without_setting_it_up() -> None:
    """Openapi and host settings come from the class; setup() is not run."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "app.py").write_text(APP + "\nprint('noise on stdout')\n")
        described = describe(folder, "app.py::Probe", None)
        assert described.openapi is not None
        assert "/stream" in described.openapi["paths"]  # type: ignore[operator]
        assert described.settings["app_name"] == "probe"
        with pytest.raises(StartFailed, match="Missing"):
            describe(folder, "app.py::Missing", None)
        with pytest.raises(StartFailed, match="cannot be run"):
            describe(folder, "app.py::Probe", "/no/such/python")


def _interpreter_without_forestay(folder: pathlib.Path) -> str:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    here = next(path for path in sys.path if path.endswith("site-packages"))
    if any(pathlib.Path(here).is_relative_to(covered) for covered in SCRATCH):
        pytest.skip("the packages lie where a model sees a folder of its own")
    target = next((folder / "venv").glob("lib/python*/site-packages"))
    (target / "borrowed.pth").write_text(here + "\n")  # a plain line: that folder's own .pth files are not read
    return str(folder / "venv" / "bin" / "python")


async def _gone(pid: int) -> bool:
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


_LOOK_FOR_FORESTAY = """
try:
    import forestay
    os.environ["SEEN"] = "yes"
except ImportError:
    os.environ["SEEN"] = "no"
"""

_PARENT = """
import asyncio, pathlib, sys
from tests.worker.test_fal_app import NoMedia, LIMITS
from tests.worker.harness import spec_of
from forestay.settings import process_environment
from forestay.worker.hosts.fal_app import FalAppHost, FalAppPlan
async def main():
    folder = pathlib.Path(sys.argv[1])
    plan = FalAppPlan(
        "probe-1", spec_of(limits=LIMITS), folder, folder / "run", folder / "envs", "", {}, allow_unisolated=True
    )
    host = FalAppHost(plan, NoMedia(), lambda request_id, level, message: None, lambda _: None)
    await host.start()
    print(host._child.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
