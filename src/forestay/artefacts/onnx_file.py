"""Reads the structure of an ONNX model and says what is wrong with it. Weights are not read.

Rules: the format's own (onnx/onnx.proto, docs/ExternalData.md). It decides on known fields, known operator sets,
tensors that fit their bytes, and external data that lies beside the model under a plain name. Whether a named external
file is there is decided where the folder is known (`folder`). Pure over a Source.
"""

import dataclasses
from collections.abc import Mapping

from forestay.artefacts.findings import Flaw, FlawKind, shown
from forestay.artefacts.onnx_tensor import External, TensorReader
from forestay.artefacts.protobuf import BYTES, VARINT, Field, Message
from forestay.artefacts.source import Broken, Source, broken

MAX_NAME_BYTES = 4096
MAX_METADATA_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 16
MAX_FLAWS = 20
# Operator sets that ONNX and ONNX Runtime define themselves; others need native code of the model's own.
KNOWN_DOMAINS = frozenset(
    {
        *("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview", "ai.onnx.preview.training"),
        *("com.microsoft", "com.microsoft.nchwc", "com.microsoft.internal.nhwc"),
    }
)
CALLS_PYTHON = frozenset({"PyOp", "PythonOp", "PythonOpGrad", "ATen"})  # com.microsoft operators that leave the graph
_IR_VERSION, _GRAPH, _OPSET, _METADATA, _FUNCTIONS = 1, 7, 8, 14, 25
_MODEL_WIRES: Mapping[int, int] = {1: VARINT, 5: VARINT, **dict.fromkeys((2, 3, 4, 6, 7, 8, 14, 20, 25, 26), BYTES)}
_GRAPH_FIELDS = frozenset({1, 2, 5, 10, 11, 12, 13, 14, 15, 16})
_NODE_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, 10})
_FUNCTION_FIELDS = frozenset({1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14})


@dataclasses.dataclass(frozen=True, slots=True)
class OnnxReading:
    """What a model holds that matters here."""

    flaws: tuple[Flaw, ...]
    external: tuple[External, ...]


def looks_like_onnx(source: Source) -> bool:
    """Tell whether the top-level fields are ModelProto's, a version and a graph among them."""
    message, seen = Message(source), set[int]()
    try:
        for field in message.fields(0, source.size):
            if _MODEL_WIRES.get(field.number) != field.wire:
                return False
            seen.add(field.number)
    except Broken:
        pass  # what breaks off is judged by what came before
    return {_IR_VERSION, _GRAPH} <= seen


def read_onnx(source: Source) -> OnnxReading:
    """Return the flaws of an ONNX model, and the external files that it needs."""
    reader = _Reader(source)
    try:
        reader.read_model()
    except Broken as stop:
        reader.flaws.append(stop.flaw)
    except RecursionError:
        reader.flaws.append(Flaw(FlawKind.LIMIT, "graph", "is nested too deeply"))
    return OnnxReading(tuple(reader.flaws[:MAX_FLAWS]), tuple(reader.tensors.external))


