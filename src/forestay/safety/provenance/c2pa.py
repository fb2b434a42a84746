"""Signs manifests into files and reads them: the parent's side of `c2pa_child`, which alone touches the library.

Decides the limits of the child (memory, time, output) and how its end is told. The signing key stays here: the child
sends what is to be signed, once, and gets the signature. What it says of a file is a stranger's word that
`manifest.read_manifest` judges. Called by `stamp` and `made`.
"""

import asyncio
import base64
import contextlib
import dataclasses
import importlib.util
import json
import pathlib
import subprocess
import sys
from typing import IO, cast

import forestay
from forestay.errors import ForestayError, Unavailable
from forestay.media.limits import DecodeLimits
from forestay.safety.provenance.identity import Identity
from forestay.safety.provenance.manifest import CONTENT_TYPES, Made, Manifest, Seal, manifest_of, read_manifest

LIMITS = DecodeLimits(memory_bytes=512 * 1024 * 1024, cpu_seconds=20, wall_seconds=25.0)
START_SECONDS = 10.0
_MAX_LINE = 4 * 1024 * 1024
_MODULE = "forestay.safety.provenance.c2pa_child"


class NotStamped(ForestayError):
    """The file could not be signed or read: the message says why."""


def missing() -> str:
    """Return what must be installed before manifests can be signed or read; empty when nothing is missing."""
    return "" if importlib.util.find_spec("c2pa") else "install the extra `safety`: pip install 'forestay[safety]'"


async def sign(source: IO[bytes], out: IO[bytes], content_type: str, made: Made, identity: Identity) -> None:
    """Write `source` with a signed manifest to `out`, both real files; NotStamped says why it cannot be."""
    if content_type not in CONTENT_TYPES:
        raise NotStamped(f"manifests go into {', '.join(sorted(CONTENT_TYPES))}, not into {content_type}")
    asked: dict[str, object] = {
        "do": "sign",
        "manifest": manifest_of(made),
        "chain": identity.chain,
        "content_type": content_type,
    }
    await _run(asked, source, out, identity)


async def read(source: IO[bytes], content_type: str, identity: Identity) -> Manifest:
    """Return what a file says of itself and what is to be believed of it; NotStamped when it cannot be read."""
    if content_type not in CONTENT_TYPES:
        return Manifest(Seal.NONE)
    asked: dict[str, object] = {"do": "read", "authority": identity.authority, "content_type": content_type}
    store = await _run(asked, source, source, identity)
    return read_manifest(store) if store else Manifest(Seal.NONE)


async def _run(asked: dict[str, object], source: IO[bytes], out: IO[bytes], identity: Identity) -> str:
    lacking = missing()
    if lacking:
        raise Unavailable(f"manifests need the C2PA library; {lacking}")
    source.flush()
    asked |= {"source": source.fileno(), "out": out.fileno(), "limits": dataclasses.asdict(LIMITS)}
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", _MODULE),
        env={"PYTHONPATH": str(pathlib.Path(forestay.__file__).parents[1]), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=tuple({source.fileno(), out.fileno()}),
        limit=_MAX_LINE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(LIMITS.wall_seconds + START_SECONDS):
            return await _talk(child, asked, identity)
    except TimeoutError:
        raise NotStamped(f"it took longer than {LIMITS.wall_seconds:g} seconds") from None
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()


async def _talk(child: asyncio.subprocess.Process, asked: dict[str, object], identity: Identity) -> str:
    """Ask, sign once if that was asked for, and return what came of it."""
    if child.stdin is None or child.stdout is None:
        raise TypeError("the child has pipes")
    child.stdin.write(json.dumps(asked).encode() + b"\n")
    may_sign = asked["do"] == "sign"
    while True:
        try:
            line = await child.stdout.readline()
            said = cast("dict[str, str]", json.loads(line)) if line else {}
        except ValueError:
            raise NotStamped("the child gave no answer that can be read") from None
        if "done" in said:
            return said["done"]
        if "refused" in said:
            raise NotStamped(f"the file could not be taken up: {said['refused'][:500]}")
        if "sign" not in said or not may_sign:
            raise NotStamped(f"the child ended on it (status {await child.wait()})")
        may_sign = False
        signature = identity.sign(base64.b64decode(said["sign"]))
        child.stdin.write(json.dumps({"signature": base64.b64encode(signature).decode()}).encode() + b"\n")
