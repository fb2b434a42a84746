"""The walls around a model's process, tried from inside by a model that means harm. Real children; Linux only."""

# ruff: noqa: ASYNC240 - tests may touch the disk while they wait

import asyncio
import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.worker.harness import Harness, running_worker, spec_of, until

from forestay.fleet.model import ReplicaState, Revision
from forestay.fleet.spec import LimitSpec, ModelSpec, ResourceSpec
from forestay.ids import ModelId
from forestay.queue.model import Options, Outcome
from forestay.queue.store import Stored
from forestay.worker.hosts.confinement import FIRST_UID, PROGRAM, Machine, probe_machine, shortfall

MACHINE = probe_machine()
LIMITS = LimitSpec(startup_timeout_seconds=60, termination_grace_seconds=1)
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not MACHINE.network, reason="this machine has no network namespaces for us"),
]
as_root = pytest.mark.skipif(not (MACHINE.root and MACHINE.mounts), reason="only root gives a process another user")
SHARED = "/tmp/shared-by-models"  # noqa: S108 - that it is not shared is the point
HARM = """
import ctypes, json, os, pathlib, socket, subprocess, sys, time
import fal
from pydantic import BaseModel

class In(BaseModel):
    do: str = ""
    text: str = ""

class Out(BaseModel):
    text: str = ""

def tried(action):
    try:
        return action()
    except BaseException as error:
        return type(error).__name__ + ": " + str(error)

def connect(address):
    with socket.create_connection(address, timeout=2) as connection:
        return "connected"

def serve_and_connect():
    server = socket.create_server(("127.0.0.1", 0))
    return connect(server.getsockname())

def trace(pid):
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.ptrace(16, pid, 0, 0)
    return "attached" if done == 0 else os.strerror(ctypes.get_errno())

def bomb(most):
    pids = []
    try:
        while len(pids) < most:
            pid = os.fork()
            if pid == 0:
                time.sleep(30)
                os._exit(0)
            pids.append(pid)
    except OSError as error:
        return f"stopped after {len(pids)}"
    finally:
        for pid in pids:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
    return f"made {len(pids)}"

def leave_a_child():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(60)
        os._exit(0)
    return "left"

class Harm(fal.App, name="harm"):
    def setup(self):
        self.kept = []

    @fal.endpoint("/")
    def run(self, input: In) -> Out:
        ask = input.do
        if ask == "connect":
            host, port = input.text.split(":")
            return Out(text=tried(lambda: connect((host, int(port)))))
        if ask == "resolve":
            return Out(text=tried(lambda: str(socket.getaddrinfo(input.text, 80))))
        if ask == "loopback":
            return Out(text=tried(serve_and_connect))
        if ask == "read":
            return Out(text=tried(lambda: repr(open(input.text, "rb").read(20))))
        if ask == "list":
            return Out(text=tried(lambda: json.dumps(sorted(os.listdir(input.text)))))
        if ask == "processes":
            return Out(text=json.dumps(sorted(int(p) for p in os.listdir("/proc") if p.isdigit())))
        if ask == "trace":
            return Out(text=tried(lambda: trace(int(input.text))))
        if ask == "kill":
            return Out(text=tried(lambda: os.kill(int(input.text), 0) or "could"))
        if ask == "bomb":
            return Out(text=tried(lambda: bomb(int(input.text))))
        if ask == "leave":
            return Out(text=leave_a_child())
        if ask == "write":
            return Out(text=tried(lambda: pathlib.Path(input.text).write_text("x") and "wrote"))
        if ask == "mount":
            return Out(text=tried(lambda: str(ctypes.CDLL(None).mount(b"none", b"/tmp", b"tmpfs", 0, None))))
        if ask == "memory":
            while True:
                self.kept.append(bytearray(os.urandom(1) * (8 << 20)))
        if ask == "whoami":
            status = dict(l.split(":\\t", 1) for l in open("/proc/self/status") if ":\\t" in l)
            return Out(text=json.dumps([os.getuid(), status["CapEff"].strip(), status["CapBnd"].strip(),
                status["NoNewPrivs"].strip(), os.getgroups(), len(os.sched_getaffinity(0)), os.nice(0)]))
        return Out(text="?")
"""


