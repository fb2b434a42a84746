"""Gives the code of strangers a user of its own, and tells whether that user can reach what it needs.

It decides who builds an environment's packages; how a model's process is confined is decided by `confinement`. Where
the worker cannot arrange the model's view of the files (no right to mount), only a try tells what a user can reach.
Called by `hosts/fal_app.py` at each start and by `hosts/environment.py` at each build.
"""

import asyncio
import dataclasses
import os
import pathlib
import subprocess
import zlib
from collections.abc import Sequence

FIRST_BUILDER_UID, BUILDER_UIDS = 1_000_000, 60_000  # one for each environment; below those of models and of decoders
PROBE_SECONDS = 20.0


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """The user to run as; `uid` None means the worker's own, and `reason` says why."""

    uid: int | None
    reason: str


async def choose_builder(environment: str, python: str) -> Identity:
    """Find the user under which an environment's packages are built: their build scripts are strangers' code too."""
    if os.geteuid() != 0:
        return Identity(None, "the worker is not root: packages are built by its own user")
    uid = FIRST_BUILDER_UID + zlib.crc32(environment.encode()) % BUILDER_UIDS
    problem = await asyncio.to_thread(reach_problem, uid, python, ())
    if problem:
        return Identity(None, f"packages are built by the worker's own user: user {uid} {problem}")
    return Identity(uid, f"packages are built by user {uid}")


def own(paths: Sequence[pathlib.Path], uid: int | None) -> None:
    """Give private paths to a user; None keeps ours."""
    if uid is not None:
        for path in paths:
            os.chown(path, uid, uid)


def reach_problem(uid: int, python: str, readable: Sequence[pathlib.Path]) -> str:
    """Say why a user cannot run an interpreter or read paths; empty when it can. Blocks; needs root."""
    code = (
        "import os, sys; [os.stat(path + '/.') if os.path.isdir(path) else open(path).close() for path in sys.argv[1:]]"
    )
    try:
        done = subprocess.run(
            [python, "-I", "-c", code, *map(str, readable)],
            user=uid,
            group=uid,
            extra_groups=[],
            cwd="/",
            env={},
            capture_output=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return f"cannot run {python}: {error}"
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return "" if done.returncode == 0 else f"cannot reach what the model needs: {lines[-1] if lines else 'no reason'}"
