"""Builds the Python environment that a spec's `requirements` ask for, once per machine and set of requirements.

It decides only whether an environment is complete. Packages of the interpreter that it grows from stay visible, so an
app that asks for one more package does not install the SDK again. Called by `hosts/fal_app.py`; the steps are told as
they happen, and a failure carries the tail of pip's own words.
"""

import asyncio
import fcntl
import hashlib
import os
import pathlib
import shutil
import signal
import subprocess
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from forestay.worker.hosts.host import StartFailed

OUTPUT_TAIL_CHARS = 4_000
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
    described = await _run([python, "-c", _SITE], variables, "read the interpreter's folders")
    asked = "\n".join(requirements)
    key = _key(python, described, asked)
    folder, complete = cache / key, cache / f"{key}.complete"
    interpreter = str(folder / "bin" / "python")
    async with _locked(cache / f"{key}.lock"):
        if complete.exists():
            return interpreter
        tell(f"building the environment: {', '.join(requirements)}"[:500])
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        pip = await _pip_for(python, folder, variables)
        _see_packages_of(python_site=described, folder=folder)
        (folder / "requirements.txt").write_text(asked + "\n")
        options = ["install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
        await _run([*pip, *options, "-r", str(folder / "requirements.txt")], variables, "install the requirements")
        complete.touch()
    return interpreter


async def _pip_for(python: str, folder: pathlib.Path, variables: Mapping[str, str]) -> list[str]:
    """Make the environment and return the pip that installs into it: the interpreter's own, if it has one."""
    interpreter = str(folder / "bin" / "python")
    try:
        await _run([python, "-m", "pip", "--version"], variables, "find pip")
    except StartFailed:
        await _run([python, "-m", "venv", str(folder)], variables, "make the environment")
        return [interpreter, "-m", "pip"]
    await _run([python, "-m", "venv", "--without-pip", str(folder)], variables, "make the environment")
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


async def _run(command: Sequence[str], variables: Mapping[str, str], what: str) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=dict(variables),
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
