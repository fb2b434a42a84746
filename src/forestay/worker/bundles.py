"""Brings a revision's files (code and weights) from the object store into the worker's cache, verified and unpacked.

It decides what a bundle may hold: plain files and folders inside its own root, within caps; no links, devices or paths
that lead out. The digest in the key (`bundles/{sha-256 of the tar}.tar`) names the bytes, so a wrong one anywhere is
refused. Called by `worker/loading.py`.
"""

import asyncio
import contextlib
import hashlib
import os
import pathlib
import re
import shutil
import tarfile

from forestay.errors import Unavailable
from forestay.storage.objects import ObjectStore
from forestay.worker.hosts.host import StartFailed

MAX_FILES = 50_000
MAX_BYTES = 64 * 1024 * 1024 * 1024
_KEY = re.compile(r"bundles/([0-9a-f]{64})\.tar")


async def fetch_bundle(objects: ObjectStore, key: str, cache: pathlib.Path) -> pathlib.Path:
    """Return the folder of the unpacked bundle; StartFailed when it is missing, broken or not what it should be."""
    match = _KEY.fullmatch(key)
    if match is None:
        raise StartFailed(f"bundle key {key!r} has not the form bundles/<sha-256>.tar")
    digest = match.group(1)
    folder = cache / digest[:24]
    if await asyncio.to_thread(folder.is_dir):
        return folder
    archive = cache / f"{digest[:24]}.{os.getpid()}.part"
    try:
        await asyncio.to_thread(_make_cache, cache)
        await _download(objects, key, digest, archive)
        return await asyncio.to_thread(_unpack, archive, folder)
    except Unavailable as error:
        raise StartFailed(f"bundle {key} cannot be read now: {error}") from None
    finally:
        with contextlib.suppress(OSError):  # a leftover is overwritten by the next try
            archive.unlink(missing_ok=True)


def _make_cache(cache: pathlib.Path) -> None:
    cache.mkdir(parents=True, exist_ok=True, mode=0o755)


async def _download(objects: ObjectStore, key: str, digest: str, archive: pathlib.Path) -> None:
    size = await objects.size(key)
    if size is None:
        raise StartFailed(f"bundle {key} is not in the object store; deploy the model again")
    if size > MAX_BYTES:
        raise StartFailed(f"bundle {key} has {size} bytes, more than {MAX_BYTES}")
    seen = hashlib.sha256()
    with archive.open("wb") as target:
        async for piece in objects.stream(key, 0, size):
            seen.update(piece)
            await asyncio.to_thread(target.write, piece)
    if seen.hexdigest() != digest:
        raise StartFailed(f"bundle {key} is damaged: its SHA-256 is {seen.hexdigest()}; deploy the model again")


def _unpack(archive: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Unpack beside the target and rename, so that a folder under its final name is whole."""
    unfinished = archive.with_suffix(".unpacking")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o755)
    try:
        with tarfile.open(archive, "r:") as tar:
            _extract(tar, unfinished)
        _make_read_only(unfinished)
        with contextlib.suppress(FileExistsError, OSError):  # another worker of this machine was faster: same bytes
            unfinished.rename(folder)
    except (tarfile.TarError, EOFError) as error:
        raise StartFailed(f"the bundle is no plain tar archive: {error}") from None
    except OSError as error:
        raise StartFailed(f"the bundle cannot be unpacked into {folder.parent}: {error}") from None
    finally:
        _remove(unfinished)
    if not folder.is_dir():
        raise StartFailed(f"the bundle cannot be put into {folder}")
    return folder


def _extract(tar: tarfile.TarFile, folder: pathlib.Path) -> None:
    total = 0
    for number, member in enumerate(tar):
        total += member.size
        if number >= MAX_FILES or total > MAX_BYTES:
            raise StartFailed(f"the bundle has more than {MAX_FILES} files or {MAX_BYTES} bytes")
        if not (member.isreg() or member.isdir()):
            raise StartFailed(f"the bundle holds {member.name!r}, which is neither a file nor a folder")
        try:
            tar.extract(member, folder, filter="data")  # refuses absolute paths and those that lead out
        except tarfile.FilterError as error:
            raise StartFailed(f"the bundle holds {member.name!r}, which is not allowed: {error}") from None


def _make_read_only(folder: pathlib.Path) -> None:
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o444)


def _remove(folder: pathlib.Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
