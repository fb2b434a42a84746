"""The limited child: a program of its own that reads a stranger's files and says what it saw, as JSON.

    python -P -m forestay.artefacts.program < request.json > answer.json

It takes its limits on itself before it opens anything: memory, processor time, the size of what it writes, open files.
It decides nothing. Started by `limited`, never by a person.
"""

import pathlib
import resource
import sys

import msgspec

from forestay.artefacts.findings import Finding, finding
from forestay.artefacts.folder import examine_path, examine_tar
from forestay.artefacts.formats import Format
from forestay.artefacts.manifest import Manifest
from forestay.artefacts.report import Report
from forestay.artefacts.second_opinion import opinion_of
from forestay.artefacts.signatures import Signatures, check_signatures
from forestay.artefacts.signing import MAX_SIGNATURE_BYTES, SIGNATURE_NAME, TrustedKey
from forestay.artefacts.source import Source, open_file

MEMORY_BYTES = 3 * 1024**3
CPU_SECONDS = 1800
FILE_BYTES = 8 * 1024**3  # a second opinion needs a file of its own
OPEN_FILES = 256
EVERYTHING = "*"


class Examine(msgspec.Struct, tag="examine"):
    """Examine a folder, a file, or the members of a tar; with a second opinion on the files named."""

    path: str
    tar: bool = False
    opinions: tuple[str, ...] = ()  # names, or "*" for all


class Verify(msgspec.Struct, tag="verify"):
    """Verify signatures over files that were measured."""

    manifest: Manifest
    signatures: dict[str, str]
    keys: tuple[TrustedKey, ...]


Request = Examine | Verify


def main() -> int:
    """Read one request, answer it."""
    limit_this_process()
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    sys.stdout.buffer.write(msgspec.json.encode(answer(request)))
    return 0


def limit_this_process() -> None:
    """Take the limits, as far as they are below those in force."""
    wanted = {
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in wanted.items():
        _, hard = resource.getrlimit(kind)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (most, most))


def answer(request: Request) -> Report | Signatures:
    """Do what is asked."""
    if isinstance(request, Verify):
        return check_signatures(request.manifest, request.signatures, request.keys)
    path = pathlib.Path(request.path)
    looker = _Looker(request, path)
    if request.tar:
        with open_file(path) as source:
            seen = examine_tar(source, looker.look)
    else:
        seen = examine_path(path, looker.look)
    return Report(seen.files, seen.findings, looker.signatures, looker.opinions)


class _Looker:
    """Takes from each file, while it is open, what the examination itself does not need."""

    def __init__(self, request: Examine, path: pathlib.Path) -> None:
        self._asked = frozenset(request.opinions)
        self._root = None if request.tar else path
        self.signatures: dict[str, str] = {}
        self.opinions: dict[str, tuple[Finding, ...]] = {}

    def look(self, name: str, source: Source, found: Format) -> None:
        """Keep a signature's text; ask a second reader."""
        folder, _, base = name.rpartition("/")
        if base == SIGNATURE_NAME and found is Format.TEXT and source.size <= MAX_SIGNATURE_BYTES:
            self.signatures[folder] = source.read(0, source.size).decode("utf-8")
        if name in self._asked or EVERYTHING in self._asked:
            flaws = opinion_of(found, source, self._path_of(name))
            self.opinions[name] = tuple(finding(name, flaw) for flaw in flaws)

    def _path_of(self, name: str) -> pathlib.Path | None:
        if self._root is None:
            return None
        return self._root / name if self._root.is_dir() else self._root


if __name__ == "__main__":
    sys.exit(main())
