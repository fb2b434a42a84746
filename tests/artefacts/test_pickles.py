"""Pickles: what the walk calls harmless imports nothing but what is on the list, whatever the bytes are."""

import contextlib
import io
import pickle
import pickletools
import warnings
from typing import Self

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.artefacts.pickles import RISKY, TENSOR, called_stacked, called_text, torch_old, torch_zip

from forestay.artefacts.examine import examine
from forestay.artefacts.findings import FlawKind
from forestay.artefacts.formats import Format
from forestay.artefacts.pickle_file import acts_as_pickle
from forestay.artefacts.pickle_names import is_allowed
from forestay.artefacts.pickle_opcodes import walk
from forestay.artefacts.source import BytesSource

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=300),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner) | st.frozensets(st.integers())
    ),
    max_leaves=20,
)
NAMES = st.sampled_from([*RISKY, "collections OrderedDict", "builtins set", "torch._utils _rebuild_tensor_v2"])
OPCODES = [opcode for opcode in pickletools.opcodes if not opcode.name.startswith("EXT")]


class _Inert:
    """Stands in for whatever a pickle asks for; calling it does nothing."""

    def __new__(cls, *_: object, **__: object) -> Self:
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Take a state."""


class _Recorder(pickle._Unpickler):
    """An unpickler that imports nothing and notes what it was asked to import."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.asked: list[tuple[str, str]] = []

    def find_class(self, module: str, name: str) -> object:
        """Give something inert."""
        self.asked.append((module, name))
        return _Inert


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Return opcodes with arguments that mostly fit, in any order."""
    out = bytearray(draw(st.sampled_from([b"", b"\x80\x02", b"\x80\x04"])))
    for opcode in draw(st.lists(st.sampled_from(OPCODES), max_size=25)):
        out += opcode.code.encode("latin-1") + draw(_argument(opcode))
    return bytes(out) + b"."


def _argument(opcode: pickletools.OpcodeInfo) -> st.SearchStrategy[bytes]:
    """Return what may follow an opcode."""
    size = opcode.arg.n if opcode.arg is not None else 0
    if size == 0:
        return st.just(b"")
    if opcode.name in {"GLOBAL", "INST"}:
        return NAMES.map(lambda name: name.replace(" ", "\n").encode() + b"\n")
    if size == pickletools.UP_TO_NEWLINE:
        return st.sampled_from([b"0\n", b"1\n", b"'os'\n", b"'system'\n", b"os\n", b"system\n"])
    if size > 0:
        return st.integers(0, 3).map(lambda value: value.to_bytes(size, "little"))
    width = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT8U: 8}.get(size, 4)
    return st.sampled_from([b"os", b"system", b"collections", b"OrderedDict", b""]).map(
        lambda data: len(data).to_bytes(width, "little") + data
    )


@pytest.mark.threat("ML06:2023", "AML.T0010", "AML.T0011.000")
@settings(max_examples=400, deadline=None)
@given(streams())
@example(b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94h\x00h\x01\x93.")
@example(b"U\x02osU\x06system\x93.")
def test_what_the_walk_calls_harmless_imports_only_what_is_listed(data: bytes) -> None:
    """An unpickler that notes its imports is asked for no name that the walk did not see and allow."""
    reading = walk(BytesSource(data))
    recorder = _Recorder(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(Exception):  # most streams break; what was asked until then is what matters
            recorder.load()
    if reading.plain:
        assert [name for name in recorder.asked if not is_allowed(*name)] == []
        assert set(recorder.asked) <= set(reading.names)
    assert not recorder.asked or reading.acts


@settings(max_examples=300, deadline=None)
@given(PLAIN, st.integers(0, 5))
def test_plain_values_are_harmless_in_every_protocol(value: object, protocol: int) -> None:
    """No false alarm: numbers, texts and containers name nothing but the codec that writes bytes of old."""
    data = pickle.dumps(value, protocol)
    reading = walk(BytesSource(data))
    assert reading.flaws == ()
    assert reading.end == len(data)
    assert all(is_allowed(*name) for name in reading.names)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_break_the_walk(data: bytes) -> None:
    """Whatever it is given, it ends with a reading."""
    reading = walk(BytesSource(data))
    assert reading.end is None or reading.end <= len(data)


@pytest.mark.parametrize("name", RISKY)
def test_a_name_outside_the_list_is_named(name: str) -> None:
    """The answer says which name it was, in every spelling of the import."""
    module, _, attribute = name.partition(" ")
    for data in (called_text(name), called_stacked(name), b"N." + called_text(name)):
        flaws = examine("x.pkl", BytesSource(data)).flaws
        assert any(flaw.kind is FlawKind.PICKLE_GLOBAL and f"{module}.{attribute}" in flaw.what for flaw in flaws)


@pytest.mark.parametrize("data", [torch_zip(), torch_old()])
def test_what_torch_writes_for_tensors_has_only_the_flaw_that_may_be_waived(data: bytes) -> None:
    """Plain tensors name nothing outside the list, in both of torch's archives."""
    result = examine("model.pt", BytesSource(data))
    assert {flaw.kind for flaw in result.flaws} == {FlawKind.PICKLE}
    assert walk(BytesSource(TENSOR), persistent=True).plain


def test_what_torch_itself_saves_is_read() -> None:
    """State dicts, parameters, many types and shared storages, as today's torch writes them."""
    torch = pytest.importorskip("torch")
    state = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).state_dict()
    more = {
        "half": torch.ones(2, dtype=torch.bfloat16),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "n": [1, 2.5, "x"],
    }
    for kept in (state, more):
        for new in (True, False):
            target = io.BytesIO()
            torch.save(kept, target, _use_new_zipfile_serialization=new)
            flaws = examine("model.pt", BytesSource(target.getvalue())).flaws
            assert {flaw.kind for flaw in flaws} == {FlawKind.PICKLE}, flaws


@pytest.mark.parametrize(
    "words", [b"cat\ndog\n", b"import os\nimport sys\n", b"class A:\n    x = 1\n", b"(c) 2026\nus\n"]
)
def test_words_are_not_taken_for_a_pickle(words: bytes) -> None:
    """Text that begins with letters which are opcodes does not get as far as a call."""
    assert not acts_as_pickle(BytesSource(words), walk(BytesSource(words)))
    assert examine("a.txt", BytesSource(words)).format is Format.TEXT
