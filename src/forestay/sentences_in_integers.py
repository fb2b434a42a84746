"""The sentence model in few operators, its products taken in 8-bit integers: under half the time, from the same file.

The file stores weights in 8 bits, multiplies in floating point, and spells out each step. Here the graph is built anew
from its weights: a layer is nine operators instead of forty, with queries, keys and values in one product, and the six
layers are two models of three, so that whoever has seen enough halfway can stop. A product
measures the activations as it runs, rounds them to 8 bits and multiplies integers (Jacob et al. 2018, "Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"). Signed weights are the quick ones where
the processor has VNNI and may overflow on other x86 (onnxruntime's documentation of quantisation), which therefore get
unsigned ones: the very same results, slower. Vectors differ by some percent of their length from those in floating
point, so whoever uses them must have been taught with them. Needs the package onnx. Called by `sentences`.
"""

# onnx's messages are partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import pathlib
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

IDS = "input_ids"  # `[1, tokens] int64`, with the marks of beginning and end; one text, nothing padded
HALFWAY = "layer_2"  # of layers 0 to 5: what the first half puts out and the second takes, `[1, tokens, 384]`
LAYERS = ("layer_3", "layer_4", "layer_5")  # what the second half puts out, each as large
_COUNT, _HALF, _HEADS, _SIZE = 6, 3, 12, 384
_OWN = "com.microsoft"  # onnxruntime's own operators
_OPSET, _IR_VERSION = 18, 9
_ZERO = 128  # what stands for 0 in an unsigned weight
_TINY = 1e-12  # added to a variance, as the model was taught
_EMBEDDINGS = "inner.embeddings."

Array = npt.NDArray[np.generic]


def signed_are_safe() -> bool:
    """Return whether this processor adds up products of unsigned and signed bytes without overflow."""
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return True
    told = pathlib.Path("/proc/cpuinfo")
    return told.is_file() and "_vnni" in told.read_text("ascii", errors="replace")


def in_integers(model: bytes, *, signed: bool) -> tuple[bytes, bytes]:
    """Return two models, from `IDS` to `HALFWAY` and from there to `LAYERS`; ValueError when the layout is another."""
    try:
        stored = _Stored(model)
        return _Graph(stored, signed=signed).first_half(), _Graph(stored, signed=signed).second_half()
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"the model is laid out otherwise than all-MiniLM-L6-v2 in 8 bits: {error} is missing"
        ) from None


class _Stored:
    """The tensors of a file, and which matrix belongs to a bias."""

    def __init__(self, model: bytes) -> None:
        graph = onnx.load_from_string(model).graph
        self._tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self._made = {name: node for node in graph.node for name in node.output}
        self._added_by = {name: node for node in graph.node if node.op_type == "Add" for name in node.input}

    def __getitem__(self, name: str) -> Array:
        return self._tensors[name]

    def product(self, layer: str) -> tuple[Array, Array, Array]:
        """Return `[in, out] int8`, its scales `[out]` and the bias `[out]` of a layer stored as `Cast(m) * s`."""
        bias = f"{layer}.bias"
        [product] = [name for name in self._added_by[bias].input if name != bias]
        scaled = self._made[self._made[product].input[1]]
        matrix = self._tensors[self._made[scaled.input[0]].input[0]]
        return matrix, self._tensors[scaled.input[1]].reshape(-1), self._tensors[bias]


