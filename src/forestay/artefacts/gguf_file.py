"""Reads the header of a GGUF file and says what is wrong with it. Tensor data is not read.

Rules: the format's own (github.com/ggml-org/ggml, docs/gguf.md): magic, version, key-value pairs, tensor descriptions,
aligned data. Limits are ours. A chat template that reaches into Python objects is a flaw. Pure over a Source.
"""

import dataclasses
from collections.abc import Mapping

from forestay.artefacts.findings import Flaw, FlawKind, shown
from forestay.artefacts.source import Broken, Source, broken
from forestay.artefacts.templates import template_problem

MAGIC = b"GGUF"
VERSIONS = frozenset({2, 3})
MAX_PAIRS = 65_536
MAX_TENSORS = 200_000
MAX_KEY_BYTES = 65_535  # gguf.md
MAX_TEXT_BYTES = 16 * 1024 * 1024
MAX_ITEMS = 4_000_000  # of all arrays together; vocabularies have some 100,000
MAX_NAME_BYTES = 128  # gguf.md says 64; some published files have more
MAX_DIMENSIONS = 4
_STRING, _ARRAY, _BOOL = 8, 9, 7
_WIDTHS: Mapping[int, int] = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
# Elements and bytes of one block by ggml type, from ggml's type traits.
BLOCKS: Mapping[int, tuple[int, int]] = {
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    9: (32, 40),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    20: (32, 18),
    21: (256, 110),
    22: (256, 82),
    23: (256, 136),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    27: (1, 8),
    28: (1, 8),
    29: (256, 56),
    30: (1, 2),
    34: (256, 54),
    35: (256, 66),
    39: (32, 17),
    40: (64, 36),
    41: (128, 18),
}


@dataclasses.dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    offset: int
    size: int


def read_gguf(source: Source) -> list[Flaw]:
    """Return the flaws of a GGUF file; empty when it is whole. Time grows with the header only."""
    reader = _Reader(source)
    try:
        reader.read()
    except Broken as stop:
        reader.flaws.append(stop.flaw)
    return reader.flaws


