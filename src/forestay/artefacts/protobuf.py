"""Walks the fields of a protobuf message by position, without a schema compiler and without reading long values.

It decides what the wire format allows (protobuf.dev/programming-guides/encoding): wire types, varints of at most ten
bytes, lengths inside the message. Which fields mean what is the caller's. Used by `onnx_file` and `formats`.
"""

import dataclasses
from collections.abc import Iterator

from forestay.artefacts.findings import FlawKind
from forestay.artefacts.source import Source, broken

MAX_FIELDS = 5_000_000  # of one file, nested ones included
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """One field: its number, its wire type, its value if it is a number, and where its bytes lie."""

    number: int
    wire: int
    value: int  # of a varint or a fixed one
    start: int
    end: int

    @property
    def size(self) -> int:
        """Number of bytes of the value."""
        return self.end - self.start


class Message:
    """A source with a budget of fields, shared by everything that is read of one file."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._left = MAX_FIELDS

    @property
    def size(self) -> int:
        """Number of bytes of the whole file."""
        return self._source.size

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """Return the fields between two offsets."""
        at = start
        while at < end:
            self._left -= 1
            if self._left < 0:
                broken(FlawKind.LIMIT, f"byte {at}", f"more than {MAX_FIELDS} fields")
            field = self._field(at, end)
            yield field
            at = field.end

    def text(self, field: Field, limit: int, where: str) -> str:
        """Return a field's text of at most `limit` bytes."""
        if field.wire != BYTES:
            broken(FlawKind.HEADER, where, "is no text")
        if field.size > limit:
            broken(FlawKind.LIMIT, where, f"a text of {field.size} bytes, at most {limit} are read")
        try:
            return self._source.read(field.start, field.size).decode("utf-8")
        except UnicodeDecodeError:
            broken(FlawKind.HEADER, where, "is no UTF-8 text")

    def varints(self, field: Field, where: str) -> list[int]:
        """Return the numbers of a repeated field, packed or single."""
        if field.wire == VARINT:
            return [field.value]
        if field.wire != BYTES or field.size > 4096:
            broken(FlawKind.LIMIT, where, "is no short list of numbers")
        found: list[int] = []
        at = field.start
        while at < field.end:
            value, at = self._varint(at, field.end)
            found.append(value)
        return found

    def _field(self, at: int, end: int) -> Field:
        tag, after = self._varint(at, end)
        number, wire = tag >> 3, tag & 7
        if not 1 <= number < 1 << 29:
            broken(FlawKind.HEADER, f"byte {at}", f"field number {number} does not exist")
        if wire == VARINT:
            value, stop = self._varint(after, end)
            return Field(number, wire, value, after, stop)
        if wire in {FIXED64, FIXED32}:
            width = 8 if wire == FIXED64 else 4
            if after + width > end:
                broken(FlawKind.BOUNDS, f"byte {at}", "a number reaches beyond its message")
            return Field(number, wire, int.from_bytes(self._source.read(after, width), "little"), after, after + width)
        if wire != BYTES:
            broken(FlawKind.HEADER, f"byte {at}", f"wire type {wire} is not used any more")
        length, start = self._varint(after, end)
        if start + length > end:
            broken(FlawKind.BOUNDS, f"byte {at}", f"a value of {length} bytes reaches beyond its message")
        return Field(number, wire, 0, start, start + length)

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        data = self._source.read(at, min(10, end - at))
        value = 0
        for index, byte in enumerate(data):
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if value >= 1 << 64:
                    broken(FlawKind.HEADER, f"byte {at}", "a number of more than 64 bits")
                return value, at + index + 1
        return broken(FlawKind.HEADER, f"byte {at}", "a number that does not end")