class _Graph:
    """Nodes and tensors as they are added."""

    def __init__(self, stored: _Stored, *, signed: bool) -> None:
        self._stored = stored
        self._signed = signed
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: list[onnx.TensorProto] = []

    def first_half(self) -> bytes:
        """Return embeddings and the layers up to `HALFWAY`."""
        begin = helper.make_tensor_value_info(IDS, TensorProto.INT64, [1, "tokens"])
        return self._built(self._embedded(), range(_HALF), begin, [HALFWAY])

    def second_half(self) -> bytes:
        """Return the layers behind it."""
        return self._built(HALFWAY, range(_HALF, _COUNT), _state(HALFWAY), LAYERS)

    def _built(self, state: str, layers: range, begin: onnx.ValueInfoProto, ends: Sequence[str]) -> bytes:
        self._tensor("zero", np.array([0], np.int8) if self._signed else np.array([_ZERO], np.uint8))
        self._tensor("thirds", np.array([_SIZE] * 3, np.int64))
        for number in layers:
            state = self._layer(f"inner.encoder.layer.{number}.", state, f"layer_{number}")
        graph = helper.make_graph(self._nodes, "sentences", [begin], [_state(name) for name in ends], self._tensors)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_OWN, 1)]
        model = helper.make_model(graph, opset_imports=opsets)
        model.ir_version = _IR_VERSION
        return model.SerializeToString()

    def _embedded(self) -> str:
        """Add the sum of word, place and kind. Words stay in bytes: a text needs few of the 30,522."""
        words, scales = (self._kept(f"word_embeddings.weight_{part}") for part in ("q", "scale"))
        places = self._stored[f"{_EMBEDDINGS}position_embeddings.weight_q"].astype(np.float32)
        each = self._stored[f"{_EMBEDDINGS}position_embeddings.weight_scale"].astype(np.float32)
        kind = self._stored[f"{_EMBEDDINGS}token_type_embeddings.weight"].astype(np.float32)
        self._tensor("places", places * each + kind[0])
        self._tensor("first", np.array([0], np.int64))
        self._add("Gather", [words, IDS], "word_bytes")
        self._add("Cast", ["word_bytes"], "word_numbers", to=TensorProto.FLOAT)
        self._add("Gather", [scales, IDS], "word_scales")
        self._add("Mul", ["word_numbers", "word_scales"], "words")
        self._add("Shape", [IDS], "tokens", start=1, end=2)
        self._add("Slice", ["places", "first", "tokens", "first"], "places_taken")
        self._add("Add", ["words", "places_taken"], "word_at_place")
        return self._normal("word_at_place", _EMBEDDINGS, "embedded")

    def _layer(self, name: str, state: str, into: str) -> str:
        attention = [self._stored.product(f"{name}attention.self.{part}") for part in ("query", "key", "value")]
        merged = [np.concatenate(parts, axis=-1) for parts in zip(*attention, strict=True)]
        self._product(state, (merged[0], merged[1], merged[2]), f"{into}.all")
        parts = [f"{into}.{part}" for part in ("query", "key", "value")]
        self._nodes.append(helper.make_node("Split", [f"{into}.all", "thirds"], parts, axis=-1))
        self._add("MultiHeadAttention", parts, f"{into}.heads", domain=_OWN, num_heads=_HEADS)
        self._product(f"{into}.heads", self._stored.product(f"{name}attention.output.dense"), f"{into}.heard")
        self._add("Add", [f"{into}.heard", state], f"{into}.sum")
        middle = self._normal(f"{into}.sum", f"{name}attention.output.", f"{into}.middle")
        matrix, scales, bias = self._stored.product(f"{name}intermediate.dense")
        self._product(middle, (matrix, scales, None), f"{into}.wide")
        self._add("BiasGelu", [f"{into}.wide", self._tensor(f"{into}.wide.bias", bias)], f"{into}.bent", domain=_OWN)
        self._product(f"{into}.bent", self._stored.product(f"{name}output.dense"), f"{into}.narrow")
        self._add("Add", [f"{into}.narrow", middle], f"{into}.last")
        return self._normal(f"{into}.last", f"{name}output.", into)

    def _product(self, factor: str, by: tuple[Array, Array, Array | None], into: str) -> None:
        matrix, scales, bias = by
        if not self._signed:
            matrix = (matrix.astype(np.int16) + _ZERO).astype(np.uint8)
        inputs = [factor, self._tensor(f"{into}.matrix", matrix), self._tensor(f"{into}.scales", scales), "zero"]
        inputs += [] if bias is None else [self._tensor(f"{into}.bias", bias)]
        self._add("DynamicQuantizeMatMul", inputs, into, domain=_OWN)

    def _normal(self, state: str, name: str, into: str) -> str:
        weight, bias = (
            self._tensor(f"{into}.normal.{part}", self._stored[f"{name}LayerNorm.{part}"])
            for part in ("weight", "bias")
        )
        self._add("LayerNormalization", [state, weight, bias], into, axis=-1, epsilon=_TINY)
        return into

    def _kept(self, name: str) -> str:
        return self._tensor(name, self._stored[_EMBEDDINGS + name])

    def _tensor(self, name: str, value: Array) -> str:
        self._tensors.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _add(self, operator: str, inputs: Sequence[str], into: str, *, domain: str = "", **settings: Any) -> None:
        self._nodes.append(helper.make_node(operator, inputs, [into], into, domain=domain, **settings))


def _state(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "tokens", _SIZE])
