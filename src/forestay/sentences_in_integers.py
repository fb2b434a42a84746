"""The sentence model with its products taken in 8-bit integers: a third of the time, from the same file.

The file stores weights in 8 bits and multiplies in floating point. Here each product of activations and such weights
becomes one operator of onnxruntime that measures the activations as it runs, rounds them to 8 bits and multiplies
integers (Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference"). Signed weights are the quick ones where the processor has VNNI and may overflow on other x86 (onnxruntime's
documentation of quantisation), which therefore get unsigned ones: the very same results, slower. They differ by about
1 % of a vector's length from those in floating point, so whoever uses them must have been taught with them. Needs the
package onnx. Called by `sentences`.
"""

# onnx's messages are partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import pathlib
import platform
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

_DOMAIN = "com.microsoft"  # onnxruntime's own operators
_ZERO = 128  # what stands for 0 in an unsigned weight


def signed_are_safe() -> bool:
    """Return whether this processor adds up products of unsigned and signed bytes without overflow."""
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return True
    told = pathlib.Path("/proc/cpuinfo")
    return told.is_file() and "_vnni" in told.read_text("ascii", errors="replace")


def in_integers(model: bytes, *, signed: bool) -> bytes:
    """Return the model with every product by a stored 8-bit matrix in integers; raises ValueError when it has none."""
    parsed = onnx.load_from_string(model)
    graph = parsed.graph
    made = {name: node for node in graph.node for name in node.output}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    spent: set[str] = set()
    for node in graph.node:
        weights = _weights_of(node, made, stored)
        if weights is None:
            nodes.append(node)
            continue
        name, scale = weights
        spent |= {made[node.input[1]].name, made[made[node.input[1]].input[0]].name}
        if not signed:
            _make_unsigned(stored[name])
        _flatten(stored[scale])
        inputs = [node.input[0], name, scale, "integer_zero"]
        nodes.append(helper.make_node("DynamicQuantizeMatMul", inputs, list(node.output), node.name, domain=_DOMAIN))
    if not spent:
        raise ValueError("the model multiplies by no 8-bit matrix")
    del graph.node[:]
    graph.node.extend(node for node in nodes if node.name not in spent)
    graph.initializer.append(
        numpy_helper.from_array(np.array([0], np.int8) if signed else np.array([_ZERO], np.uint8), "integer_zero")
    )
    parsed.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return parsed.SerializeToString()


def _weights_of(
    node: onnx.NodeProto, made: Mapping[str, onnx.NodeProto], stored: Mapping[str, onnx.TensorProto]
) -> tuple[str, str] | None:
    """Return the names of matrix and scales where a product's second factor is `Cast(matrix) * scales`."""
    if node.op_type != "MatMul" or node.input[1] not in made:
        return None
    scaled = made[node.input[1]]
    cast = made.get(scaled.input[0]) if scaled.op_type == "Mul" else None
    if cast is None or cast.op_type != "Cast" or cast.input[0] not in stored or scaled.input[1] not in stored:
        return None
    return cast.input[0], scaled.input[1]


def _make_unsigned(tensor: onnx.TensorProto) -> None:
    shifted = numpy_helper.to_array(tensor).astype(np.int16) + _ZERO
    tensor.CopyFrom(numpy_helper.from_array(shifted.astype(np.uint8), tensor.name))


def _flatten(tensor: onnx.TensorProto) -> None:
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).reshape(-1), tensor.name))
