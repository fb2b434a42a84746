"""Chooses under which user a model's process runs.

When the worker is root, model code gets a user of its own, if that user can reach the interpreter and the model's
folders; otherwise it keeps ours (the shim still drops every capability) and the reason is told. Without root there is
no choice to make. Called by `hosts/fal_app.py` at each start.
"""

import asyncio
import dataclasses
import os
import pathlib
import subprocess
import zlib
from collections.abc import Sequence

FIRST_UID, UIDS = 1_000_000, 60_000  # far above the users of a machine
FIRST_BUILDER_UID = FIRST_UID + UIDS  # of those who build environments: one for each, apart from every model's
PROBE_SECONDS = 20.0


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """The user to run as; `uid` None means the worker's own, and `reason` says why."""

    uid: int | None
    reason: str


async def choose_identity(revision: str, python: str, readable: Sequence[pathlib.Path]) -> Identity:
    """Find the revision's own user by trying it: nothing but a try tells what a user can reach."""
    if os.geteuid() != 0:
        return Identity(None, "the worker is not root: model code shares its user, which is no security boundary")
    uid = FIRST_UID + zlib.crc32(revision.encode()) % UIDS
    problem = await asyncio.to_thread(probe, uid, python, readable)
    if problem:
        return Identity(None, f"model code keeps the worker's user, without its capabilities: user {uid} {problem}")
    return Identity(uid, f"runs as user {uid}")


async def choose_builder(environment: str, python: str) -> Identity:
    """Find the user under which an environment's packages are built: their build scripts are strangers' code too."""
    if os.geteuid() != 0:
        return Identity(None, "the worker is not root: packages are built by its own user")
    uid = FIRST_BUILDER_UID + zlib.crc32(environment.encode()) % UIDS
    problem = await asyncio.to_thread(probe, uid, python, ())
    if problem:
        return Identity(None, f"packages are built by the worker's own user: user {uid} {problem}")
    return Identity(uid, f"packages are built by user {uid}")


def own(paths: Sequence[pathlib.Path], identity: Identity) -> None:
    """Give private paths to the model's user."""
    if identity.uid is not None:
        for path in paths:
            os.chown(path, identity.uid, identity.uid)


def probe(uid: int, python: str, readable: Sequence[pathlib.Path]) -> str:
    """Return what keeps this user from running `python` and reaching the paths; empty when nothing does."""
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
