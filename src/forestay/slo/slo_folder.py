"""The files of SLOs that a running platform reads: one file or a folder of them, followed as they change.

It decides which file holds: the newest that could be read. A broken one keeps what was last read of it, and its faults
are told with file and line; the others go on. Which SLOs hold beside those of specs, `sources` says. Called by `named`.
"""

import dataclasses
import pathlib
import re
from collections.abc import Sequence

from forestay.fleet.spec_yaml import MAX_FILE_BYTES, SpecError
from forestay.slo.model import Slo, SloId

MOST_FILES, MOST_SLOS, MOST_FAULTS = 200, 5_000, 20
_NAMES = (".yaml", ".yml")
_OPENSLO = re.compile(r"(?m)^apiVersion:")
Stamp = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, slots=True)
class FileRead:
    """What is known of one file: the SLOs that it was last good for, and what is wrong with it now."""

    name: str
    slos: tuple[Slo, ...] = ()
    faults: tuple[str, ...] = ()


class SloFolder:
    """What lies at a path; reading costs only where something changed."""

    def __init__(self, path: str) -> None:
        self._path = pathlib.Path(path)
        self._stamps: dict[pathlib.Path, Stamp] = {}
        self._held: dict[pathlib.Path, FileRead] = {}
        self._missing = ""

    def follow(self) -> bool:
        """Read what has changed since the last look; tells whether anything has."""
        found, missing = self._look()
        changed, self._missing = missing != self._missing, missing
        if missing:
            return changed  # what was read before holds
        for gone in self._held.keys() - found.keys():
            del self._held[gone]
            changed = True
        for path, stamp in found.items():
            if path not in self._held or self._stamps.get(path) != stamp:
                self._held[path] = _read(path, self._held.get(path))
                changed = True
        self._stamps = found
        return changed

    def reads(self) -> tuple[FileRead, ...]:
        """Return every file in order of its name, each SLO in the first one that names it."""
        held = dict(self._held)
        if self._missing:
            before = held.get(self._path, FileRead(self._path.name))
            held[self._path] = dataclasses.replace(before, faults=(self._missing,))
        return tuple(_each_once([held[path] for path in sorted(held)]))

    def _look(self) -> tuple[dict[pathlib.Path, Stamp], str]:
        """Return the files that are there with their stamps, or why none can be seen."""
        try:
            if not self._path.is_dir():
                return {self._path: _stamp(self._path)}, ""
            paths = sorted(one for one in self._path.iterdir() if one.suffix in _NAMES and one.is_file())
            if len(paths) > MOST_FILES:
                return {}, f"{self._path.name}:1: holds {len(paths)} files; at most {MOST_FILES}, put some together"
            return {one: _stamp(one) for one in paths}, ""
        except OSError as error:
            return {}, f"{self._path.name}:1: cannot be read: {error.strerror}; mend it or FORESTAY_SLO_FILE"


def _stamp(path: pathlib.Path) -> Stamp:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def _read(path: pathlib.Path, before: FileRead | None) -> FileRead:
    kept = before.slos if before is not None else ()
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1).decode()  # one byte more than is taken: the reader says so
    except OSError as error:
        return FileRead(path.name, kept, (f"{path.name}:1: cannot be read: {error.strerror}",))
    except UnicodeDecodeError:
        return FileRead(path.name, kept, (f"{path.name}:1: is not UTF-8",))
    try:
        return FileRead(path.name, _parsed(text, path.name))
    except SpecError as error:
        return FileRead(path.name, kept, error.faults[:MOST_FAULTS])


def _parsed(text: str, name: str) -> tuple[Slo, ...]:
    if _OPENSLO.search(text):
        from forestay.slo.openslo import import_openslo  # noqa: PLC0415 - pydantic costs 20 MB: only who has files pays

        slos = import_openslo(text, name).slos
    else:
        from forestay.slo.slo_file import read_slos  # noqa: PLC0415 - as above

        slos = read_slos(text, name)
    return tuple(dataclasses.replace(slo, origin=f"{name}:{_line(text, slo.slo_id)}") for slo in slos)


def _line(text: str, slo_id: SloId) -> int:
    """Return where an SLO is named; an OpenSLO document of several objectives numbers them after its own name."""
    for name in (slo_id, re.sub(r"-\d+$", "", slo_id)):
        found = re.search(rf"""(?m)^[ \t]*(?:-[ \t]+)?(?:\{{[ \t]*)?(?:id|name):[ \t]*["']?{re.escape(name)}\b""", text)
        if found is not None:
            return text.count("\n", 0, found.start()) + 1
    return 1


def _each_once(files: Sequence[FileRead]) -> list[FileRead]:
    first: dict[SloId, str] = {}
    told: list[FileRead] = []
    for file in files:
        kept, faults = list[Slo](), list(file.faults)
        for slo in file.slos:
            if slo.slo_id in first:
                faults.append(f"{slo.origin}: id: {slo.slo_id} is in {first[slo.slo_id]} too, which holds; rename one")
            elif len(first) >= MOST_SLOS:
                faults.append(f"{slo.origin}: id: {slo.slo_id} is beyond the {MOST_SLOS} SLOs that are watched")
            else:
                first[slo.slo_id] = slo.origin
                kept.append(slo)
        told.append(FileRead(file.name, tuple(kept), tuple(faults[:MOST_FAULTS])))
    return told
