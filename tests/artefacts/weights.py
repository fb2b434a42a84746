"""Weights by hand: safetensors, ONNX and GGUF built byte by byte, whole or with one thing wrong."""

import json
import struct
from collections.abc import Iterator

TENSORS = {"a": ("F32", [2, 2], 0, 16), "b": ("U8", [3], 16, 19)}


def safetensors(
    header: object = None, data: bytes = bytes(19), *, raw: bytes | None = None, length: int | None = None
) -> bytes:
    """Return a safetensors file; `raw` and `length` replace the header's bytes and its length."""
    described = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        for name, (dtype, shape, begin, end) in TENSORS.items()
    }
    text = raw if raw is not None else json.dumps(described if header is None else header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(
    dtype: object = "F32", shape: object = (2, 2), offsets: object = (0, 16), **more: object
) -> dict[str, object]:
    """Return one entry of a safetensors header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def bad_safetensors() -> Iterator[tuple[str, bytes]]:
    """Files with one thing wrong."""
    four = bytes(16)
    yield "header longer than the file", safetensors(length=1 << 40)
    yield "header of 64 MiB", safetensors(raw=b"{" + b" " * (64 << 20) + b"}", data=b"")
    yield "header shorter than its object", safetensors(length=10)
    yield "header that is no object", safetensors(raw=b'["a"]', data=b"")
    yield "header that is no JSON", safetensors(raw=b"{a: 1}")
    yield "header that is no UTF-8", safetensors(raw=b'{"\xff": 1}')
    yield "header with NaN", safetensors(raw=b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,16]}}', data=four)
    yield "header nested deeply", safetensors(raw=b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", data=b"")
    yield (
        "tensor named twice",
        safetensors(
            raw=b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
            data=b"x",
        ),
    )
    yield "tensors that overlap", safetensors({"a": tensor(), "b": tensor("F32", [2], [8, 16])}, four)
    yield "hole between tensors", safetensors({"a": tensor(), "b": tensor("U8", [1], [20, 21])}, bytes(21))
    yield "hole at the beginning", safetensors({"a": tensor("U8", [1], [4, 5])}, bytes(5))
    yield "bytes behind the last tensor", safetensors({"a": tensor()}, four + b"more")
    yield "zip behind the last tensor", safetensors({"a": tensor()}, four + b"PK\5\6" + bytes(18))
    yield "zip inside the last tensor", safetensors({"a": tensor("U8", [22], [0, 22])}, b"PK\5\6" + bytes(18))
    yield "file cut short", safetensors()[:-1]
    yield "offsets beyond the file", safetensors({"a": tensor("U8", [1000], [0, 1000])}, four)
    yield "offsets backwards", safetensors({"a": tensor("U8", [0], [8, 0])}, b"")
    yield "negative offsets", safetensors({"a": tensor("F32", [2, 2], [-16, 0])}, four)
    yield "shape larger than its bytes", safetensors({"a": tensor("F32", [4, 4])}, four)
    yield "shape whose product overflows", safetensors({"a": tensor("F32", [1 << 32, 1 << 32, 4], [0, 0])}, b"")
    yield "shape of fractions", safetensors({"a": tensor("F32", [2.0, 2.0])}, four)
    yield "shape of booleans", safetensors({"a": tensor("U8", [True], [0, 1])}, b"x")
    yield "shape of a hundred dimensions", safetensors({"a": tensor("U8", [1] * 100, [0, 1])}, b"x")
    yield "type that does not exist", safetensors({"a": tensor("OBJECT")}, four)
    yield "type that is no text", safetensors({"a": tensor(7)}, four)
    yield "tensor with a further field", safetensors({"a": tensor(code="x")}, four)
    yield "tensor without a shape", safetensors({"a": {"dtype": "F32", "data_offsets": [0, 16]}}, four)
    yield "metadata that is no text", safetensors({"__metadata__": {"a": 1}, "a": tensor()}, four)
    yield "metadata of 5 MB", safetensors({"__metadata__": {"a": "x" * (5 << 20)}, "a": tensor()}, four)
    yield "name of 10,000 characters", safetensors({"a" * 10_000: tensor()}, four)
    yield "name with a NUL", safetensors({"a\0b": tensor()}, four)


# GGUF ---------------------------------------------------------------------------------------------------------------
def text(value: str) -> bytes:
    """Return a GGUF text."""
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def pair(key: str, kind: int, value: bytes) -> bytes:
    """Return a key-value pair."""
    return text(key) + struct.pack("<I", kind) + value


ARCHITECTURE = pair("general.architecture", 8, text("llama"))


def described(name: str = "w", shape: tuple[int, ...] = (8,), kind: int = 0, offset: int = 0) -> bytes:
    """Return a tensor's description."""
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def gguf(
    pairs: tuple[bytes, ...] = (ARCHITECTURE,),
    tensors: tuple[bytes, ...] = (described(),),
    data: bytes = bytes(32),
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    alignment: int = 32,
) -> bytes:
    """Return a GGUF file; `counts` replaces the numbers of tensors and pairs."""
    head = (
        b"GGUF" + struct.pack("<IQQ", version, *(counts or (len(tensors), len(pairs)))) + b"".join([*pairs, *tensors])
    )
    return head + bytes(-len(head) % alignment) + data


def bad_gguf() -> Iterator[tuple[str, bytes]]:
    """Files with one thing wrong."""
    yield "version 1", gguf(version=1)
    yield "version of a big-endian file", gguf(version=0x03000000)
    yield "more tensors than there are", gguf(counts=(5, 1))
    yield "a billion tensors", gguf(counts=(1 << 40, 1))
    yield "a billion pairs", gguf(counts=(1, 1 << 40))
    yield "pair of a type that does not exist", gguf((pair("a", 77, b""),))
    yield "text longer than the file", gguf((text("a") + struct.pack("<IQ", 8, 1 << 40),))
    yield "key of a megabyte", gguf((pair("k" * (1 << 20), 0, b"\1"),))
    yield "array longer than the file", gguf((pair("a", 9, struct.pack("<IQ", 4, 1 << 20)),))
    yield "array of a billion texts", gguf((pair("a", 9, struct.pack("<IQ", 8, 1 << 40)),))
    yield "arrays nested five deep", gguf((pair("a", 9, struct.pack("<IQ", 9, 1) * 5 + struct.pack("<IQ", 0, 0)),))
    yield "key twice", gguf((ARCHITECTURE, ARCHITECTURE))
    yield "boolean of two", gguf((pair("a", 7, b"\2"),))
    yield "alignment of three", gguf((pair("general.alignment", 4, struct.pack("<I", 3)),))
    yield "alignment of zero", gguf((pair("general.alignment", 4, struct.pack("<I", 0)),))
    yield "tensor twice", gguf(tensors=(described(), described()))
    yield "tensor that is not aligned", gguf(tensors=(described(offset=4),), data=bytes(64))
    yield "tensors that overlap", gguf(tensors=(described("a", (16,)), described("b", (8,), offset=32)), data=bytes(96))
    yield "gap between tensors", gguf(tensors=(described("a"), described("b", offset=96)), data=bytes(128))
    yield "tensor of a type that does not exist", gguf(tensors=(described(kind=99),))
    yield "tensor of nine dimensions", gguf(tensors=(described(shape=(1,) * 9),))
    yield "tensor whose product overflows", gguf(tensors=(described(shape=(1 << 40, 1 << 40)),))
    yield "rows that are no multiple of the block", gguf(tensors=(described(shape=(33,), kind=2),), data=bytes(64))
    yield "data cut short", gguf()[:-1]
    yield "bytes behind the data", gguf(data=bytes(32) + b"x" * 64)
    yield "text that is no UTF-8", gguf((pair("a", 8, struct.pack("<Q", 1) + b"\xff"),))
    yield (
        "template that reaches the interpreter",
        gguf((pair("tokenizer.chat_template", 8, text("{{ x.__class__.__mro__[1].__subclasses__() }}")),)),
    )
    yield (
        "template with a filter for attributes",
        gguf((pair("tokenizer.chat_template", 8, text("{{ messages|attr('\\x5f\\x5fclass\\x5f\\x5f') }}")),)),
    )


# ONNX ---------------------------------------------------------------------------------------------------------------
def varint(value: int) -> bytes:
    """Return a protobuf number."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    """Return a field that is a number."""
    return varint(field << 3) + varint(value)


def field(number_: int, value: bytes | str) -> bytes:
    """Return a field that has a length."""
    data = value.encode() if isinstance(value, str) else value
    return varint(number_ << 3 | 2) + varint(len(data)) + data


def initializer(
    name: str = "w", dims: tuple[int, ...] = (2, 2), kind: int = 1, raw: bytes | None = bytes(16), more: bytes = b""
) -> bytes:
    """Return a TensorProto."""
    shape = b"".join(number(1, length) for length in dims)
    return shape + number(2, kind) + field(8, name) + (field(9, raw) if raw is not None else b"") + more


def external(location: str, **entries: str) -> bytes:
    """Return what makes a TensorProto external."""
    pairs = {"location": location, **entries}
    return number(14, 1) + b"".join(field(13, field(1, key) + field(2, value)) for key, value in pairs.items())


def node(operator: str = "Identity", domain: str = "", attributes: bytes = b"") -> bytes:
    """Return a NodeProto."""
    return field(1, "x") + field(2, "y") + field(4, operator) + (field(7, domain) if domain else b"") + attributes


def onnx(
    nodes: tuple[bytes, ...] = (node(),),
    initializers: tuple[bytes, ...] = (),
    *,
    domains: tuple[str, ...] = ("",),
    more: bytes = b"",
) -> bytes:
    """Return a ModelProto."""
    graph = b"".join(field(1, item) for item in nodes) + field(2, "graph") + b"".join(field(5, i) for i in initializers)
    opsets = b"".join(field(8, (field(1, domain) if domain else b"") + number(2, 17)) for domain in domains)
    return number(1, 8) + field(2, "by hand") + field(7, graph) + opsets + more


def bad_onnx() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Folders with one thing wrong; the model is model.onnx."""
    for what, location in {
        "above the folder": "../weights.data",
        "far above the folder": "a/../../../../etc/passwd",
        "absolute": "/etc/passwd",
        "on a drive": "C:\\weights.data",
        "with backslashes": "..\\weights.data",
        "at a URL": "file:///etc/passwd",
        "at home": "~/.ssh/id_rsa",
        "with a line feed": "weights\n.data",
        "nowhere": "",
        "absent": "weights.data",
    }.items():
        yield (
            f"external data {what}",
            {"model.onnx": onnx(initializers=(initializer(raw=None, more=external(location)),))},
        )
    data = bytes(range(200, 216))
    for what, entries in {
        "too short": {"offset": "8"},
        "shorter than its tensor": {"length": "4"},
        "at a negative offset": {"offset": "-16"},
        "at an offset that is no number": {"offset": "0x10"},
        "with a key of its own": {"executable": "yes"},
    }.items():
        tensor_ = initializer(raw=None, more=external("w.data", **entries))
        yield f"external data {what}", {"model.onnx": onnx(initializers=(tensor_,)), "w.data": data}
    yield (
        "external data that is a pickle",
        {
            "model.onnx": onnx(initializers=(initializer(raw=None, more=external("w.data")),)),
            "w.data": b"\x80\x04\x8c\x02os\x8c\x06system\x93)R.",
        },
    )
    yield (
        "external data that is a program",
        {
            "model.onnx": onnx(initializers=(initializer(raw=None, more=external("w.data")),)),
            "w.data": b"\x7fELF" + bytes(60),
        },
    )
    yield (
        "external file beside inner bytes",
        {"model.onnx": onnx(initializers=(initializer(more=external("w.data")[2:]),))},
    )
    body = field(1, field(1, "x") + field(4, "Evil") + field(7, "evil.ops"))
    for what, model in {
        "operator of an unknown set": onnx((node("Shell", "evil.ops"),), domains=("", "evil.ops")),
        "operator of an extension library": onnx((node("PythonOp", "ai.onnx.contrib"),)),
        "operator that runs Python": onnx((node("PyOp", "com.microsoft"),)),
        "operator hidden in a branch": onnx((node("If", attributes=field(5, field(1, "then") + field(6, body))),)),
        "operator hidden in a function": onnx(
            more=field(25, field(1, "F") + field(10, "own") + field(7, node("E", "evil")))
        ),
        "node without an operator": onnx((field(1, "x"),)),
        "graphs nested twenty deep": onnx((nested(20),)),
        "bytes that do not fit the shape": onnx(initializers=(initializer(raw=bytes(15)),)),
        "shape whose product overflows": onnx(initializers=(initializer(dims=(1 << 40, 1 << 40)),)),
        "negative dimension": onnx(initializers=(initializer(dims=((1 << 64) - 1,)),)),
        "tensor without bytes": onnx(initializers=(initializer(raw=None),)),
        "tensor with its bytes twice": onnx(initializers=(initializer(more=field(4, bytes(16))),)),
        "type that does not exist": onnx(initializers=(initializer(kind=99),)),
        "initializer twice": onnx(initializers=(initializer(), initializer())),
        "second graph": onnx(more=field(7, field(2, "other"))),
        "operator set twice": onnx(domains=("", "")),
        "field that is not of the format": onnx(more=field(99, b"\x80\x04N.")),
        "length beyond the file": onnx() + varint(14 << 3 | 2) + varint(1 << 40),
        "file cut short": onnx(initializers=(initializer(),))[:-3],
        "number without an end": onnx() + varint(5 << 3) + b"\xff" * 10,
        "metadata of 17 MB": onnx(more=field(14, field(1, "k") + field(2, b"x" * (17 << 20)))),
        "zip at the end": onnx(more=field(6, b"PK\5\6" + bytes(18))),
        "pickle at the beginning": b"(cos\nsystem\nX" + onnx(),
    }.items():
        yield what, {"model.onnx": model}


def nested(depth: int) -> bytes:
    """Return a node with graphs within graphs."""
    inner = node()
    for _ in range(depth):
        inner = node("If", attributes=field(5, field(1, "then") + field(6, field(1, inner))))
    return inner
