"""Runs one unmodified `fal.App` in a child process, and describes one without running it.

It decides nothing about requests. Called by `worker/replica.py` (through the Host port) and by `forestay deploy`
(`describe`).
"""

import json
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import cast

from forestay.worker.hosts.description import read_description
from forestay.worker.hosts.host import Description, StartFailed

SHIM = pathlib.Path(__file__).with_name("shim.py")
DESCRIBE_SECONDS = 120.0


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
