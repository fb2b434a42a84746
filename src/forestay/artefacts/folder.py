"""Looks at all files of a model: a folder, a tar as it is sent, or one file.

It decides which names and kinds of entries a model may have, and whether the external data of ONNX models is there. It
follows no link and opens each file once, so that what is hashed is what was examined. Blocking; runs in a child process
with limits (`limited`) wherever the files are a stranger's.
"""

import dataclasses
import os
import pathlib
import posixpath
import stat
from collections.abc import Callable, Iterator

from forestay.artefacts.examine import Examined, examine, sha256_of
from forestay.artefacts.findings import Finding, Flaw, FlawKind, finding, shown
from forestay.artefacts.formats import Format
from forestay.artefacts.manifest import FileEntry, Manifest, manifest_of
from forestay.artefacts.source import Broken, Source, broken, open_file
from forestay.artefacts.tar_file import members_of

MAX_FILES = 50_000
MAX_NAME_BYTES = 1024
MAX_DEPTH = 64


@dataclasses.dataclass(frozen=True, slots=True)
class SeenFile:
    """One file that was examined."""

    name: str
    size_bytes: int
    sha256: str
    format: Format


@dataclasses.dataclass(frozen=True, slots=True)
class Examination:
    """All files of a model and everything wrong with them."""

    files: tuple[SeenFile, ...]
    findings: tuple[Finding, ...]

    @property
    def manifest(self) -> Manifest:
        """The files with size and SHA-256."""
        return manifest_of([FileEntry(file.name, file.size_bytes, file.sha256) for file in self.files])


Entry = tuple[str, Source | Flaw]
Look = Callable[[str, Source, Format], None]  # called with each file while it is open


def see_nothing(_name: str, _source: Source, _format: Format) -> None:
    """Look at nothing further."""


def examine_path(path: pathlib.Path, look: Look = see_nothing) -> Examination:
    """Examine a folder, or one file under its own name; OSError when it cannot be read."""
    return _examine(entries_of(path) if path.is_dir() and not path.is_symlink() else _one(path), look)


def examine_tar(source: Source, look: Look = see_nothing) -> Examination:
    """Examine the members of a tar archive without unpacking it."""
    return _examine(members_of(source), look)


def measure_folder(root: pathlib.Path) -> tuple[Manifest, tuple[Finding, ...]]:
    """Return the manifest of a folder as it is now, and what in it is no plain file; nothing is examined."""
    files: list[FileEntry] = []
    findings: list[Finding] = []
    for name, entry in entries_of(root):
        if isinstance(entry, Flaw):
            findings.append(finding(name, entry))
        else:
            files.append(FileEntry(name, entry.size, sha256_of(entry)))
    return manifest_of(files), tuple(findings)


def entries_of(root: pathlib.Path) -> Iterator[Entry]:
    """Return every entry of a folder that is no folder, by name; links and special files as flaws."""
    yield from _walk(root, "", 0)


def _walk(folder: pathlib.Path, prefix: str, depth: int) -> Iterator[Entry]:
    if depth > MAX_DEPTH:
        yield prefix, Flaw(FlawKind.LIMIT, "", f"folders more than {MAX_DEPTH} deep")
        return
    with os.scandir(folder) as listed:
        children = sorted(listed, key=lambda child: child.name)
    for child in children:
        name = prefix + child.name
        if child.is_symlink():
            yield name, Flaw(FlawKind.LINK, "", f"is a link to {shown(str(pathlib.Path(child.path).readlink()))}")
        elif child.is_dir(follow_symlinks=False):
            yield from _walk(pathlib.Path(child.path), f"{name}/", depth + 1)
        elif child.is_file(follow_symlinks=False):
            with open_file(pathlib.Path(child.path)) as source:
                yield name, source
        else:
            yield name, Flaw(FlawKind.LINK, "", "is neither a plain file nor a folder")


def _one(path: pathlib.Path) -> Iterator[Entry]:
    facts = path.lstat()
    if not stat.S_ISREG(facts.st_mode):
        yield path.name, Flaw(FlawKind.LINK, "", "is neither a plain file nor a folder")
        return
    with open_file(path) as source:
        yield path.name, source


def _examine(entries: Iterator[Entry], look: Look) -> Examination:
    files: list[SeenFile] = []
    findings: list[Finding] = []
    examined: dict[str, Examined] = {}
    try:
        for name, entry in entries:
            findings += [finding(shown_name(name), flaw) for flaw in _name_flaws(name)]
            if isinstance(entry, Flaw):
                findings.append(finding(shown_name(name), entry))
                continue
            examined[name] = examine(name, entry)
            files.append(SeenFile(shown_name(name), entry.size, sha256_of(entry), examined[name].format))
            look(name, entry, examined[name].format)
            if len(files) > MAX_FILES:
                broken(FlawKind.LIMIT, "", f"more than {MAX_FILES} files")
    except Broken as stop:
        findings.append(finding("", stop.flaw))
    claimed = _claim_external(examined, {file.name: file.size_bytes for file in files}, findings)
    for name, result in examined.items():
        if name not in claimed:
            findings += [finding(shown_name(name), flaw) for flaw in result.flaws]
    marked = [dataclasses.replace(file, format=Format.EXTERNAL) if file.name in claimed else file for file in files]
    return Examination(tuple(marked), tuple(findings))


def _claim_external(examined: dict[str, Examined], sizes: dict[str, int], findings: list[Finding]) -> set[str]:
    """Return the files of no known format that ONNX models name as their data; add findings for those absent."""
    claimed: set[str] = set()
    told: set[tuple[str, str]] = set()
    for name, result in examined.items():
        for external in result.external:
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), external.location))
            size = sizes.get(target)
            if size is None or external.end > size:
                what = "is not there" if size is None else f"has {size} bytes, {external.end} are named"
                if (name, target) not in told:
                    place = f"tensor {shown(external.tensor)}"
                    findings.append(Finding(name, FlawKind.EXTERNAL, place, f"{shown(target)} {what}"))
                told.add((name, target))
            elif examined[target].format is Format.UNKNOWN and _only_unknown(examined[target]):
                claimed.add(target)
    return claimed


def _only_unknown(result: Examined) -> bool:
    return all(flaw.kind is FlawKind.UNKNOWN for flaw in result.flaws)


def _name_flaws(name: str) -> list[Flaw]:
    """A name must be one that every reader of the bundle takes for the same file."""
    parts = name.split("/")
    plain = name.isprintable() and "\\" not in name and not name.startswith("/")
    encodable = not any(0xD800 <= ord(character) <= 0xDFFF for character in name)
    short = len(name.encode("utf-8", "replace")) <= MAX_NAME_BYTES
    if plain and encodable and short and not {"", ".", ".."} & set(parts):
        return []
    return [Flaw(FlawKind.NAME, "", f"{shown(name)} is no plain relative name")]


def shown_name(name: str) -> str:
    """Return a file's name fit for JSON and for a line of text; a plain one is unchanged."""
    return name if name.isprintable() and name.isascii() else name.encode("utf-8", "backslashreplace").decode()
