"""The platform under demonstration: started as anyone would, looked at from outside, one of its workers killed.

It knows `forestay up` by its command line and its ready file, and the operating system's table of processes; nothing of
the platform's inside. `stage` starts and stops it, `calling` kills in it.
"""

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from forestay.clock import Clock
from forestay.errors import Unavailable

_START_SECONDS = 90.0
_STOP_SECONDS = 40.0
_LOOK_SECONDS = 0.1
_TAIL_LINES = 5
_PS_SECONDS = 10.0


@dataclasses.dataclass(frozen=True, slots=True)
class Ready:
    """What the ready file says."""

    url: str
    tls_url: str
    ca_file: str
    api_key: str
    admin_key: str
    proxy_url: str
    metrics_url: str
    object_store: str


@dataclasses.dataclass(frozen=True, slots=True)
class Process:
    """One row of the table of processes."""

    pid: int
    parent: int
    command: str


class Platform:
    """`forestay up` as a child process."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._child: asyncio.subprocess.Process | None = None
        self.log_file = folder / "up.log"

    async def start(self, fleet: Path, workers: int, environment: Mapping[str, str]) -> Ready:
        """Start it and wait for its ready file; Unavailable carries the last lines of its output."""
        ready_file = self._folder / "ready.json"
        command = [sys.executable, "-m", "forestay", "up", "--data-dir", str(self._folder / "data")]
        command += [
            "--port",
            "0",
            "--fleet",
            str(fleet),
            "--workers",
            str(workers),
            "--ready-file",
            str(ready_file),
            "--no-profile",
        ]
        with self.log_file.open("wb") as log:
            self._child = await asyncio.create_subprocess_exec(
                *command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = self._clock.monotonic() + _START_SECONDS
        while not ready_file.exists():
            if self._child.returncode is not None:
                raise Unavailable(f"forestay up ended with status {self._child.returncode}: {self.last_words()}")
            if self._clock.monotonic() > deadline:
                raise Unavailable(f"forestay up was not ready within {_START_SECONDS:.0f} s: {self.last_words()}")
            await self._clock.sleep(_LOOK_SECONDS)
        return read_ready(ready_file)

    async def stop(self) -> tuple[int, list[Process]]:
        """Stop it in good order; returns how many processes there were and those that stayed behind."""
        child = self._child
        if child is None:
            return 0, []
        before = self.processes()
        if child.returncode is None:
            child.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(child.wait(), _STOP_SECONDS)
        except TimeoutError:
            child.kill()
            await child.wait()
        left = {(process.pid, process.command) for process in process_table()}
        return len(before), [process for process in before if (process.pid, process.command) in left]

    def processes(self) -> list[Process]:
        """Return the process of `up` and all below it."""
        return [] if self._child is None else family(process_table(), self._child.pid)

    def worker_running(self, app: str) -> Process | None:
        """Return the worker below which a model process of `app` (its class's name) runs, None while there is none."""
        everything = self.processes()
        for process in everything:
            if " worker" not in process.command or "forestay" not in process.command:
                continue
            below = family(everything, process.pid)
            if any(f"::{app}" in child.command for child in below if child.pid != process.pid):
                return process
        return None

    def judge_running(self) -> Process | None:
        """Return the judge's process, None while there is none."""
        judges = (one for one in self.processes() if "forestay" in one.command and one.command.endswith(" judge"))
        return next(judges, None)

    def last_words(self) -> str:
        """Return the end of what it printed."""
        lines = self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()
        return " | ".join(lines[-_TAIL_LINES:])


def read_ready(path: Path) -> Ready:
    """Read the ready file."""
    said = cast("dict[str, str]", json.loads(path.read_text(encoding="utf-8")))
    return Ready(
        url=said["url"].rstrip("/"),
        tls_url=said["tls_url"].rstrip("/"),
        ca_file=said["ca_file"],
        api_key=said["api_key"],
        admin_key=said["admin_key"],
        proxy_url=said.get("proxy_url", ""),
        metrics_url=said["metrics_url"],
        object_store=said["object_store"],
    )


def kill(process: Process) -> None:
    """Kill -9."""
    os.kill(process.pid, signal.SIGKILL)


def family(table: Sequence[Process], root: int) -> list[Process]:
    """Return the process `root` and all its descendants."""
    members = {root}
    found = [process for process in table if process.pid == root]
    grown = True
    while grown:
        grown = False
        for process in table:
            if process.parent in members and process.pid not in members:
                members.add(process.pid)
                found.append(process)
                grown = True
    return found


def process_table() -> list[Process]:
    """Read every process of this machine that is alive: from /proc where there is one, else from `ps`."""
    if Path("/proc/self/stat").exists():
        return [found for entry in Path("/proc").iterdir() if entry.name.isdigit() and (found := _read_proc(entry))]
    command = ["ps", "-axo", "pid=,ppid=,stat=,command="]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_PS_SECONDS)
    rows = [line.split(None, 3) for line in listed.stdout.splitlines()]
    return [Process(int(row[0]), int(row[1]), row[3]) for row in rows if len(row) == 4 and not row[2].startswith("Z")]


def _read_proc(entry: Path) -> Process | None:
    try:
        stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
        command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:  # it ended while we looked: an expected outcome
        return None
    state, parent = stat.rpartition(")")[2].split()[:2]
    return None if state == "Z" else Process(int(entry.name), int(parent), command)
