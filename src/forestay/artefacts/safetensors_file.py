"""Reads the header of a safetensors file and says what is wrong with it. The weights themselves are not read.

Rules: the format's own (github.com/huggingface/safetensors, "Format"): 8 bytes of length, a JSON object without
doubled keys, tensors that cover the rest of the file without holes or overlaps. Limits are ours. Pure over a Source.
"""

import json
from collections.abc import Mapping
from typing import cast

from forestay.artefacts.findings import Flaw, FlawKind, shown
from forestay.artefacts.source import Broken, Source, broken

MAX_HEADER_BYTES = 32 * 1024 * 1024  # the library allows 100 MB; 100,000 tensors take about 12 MB
MAX_TENSORS = 200_000
MAX_RANK = 16
MAX_NAME_CHARS = 512
MAX_METADATA_BYTES = 4 * 1024 * 1024
BITS: Mapping[str, int] = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "I64": 64,
    "U64": 64,
    "F64": 64,
}


def looks_like_safetensors(head: bytes, size: int) -> bool:
    """Tell whether a file that begins so claims to be safetensors: a length, then an opening brace."""
    return len(head) >= 9 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= size - 8


def read_safetensors(source: Source) -> list[Flaw]:
    """Return the flaws of a safetensors file; empty when it is whole. Time grows with the header only."""
    try:
        header, data_bytes = _header(source)
        _check_metadata(header.pop("__metadata__", None))
        if len(header) > MAX_TENSORS:
            broken(FlawKind.LIMIT, "header", f"{len(header)} tensors, at most {MAX_TENSORS} are read")
        _check_cover([_tensor(name, value) for name, value in header.items()], data_bytes)
    except Broken as stop:
        return [stop.flaw]
    return []


def _header(source: Source) -> tuple[dict[str, object], int]:
    length = int.from_bytes(source.read(0, 8), "little")
    if length > MAX_HEADER_BYTES:
        broken(FlawKind.LIMIT, "byte 0", f"a header of {length} bytes, at most {MAX_HEADER_BYTES} are read")
    raw = source.read(8, length)
    if not raw.startswith(b"{"):
        broken(FlawKind.HEADER, "byte 8", "the header does not begin with an object")
    try:
        parsed: object = json.loads(raw.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError:
        broken(FlawKind.LIMIT, "header", "is nested too deeply")
    except ValueError as error:
        broken(FlawKind.HEADER, "header", f"is no UTF-8 JSON: {str(error)[:80]}")
    if not isinstance(parsed, dict):
        broken(FlawKind.HEADER, "header", "is no object")
    return cast("dict[str, object]", parsed), source.size - 8 - length


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1) if len(names) < 2000 else "a key"
        broken(FlawKind.TWICE, "header", f"{shown(double)} stands there twice")
    return found


def _no_constant(text: str) -> object:
    broken(FlawKind.HEADER, "header", f"{text} is no JSON")


def _check_metadata(value: object) -> None:
    if value is None:
        return
    if not isinstance(value, dict):
        broken(FlawKind.HEADER, "__metadata__", "is no object of texts")
    total = 0
    for key, text in cast("dict[str, object]", value).items():
        if not isinstance(text, str):
            broken(FlawKind.HEADER, f"__metadata__.{shown(key)}", "is no text")
        total += len(key) + len(text)
    if total > MAX_METADATA_BYTES:
        broken(FlawKind.LIMIT, "__metadata__", f"{total} characters, at most {MAX_METADATA_BYTES} are read")


def _tensor(name: str, value: object) -> tuple[int, int, str]:
    """Return begin, end and name of one tensor's bytes."""
    where = f"tensor {shown(name)}"
    if len(name) > MAX_NAME_CHARS or "\0" in name:
        broken(FlawKind.NAME, where, f"its name is longer than {MAX_NAME_CHARS} characters or holds a NUL")
    if not isinstance(value, dict) or set(cast("dict[str, object]", value)) != {"dtype", "shape", "data_offsets"}:
        broken(FlawKind.HEADER, where, "must have dtype, shape and data_offsets and nothing else")
    fields = cast("dict[str, object]", value)
    bits = BITS.get(fields["dtype"]) if isinstance(fields["dtype"], str) else None
    if bits is None:
        broken(FlawKind.HEADER, f"{where}.dtype", f"{shown(str(fields['dtype']))} is no type of the format")
    shape, offsets = _naturals(fields["shape"], f"{where}.shape"), _naturals(fields["data_offsets"], f"{where}.offsets")
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        broken(FlawKind.BOUNDS, f"{where}.data_offsets", "must be a begin and an end not before it")
    for length in shape:
        bits *= length
        if bits > 1 << 66:
            broken(FlawKind.LIMIT, f"{where}.shape", "more elements than any memory holds")
    if bits != 8 * (offsets[1] - offsets[0]):
        broken(FlawKind.BOUNDS, where, f"its shape takes {bits} bits, its offsets hold {offsets[1] - offsets[0]} bytes")
    return offsets[0], offsets[1], name


def _naturals(value: object, where: str) -> list[int]:
    items = cast("list[object]", value) if isinstance(value, list) else None
    if items is None or len(items) > MAX_RANK:
        broken(FlawKind.HEADER, where, f"must be a list of at most {MAX_RANK} numbers")
    numbers = [item for item in items if isinstance(item, int) and not isinstance(item, bool) and item >= 0]
    if len(numbers) != len(items):
        broken(FlawKind.HEADER, where, "holds something else than whole numbers from 0")
    return numbers


def _check_cover(tensors: list[tuple[int, int, str]], data_bytes: int) -> None:
    """The tensors' bytes must follow one another from the first to the last byte of the file."""
    expected = 0
    for begin, end, name in sorted(tensors):
        if begin != expected:
            what = "overlaps the tensor before it" if begin < expected else f"leaves {begin - expected} bytes unused"
            broken(FlawKind.BOUNDS, f"tensor {shown(name)}", what)
        expected = end
    if expected != data_bytes:
        broken(
            FlawKind.BOUNDS, "end", f"the tensors take {expected} bytes, the file holds {data_bytes} after its header"
        )