class _Reader:
    """Walks model, graphs, nodes and functions."""

    def __init__(self, source: Source) -> None:
        self._message = Message(source)
        self._size = source.size
        self._opsets: set[str] = set()
        self._own_operators: set[tuple[str, str]] = set()
        self.flaws: list[Flaw] = []
        self.tensors = TensorReader(self._message, self.flaws)

    def read_model(self) -> None:
        """Read everything; the operator sets and the model's own functions first, since nodes refer to them."""
        fields = list(self._message.fields(0, self._size))
        single = [field.number for field in fields if field.number in {_IR_VERSION, _GRAPH}]
        if sorted(single) != [_IR_VERSION, _GRAPH]:
            broken(FlawKind.TWICE, "model", "must have one ir_version and one graph")
        self._check_fields(fields, frozenset(_MODEL_WIRES), "model")
        self._read_opsets([field for field in fields if field.number == _OPSET])
        functions = [field for field in fields if field.number == _FUNCTIONS]
        for field in functions:
            self._declare_function(field)
        words = sum(field.size for field in fields if field.number in {2, 3, 4, 6, _METADATA})
        if words > MAX_METADATA_BYTES:
            broken(FlawKind.LIMIT, "metadata_props", f"{words} bytes of names and notes, at most {MAX_METADATA_BYTES}")
        for field in fields:
            if field.number == _GRAPH:
                self._graph(field, "graph", 0)
            elif field.number == 20:
                self._training(field)
        for field in functions:
            parts = self._children(field, _FUNCTION_FIELDS, "function")
            self._nodes(parts, 7, "function", 0)
            for part in parts:
                if part.number == 11:
                    self._attribute(part, "function", 0)

    def _read_opsets(self, fields: list[Field]) -> None:
        for field in fields:
            domain = self._text_of(field, 1, "opset_import.domain")
            if domain in self._opsets:
                self._note(FlawKind.TWICE, "opset_import", f"{shown(domain)} is imported twice")
            self._opsets.add(domain)

    def _declare_function(self, field: Field) -> None:
        name = self._text_of(field, 1, "function.name")
        self._own_operators.add((self._text_of(field, 10, "function.domain"), name))

    def _training(self, field: Field) -> None:
        for part in self._children(field, frozenset({1, 2, 3, 4}), "training_info"):
            if part.number in {1, 2}:
                self._graph(part, "training_info", 0)

    def _graph(self, field: Field, where: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            broken(FlawKind.LIMIT, where, f"graphs within graphs, more than {MAX_DEPTH} deep")
        fields = list(self._children(field, _GRAPH_FIELDS, where))
        names: set[str] = set()
        for part in fields:
            if part.number == 5:
                name = self.tensors.read(part, f"{where}.initializer")
                if name in names:
                    self._note(FlawKind.TWICE, f"{where}.initializer", f"{shown(name)} stands there twice")
                names.add(name)
            elif part.number == 15:
                self._sparse(part, where)
        self._nodes(fields, 1, where, depth)

    def _sparse(self, field: Field, where: str) -> None:
        for part in self._children(field, frozenset({1, 2, 3}), f"{where}.sparse_initializer"):
            if part.number in {1, 2}:
                self.tensors.read(part, f"{where}.sparse_initializer")

    def _nodes(self, fields: list[Field], number: int, where: str, depth: int) -> None:
        for index, part in enumerate(field for field in fields if field.number == number):
            self._node(part, f"{where}.node[{index}]", depth)

    def _node(self, field: Field, where: str, depth: int) -> None:
        domain, operator = "", ""
        for part in self._children(field, _NODE_FIELDS, where):
            if part.number == 4:
                operator = self._message.text(part, MAX_NAME_BYTES, f"{where}.op_type")
            elif part.number == 7:
                domain = self._message.text(part, MAX_NAME_BYTES, f"{where}.domain")
            elif part.number == 5:
                self._attribute(part, where, depth)
        if (domain, operator) not in self._own_operators:
            self._check_operator(domain, operator, where)

    def _check_operator(self, domain: str, operator: str, where: str) -> None:
        called = f"{domain}::{operator}" if domain else operator
        if domain not in KNOWN_DOMAINS:
            self._note(FlawKind.OPERATOR, where, f"{shown(called)} belongs to no known operator set")
        elif operator in CALLS_PYTHON:
            self._note(FlawKind.OPERATOR, where, f"{shown(called)} runs code outside the graph")
        elif not operator:
            self._note(FlawKind.HEADER, where, "has no operator")

    def _attribute(self, field: Field, where: str, depth: int) -> None:
        for part in self._message.fields(field.start, field.end):
            if part.number in {5, 10} and part.wire == BYTES:
                self.tensors.read(part, f"{where}.attribute")
            elif part.number in {6, 11} and part.wire == BYTES:
                self._graph(part, f"{where}.attribute", depth + 1)
            elif part.number in {22, 23} and part.wire == BYTES:
                self._sparse(part, f"{where}.attribute")

    def _children(self, field: Field, known: frozenset[int], where: str) -> list[Field]:
        if field.wire != BYTES:
            broken(FlawKind.HEADER, where, "is no message")
        fields = list(self._message.fields(field.start, field.end))
        self._check_fields(fields, known, where)
        return fields

    def _check_fields(self, fields: list[Field], known: frozenset[int], where: str) -> None:
        strange = next((field for field in fields if field.number not in known), None)
        if strange is not None:
            self._note(FlawKind.HEADER, where, f"field {strange.number} at byte {strange.start} is not of the format")

    def _text_of(self, field: Field, number: int, where: str) -> str:
        if field.wire != BYTES:
            broken(FlawKind.HEADER, where, "is no message")
        found = ""
        for part in self._message.fields(field.start, field.end):
            if part.number == number:
                found = self._message.text(part, MAX_NAME_BYTES, where)
        return found

    def _note(self, kind: FlawKind, where: str, what: str) -> None:
        if len(self.flaws) < MAX_FLAWS:
            self.flaws.append(Flaw(kind, where, what))