def harmful(
    network: str = "none",
    model: str = "acme/probe",
    *,
    memory_mb: int = 1024,
    processes: int = 1024,
    cpus: int = 0,
) -> ModelSpec:
    """Return the spec of the model that means harm."""
    spec = spec_of(app="app.py::Harm", limits=LIMITS, network=network, model=ModelId(model))
    return dataclasses.replace(spec, resources=ResourceSpec(memory_mb=memory_mb, processes=processes, cpus=cpus))


async def started(harness: Harness, spec: ModelSpec) -> Revision:
    """Deploy it and wait until it is ready."""
    revision = await harness.deploy(spec, {"app.py": HARM})
    await harness.ready(revision)
    return revision


async def ask(harness: Harness, do: str, text: str = "", model: str = "acme/probe") -> str:
    """Let the model try something, and return what came of it."""
    request = await harness.submit({"do": do, "text": text}, model=ModelId(model))
    stored: Stored = await harness.result(request, 30)
    return str(json.loads(stored.answer.body)["text"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def walled() -> AsyncIterator[Harness]:
    """A worker with one replica that has no network, one core and few processes, for all tests that leave it whole."""
    async with running_worker(allow_unisolated=False) as harness:
        await started(harness, harmful(processes=64, cpus=1))
        yield harness


@pytest.mark.threat("AML.T0010", "AML.T0025")
async def test_a_model_reaches_no_network(walled: Harness) -> None:
    """Not the machine's loopback, not another address, no names; unix sockets to the worker go on working."""
    with socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]
        assert "unreachable" in await ask(walled, "connect", f"127.0.0.1:{port}")
        assert "unreachable" in await ask(walled, "connect", "192.0.2.1:80")
        assert "gaierror" in await ask(walled, "resolve", "example.com")
        assert "unreachable" in await ask(walled, "loopback")


async def test_loopback_is_a_loopback_of_its_own() -> None:
    """It reaches a server that it starts itself, and not one of the machine's."""
    with socket.create_server(("127.0.0.1", 0)) as ours:
        async with running_worker(allow_unisolated=False) as harness:
            await started(harness, harmful("loopback"))
            assert await ask(harness, "loopback") == "connected"
            assert "refused" in await ask(harness, "connect", f"127.0.0.1:{ours.getsockname()[1]}")


async def test_full_network_is_what_the_spec_asks_for() -> None:
    """Then the machine's own loopback is reached."""
    with socket.create_server(("127.0.0.1", 0)) as ours:
        async with running_worker(allow_unisolated=False) as harness:
            await started(harness, harmful("full"))
            assert await ask(harness, "connect", f"127.0.0.1:{ours.getsockname()[1]}") == "connected"


@pytest.mark.threat("AML.T0010", "AML.T0025")
@as_root
async def test_a_model_reads_nothing_of_ours(walled: Harness) -> None:
    """Not the worker's environment or memory, not its secrets, not what root keeps; it does not even see the worker."""
    secret = walled.folder / "secrets" / "TOKEN"
    secret.write_text("very secret")
    secret.chmod(0o644)  # even a careless mode does not open it
    uid, effective, bounding, no_new, groups, _, _ = json.loads(await ask(walled, "whoami"))
    assert uid >= FIRST_UID
    assert (int(effective, 16), int(bounding, 16), no_new, groups) == (0, 0, "1", [])
    for path in (f"/proc/{os.getpid()}/environ", f"/proc/{os.getpid()}/mem", str(secret), "/etc/shadow"):
        assert (await ask(walled, "read", path)).split(":")[0] in {"PermissionError", "FileNotFoundError"}, path
    assert os.getpid() not in json.loads(await ask(walled, "processes"))
    assert await ask(walled, "trace", str(os.getpid())) == "Operation not permitted"
    assert (await ask(walled, "kill", str(os.getpid()))).startswith("PermissionError")
    assert await ask(walled, "mount") == "-1"


@pytest.mark.threat("AML.T0010", "AML.T0025")
@as_root
async def test_a_model_reads_nothing_of_another_model(walled: Harness) -> None:
    """Neither its bundle nor its folder nor its sockets are there; its own bundle cannot be written."""
    other = await walled.deploy(harmful(model="acme/other"), {"app.py": HARM, "private.txt": "of another"})
    await walled.ready(other)
    bundles = walled.folder / "work" / "bundles"
    [theirs] = list(bundles.glob("*/private.txt"))
    assert (await ask(walled, "read", str(theirs))).startswith("FileNotFoundError")
    seen = json.loads(await ask(walled, "list", str(bundles)))
    assert len(seen) == 1
    assert seen != [theirs.parent.name]
    assert len(json.loads(await ask(walled, "list", str(_runs(walled))))) == 1
    assert (await ask(walled, "write", str(bundles / seen[0] / "app.py"))).split(":")[0] in {
        "PermissionError",
        "OSError",
    }
    assert await ask(walled, "write", SHARED) == "wrote"
    assert (await ask(walled, "read", SHARED, "acme/other")).startswith("FileNotFoundError")
    assert not pathlib.Path(SHARED).exists()


def _runs(harness: Harness) -> pathlib.Path:
    """Return the folder of all replicas' folders."""
    [folder] = [path for path in (harness.folder / "work" / "run").iterdir() if path.is_dir()]
    return folder


@pytest.mark.threat("API4:2023", "AML.T0029")
@as_root
async def test_a_fork_bomb_stops_at_its_limit(walled: Harness) -> None:
    """The kernel refuses more; the model goes on, and so does everybody else."""
    told = await ask(walled, "bomb", "500")
    assert told.startswith("stopped after ")
    assert int(told.rpartition(" ")[2]) <= 64
    assert await ask(walled, "whoami")


@pytest.mark.threat("API4:2023", "AML.T0029")
async def test_memory_beyond_the_limit_ends_the_model_with_its_own_cause() -> None:
    """A crash for lack of memory is told as such, and the next replica comes."""
    async with running_worker(allow_unisolated=False) as harness:
        revision = await started(harness, harmful(memory_mb=256))
        request_id = await harness.submit({"do": "memory"}, options=Options(no_retry=True))
        await harness.result(request_id, 60)
        assert [outcome for key, _, outcome in harness.queue.attempt_facts if key == request_id] == [Outcome.MEMORY]
        await harness.ready(revision)


@pytest.mark.threat("API4:2023", "AML.T0029")
@as_root
async def test_nothing_of_a_model_outlives_it() -> None:
    """A grandchild that has left its session dies with its replica."""
    async with running_worker(allow_unisolated=False) as harness:
        revision = await started(harness, harmful())
        uid = json.loads(await ask(harness, "whoami"))[0]
        assert await ask(harness, "leave") == "left"
        await harness.place(revision, 0)

        async def gone() -> bool:
            return not await asyncio.to_thread(_processes_of, uid)

        await until(gone, "no process of that user is left", 10)


def _processes_of(uid: int) -> list[str]:
    found: list[str] = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if path.stat().st_uid == uid and path.joinpath("stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(path.name)
        except OSError:
            continue
    return found


async def test_cores_and_niceness_are_those_of_the_spec(walled: Harness) -> None:
    """One core where one is asked for; always behind the platform's own processes."""
    told = json.loads(await ask(walled, "whoami"))
    assert (told[5], told[6] - os.nice(0)) == (1, 5)


@pytest.mark.threat("AML.T0010", "AML.T0025")
async def test_where_the_network_cannot_be_withheld_the_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason says what is missing and what to do; with the operator's waiver it starts."""
    less = dataclasses.replace(MACHINE, network=False, mounts=False)
    # A reason for the patch: the probe asks the kernel, and this one can do what another could not.
    monkeypatch.setattr("forestay.worker.hosts.confinement.probe_machine", lambda: less)
    async with running_worker(allow_unisolated=False) as harness:
        revision = await harness.deploy(harmful(), {"app.py": HARM})

        async def refused() -> bool:
            return bool(await harness.replicas(revision, ReplicaState.BACKOFF))

        await until(refused, "the start is refused", 20)
        told = (await harness.replicas(revision, ReplicaState.BACKOFF))[0].detail
        assert "cannot keep a process from the network" in told
        assert "FORESTAY_ALLOW_UNISOLATED" in told
    async with running_worker(allow_unisolated=True) as harness:
        await harness.ready(await harness.deploy(harmful(), {"app.py": HARM}))


@as_root
async def test_a_container_that_lacks_the_users_of_models_is_said_to_give_none() -> None:
    """Where only few users are mapped, no model is promised one of its own: it is refused in words, not by a crash."""
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-I", "-S", str(PROGRAM), "--probe"]
    done = await asyncio.to_thread(subprocess.run, [*command, str(FIRST_UID)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("this machine makes no user namespaces")
    machine = Machine(**json.loads(done.stdout))
    assert (machine.root, machine.mounts) == (True, False)
    assert "user" in shortfall(machine)
