"""Which files a model has, with size and SHA-256 of each: recorded at import, compared at every load.

It decides the digest of a whole folder (over name, size and SHA-256 of each file, sorted by name) and what differs
between two manifests. Pure; who reads the files is `folder`.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

import msgspec

from forestay.artefacts.findings import Finding, FlawKind

PREFIX = "sha256:"


@dataclasses.dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: its name below the folder with forward slashes, its size, its SHA-256 in hex."""

    name: str
    size_bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, slots=True)
class Manifest:
    """All files, sorted by name."""

    files: tuple[FileEntry, ...]

    @property
    def size_bytes(self) -> int:
        """Sum of the sizes."""
        return sum(entry.size_bytes for entry in self.files)

    @property
    def digest(self) -> str:
        """The digest of the whole, `sha256:<hex>`: of one line `<sha256> <size> <name>` a file."""
        seen = hashlib.sha256()
        for entry in self.files:
            seen.update(f"{entry.sha256} {entry.size_bytes} {entry.name}\n".encode())
        return PREFIX + seen.hexdigest()

    def below(self, folder: str) -> "Manifest":
        """Return the part in a folder, names relative to it; an empty name means all."""
        if not folder:
            return self
        cut = len(folder) + 1
        inside = (entry for entry in self.files if entry.name.startswith(f"{folder}/"))
        return Manifest(tuple(dataclasses.replace(entry, name=entry.name[cut:]) for entry in inside))


def manifest_of(entries: Sequence[FileEntry]) -> Manifest:
    """Return the manifest of entries in any order."""
    return Manifest(tuple(sorted(entries, key=lambda entry: entry.name)))


def to_bytes(manifest: Manifest) -> bytes:
    """Return the manifest as JSON, for the store."""
    return msgspec.json.encode(manifest)


def from_bytes(data: bytes) -> Manifest:
    """Read back what `to_bytes` gave; raises ValueError when it is something else."""
    return msgspec.json.decode(data, type=Manifest)


def decide_differences(expected: Manifest, seen: Manifest) -> list[Finding]:
    """Return what is altered, added or missing, by file name; empty when both are the same."""
    wanted = {entry.name: entry for entry in expected.files}
    found = {entry.name: entry for entry in seen.files}
    findings: list[Finding] = []
    for name in sorted(wanted.keys() | found.keys()):
        before, now = wanted.get(name), found.get(name)
        if before is None:
            findings.append(Finding(name, FlawKind.ADDED, "", "was added"))
        elif now is None:
            findings.append(Finding(name, FlawKind.MISSING, "", "is missing"))
        elif before != now:
            findings.append(Finding(name, FlawKind.ALTERED, "", _altered(before, now)))
    return findings


def _altered(before: FileEntry, now: FileEntry) -> str:
    if before.size_bytes != now.size_bytes:
        return f"has {now.size_bytes} bytes, admitted were {before.size_bytes}"
    return f"its SHA-256 is {now.sha256[:16]}..., admitted was {before.sha256[:16]}..."
