"""Reads what surrounds a pickle: raw files, torch's archives old and new. Every pickle inside is walked by opcodes.

It decides what belongs to such a file and what hides in it: bytes after STOP, further pickles, members that the format
does not have. Each of these files has the flaw `pickle`, which a waiver may lift; any other flaw stands. Pure.
"""

import re

from forestay.artefacts.findings import Flaw, FlawKind, shown
from forestay.artefacts.pickle_machine import Reading
from forestay.artefacts.pickle_opcodes import walk
from forestay.artefacts.source import Broken, Source
from forestay.artefacts.tar_file import read_old_tar
from forestay.artefacts.zip_file import Member, open_member, read_members

TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py, MAGIC_NUMBER
MAX_PICKLE_BYTES = 64 * 1024 * 1024  # of a packed data.pkl
MAX_PICKLES = 20
MAX_FLAWS = 50
_OLD_TORCH_PICKLES = 5  # magic, protocol, system, object, keys of the storages; raw storages follow
_MEMBERS = re.compile(
    r"version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id|data/[A-Za-z0-9_]{1,40}|data\.pkl"
)


def is_old_torch(reading: Reading) -> bool:
    """Tell whether a first pickle is the magic number of torch's files before version 1.6."""
    return reading.first_number == TORCH_MAGIC


def acts_as_pickle(source: Source, first: Reading) -> bool:
    """Tell whether a reader of pickles would be made to act by this file, by the first pickle or one behind it.

    Words that happen to begin like opcodes do not get as far as a call.
    """
    reading = first
    for _ in range(MAX_PICKLES):
        if (reading.acts and reading.end is not None) or (reading.names and reading.calls):
            return True
        if reading.end is None or reading.end >= source.size:
            return False
        reading = walk(source, reading.end)
    return False


def read_pickle(source: Source, first: Reading) -> list[Flaw]:
    """Return the flaws of a file that is one or several pickles; `first` is the walk from its first byte."""
    flaws = [Flaw(FlawKind.PICKLE, "byte 0", "is a pickle")]
    if is_old_torch(first):
        return flaws + _several(source, first, _OLD_TORCH_PICKLES, persistent=True)[:MAX_FLAWS]
    flaws += first.flaws
    if first.end is not None and first.end < source.size:
        flaws.append(Flaw(FlawKind.PICKLE_UNCLEAR, f"byte {first.end}", "bytes after the pickle's STOP"))
        flaws += _several(source, first, MAX_PICKLES, persistent=False)
    return flaws[:MAX_FLAWS]


def read_torch_zip(source: Source) -> list[Flaw]:
    """Return the flaws of a torch archive: its one pickle, and members that it should not have."""
    flaws = [Flaw(FlawKind.PICKLE, "data.pkl", "is a torch archive, which holds a pickle")]
    try:
        members = read_members(source)
        root = next(member.name for member in members if member.name.endswith("data.pkl")).removesuffix("data.pkl")
        for member in members:
            flaws += _torch_member(source, member, root)
    except Broken as stop:
        flaws.append(stop.flaw)
    return flaws[:MAX_FLAWS]


def read_torch_tar(source: Source) -> list[Flaw]:
    """Return the flaws of torch's oldest archives, a tar whose members mix pickles and raw bytes."""
    flaws = [Flaw(FlawKind.PICKLE_UNCLEAR, "archive", "is torch's oldest archive, whose pickles have no known end")]
    try:
        for name, part in read_old_tar(source):
            if name in {"sys_info", "pickle", "tensors", "storages"}:
                reading = walk(part, persistent=True)
                flaws += [Flaw(flaw.kind, f"{name} {flaw.where}", flaw.what) for flaw in reading.flaws]
    except Broken as stop:
        flaws.append(stop.flaw)
    return flaws[:MAX_FLAWS]


def _torch_member(source: Source, member: Member, root: str) -> list[Flaw]:
    name = member.name.removeprefix(root)
    if not member.name.startswith(root) or _MEMBERS.fullmatch(name) is None:
        kind = FlawKind.CODE if name.startswith(("code/", "constants", "attributes")) else FlawKind.ARCHIVE
        return [Flaw(kind, f"member {shown(member.name)}", "is no member of a torch archive of plain weights")]
    if name != "data.pkl":
        return []
    part = open_member(source, member, MAX_PICKLE_BYTES)
    reading = walk(part, persistent=True)
    flaws = [Flaw(flaw.kind, f"data.pkl {flaw.where}", flaw.what) for flaw in reading.flaws]
    if reading.end is not None and reading.end != member.size:
        flaws.append(Flaw(FlawKind.PICKLE_UNCLEAR, f"data.pkl byte {reading.end}", "bytes after the pickle's STOP"))
    return flaws


def _several(source: Source, first: Reading, most: int, *, persistent: bool) -> list[Flaw]:
    """Walk the pickles that follow the first, as far as they are pickles."""
    flaws, end = list(first.flaws) if persistent else [], first.end
    for number in range(1, most):
        if end is None or end >= source.size:
            break
        reading = walk(source, end, persistent=persistent)
        if not persistent and not reading.acts:
            break
        flaws += [Flaw(flaw.kind, flaw.where, f"pickle {number + 1}: {flaw.what}") for flaw in reading.flaws]
        end = reading.end
    return flaws
