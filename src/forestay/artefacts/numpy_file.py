"""Reads the header of a NumPy array (.npy) and says what is wrong with it. An array of objects is a pickle.

Rules: the format's own (NEP 1, numpy/lib/_format_impl.py): magic, version, a Python literal of three keys, then exactly
the array's bytes. The literal is checked for its shape before Python's own reader of literals sees it. Pure.
"""

import ast
import re
from typing import cast

from forestay.artefacts.findings import Flaw, FlawKind, shown
from forestay.artefacts.pickle_opcodes import walk
from forestay.artefacts.source import Broken, Source, broken

MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES = 10_000  # NumPy's own max_header_size
_SIMPLE = re.compile(r"[<>|=]?([biufcSVUmM?])(\d{0,7})(\[[0-9]{0,6}[a-zA-Z]{1,2}\])?")
_LITERAL = re.compile(r"\{[ \n\w{}()\[\],:'\"<>|=+?.-]*")


def read_npy(source: Source, data_bytes: int | None = None) -> list[Flaw]:
    """Return the flaws; `data_bytes` is the size behind the header when `source` holds only the beginning."""
    try:
        header, start = _header(source)
        item_bytes = _item_bytes(header["descr"])
        rest = source.size - start if data_bytes is None else data_bytes - start
        if item_bytes is None:
            return [
                Flaw(FlawKind.PICKLE, "descr", "an array of Python objects"),
                *_pickle_flaws(source, start, data_bytes),
            ]
        _check_size(header, item_bytes, rest)
    except Broken as stop:
        return [stop.flaw]
    return []


def _header(source: Source) -> tuple[dict[str, object], int]:
    if source.read(0, 6) != MAGIC:
        broken(FlawKind.HEADER, "byte 0", "is no NumPy array")
    major, minor = source.read(6, 2)
    width = {1: 2, 2: 4, 3: 4}.get(major)
    if width is None or minor:
        broken(FlawKind.HEADER, "byte 6", f"version {major}.{minor} does not exist")
    length = int.from_bytes(source.read(8, width), "little")
    if length > MAX_HEADER_BYTES:
        broken(FlawKind.LIMIT, "byte 8", f"a header of {length} bytes, at most {MAX_HEADER_BYTES} are read")
    text = source.read(8 + width, length).decode("latin-1" if major < 3 else "utf-8", "replace")
    if not _LITERAL.fullmatch(text) or text.count("(") + text.count("[") + text.count("{") > 200:
        broken(FlawKind.HEADER, "header", "is no plain literal")
    try:
        value: object = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        broken(FlawKind.HEADER, "header", "is no plain literal")
    if not isinstance(value, dict) or set(cast("dict[object, object]", value)) != {"descr", "fortran_order", "shape"}:
        broken(FlawKind.HEADER, "header", "must have descr, fortran_order and shape")
    if text.count("descr") != 1 or text.count("shape") != 1:
        broken(FlawKind.TWICE, "header", "names a key twice")
    return cast("dict[str, object]", value), 8 + width + length


def _item_bytes(descr: object) -> int | None:
    """Return the bytes of one element; None for objects."""
    if isinstance(descr, list):
        total = 0
        for field in cast("list[object]", descr):
            size = _field_bytes(field)
            if size is None:
                return None
            total += size
        return total
    if not isinstance(descr, str):
        broken(FlawKind.HEADER, "descr", "is no type")
    match = _SIMPLE.fullmatch(descr)
    if match is None:
        if "O" in descr:
            return None
        broken(FlawKind.HEADER, "descr", f"{shown(descr)} is no plain type")
    count = int(match[2] or (1 if match[1] == "?" else 0))
    if match[1] not in "SUV" and count not in {1, 2, 4, 8, 16, 32}:
        broken(FlawKind.HEADER, "descr", f"{shown(descr)} is no plain type")
    return count * 4 if match[1] == "U" else count


def _field_bytes(field: object) -> int | None:
    parts = cast("tuple[object, ...]", field) if isinstance(field, tuple) else None
    if parts is None or len(parts) not in {2, 3}:
        broken(FlawKind.HEADER, "descr", "a field that is no pair of name and type")
    size = _item_bytes(parts[1])
    return None if size is None else size * (_elements(parts[2]) if len(parts) == 3 else 1)


def _check_size(header: dict[str, object], item_bytes: int, rest: int) -> None:
    if not isinstance(header["fortran_order"], bool):
        broken(FlawKind.HEADER, "fortran_order", "is no boolean")
    needed = _elements(header["shape"]) * item_bytes
    if needed != rest:
        broken(FlawKind.BOUNDS, "shape", f"takes {needed} bytes, {rest} follow the header")


def _elements(shape: object) -> int:
    lengths = cast("tuple[object, ...]", shape) if isinstance(shape, tuple) else (None,)
    count = 1
    for length in lengths:
        if not isinstance(length, int) or isinstance(length, bool) or length < 0 or len(lengths) > 64:
            broken(FlawKind.HEADER, "shape", "is no tuple of at most 64 whole numbers from 0")
        count *= length
        if count > 1 << 63:
            broken(FlawKind.LIMIT, "shape", "more elements than any memory holds")
    return count


def _pickle_flaws(source: Source, start: int, data_bytes: int | None) -> tuple[Flaw, ...]:
    """Read the pickle of an object array; one that is not there as a whole is unclear."""
    reading = walk(source, start)
    if reading.end is not None and reading.end != source.size and data_bytes is None:
        return (*reading.flaws, Flaw(FlawKind.PICKLE_UNCLEAR, f"byte {reading.end}", "bytes after the pickle's STOP"))
    return reading.flaws
