"""Runs one unmodified `fal.App` in a child process, and describes one without running it.

It decides nothing about requests or restarts. Called by `worker/replica.py` (through the Host port) and by
`forestay model deploy` (`describe`). Secrets reach the child's environment and nothing else; our own never do.
"""

import asyncio
import collections
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Protocol, cast

from forestay.fleet.spec import ModelSpec
from forestay.ids import RequestId, RevisionId
from forestay.worker.hosts import privileges
from forestay.worker.hosts.child import Child, Launch
from forestay.worker.hosts.confinement import (
    SCRATCH,
    Confinement,
    Machine,
    Places,
    Unconfinable,
    choose_cpus,
    decide_confinement,
    interpreter_folders,
    launcher,
    private_ancestors,
    probe_machine,
)
from forestay.worker.hosts.connection import ModelConnection
from forestay.worker.hosts.description import read_description
from forestay.worker.hosts.environment import build_environment
from forestay.worker.hosts.host import (
    Broken,
    CallRequest,
    CallResult,
    Crashed,
    Description,
    Exit,
    HealthCheck,
    ModelSocket,
    OnLog,
    Refused,
    StartFailed,
    Stream,
)
from forestay.worker.hosts.secret_files import read_secret
from forestay.worker.hosts.start_mends import with_mend

