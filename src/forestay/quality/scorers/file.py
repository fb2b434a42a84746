"""The file that names scorers, as values; each fault is told with its field and the mend.

Decides what a scorer may be called and may take: memory, time, and which folders it sees. Specs name scorers by id;
what is run for an id, the operator alone says here. Read at start by workers (`FORESTAY_QUALITY_SCORERS`) and by
`forestay quality scorers`.
"""

import dataclasses
import pathlib
import re
from collections.abc import Mapping

import msgspec

from forestay.errors import UsageError
from forestay.operator_file import read_operator_file

VARIABLE = "FORESTAY_QUALITY_SCORERS"
MAX_SCORERS = 16
_ID = re.compile(r"[a-z][a-z0-9-]{0,39}@[0-9]{1,4}")
_PROGRAM = re.compile(r"[A-Za-z0-9_-]+\.py::[A-Za-z_][A-Za-z0-9_]*")
_MIB = 1024 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class ScorerEntry:
    """How a scorer is run."""

    scorer_id: str
    folder: pathlib.Path
    program: str  # "scorer.py::Agreement", in its folder
    python: str | None = None  # interpreter; None is Forestay's own
    memory_mb: int = 1024
    timeout_seconds: float = 30.0  # of one batch
    startup_seconds: float = 120.0
    batch: int = 8  # outputs that are asked about at once
    max_bytes: int = 16 * _MIB  # of one output; a larger one is not scored
    reads: tuple[pathlib.Path, ...] = ()  # further folders that it may read, such as weights
    env: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    cuda_devices: str = ""  # that it sees; none by default: devices belong to models


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    folder: str
    program: str = "scorer.py::Scorer"
    python: str = ""
    memory_mb: int = 1024
    timeout_seconds: float = 30.0
    startup_seconds: float = 120.0
    batch: int = 8
    max_mb: float = 16.0
    reads: list[str] = msgspec.field(default_factory=list[str])
    env: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    cuda_devices: str = ""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    scorers: list[_Entry]


def read_scorers(path: str) -> list[ScorerEntry]:
    """Return the scorers of a file, none for an empty path; UsageError says what is wrong and how to mend it.

    Folders are relative to the file.
    """
    if not path:
        return []
    entries = read_operator_file(path, _File, VARIABLE, "docs/howto/plug-in-a-scorer.md").scorers
    if len(entries) > MAX_SCORERS:
        raise UsageError(VARIABLE, f"{path}: {len(entries)} scorers; at most {MAX_SCORERS} are run")
    base = pathlib.Path(path).resolve().parent
    found = [_entry(entry, base, f"{path}: scorers[{index}]") for index, entry in enumerate(entries)]
    ids = [item.scorer_id for item in found]
    doubled = next((name for name in ids if ids.count(name) > 1), "")
    if doubled:
        raise UsageError(VARIABLE, f"{path}: two scorers are called {doubled}; give each an id of its own")
    return found


def _entry(entry: _Entry, base: pathlib.Path, place: str) -> ScorerEntry:
    if not _ID.fullmatch(entry.id):
        raise UsageError(VARIABLE, f"{place}.id: {entry.id!r} is no id; expected a name and version, like clip@1")
    if not _PROGRAM.fullmatch(entry.program):
        raise UsageError(VARIABLE, f"{place}.program: {entry.program!r}; expected file.py::Class in its folder")
    folder = (base / entry.folder).resolve()
    if not (folder / entry.program.partition("::")[0]).is_file():
        raise UsageError(VARIABLE, f"{place}.folder: {entry.folder!r} holds no {entry.program.partition('::')[0]}")
    for name in entry.reads:
        if not (base / name).is_dir():
            raise UsageError(
                VARIABLE, f"{place}.reads: {name!r} is no folder of this machine; name one, or leave it out"
            )
    _check_limits(entry, place)
    return ScorerEntry(
        scorer_id=entry.id,
        folder=folder,
        program=entry.program,
        python=str(base / entry.python) if entry.python else None,
        memory_mb=entry.memory_mb,
        timeout_seconds=entry.timeout_seconds,
        startup_seconds=entry.startup_seconds,
        batch=entry.batch,
        max_bytes=int(entry.max_mb * _MIB),
        reads=tuple((base / name).resolve() for name in entry.reads),
        env=entry.env,
        cuda_devices=entry.cuda_devices,
    )


def _check_limits(entry: _Entry, place: str) -> None:
    limits = (
        ("memory_mb", entry.memory_mb, 64, 1_048_576),
        ("timeout_seconds", entry.timeout_seconds, 0.1, 3_600),
        ("startup_seconds", entry.startup_seconds, 0.1, 3_600),
        ("batch", entry.batch, 1, 64),
        ("max_mb", entry.max_mb, 0.01, 256),
    )
    for name, value, least, most in limits:
        if not least <= value <= most:
            raise UsageError(VARIABLE, f"{place}.{name}: {value:g}; expected {least:g} to {most:g}")
    if len(entry.env) > 32:
        raise UsageError(VARIABLE, f"{place}.env: {len(entry.env)} variables; at most 32 are handed on")
