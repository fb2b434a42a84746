"""What is recorded of a model's files at import: the examination, the signatures, the second reader's opinions.

Values and their form in the store. A report is a fact about bytes, made once a bundle; decisions are made from it anew
at each load, with that day's waivers and trusted keys.
"""

import dataclasses
from collections.abc import Mapping

import msgspec

from forestay.artefacts.findings import Finding
from forestay.artefacts.folder import SeenFile
from forestay.artefacts.manifest import FileEntry, Manifest, manifest_of

READER = 1  # raised whenever the readers of formats judge anew: older reports are then made again at the next deploy


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """One bundle's files."""

    files: tuple[SeenFile, ...]
    findings: tuple[Finding, ...]
    signatures: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])  # folder -> model.sig
    opinions: Mapping[str, tuple[Finding, ...]] = dataclasses.field(default_factory=dict[str, tuple[Finding, ...]])
    reader: int = READER

    @property
    def manifest(self) -> Manifest:
        """The files with size and SHA-256."""
        return manifest_of([FileEntry(file.name, file.size_bytes, file.sha256) for file in self.files])

    def findings_with(self, asked: tuple[str, ...]) -> tuple[Finding, ...]:
        """Return the findings, with the second reader's on the files that it was asked about."""
        return (*self.findings, *(item for name in asked for item in self.opinions.get(name, ())))


def to_json(report: Report) -> bytes:
    """Return a report for the store or the parent process."""
    return msgspec.json.encode(report)


def from_json(data: bytes | str) -> Report:
    """Read back what `to_json` gave; raises ValueError when it is something else."""
    return msgspec.json.decode(data, type=Report)
