"""Reads tar archives by position: bundles as they are sent, and torch's oldest files. Nothing is unpacked.

It decides which members are plain files with plain names; what they hold is the caller's. The standard library reads
the headers, as the worker's own unpacking does, so that both see the same members.
"""

import io
import tarfile
from collections.abc import Iterator

from forestay.artefacts.findings import Flaw, FlawKind, shown
from forestay.artefacts.source import PartSource, Source, broken
from forestay.artefacts.zip_file import SourceFile

MAX_MEMBERS = 50_000


def looks_like_tar(source: Source) -> bool:
    """Tell whether the first block is a tar header of today's kind."""
    return source.size >= 512 and source.read(257, 5) == b"ustar"


def read_old_tar(source: Source) -> Iterator[tuple[str, Source]]:
    """Return name and bytes of each plain member; Broken for anything else."""
    for name, part in members_of(source):
        if isinstance(part, Flaw):
            broken(part.kind, shown(name), part.what)
        yield name, part


def members_of(source: Source) -> Iterator[tuple[str, Source | Flaw]]:
    """Return each member that is no folder: its bytes, or why it is no plain file."""
    seen: set[str] = set()
    try:
        with tarfile.open(fileobj=io.BufferedReader(SourceFile(source)), mode="r:") as tar:
            for number, member in enumerate(tar):
                if number >= MAX_MEMBERS:
                    broken(FlawKind.LIMIT, "archive", f"more than {MAX_MEMBERS} members")
                if member.isdir():
                    continue
                yield member.name, _part(source, member, seen)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        broken(FlawKind.HEADER, "archive", f"is no plain tar archive: {shown(str(error))}")


def _part(source: Source, member: tarfile.TarInfo, seen: set[str]) -> Source | Flaw:
    if not member.isreg() or member.issparse():
        return Flaw(FlawKind.LINK, "", "is neither a plain file nor a folder")
    if member.name in seen:
        return Flaw(FlawKind.TWICE, "", "stands in the archive twice")
    seen.add(member.name)
    if member.offset_data + member.size > source.size:
        return Flaw(FlawKind.BOUNDS, "", "reaches beyond the archive")
    return PartSource(source, member.offset_data, member.size)
