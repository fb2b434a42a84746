"""The program that embeds texts: all-MiniLM-L6-v2 with int8 weights, on one thread, in a process of its own.

Reads requests from standard input until it ends, answers on standard output: four bytes of length, then MessagePack; a
request is a list of texts, an answer the float32 of their vectors one after the other. Texts are embedded and
forgotten; nothing is logged. Pooling is the mean over tokens, then length 1, as the model was trained (Reimers,
Gurevych 2019, "Sentence-BERT"). Started by `minilm_child`.
"""

import os
import resource
import struct
import sys
from typing import BinaryIO

import msgspec
import numpy as np

from forestay.errors import UsageError
from forestay.sentences import Sentences, Vectors

MAX_TOKENS = 128  # with the marks of beginning and end
MEMORY_BYTES = 1024 * 1024 * 1024


def main() -> None:
    """Answer until standard input ends."""
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        model = Sentences("embeddings")
    except UsageError as error:
        raise SystemExit(str(error)) from None
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while True:
        texts = _read(source)
        if texts is None:
            return
        body = msgspec.msgpack.encode(embedded(model, texts).tobytes())
        sink.write(struct.pack("!I", len(body)) + body)
        sink.flush()


def embedded(model: Sentences, texts: list[str]) -> Vectors:
    """Return `[len(texts), 384] float32`, each of length 1."""
    return np.stack([model.means(model.tokens(text)[: MAX_TOKENS - 2])[-1] for text in texts])


def _read(source: BinaryIO) -> list[str] | None:
    head = source.read(4)
    if len(head) < 4:
        return None
    return msgspec.msgpack.decode(source.read(struct.unpack("!I", head)[0]), type=list[str])


if __name__ == "__main__":
    main()
