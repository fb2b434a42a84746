"""Reads one ONNX tensor's description: do its bytes fit its shape, and where do they lie.

Rules: onnx/onnx.proto (TensorProto) and docs/ExternalData.md. Used by `onnx_file` alone.
"""

import dataclasses
import posixpath
from collections.abc import Mapping

from forestay.artefacts.findings import Flaw, FlawKind, shown
from forestay.artefacts.protobuf import BYTES, VARINT, Field, Message
from forestay.artefacts.source import broken

MAX_NAME_BYTES = 4096
MAX_RANK = 64
MAX_EXTERNAL = 1_000_000
# Bits of one element by TensorProto.DataType; 0: of no fixed size.
BITS: Mapping[int, int] = {
    1: 32,
    2: 8,
    3: 8,
    4: 16,
    5: 16,
    6: 32,
    7: 64,
    8: 0,
    9: 8,
    10: 16,
    11: 64,
    12: 32,
    13: 64,
    14: 64,
    15: 128,
    16: 16,
    17: 8,
    18: 8,
    19: 8,
    20: 8,
    21: 4,
    22: 4,
    23: 4,
    24: 8,
    25: 2,
    26: 2,
    27: 6,
    28: 6,
}
_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16})
_TYPED = frozenset({4, 5, 6, 7, 10, 11})
_EXTERNAL_KEYS = frozenset({"location", "offset", "length", "checksum", "basepath"})


@dataclasses.dataclass(frozen=True, slots=True)
class External:
    """Bytes of a tensor in another file, relative to the model's folder; `end` is the offset behind the last."""

    tensor: str
    location: str
    end: int


class TensorReader:
    """Reads tensors and collects what lies outside."""

    def __init__(self, message: Message, flaws: list[Flaw]) -> None:
        self._message = message
        self._flaws = flaws
        self.external: list[External] = []

    def read(self, field: Field, where: str) -> str:
        """Read one TensorProto; returns its name."""
        if field.wire != BYTES:
            broken(FlawKind.HEADER, where, "is no message")
        parts = list(self._message.fields(field.start, field.end))
        strange = next((part.number for part in parts if part.number not in _FIELDS), None)
        if strange is not None:
            broken(FlawKind.HEADER, where, f"field {strange} is not of the format")
        name = "".join(self._message.text(part, MAX_NAME_BYTES, where) for part in parts if part.number == 8)
        dims = [number for part in parts if part.number == 1 for number in self._message.varints(part, where)]
        kind = next((part.value for part in reversed(parts) if part.number == 2), 0)
        place = f"{where} {shown(name)}"
        bits = _bits(kind, dims, place)
        if any(part.number == 14 and part.wire == VARINT and part.value == 1 for part in parts):
            self._outside(parts, name, (bits + 7) // 8, place)
        elif any(part.number == 13 for part in parts):
            self._flaws.append(Flaw(FlawKind.EXTERNAL, place, "names another file but says that its bytes are inside"))
        else:
            self._inside(parts, kind, bits, place)
        return name

    def _inside(self, parts: list[Field], kind: int, bits: int, where: str) -> None:
        raw = [part for part in parts if part.number == 9]
        typed = sum(part.size for part in parts if part.number in _TYPED)
        if len(raw) > 1 or (raw and typed):
            broken(FlawKind.TWICE, where, "holds its values twice")
        if raw and BITS[kind] and raw[0].size != (bits + 7) // 8:
            broken(FlawKind.BOUNDS, where, f"its shape takes {(bits + 7) // 8} bytes, raw_data has {raw[0].size}")
        if not raw and BITS[kind] and bits // BITS[kind] > 8 * typed:  # at best, eight of two bits share a byte or two
            broken(FlawKind.BOUNDS, where, f"its shape takes {bits // BITS[kind]} values, fewer are there")

    def _outside(self, parts: list[Field], name: str, needed_bytes: int, where: str) -> None:
        values = self._entries(parts, where)
        location = values.get("location", "")
        problem = location_problem(location)
        if problem:
            self._flaws.append(Flaw(FlawKind.EXTERNAL, where, f"{shown(location)} {problem}"))
            return
        offset, length = _natural(values.get("offset", "0")), _natural(values.get("length", str(needed_bytes)))
        if offset is None or length is None or length < needed_bytes:
            what = f"offset {shown(values.get('offset', '0'))} and length {shown(values.get('length', ''))} do not fit"
            self._flaws.append(Flaw(FlawKind.EXTERNAL, where, f"{what} its {needed_bytes} bytes"))
            return
        if len(self.external) >= MAX_EXTERNAL:
            broken(FlawKind.LIMIT, where, f"more than {MAX_EXTERNAL} external tensors")
        self.external.append(External(name, posixpath.normpath(location), offset + length))

    def _entries(self, parts: list[Field], where: str) -> dict[str, str]:
        values: dict[str, str] = {}
        for part in parts:
            if part.number != 13:
                continue
            pair = {
                item.number: self._message.text(item, MAX_NAME_BYTES, f"{where}.external_data")
                for item in self._message.fields(part.start, part.end)
            }
            key = pair.get(1, "")
            if key in values or key not in _EXTERNAL_KEYS:
                what = f"{shown(key)} stands there twice or is not of the format"
                self._flaws.append(Flaw(FlawKind.EXTERNAL, where, what))
            values[key] = pair.get(2, "")
        return values


def location_problem(location: str) -> str:
    """Say why an external location is not plain; empty when it is a file in or below the model's own folder."""
    if not location or len(location) > 1024:
        return "is no file name"
    if location.startswith(("/", "\\", "~")) or ":" in location or "\\" in location:
        return "leads out of the model's folder"
    if any(part == ".." for part in location.split("/")):
        return "leads out of the model's folder"
    if not location.isprintable() or "://" in location:
        return "is no plain file name"
    return ""


def _bits(kind: int, dims: list[int], where: str) -> int:
    if kind not in BITS:
        broken(FlawKind.HEADER, where, f"data type {kind} does not exist")
    if len(dims) > MAX_RANK:
        broken(FlawKind.LIMIT, where, f"{len(dims)} dimensions, at most {MAX_RANK} are read")
    bits = BITS[kind] or 1
    for length in dims:
        if length >= 1 << 63:
            broken(FlawKind.BOUNDS, where, "a negative dimension")
        bits *= length
        if bits > 1 << 66:
            broken(FlawKind.LIMIT, where, "more elements than any memory holds")
    return bits


def _natural(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
