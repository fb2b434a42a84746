"""Runs the limited child and reads its answer: the parent's side of `program`.

It decides the time-out and that the child sees nothing of this process: an empty environment, no inherited files. A
child that breaks, hangs or answers something else is an error that names what it was asked; what it read is then not
admitted. Called by commands, gateways and workers.
"""

import asyncio
import contextlib
import pathlib
import subprocess
import sys
from typing import TypeVar

import msgspec

import forestay
from forestay.artefacts.program import Examine, Request, Verify
from forestay.artefacts.report import Report
from forestay.artefacts.signatures import Signatures
from forestay.artefacts.signing import TrustedKey
from forestay.errors import ForestayError

TIMEOUT_SECONDS = 900.0  # weights of 100 GB take minutes to hash
MAX_ANSWER_BYTES = 256 * 1024 * 1024
_MODULE = "forestay.artefacts.program"
_TAIL_CHARS = 300

T = TypeVar("T", Report, Signatures)


class ExaminationFailed(ForestayError):
    """The child broke or took too long: what it read is not admitted."""


async def examine(
    path: pathlib.Path, *, tar: bool = False, opinions: tuple[str, ...] = (), timeout_seconds: float = TIMEOUT_SECONDS
) -> Report:
    """Return the report on a folder, a file or a tar; ExaminationFailed when the child gives none."""
    request = Examine(str(path), tar, opinions)
    return await _ask(request, Report, f"examine {path.name}", timeout_seconds)


async def verify(report: Report, keys: tuple[TrustedKey, ...], timeout_seconds: float = 120.0) -> Signatures:
    """Return which of a model's signatures hold; none are there: nothing is started."""
    if not report.signatures:
        return Signatures()
    request = Verify(report.manifest, dict(report.signatures), keys)
    return await _ask(request, Signatures, "verify signatures", timeout_seconds)


async def _ask(request: Request, kind: type[T], what: str, timeout_seconds: float) -> T:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", _MODULE),
        env={"PYTHONPATH": str(pathlib.Path(forestay.__file__).parents[1]), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        limit=MAX_ANSWER_BYTES,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout_seconds):
            answer, errors = await child.communicate(msgspec.json.encode(request))
    except TimeoutError:
        raise ExaminationFailed(f"could not {what} within {timeout_seconds:g} s") from None
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    if child.returncode != 0:
        tail = errors.decode("utf-8", "replace").strip()[-_TAIL_CHARS:]
        raise ExaminationFailed(f"could not {what}: the reader ended with {child.returncode}: {tail or 'no word'}")
    try:
        return msgspec.json.decode(answer, type=kind)
    except msgspec.MsgspecError as error:
        raise ExaminationFailed(f"could not {what}: {error}") from None
