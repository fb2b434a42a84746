"""The corpus: crafted artefacts that must be refused and honest ones that must be admitted.

Nothing here is loaded or run, only written and read. A case is a folder: its files, and links where it has some. The
tests go over all of it quickly; `bench/artefacts.py` prints the rates.
"""

import dataclasses
import json
import pathlib
import struct
from collections.abc import Iterator, Mapping

from tests.artefacts import pickles, weights
from tests.artefacts.pickles import npy, stored

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """One folder of artefacts."""

    name: str
    files: Mapping[str, bytes]
    links: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def write(self, folder: pathlib.Path) -> pathlib.Path:
        """Write it below a folder and return that."""
        for name, data in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        for name, target in self.links.items():
            (folder / name).symlink_to(target)
        return folder


def bad() -> Iterator[Case]:
    """Return what must be refused."""
    for number, name in enumerate(pickles.RISKY):
        made = pickles.called_text(name) if number % 2 else pickles.called_stacked(name)
        yield Case(f"pickle calls {name.replace(' ', '.')}", {"weights.pkl": made})
    for name, data in pickles.tricks():
        yield Case(f"pickle: {name}", {"weights.bin": data})
    for name, files in pickles.containers():
        yield Case(f"container: {name}", files)
    for name, data in weights.bad_safetensors():
        yield Case(f"safetensors: {name}", {"model.safetensors": data})
    for name, data in weights.bad_gguf():
        yield Case(f"gguf: {name}", {"model.gguf": data})
    for name, files in weights.bad_onnx():
        yield Case(f"onnx: {name}", files)
    yield from _bad_arrays()
    yield from _bad_others()


def _bad_arrays() -> Iterator[Case]:
    floats = bytes(16)
    for name, data in {
        "shape beyond the file": npy("<f4", (5,), floats),
        "bytes behind the array": npy("<f4", (4,), floats + b"x"),
        "shape whose product overflows": npy("<f4", (1 << 40, 1 << 40), floats),
        "negative shape": npy("<f4", (-4,), floats),
        "type of code": npy("__import__('os')", (4,), floats),
        "header that calls": b"\x93NUMPY\1\0\x40\0" + b"__import__('os').system('x')".ljust(63) + b"\n",
        "header with a key of its own": npy("<f4", (4,), floats, extra="'x': 1"),
        "header with a key twice": npy("<f4", (4,), floats, extra="'shape': (4,)"),
        "header of a megabyte": npy("<f4", (4,), floats, version=2, extra="'x': '" + "y" * (1 << 20) + "'"),
        "version 9": npy("<f4", (4,), floats, version=9),
        "header nested deeply": npy("<f4", (4,), floats, extra="'x': " + "(" * 3000 + ")" * 3000),
    }.items():
        yield Case(f"npy: {name}", {"a.npy": data})
    plain = npy("<f4", (4,), floats)
    yield Case("npz: member that is no array", {"a.npz": stored({"a.npy": plain, "b.txt": b"text"})})
    yield Case("npz: member above the folder", {"a.npz": stored({"../a.npy": plain})})
    yield Case("npz: bytes before the archive", {"a.npz": b"#!/bin/sh\n" + stored({"a.npy": plain})})
    yield Case("npz: bytes behind the archive", {"a.npz": stored({"a.npy": plain}) + b"more"})
    yield Case("npz: unpacks to a terabyte", {"a.npz": _bomb(plain)})
    yield Case("npz: other name in the member", {"a.npz": stored({"a.npy": plain}).replace(b"a.npy", b"b.npy", 1)})
    yield Case("npz: encrypted", {"a.npz": _encrypted(plain)})


def _bomb(plain: bytes) -> bytes:
    """Return an archive whose directory promises far more than it holds."""
    import zipfile  # noqa: PLC0415 - only here

    made = bytearray(stored({"a.npy": plain + bytes(1 << 20)}, method=zipfile.ZIP_DEFLATED))
    at = made.rindex(b"PK\1\2")
    made[at + 24 : at + 28] = struct.pack("<I", (1 << 32) - 2)
    return bytes(made)


