"""The bundle of a fal_app model: one deterministic tar of its code and weights, and the ids that follow from it.

It decides what goes in (the spec's folder and what `include` names, less what is hidden, cached or ignored) and how a
revision is named. Same files and same settings give the same bytes and the same revision id, on every machine. It
uploads nothing and knows no store. Called by `forestay model deploy` and by `forestay up --fleet`.

Root of the bundle: the nearest folder that holds the spec's folder and everything included; the layout below it is
kept, and `host.app` of the deployed spec is rewritten to be relative to it.
"""

import dataclasses
import fnmatch
import hashlib
import json
import os
import pathlib
import tarfile
from collections.abc import Iterator, Sequence
from typing import IO, cast

from forestay.errors import UsageError
from forestay.fleet.spec import HostKind, ModelSpec, spec_to_json
from forestay.ids import ModelId, RevisionId

IGNORE_FILE = ".forestayignore"
MAX_FILES = 20_000
MAX_BYTES = 4 * 1024**3
_ALWAYS_IGNORED = ("__pycache__/", "*.pyc", "*.pyo", "*.egg-info/", "node_modules/")
_PIECE_BYTES = 1024 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class BundleFile:
    """One file of the bundle: its name inside, where it lies, its size."""

    name: str
    path: pathlib.Path
    size_bytes: int
    executable: bool


@dataclasses.dataclass(frozen=True, slots=True)
class BundlePlan:
    """What the bundle will hold, and the spec as it is deployed with it."""

    root: pathlib.Path
    files: tuple[BundleFile, ...]
    spec: ModelSpec

    @property
    def size_bytes(self) -> int:
        """Return the sum of the files' sizes."""
        return sum(file.size_bytes for file in self.files)


def plan_bundle(spec: ModelSpec, spec_folder: pathlib.Path, *, max_bytes: int = MAX_BYTES) -> BundlePlan:
    """Choose the files; raises UsageError when one is missing, leads outside, or all are too large."""
    if spec.host.kind is not HostKind.FAL_APP:
        return BundlePlan(spec_folder, (), spec)
    folder = spec_folder.resolve()
    roots = [folder, *(_included(folder, text) for text in spec.host.include)]
    root = pathlib.Path(os.path.commonpath([item if item.is_dir() else item.parent for item in roots]))
    found: dict[str, BundleFile] = {}
    size = 0
    for file in _files(roots, root):
        if file.name in found:
            continue
        found[file.name] = file
        size += file.size_bytes
        if size > max_bytes or len(found) > MAX_FILES:
            message = (
                f"the bundle exceeds {max_bytes:,} bytes or {MAX_FILES:,} files at {file.name}; "
                f"name what does not belong in {IGNORE_FILE}, or put large weights into a data mount"
            )
            raise UsageError("host.include", message)
    source, _, class_name = spec.host.app.partition("::")
    inside = (folder / source).relative_to(root).as_posix()
    if inside not in found:
        message = f"{source} is not in {spec_folder}; it must be a file below the spec's folder and not ignored"
        raise UsageError("host.app", message)
    host = dataclasses.replace(spec.host, app=f"{inside}::{class_name}", include=())
    files = tuple(found[name] for name in sorted(found))
    return BundlePlan(root, files, dataclasses.replace(spec, host=host))


def write_bundle(plan: BundlePlan, target: IO[bytes]) -> str:
    """Write the tar and return the sha-256 of its bytes, in hex."""
    hashing = _Hashing(target)
    with tarfile.open(
        fileobj=cast("IO[bytes]", hashing), mode="w|", format=tarfile.PAX_FORMAT, bufsize=_PIECE_BYTES
    ) as tar:
        for file in plan.files:
            entry = tarfile.TarInfo(file.name)
            entry.size = file.size_bytes
            entry.mode = 0o755 if file.executable else 0o644
            with file.path.open("rb") as source:
                tar.addfile(entry, source)
    return hashing.digest


def revision_digest(spec: ModelSpec, bundle_digest: str | None) -> str:
    """Return the sha-256, in hex, over contents (the bundle's digest) and settings (the spec)."""
    settings = json.dumps(spec_to_json(spec), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{bundle_digest or ''}\n{settings}".encode()).hexdigest()


def revision_id_of(model_id: ModelId, digest: str) -> RevisionId:
    """Return `alias-<first 12 hex digits>`."""
    return RevisionId(f"{model_id.partition('/')[2]}-{digest[:12]}")


def bundle_key(digest: str) -> str:
    """Return the object key under which a bundle lies."""
    return f"bundles/{digest}.tar"


class _Hashing:
    """A file to write to that hashes what passes."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        return self._target.write(data)


def _included(folder: pathlib.Path, text: str) -> pathlib.Path:
    path = (folder / text).resolve()
    if not path.exists():
        raise UsageError("host.include", f"{text} does not exist beside {folder}")
    return path


def _files(roots: Sequence[pathlib.Path], root: pathlib.Path) -> Iterator[BundleFile]:
    for start in roots:
        if start.is_file():
            yield _file(start, root)
        else:
            yield from _walk(start, root, [*_ALWAYS_IGNORED, *_ignored_in(start)], start)


def _walk(
    folder: pathlib.Path, root: pathlib.Path, patterns: Sequence[str], start: pathlib.Path
) -> Iterator[BundleFile]:
    for path in sorted(folder.iterdir()):
        relative = path.relative_to(start).as_posix()
        if path.name.startswith(".") or _is_ignored(relative, patterns, folder=path.is_dir()):
            continue
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            message = f"{path} leads outside {root}; copy what it points to, or name it in {IGNORE_FILE}"
            raise UsageError("host.include", message)
        if path.is_symlink() and path.is_dir():
            message = f"{path} is a link to a folder; include that folder itself"
            raise UsageError("host.include", message)
        if path.is_dir():
            yield from _walk(path, root, patterns, start)
        else:
            yield _file(path, root)


def _file(path: pathlib.Path, root: pathlib.Path) -> BundleFile:
    if not path.is_file():
        raise UsageError("host.include", f"{path} is neither a file nor a folder; name it in {IGNORE_FILE}")
    try:
        facts = path.stat()
        path.open("rb").close()
    except OSError as error:
        raise UsageError("host.include", f"{path} cannot be read: {error.strerror}") from None
    return BundleFile(path.relative_to(root).as_posix(), path, facts.st_size, bool(facts.st_mode & 0o100))


def _ignored_in(folder: pathlib.Path) -> list[str]:
    try:
        text = (folder / IGNORE_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _is_ignored(relative: str, patterns: Sequence[str], *, folder: bool) -> bool:
    """Match as .gitignore does for its plain patterns: `name`, `*.ext`, `folder/`, `/top`, `some/path`; no `!`."""
    name = relative.rpartition("/")[2]
    for pattern in patterns:
        if pattern.endswith("/") and not folder:
            continue
        bare = pattern.rstrip("/")
        anchored = "/" in bare
        subject = relative if anchored else name
        if fnmatch.fnmatchcase(subject, bare.lstrip("/")):
            return True
    return False
