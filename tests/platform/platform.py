"""A real `forestay up` on a folder of its own, for tests: started, looked at from outside, hurt, stopped.

Used by the platform, crash and acceptance tests and by the crash bench. It knows the command line and the ready file,
nothing of the platform's inside.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self, cast

from forestay.settings import process_environment
from forestay.storage.children import wait_until

_START_SECONDS = 90.0
_STOP_SECONDS = 60.0


class RunningPlatform:
    """`forestay up` as a child process; a context manager that leaves nothing behind.

    `arguments` go to `forestay up`; `environment` is added to a clean one. Without `data_dir` a short temporary folder
    is used and removed.
    """

    def __init__(
        self,
        *arguments: str,
        data_dir: pathlib.Path | None = None,
        environment: Mapping[str, str] | None = None,
        fleet: pathlib.Path | None = None,
    ) -> None:
        self._own_folder = data_dir is None
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="fs-up-")) if data_dir is None else data_dir
        self.folder.chmod(0o755)  # as root, Postgres and model processes run as other users
        self.data_dir = self.folder / "data"
        self.ready_file = self.folder / "ready.json"
        self.output = self.folder / "up.log"
        self._arguments = [*arguments, *(("--fleet", str(fleet)) if fleet else ())]
        own = {"HOME": str(self.folder), "FORESTAY_ALLOW_UNISOLATED": "true"}  # on machines without namespaces as well
        self._environment = {**_clean_environment(), **own, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def ready(self) -> dict[str, object]:
        """The ready file as it is now."""
        return json.loads(self.ready_file.read_text())

    @property
    def url(self) -> str:
        """Base URL of the plain listener."""
        return str(self.ready["url"])

    @property
    def api_key(self) -> str:
        """A key with the scope API."""
        return str(self.ready["api_key"])

    @property
    def admin_key(self) -> str:
        """A key with the scopes API and ADMIN."""
        return str(self.ready["admin_key"])

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name: supervisor, postgres, valkey, controller, worker-1, gateway-1, ..."""
        return cast("dict[str, int]", self.ready["pids"])

    @property
    def pid(self) -> int:
        """The process id of `forestay up`."""
        assert self._process is not None
        return self._process.pid

    def start(self, *, wait: bool = True) -> Self:
        """Start it (again, on the same folder) and wait for the ready file."""
        command = [sys.executable, "-P", "-m", "forestay", "up", "--data-dir", str(self.data_dir), "--port", "0"]
        command += ["--no-profile", "--ready-file", str(self.ready_file), *self._arguments]
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                command, env=self._environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.folder
            )
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Wait for the ready file; fails with what was printed when the platform ends instead."""
        assert self._process is not None
        process = self._process
        wait_until(lambda: self.ready_file.exists() or process.poll() is not None, _START_SECONDS)
        assert self.ready_file.exists(), f"forestay up did not become ready:\n{self.printed()}"

    def printed(self) -> str:
        """Everything that `forestay up` printed, with the end of each process's log."""
        logs = [f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in self._logs()]
        return "\n".join([self.output.read_text(errors="replace"), *logs])

    def kill(self, name: str) -> int:
        """`kill -9` one process by its name; returns the pid that it had."""
        pid = self.pids[name]
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_replaced(self, name: str, old_pid: int, timeout_seconds: float = 30.0) -> int:
        """Wait until the process `name` is up again under another pid, and return it."""
        assert wait_until(lambda: self._pid_of(name) not in (0, old_pid), timeout_seconds, 0.05), self.printed()
        return self._pid_of(name)

    def family(self) -> dict[int, str]:
        """Every living process below `forestay up`, itself included: pid -> command."""
        return family(self.pid)

    def kill_all_at_once(self) -> dict[int, str]:
        """`kill -9` of `forestay up` alone; returns the family that it had."""
        before = self.family()
        os.kill(self.pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait(timeout=10)
        return before

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to `forestay up`."""
        os.kill(self.pid, number)

    def wait_ended(self, timeout_seconds: float = _STOP_SECONDS) -> int:
        """Wait until `forestay up` has ended and return its status."""
        assert self._process is not None
        return self._process.wait(timeout=timeout_seconds)

    def stop(self) -> int:
        """Stop it in good order and return its status."""
        if self._process is None or self._process.poll() is not None:
            return 0 if self._process is None else int(self._process.returncode)
        self.signal(signal.SIGTERM)
        return self.wait_ended()

    def close(self) -> None:
        """Stop whatever runs, by force if it must be, and remove a folder of our own."""
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait_ended()
            if self._process.poll() is None:
                self.kill_all_at_once()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _pid_of(self, name: str) -> int:
        try:
            return self.pids.get(name, 0)
        except FileNotFoundError:
            return 0

    def _logs(self) -> list[pathlib.Path]:
        return sorted((self.data_dir / "logs").glob("*.log")) if self.data_dir.exists() else []


def run_cli(
    *arguments: str, environment: Mapping[str, str] | None = None, timeout_seconds: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run one `forestay` command to its end in a clean environment."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "forestay", *arguments],
        env={**_clean_environment(), **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )


def process_table() -> dict[int, tuple[int, str]]:
    """Every living process of this machine: pid -> (parent, command)."""
    found: dict[int, tuple[int, str]] = {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if state != "Z":
            found[int(entry.name)] = (int(parent), command)
    return found


def family(root: int) -> dict[int, str]:
    """The process `root` and all its living descendants: pid -> command."""
    table = process_table()
    members = {root} if root in table else set()
    grown = True
    while grown:
        more = {pid for pid, (parent, _) in table.items() if parent in members} - members
        grown = bool(more)
        members |= more
    return {pid: table[pid][1] for pid in members}


def survivors(before: Mapping[int, str]) -> dict[int, str]:
    """Those of `before` that still live as the same command."""
    table = process_table()
    return {pid: command for pid, command in before.items() if pid in table and table[pid][1] == command}


def wait_for(condition: Callable[[], bool], timeout_seconds: float = 20.0) -> bool:
    """Poll until the condition holds; False when the time is over first."""
    return wait_until(condition, timeout_seconds, 0.05)


def _clean_environment(
    keep: Sequence[str] = ("PATH", "PYTHONPATH", "TMPDIR", "LANG", "LD_LIBRARY_PATH"),
) -> dict[str, str]:
    return {name: value for name, value in process_environment().items() if name in keep}