def _encrypted(plain: bytes) -> bytes:
    made = bytearray(stored({"a.npy": plain}))
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = made.index(mark)
        made[at + place] |= 1
    return bytes(made)


def _bad_others() -> Iterator[Case]:
    good = weights.safetensors()
    program = b"\x7fELF\2\1\1" + bytes(64)
    bytecode = b"\xa7\r\r\n" + bytes(12) + b"\xe3" + bytes(40)
    for name, files in {
        "program": {"run": program},
        "library named safetensors": {"model.safetensors": program},
        "Windows program": {"model.bin": b"MZ" + bytes(58) + b"\x40\0\0\0PE\0\0" + bytes(200)},
        "program of a Mac": {"lib.dylib": b"\xcf\xfa\xed\xfe" + bytes(60)},
        "WebAssembly": {"m.wasm": b"\0asm\1\0\0\0"},
        "compiled Python": {"app.pyc": bytecode},
        "compiled Python named py": {"app.py": bytecode},
        "unknown bytes": {"weights.bin": bytes(range(256)) * 4},
        "zeros": {"weights.bin": bytes(4096)},
        "TensorFlow Lite": {"m.tflite": b"\x1c\0\0\0TFL3" + bytes(64)},
        "pointer of Git LFS": {
            "model.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
        },
        "text named safetensors": {"model.safetensors": b"hello\n"},
        "text named pt": {"model.pt": b"hello\n"},
        "safetensors named onnx": {"model.onnx": good},
        "picture named safetensors": {"model.safetensors": b"\x89PNG\r\n\x1a\n" + bytes(64)},
        "chat template in a tokenizer": {
            "tokenizer_config.json": json.dumps(
                {"chat_template": "{{ cycler.__init__.__globals__.os.popen('x').read() }}"}
            ).encode()
        },
        "chat templates in a list": {
            "tokenizer_config.json": json.dumps(
                {"chat_template": [{"name": "default", "template": "{% import 'x' as y %}{{ y|attr('z') }}"}]}
            ).encode()
        },
        "name with a line feed": {"model\n.safetensors": good},
        "name with an escape": {"a\x1b[2J.safetensors": good},
    }.items():
        yield Case(name, files)
    yield Case("link to a file outside", {"model.safetensors": good}, {"passwd.txt": "/etc/passwd"})
    yield Case("link to a file inside", {"model.safetensors": good}, {"again.safetensors": "model.safetensors"})
    yield Case("link to a folder", {"model.safetensors": good}, {"more": "/etc"})


def good() -> Iterator[Case]:
    """Return what must be admitted."""
    yield from _good_safetensors()
    yield from _good_onnx()
    yield from _good_gguf()
    yield from _good_arrays()
    yield from _good_others()
    for path in sorted((ROOT / "examples").rglob("weights")):
        files = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
        yield Case(f"weights of {path.parent.name}", files)
    for folder in ("digits", "digits_motion", "tones", "echo", "stable_diffusion"):
        base = ROOT / "examples" / folder
        files = {path.name: path.read_bytes() for path in base.iterdir() if path.is_file()}
        yield Case(f"code of {folder}", files)


def _good_safetensors() -> Iterator[Case]:
    import numpy as np  # noqa: PLC0415 - only for what a library writes
    from safetensors.numpy import save  # noqa: PLC0415

    tensor = weights.tensor
    for name, data in {
        "two tensors": weights.safetensors(),
        "no tensor": weights.safetensors({}, b""),
        "only metadata": weights.safetensors({"__metadata__": {"format": "pt"}}, b""),
        "empty tensor": weights.safetensors({"a": tensor("F32", [0, 4], [0, 0])}, b""),
        "scalar": weights.safetensors({"a": tensor("F32", [], [0, 4])}, bytes(4)),
        "padded header": weights.safetensors(raw=json.dumps({"a": tensor()}).encode() + b"   ", data=bytes(16)),
        "four bits": weights.safetensors({"a": tensor("F4", [4], [0, 2])}, bytes(2)),
        "names that are no ASCII": weights.safetensors({"gewicht.ä": tensor()}, bytes(16)),
        "by the library, many types": save(
            {
                kind: np.zeros((3, 5), kind)
                for kind in ("float16", "float32", "float64", "int8", "int64", "uint8", "bool")
            }
        ),
        "by the library, with metadata": save({"w": np.ones((64, 64), np.float32)}, {"format": "np", "author": "us"}),
        "by the library, 500 tensors": save({f"layers.{n}.weight": np.zeros((4, 4), np.float32) for n in range(500)}),
    }.items():
        yield Case(f"safetensors: {name}", {"model.safetensors": data})


