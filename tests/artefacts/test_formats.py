"""Formats: what a file is by its bytes, and that what is admitted can be read by the format's own library."""

import io
import json
import struct
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.artefacts import weights
from tests.artefacts.corpus import good
from tests.artefacts.pickles import npy, stored

from forestay.artefacts import check_weights
from forestay.artefacts.examine import examine
from forestay.artefacts.findings import FlawKind
from forestay.artefacts.formats import Format
from forestay.artefacts.source import BytesSource

SHAPES = st.lists(st.integers(0, 4), max_size=3)


@st.composite
def altered(draw: st.DrawFn, whole: bytes) -> bytes:
    """Return bytes with some of them changed, cut or added."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1))
        data[at] = draw(st.integers(0, 255))
    cut = draw(st.integers(0, 3))
    return bytes(data[: len(data) - cut] if draw(st.booleans()) else data + bytes(cut))


@settings(max_examples=400, deadline=None)
@given(altered(weights.safetensors()))
def test_whatever_is_admitted_as_safetensors_the_library_reads(data: bytes) -> None:
    """An altered file is refused, or it is still a whole one for the library as well."""
    if examine("m.safetensors", BytesSource(data)).flaws:
        return
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "m.safetensors"
        path.write_bytes(data)
        with safetensors.safe_open(path, "np") as opened:
            for key in opened.keys():  # noqa: SIM118 - it is no dict
                opened.get_slice(key).get_shape()


@settings(max_examples=200, deadline=None)
@given(altered(npy("<f4", (2, 2), bytes(16))))
def test_whatever_is_admitted_as_npy_numpy_reads_without_pickle(data: bytes) -> None:
    """An altered array is refused, or NumPy reads it with pickles forbidden."""
    result = examine("a.npy", BytesSource(data))
    if not result.flaws and result.format is Format.NPY:
        np.load(io.BytesIO(data), allow_pickle=False)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"GGUF\3\0\0\0", b"\x93NUMPY\1\0", b"PK\3\4", b"\x08\x08", b"\x80\4"]),
)
def test_no_bytes_break_an_examination(data: bytes, start: bytes) -> None:
    """Whatever a stranger sends, the answer is a format and a list of flaws."""
    examine("x", BytesSource(start + data))


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["onnx", "gguf"]), st.data())
def test_an_altered_header_never_breaks_a_reader(kind: str, data: st.DataObject) -> None:
    """ONNX and GGUF with changed bytes end in flaws, not in an exception."""
    whole = weights.onnx(initializers=(weights.initializer(),)) if kind == "onnx" else weights.gguf()
    examine(f"m.{kind}", BytesSource(data.draw(altered(whole))))


@given(st.dictionaries(st.text(min_size=1, max_size=20), SHAPES, max_size=6))
@settings(max_examples=100, deadline=None)
def test_whatever_the_library_writes_is_admitted(shapes: dict[str, list[int]]) -> None:
    """Any names and shapes that safetensors itself saves are whole."""
    from safetensors.numpy import save  # noqa: PLC0415 - only here

    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items() if name != "__metadata__"}
    flaws = examine("m.safetensors", BytesSource(save(tensors))).flaws
    assert [flaw for flaw in flaws if flaw.kind is not FlawKind.NAME] == []


def test_onnx_and_gguf_by_libraries_are_read_by_them_again(tmp_path: Path) -> None:
    """The honest files of the corpus are honest for the formats' own readers."""
    onnx, gguf = pytest.importorskip("onnx"), pytest.importorskip("gguf")
    for case in good():
        if case.name.startswith("onnx: by the library"):
            onnx.checker.check_model(onnx.load_from_string(case.files["model.onnx"]))
        if case.name == "gguf: by the library":
            path = case.write(tmp_path) / "model.gguf"
            assert {tensor.name for tensor in gguf.GGUFReader(path).tensors} == {
                "token_embd.weight",
                "output_norm.weight",
            }


def test_time_grows_with_the_header_only() -> None:
    """A tensor of a terabyte is examined without reading it."""

    class Sparse(BytesSource):
        """A header in front of a terabyte that nobody may ask for."""

        def __init__(self, head: bytes, more: int) -> None:
            super().__init__(head)
            self._more = more
            self.asked = 0

        @property
        def size(self) -> int:
            return super().size + self._more

        def read(self, offset: int, length: int) -> bytes:
            self.asked += length
            known = self._data[offset : offset + length]
            return known + bytes(length - len(known))

    size = 1 << 40
    header = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    source = Sparse(struct.pack("<Q", len(header)) + header, size)
    assert examine("m.safetensors", source).flaws == ()
    assert source.asked < 1_000_000


def test_weights_of_a_caller_are_taken_only_as_safetensors(tmp_path: Path) -> None:
    """A whole file passes, anything else is refused in words for its sender."""
    path = tmp_path / "lora"
    path.write_bytes(weights.safetensors())
    assert check_weights(path) is None
    assert check_weights(weights.safetensors()) is None
    assert check_weights(b"\x80\x04N.") == "weights must be safetensors; these bytes are pickle"
    assert "the tensors take 19 bytes" in str(check_weights(weights.safetensors()[:-1]))
    assert check_weights(weights.gguf()) == "weights must be safetensors; these bytes are gguf"
    assert check_weights(weights.gguf(), ("gguf", "safetensors")) is None
    zipped = stored({"a.safetensors": weights.safetensors()}, method=zipfile.ZIP_DEFLATED)
    assert check_weights(zipped) == "weights must be safetensors; these bytes are zip"
