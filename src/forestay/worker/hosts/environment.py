"""Builds the Python environment that a spec's `requirements` ask for, once per machine and set of requirements.

It decides whether an environment is complete and who builds it: packages run scripts of strangers while they are
built, so a worker that is root lets a user of its own do it, ends what that user left running, and takes the result
over, which nobody may change then. Packages of the interpreter that it grows from stay visible, so an app that asks for
one more package does not install the SDK again. Called by `hosts/fal_app.py`; the steps are told as they happen, and a
failure carries the tail of pip's own words.
"""

import asyncio
import contextlib
import dataclasses
import fcntl
import hashlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from forestay.worker.hosts.host import StartFailed
from forestay.worker.hosts.privileges import Identity, choose_builder, own

OUTPUT_TAIL_CHARS = 4_000
_SCRATCH = ".build"  # gone when the environment is done
_KILL_ROUNDS = 20
LOCK_SECONDS = 0.5
_SITE = "import json, site, sys, sysconfig; print(json.dumps([sysconfig.get_paths()['purelib'], sys.version]))"


async def build_environment(
    requirements: Sequence[str],
    python: str,
    cache: pathlib.Path,
    variables: Mapping[str, str],
    tell: Callable[[str], None],
) -> str:
    """Return the interpreter of an environment with `requirements`, building it first if need be.

    The caller bounds the time; cancelling ends pip. `variables` is pip's whole environment.
    """
    described = await _run([python, "-c", _SITE], _Builder(None, variables), "read the interpreter's folders")
    asked = "\n".join(requirements)
    key = _key(python, described, asked)
    folder, complete = cache / key, cache / f"{key}.complete"
    interpreter = str(folder / "bin" / "python")
    async with _locked(cache / f"{key}.lock"):
        if complete.exists():
            return interpreter
        tell(f"building the environment: {', '.join(requirements)}"[:500])
        builder = await choose_builder(key, python)
        tell(builder.reason)
        await asyncio.to_thread(_clear, folder, builder)
        try:
            await _install(python, folder, described, asked, _as_builder(builder, folder, variables))
        finally:
            await asyncio.to_thread(_take_over, folder, builder)
        complete.touch()
    return interpreter


@dataclasses.dataclass(frozen=True, slots=True)
class _Builder:
    """As whom, and with what around it, a step runs."""

    uid: int | None
    variables: Mapping[str, str]


async def _install(python: str, folder: pathlib.Path, described: str, asked: str, builder: _Builder) -> None:
    pip = await _pip_for(python, folder, builder)
    _see_packages_of(python_site=described, folder=folder)
    wanted = folder / "requirements.txt"
    wanted.write_text(asked + "\n")
    wanted.chmod(0o644)
    options = ["install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    await _run([*pip, *options, "-r", str(wanted)], builder, "install the requirements")


def _clear(folder: pathlib.Path, builder: Identity) -> None:
    """Make an empty folder for the builder, with a home and a place for temporary files in it."""
    shutil.rmtree(folder, ignore_errors=True)
    made = [folder, folder / _SCRATCH, folder / _SCRATCH / "home", folder / _SCRATCH / "tmp"]
    for path in made:
        path.mkdir(mode=0o755)
    own(made, builder.uid)


def _as_builder(builder: Identity, folder: pathlib.Path, variables: Mapping[str, str]) -> _Builder:
    if builder.uid is None:
        return _Builder(None, variables)
    places = {
        "HOME": str(folder / _SCRATCH / "home"),
        "TMPDIR": str(folder / _SCRATCH / "tmp"),
        "PIP_NO_CACHE_DIR": "1",
    }
    return _Builder(builder.uid, {**variables, **places})


def _take_over(folder: pathlib.Path, builder: Identity) -> None:
    """End what the builder left running, then make everything ours: no later build or model may change it."""
    shutil.rmtree(folder / _SCRATCH, ignore_errors=True)
    if builder.uid is None:
        return
    end_processes_of(builder.uid)
    shutil.rmtree(folder / _SCRATCH, ignore_errors=True)
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, 0, 0, follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o755 | 0o444)  # no set-uid bit, nobody else's to write


def end_processes_of(uid: int) -> None:
    """Kill every process of a user that exists for one build alone; Linux only, elsewhere there is no such user."""
    for _ in range(_KILL_ROUNDS):  # a process may fork while we look
        found = [pid for pid in _pids() if _owner_of(pid) == uid]
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return


def _pids() -> list[int]:
    if sys.platform != "linux":
        return []
    return [int(entry.name) for entry in pathlib.Path("/proc").iterdir() if entry.name.isdigit()]


def _owner_of(pid: int) -> int | None:
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return None  # gone meanwhile
    if "\nState:\tZ" in status:
        return None  # ended, and not yet waited for by its parent
    return int(status.partition("\nUid:")[2].split(None, 1)[0])


async def _pip_for(python: str, folder: pathlib.Path, builder: _Builder) -> list[str]:
    """Make the environment and return the pip that installs into it: the interpreter's own, if it has one."""
    interpreter = str(folder / "bin" / "python")
    try:
        await _run([python, "-m", "pip", "--version"], builder, "find pip")
    except StartFailed:
        await _run([python, "-m", "venv", str(folder)], builder, "make the environment")
        return [interpreter, "-m", "pip"]
    await _run([python, "-m", "venv", "--without-pip", str(folder)], builder, "make the environment")
    return [python, "-m", "pip", "--python", interpreter]


def _key(python: str, described: str, asked: str) -> str:
    return hashlib.sha256(f"{os.path.realpath(python)}\n{described}\n{asked}".encode()).hexdigest()[:24]


def _see_packages_of(python_site: str, folder: pathlib.Path) -> None:
    site = python_site.split('"')[1]
    for target in folder.glob("lib/python*/site-packages"):
        (target / "forestay-parent.pth").write_text(f"import site; site.addsitedir({site!r})\n")


@asynccontextmanager
async def _locked(path: pathlib.Path) -> AsyncGenerator[None, None]:
    """Hold a lock between the workers of one machine; the kernel frees it when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(LOCK_SECONDS)
        yield


async def _run(command: Sequence[str], builder: _Builder, what: str) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=dict(builder.variables),
            user=builder.uid,
            group=builder.uid,
            extra_groups=None if builder.uid is None else [],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise StartFailed(f"could not {what}: {command[0]}: {error}") from None
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    text = output.decode(errors="replace")
    if process.returncode != 0:
        raise StartFailed(f"could not {what}:\n{text[-OUTPUT_TAIL_CHARS:].strip()}")
    return text