def _good_onnx() -> Iterator[Case]:
    external = weights.external
    beside = weights.onnx(
        initializers=(weights.initializer(raw=None, more=external("w.data", offset="16", length="16")),)
    )
    below = weights.onnx(initializers=(weights.initializer(raw=None, more=external("data/w.bin")),))
    own = weights.field(25, weights.field(1, "F") + weights.field(10, "own") + weights.field(7, weights.node()))
    for name, files in {
        "identity": {"model.onnx": weights.onnx()},
        "initializer": {"model.onnx": weights.onnx(initializers=(weights.initializer(),))},
        "typed values": {
            "model.onnx": weights.onnx(initializers=(weights.initializer(raw=None, more=weights.field(4, bytes(16))),))
        },
        "function of its own": {"model.onnx": weights.onnx((weights.node("F", "own"),), domains=("", "own"), more=own)},
        "operator of the runtime": {"model.onnx": weights.onnx((weights.node("FusedMatMul", "com.microsoft"),))},
        "graphs nested three deep": {"model.onnx": weights.onnx((weights.nested(3),))},
        "external data": {"model.onnx": beside, "w.data": bytes(range(128, 160))},
        "external data in a folder": {"m/model.onnx": below, "m/data/w.bin": bytes(range(200, 216))},
    }.items():
        yield Case(f"onnx: {name}", files)
    for name, data in _onnx_by_library():
        yield Case(f"onnx: by the library, {name}", {"model.onnx": data})


def _onnx_by_library() -> Iterator[tuple[str, bytes]]:
    import numpy as np  # noqa: PLC0415 - only for what a library writes
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    value = helper.make_tensor_value_info
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "net",
        [value("x", TensorProto.FLOAT, [1, 4])],
        [value("y", TensorProto.FLOAT, [1, 4])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    helper.set_model_props(model, {"author": "us"})
    yield "a layer", model.SerializeToString()
    constant = helper.make_node("Constant", [], ["y"], value=helper.make_tensor("c", TensorProto.INT64, [2], [1, 2]))
    graph = helper.make_graph([constant], "net", [], [value("y", TensorProto.INT64, [2])])
    yield "a constant", helper.make_model(graph).SerializeToString()
    branch = helper.make_graph([constant], "branch", [], [value("y", TensorProto.INT64, [2])])
    choice = helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)
    graph = helper.make_graph([choice], "net", [value("c", TensorProto.BOOL, [])], [value("z", TensorProto.INT64, [2])])
    yield "a branch", helper.make_model(graph).SerializeToString()


def _good_gguf() -> Iterator[Case]:
    described, pair, text = weights.described, weights.pair, weights.text
    template = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}{% set ns = namespace(x=1) %}"
    words = struct.pack("<IQ", 8, 3) + text("a") + text("b") + text("<unk>")
    for name, data in {
        "one tensor": weights.gguf(),
        "version 2": weights.gguf(version=2),
        "two tensors": weights.gguf(tensors=(described("a", (4,)), described("b", (8,), offset=32)), data=bytes(64)),
        "blocks": weights.gguf(tensors=(described("a", (64, 2), 8),), data=bytes(136)),
        "vocabulary and template": weights.gguf(
            (
                weights.ARCHITECTURE,
                pair("tokenizer.ggml.tokens", 9, words),
                pair("tokenizer.chat_template", 8, text(template)),
            )
        ),
        "alignment of 64": weights.gguf((pair("general.alignment", 4, struct.pack("<I", 64)),), alignment=64),
        "no tensor": weights.gguf(tensors=(), data=b""),
    }.items():
        yield Case(f"gguf: {name}", {"model.gguf": data})
    yield Case("gguf: by the library", {"model.gguf": _gguf_by_library()})