class _Reader:
    """Reads from front to back."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._at = 0
        self._items_left = MAX_ITEMS
        self._alignment = 32
        self.flaws: list[Flaw] = []

    def read(self) -> None:
        """Read everything up to the data, and check that the data fits."""
        if self._take(4) != MAGIC:
            broken(FlawKind.HEADER, "byte 0", "does not begin with GGUF")
        version = self._number(4)
        if version not in VERSIONS:
            broken(FlawKind.HEADER, "byte 4", f"version {version}; little-endian versions 2 and 3 are read")
        tensors, pairs = self._number(8), self._number(8)
        if tensors > MAX_TENSORS or pairs > MAX_PAIRS:
            what = f"{tensors} tensors and {pairs} pairs, at most {MAX_TENSORS} and {MAX_PAIRS} are read"
            broken(FlawKind.LIMIT, "byte 8", what)
        self._pairs(pairs)
        described = self._tensors(tensors)
        start = -(-self._at // self._alignment) * self._alignment
        self._check_data(described, start)

    def _pairs(self, count: int) -> None:
        seen: set[str] = set()
        for _ in range(count):
            key = self._text(MAX_KEY_BYTES, "a key")
            if key in seen:
                broken(FlawKind.TWICE, f"byte {self._at}", f"the key {shown(key)} stands there twice")
            seen.add(key)
            self._value(key)

    def _value(self, key: str) -> None:
        where = f"key {shown(key)}"
        kind = self._number(4)
        if kind == _STRING:
            text = self._text(MAX_TEXT_BYTES, where)
            problem = template_problem(text) if "chat_template" in key else ""
            if problem:
                self.flaws.append(Flaw(FlawKind.TEMPLATE, where, problem))
        elif kind == _ARRAY:
            self._array(where, 0)
        elif kind in _WIDTHS:
            value = self._number(_WIDTHS[kind])
            if kind == _BOOL and value > 1:
                broken(FlawKind.HEADER, where, f"{value} is no boolean")
            if key == "general.alignment":
                self._set_alignment(kind, value)
        else:
            broken(FlawKind.HEADER, where, f"type {kind} does not exist")

    def _array(self, where: str, depth: int) -> None:
        kind, count = self._number(4), self._number(8)
        self._items_left -= count
        if self._items_left < 0 or depth > 2:
            broken(FlawKind.LIMIT, where, f"arrays of more than {MAX_ITEMS} items, or nested more than twice")
        if kind in _WIDTHS:
            self._skip(count * _WIDTHS[kind], where)
        elif kind == _STRING:
            for _ in range(count):
                self._skip(self._number(8), where)
        elif kind == _ARRAY:
            for _ in range(count):
                self._array(where, depth + 1)
        else:
            broken(FlawKind.HEADER, where, f"type {kind} does not exist")

    def _set_alignment(self, kind: int, value: int) -> None:
        if kind != 4 or not 8 <= value <= 65_536 or value & (value - 1):
            broken(FlawKind.HEADER, "key general.alignment", f"{value} is no power of two from 8 to 65536")
        self._alignment = value

    def _tensors(self, count: int) -> list[_Tensor]:
        found: dict[str, _Tensor] = {}
        for _ in range(count):
            tensor = self._tensor()
            if tensor.name in found:
                broken(FlawKind.TWICE, f"byte {self._at}", f"the tensor {shown(tensor.name)} stands there twice")
            found[tensor.name] = tensor
        return list(found.values())

    def _tensor(self) -> _Tensor:
        name = self._text(MAX_NAME_BYTES, "a tensor's name")
        where = f"tensor {shown(name)}"
        rank = self._number(4)
        if rank > MAX_DIMENSIONS:
            broken(FlawKind.LIMIT, where, f"{rank} dimensions, at most {MAX_DIMENSIONS} exist")
        shape = [self._number(8) for _ in range(rank)]
        kind, offset = self._number(4), self._number(8)
        if kind not in BLOCKS:
            broken(FlawKind.HEADER, where, f"type {kind} does not exist")
        if offset % self._alignment:
            broken(FlawKind.BOUNDS, where, f"offset {offset} is no multiple of {self._alignment}")
        return _Tensor(name, offset, _size(shape, kind, where))

    def _check_data(self, tensors: list[_Tensor], start: int) -> None:
        """Data must follow the header in aligned, separate pieces, and the file must end with the last."""
        end = 0
        for tensor in sorted(tensors, key=lambda item: (item.offset, item.size)):
            where = f"tensor {shown(tensor.name)}"
            expected = -(-end // self._alignment) * self._alignment
            if tensor.offset != expected:
                what = (
                    "overlaps the tensor before it" if tensor.offset < end else f"leaves a gap before {tensor.offset}"
                )
                broken(FlawKind.BOUNDS, where, what)
            end = tensor.offset + tensor.size
        left = self._source.size - start - end if tensors else self._source.size - self._at
        if (tensors and left < 0) or left >= self._alignment:
            broken(FlawKind.BOUNDS, "end", f"the tensors end at byte {start + end}, the file at {self._source.size}")

    def _take(self, length: int) -> bytes:
        data = self._source.read(self._at, length)
        self._at += length
        return data

    def _number(self, width: int) -> int:
        return int.from_bytes(self._take(width), "little")

    def _skip(self, length: int, where: str) -> None:
        if length > self._source.size - self._at:
            broken(FlawKind.BOUNDS, where, f"{length} bytes, more than there are")
        self._at += length

    def _text(self, limit: int, where: str) -> str:
        length = self._number(8)
        if length > limit:
            broken(FlawKind.LIMIT, where, f"a text of {length} bytes, at most {limit} are read")
        try:
            return self._take(length).decode("utf-8")
        except UnicodeDecodeError:
            broken(FlawKind.HEADER, where, "a text that is no UTF-8")


def _size(shape: list[int], kind: int, where: str) -> int:
    elements = 1
    for length in shape:
        elements *= length
        if elements > 1 << 63:
            broken(FlawKind.LIMIT, where, "more elements than any memory holds")
    block, size = BLOCKS[kind]
    if shape and shape[0] % block:
        broken(FlawKind.BOUNDS, where, f"rows of {shape[0]} elements are no multiple of the type's block of {block}")
    return elements // block * size