SHIM = pathlib.Path(__file__).with_name("shim.py")
BESIDE = ("probe.py", "data_uris.py")  # what the shim loads from its own folder
DRILLS = SHIM.parents[2] / "drills"  # of it, the files that run in a model's process:
DRILL_FILES = ("live.py", "faults.py", "files.py")
DESCRIBE_SECONDS = 120.0
EXIT_SECONDS = 1.0  # how long after a broken connection the end of the process may still be seen
KILL_SECONDS = 5.0
CANCEL_SECONDS = 5.0
TAIL_LINES = 40
# What a model process may inherit from the worker's own environment; everything else stays out.
INHERITED = frozenset({"LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "TZ", "SSL_CERT_FILE"})


class MediaDoor(Protocol):
    """Takes files from the model's process and nobody else."""

    async def open(self, path: pathlib.Path, uid: int | None) -> None:
        """Listen on a unix socket that only `uid` may use."""
        ...

    def admit(self, session_id: int) -> None:
        """Accept peers of this process session only."""
        ...

    async def close(self) -> None:
        """Stop listening."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class FalAppPlan:
    """Everything needed to run one replica of a fal.App."""

    revision_id: RevisionId
    spec: ModelSpec
    bundle: pathlib.Path  # unpacked, read-only
    run_dir: pathlib.Path  # private to this replica; short, since it holds sockets
    environments: pathlib.Path  # cache of built environments
    secrets_dir: str
    environment: Mapping[str, str]  # the worker's own: only INHERITED names pass, pip sees PIP_* and proxies too
    machine: Machine | None = None  # None: it is probed at the start
    hidden: tuple[pathlib.Path, ...] = ()  # folders of others that the model shall not see
    allow_unisolated: bool = False
    drills: bool = False  # the operator allows that faults are put in on purpose
    devices: tuple[str, ...] | None = None  # UUIDs of the GPUs that it gets; None: whatever the worker sees


class FalAppHost:
    """Host adapter: a child process that serves the app on a unix socket."""

    def __init__(self, plan: FalAppPlan, media: MediaDoor, on_log: OnLog, tell: Callable[[str], None]) -> None:
        self._plan = plan
        self._media = media
        self._on_log = on_log
        self._tell = tell
        self._child: Child | None = None
        self._connection = ModelConnection("http://model", socket_path=str(self._folder / "app.sock"))
        self._answered: asyncio.Future[Mapping[str, object]] = asyncio.get_running_loop().create_future()
        self._tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self._drilled: Mapping[str, str] = {}

    @property
    def _folder(self) -> pathlib.Path:
        return self._plan.run_dir / "model"

    async def start(self) -> Description:
        """Prepare the folders, start the child, wait for its `ready`."""
        spec = self._plan.spec
        python = await self._interpreter()
        shim = self._plan.run_dir / "shim.py"
        await asyncio.to_thread(self._prepare, shim)
        confinement = await self._confine(python, shim)
        uid = confinement.uid
        self._tell(confinement.reason)
        privileges.own([path for path in (self._folder, *self._folder.iterdir()) if path.is_dir()], uid)
        media_socket = self._plan.run_dir / "media.sock"
        await self._media.open(media_socket, uid)
        command = [python, str(shim), "--app", spec.host.app, "--root", str(self._plan.bundle)]
        command += ["--socket", str(self._folder / "app.sock"), "--media", str(media_socket)]
        command += ["--drills", str(shim.with_name("drills"))] if self._plan.drills else []
        launch = Launch(
            command=command,
            cwd=self._folder / "work",
            environment=self._environment(python),
            uid=uid,
            memory_bytes=spec.resources.memory_mb * 1024 * 1024,
            processes=spec.resources.processes,
            prefix=self._prefix(confinement),
        )
        self._child = Child(launch, self._on_control, self._on_output, self._on_end)
        try:
            await self._child.start()
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise StartFailed(f"the interpreter {python} cannot be started: {error}") from None
        self._media.admit(self._child.pid)
        return read_description(await self._first_answer(self._child), spec.limits.max_multiplexing)

    def drill(self, faults: Sequence[str]) -> None:
        """Have these faults in force and no others; without the operator's leave nobody there obeys."""
        if self._child is not None:
            self._child.tell(json.dumps({"drills": list(faults)}).encode())

    def drilled(self) -> Mapping[str, str]:
        """Return what the model's process said last of its faults."""
        return self._drilled

    async def call(self, request: CallRequest) -> CallResult:
        """Run one call; when the connection breaks, tell a dead process from a broken answer."""
        return await self._explain(await self._connection.call(request))

    @asynccontextmanager
    async def stream(self, request: CallRequest) -> AsyncGenerator[Stream | CallResult, None]:
        """Run one call, handing on the answer as it arrives."""
        async with self._connection.stream(request) as opened:
            yield opened if isinstance(opened, Stream) else await self._explain(opened)

    @asynccontextmanager
    async def websocket(self, path: str, headers: Mapping[str, str]) -> AsyncGenerator[ModelSocket | None, None]:
        """Open a websocket to the app."""
        async with self._connection.websocket(path, headers) as opened:
            yield opened

    async def cancel(self, request_id: RequestId, endpoint: str) -> None:
        """POST `{endpoint}/cancel` with the same request id; an app without that endpoint answers 404 and goes on."""
        headers = {"x-fal-request-id": str(request_id), "x-fal-endpoint": endpoint}
        path = endpoint.rstrip("/") + "/cancel"
        await self._connection.status_of("POST", path, headers=headers, timeout_seconds=CANCEL_SECONDS)

    async def healthy(self, check: HealthCheck | None) -> bool:
        """Process alive, and its own check answers 2xx; an app without one must answer /health at all."""
        if self._child is None or not self._child.alive:
            return False
        asked = check or HealthCheck("/health", method="GET")
        status = await self._connection.status_of(
            asked.method, asked.path, headers={"x-fal-endpoint": asked.path}, timeout_seconds=asked.timeout_seconds
        )
        return status is not None and (200 <= status < 300 if check else status < 500)

    def processes(self) -> list[int]:
        """Return the ids of the processes that run the model now."""
        return self._child.processes() if self._child is not None and self._child.alive else []

    async def exited(self) -> Exit:
        """Return once the process has ended."""
        if self._child is None:
            return Exit(0)
        return await self._child.exited()

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM, then SIGKILL of the whole group after the grace; removes the replica's folder."""
        child = self._child
        try:
            if child is not None and child.alive:
                child.signal(signal.SIGTERM)
                with suppress(TimeoutError):
                    async with asyncio.timeout(grace_seconds):
                        await child.exited()
        finally:
            if child is not None:
                child.kill()
                with suppress(TimeoutError):  # an unkillable process (device wait) must not hold the worker
                    async with asyncio.timeout(KILL_SECONDS):
                        await child.exited()
                child.close()
            await self._connection.close()
            await self._media.close()
            await asyncio.to_thread(shutil.rmtree, self._plan.run_dir, ignore_errors=True)

    async def _interpreter(self) -> str:
        host = self._plan.spec.host
        python = host.python or sys.executable
        if not host.requirements:
            return python
        kept = {
            name: value
            for name, value in self._plan.environment.items()
            if name.startswith("PIP_") or name.lower().endswith("_proxy") or name in {"HOME", "SSL_CERT_FILE"}
        }
        variables = {**base_environment(python), **kept}
        return await build_environment(host.requirements, python, self._plan.environments, variables, self._tell)

    async def _confine(self, python: str, shim: pathlib.Path) -> Confinement:
        """Decide how this replica is confined; StartFailed when it must not start here."""
        plan = self._plan
        machine = plan.machine or await asyncio.to_thread(probe_machine)
        places = await asyncio.to_thread(self._places, python)
        name = f"{plan.revision_id}/{plan.run_dir.name}"
        decided = decide_confinement(machine, plan.spec, name, places, allow_unisolated=plan.allow_unisolated)
        if isinstance(decided, Unconfinable):
            raise StartFailed(decided.reason)
        if decided.uid is None or decided.mounts:
            return decided
        # Nothing but a try tells what another user can reach where we cannot show it the way.
        readable = [shim, plan.bundle, *map(pathlib.Path, _mounted_folders(plan.spec))]
        problem = await asyncio.to_thread(privileges.reach_problem, decided.uid, python, readable)
        if problem and not plan.allow_unisolated:
            mend = "put the interpreter where every user may run it, or set FORESTAY_ALLOW_UNISOLATED=true"
            raise StartFailed(f"the model cannot have a user of its own: user {decided.uid} {problem}; {mend}")
        reason = f"the worker's user, without its capabilities: user {decided.uid} {problem}; waived by the operator"
        return dataclasses.replace(decided, uid=None, reason=reason) if problem else decided

    def _places(self, python: str) -> Places:
        plan = self._plan
        base = plan.spec.host.python or sys.executable
        needed = [*interpreter_folders(python), *interpreter_folders(base), plan.bundle]
        mounts = [pathlib.Path(folder) for folder in _mounted_folders(plan.spec)]
        own = [plan.run_dir, *(folder.resolve() for folder in mounts if folder.is_dir())]
        return Places(
            needed=tuple(path for path in needed if path.exists()),
            own=tuple(own),
            hidden=tuple(path for path in plan.hidden if path.is_dir()),
            private=private_ancestors([*needed, *own]),
            scratch=tuple(pathlib.Path(path) for path in SCRATCH if os.path.isdir(path)),  # noqa: PTH112 - texts
        )

    def _prefix(self, confinement: Confinement) -> Callable[[int, int], list[str]] | None:
        if not sys.platform.startswith("linux"):
            return None
        available = sorted(os.sched_getaffinity(0))
        cpus = choose_cpus(self._plan.spec.resources.cpus, available, confinement.uid or os.getpid())
        return launcher(confinement, self._folder / "work", cpus)

    def _prepare(self, shim: pathlib.Path) -> None:
        shutil.rmtree(self._plan.run_dir, ignore_errors=True)
        self._plan.run_dir.mkdir(parents=True, mode=0o711)
        self._folder.mkdir(mode=0o700)
        for name in ("home", "tmp", "work"):
            (self._folder / name).mkdir(mode=0o700)
        ours = [(SHIM, shim), *((SHIM.with_name(name), shim.with_name(name)) for name in BESIDE)]
        if self._plan.drills:
            shim.with_name("drills").mkdir()
            shim.with_name("drills").chmod(0o755)
            ours += [(DRILLS / name, shim.with_name("drills") / name) for name in DRILL_FILES]
        for source, target in ours:
            shutil.copyfile(source, target)
            target.chmod(0o644)
        work = self._folder / "work"
        for entry in self._plan.bundle.iterdir():
            (work / entry.name).symlink_to(entry)
        for mount in self._plan.spec.host.data_mounts:
            _mount(mount, work)

    def _environment(self, python: str) -> dict[str, str]:
        spec, plan = self._plan.spec, self._plan
        threads = str(max(1, spec.resources.devices))
        on_cpu = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        return {
            **base_environment(python),
            **{name: value for name, value in plan.environment.items() if name in INHERITED},
            **(on_cpu if spec.resources.pool.startswith("cpu") else {}),
            "HOME": str(self._folder / "home"),
            # Its user has no entry in any list of users: torch and others that ask for the name find it here.
            **dict.fromkeys(("USER", "LOGNAME"), "model"),
            "TMPDIR": str(self._folder / "tmp"),
            "IS_ISOLATE_AGENT": "1",
            "FAL_RUNNER_STATE": "SETUP",
            **spec.host.env,
            **{name: read_secret(plan.secrets_dir, name) for name in spec.host.secrets},
            **({} if plan.devices is None else {"CUDA_VISIBLE_DEVICES": ",".join(plan.devices)}),
        }

    async def _first_answer(self, child: Child) -> Mapping[str, object]:
        answer = await self._answered
        if answer.get("event") == "ended":
            tail = "\n".join(self._tail)
            reason = f"the process {await child.exited()} before it was ready\n{tail}".strip()
            raise StartFailed(with_mend(reason, self._plan.spec.host))
        if answer.get("event") != "ready":
            reason = str(answer.get("reason", "setup() failed")).strip()[-4000:]
            raise StartFailed(with_mend(reason, self._plan.spec.host))
        return answer

    async def _explain(self, result: CallResult) -> CallResult:
        if not isinstance(result, Broken | Refused) or self._child is None:
            return result
        try:
            async with asyncio.timeout(EXIT_SECONDS):
                ended = await self._child.exited()
        except TimeoutError:
            return result
        return Crashed(f"the model's process {ended}", ended.memory)

    def _on_end(self) -> None:
        if not self._answered.done():
            self._answered.set_result({"event": "ended"})

    def _on_control(self, line: bytes) -> None:
        """Read one line of the shim; what is not one of ours is the model's mischief and counts as output."""
        try:
            message: object = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            self._on_output("STDOUT", line)
            return
        values = cast("dict[str, object]", message)
        match values.get("event"):
            case "ready" | "failed":
                if not self._answered.done():
                    self._answered.set_result(values)
            case "drills":
                said = values.get("said")
                kept = cast("dict[object, object]", said if isinstance(said, dict) else {})
                self._drilled = {str(name)[:100]: str(words)[:300] for name, words in list(kept.items())[:100]}
            case "log":
                request, text = values.get("request"), str(values.get("message", ""))
                self._tail.append(text)
                self._on_log(request if isinstance(request, str) else None, str(values.get("level", "STDOUT")), text)
            case _:
                self._on_output("STDOUT", line)

    def _on_output(self, name: str, line: bytes) -> None:
        text = line.decode("utf-8", errors="backslashreplace")
        self._tail.append(text)
        self._on_log(None, name, text)


def _mounted_folders(spec: ModelSpec) -> list[str]:
    return [mount.rpartition(":")[0] for mount in spec.host.data_mounts]


def _mount(mount: str, work: pathlib.Path) -> None:
    """Show a folder of the machine to the model: by a link in its working folder, or at an absolute path."""
    source_text, _, seen = mount.rpartition(":")
    source, target = pathlib.Path(source_text), work / seen
    if not source_text or not source.is_dir():
        raise StartFailed(f"data mount {mount!r}: {source_text!r} is no folder of this machine (host_folder:path)")
    if not target.is_relative_to(work) and (target.is_symlink() or target.exists()):
        if target.resolve() != source.resolve():
            raise StartFailed(f"data mount {mount!r}: {seen} exists already and is something else")
        return
    if ".." in pathlib.PurePath(seen).parts:
        raise StartFailed(f"data mount {mount!r}: the path seen by the model may not contain '..'")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source.resolve())
    except OSError as error:
        raise StartFailed(f"data mount {mount!r}: {seen} cannot be made: {error.strerror}") from None


def describe(
    folder: pathlib.Path, app: str, python: str | None, *, timeout_seconds: float = DESCRIBE_SECONDS
) -> Description:
    """Load `app` ("file.py::Class", relative to `folder`) under `python` and read its openapi and host settings.

    setup() is not run and no model is loaded. Blocks; raises StartFailed with the tail of what the app printed.
    """
    command = [python or sys.executable, str(SHIM), "--describe", app, "--root", str(folder.resolve())]
    try:
        done = subprocess.run(  # noqa: PLW1510 - the exit code is read below
            command, cwd=folder, env=base_environment(command[0]), capture_output=True, timeout=timeout_seconds
        )
    except subprocess.TimeoutExpired:
        raise StartFailed(f"{app} did not load within {timeout_seconds:.0f} s") from None
    except OSError as error:
        raise StartFailed(f"the interpreter {command[0]} cannot be run: {error}") from None
    if done.returncode != 0:
        raise StartFailed(f"{app} cannot be loaded:\n{done.stderr.decode(errors='replace')[-4000:].strip()}")
    message = cast("Mapping[str, object]", json.loads(done.stdout))
    settings = message.get("settings")
    slots = cast("Mapping[str, object]", settings).get("max_multiplexing") if isinstance(settings, dict) else None
    return read_description(message, slots if isinstance(slots, int) else 1)


def base_environment(python: str) -> dict[str, str]:
    """Return the environment that every model process gets: nothing of ours, nothing of the machine's secrets."""
    return {
        "PATH": f"{pathlib.Path(python).parent}:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
    }