def _gguf_by_library() -> bytes:
    import tempfile  # noqa: PLC0415 - only for what a library writes

    import numpy as np  # noqa: PLC0415
    from gguf import GGUFWriter  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as name:
        path = pathlib.Path(name) / "model.gguf"
        writer = GGUFWriter(str(path), "llama")
        writer.add_block_count(2)
        writer.add_array("tokenizer.ggml.tokens", ["a", "b", "c"])
        writer.add_tensor("token_embd.weight", np.ones((8, 32), np.float32))
        writer.add_tensor("output_norm.weight", np.ones((5,), np.float16))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def _good_arrays() -> Iterator[Case]:
    import io  # noqa: PLC0415 - only for what a library writes
    import zipfile  # noqa: PLC0415

    import numpy as np  # noqa: PLC0415

    def saved(array: object) -> bytes:
        target = io.BytesIO()
        np.save(target, array, allow_pickle=False)  # type: ignore[arg-type]
        return target.getvalue()

    packed, plain = io.BytesIO(), io.BytesIO()
    np.savez(plain, a=np.arange(5), b=np.zeros((2, 2)))
    np.savez_compressed(packed, a=np.arange(1000))
    for name, file, data in (
        ("floats", "a.npy", saved(np.zeros((3, 4), np.float32))),
        ("Fortran order", "a.npy", saved(np.asfortranarray(np.zeros((3, 4))))),
        ("scalar", "a.npy", saved(np.float64(3))),
        ("texts", "a.npy", saved(np.array(["a", "bc"]))),
        ("a structure", "a.npy", saved(np.zeros(3, [("x", "<f4"), ("y", "<i8", (2,))]))),
        ("booleans", "a.npy", saved(np.ones(7, bool))),
        ("dates", "a.npy", saved(np.array(["2026-01-01"], "datetime64[D]"))),
        ("nothing", "a.npy", saved(np.zeros((0, 3)))),
        ("archive", "a.npz", plain.getvalue()),
        ("packed archive", "a.npz", packed.getvalue()),
        ("archive by hand", "a.npz", stored({"a.npy": npy("<f4", (4,), bytes(16))}, method=zipfile.ZIP_DEFLATED)),
    ):
        yield Case(f"npy: {name}", {file: data})


def _good_others() -> Iterator[Case]:
    piece = weights.field(1, weights.field(1, "▁a") + b"\x15" + struct.pack("<f", -1.5) + weights.number(3, 1))
    for name, files in {
        "sentencepiece": {"tokenizer.model": piece * 50 + weights.field(2, weights.number(3, 8000))},
        "vocabulary that begins like opcodes": {"vocab.txt": b"cat\ndog\nelephant\ngo\nis\nR\nt\n"},
        "merges": {"merges.txt": b"#version: 0.2\na b\nc d\ni n\nin g\n"},
        "empty package": {"pkg/__init__.py": b"", "pkg/model.py": b"class Net:\n    pass\n"},
        "code that begins with an import": {"app.py": b"import os\nimport sys\n\nprint(os, sys)\n"},
        "settings": {"config.json": b'{"a": [1, 2]}', "model.yaml": b"a: 1\n", "README.md": b"# Model\n"},
        "picture": {"sample.png": b"\x89PNG\r\n\x1a\n" + bytes(64)},
        "sound": {"sample.wav": b"RIFF\x24\0\0\0WAVEfmt " + bytes(32)},
        "plain template": {
            "tokenizer_config.json": b'{"chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"}'
        },
    }.items():
        yield Case(name, files)
