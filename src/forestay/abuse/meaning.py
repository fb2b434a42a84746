"""What a prompt means, as 256 bits: near in meaning, near in bits, and the bits do not give the prompt away.

An embedding is cut to the signs of its projections onto 256 random directions (Charikar 2002, section 3; directions of
plus and minus one, Achlioptas 2003, "Database-friendly random projections"): the share of bits in which two differ is
the angle between them over pi. Directions come from the deployment's key. Neither text nor embedding is kept. Pure but
for the port of embedders (`minilm_child` is the adapter). Called by the gateway's call notes.
"""

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

SIZE = 384  # of an embedding
BITS = 256
MAX_CHARS = 1_024  # of a prompt that are embedded
Vectors = npt.NDArray[np.float32]


def apart(one: bytes, other: bytes) -> int:
    """Return in how many of the 256 bits two meanings differ."""
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()


class Embedder(Protocol):
    """Turns texts into vectors that are near where meanings are."""

    async def embed(self, texts: Sequence[str]) -> Vectors | None:
        """Return `[len(texts), 384] float32`; None when it cannot now, never an error."""
        ...


class MeaningHasher:
    """Directions under one key."""

    def __init__(self, key: bytes) -> None:
        drawn = hashlib.shake_256(b"forestay-meaning" + key).digest(BITS * SIZE // 8)
        bits = np.unpackbits(np.frombuffer(drawn, dtype=np.uint8)).reshape(SIZE, BITS)
        self._directions = bits.astype(np.float32) * 2.0 - 1.0

    def hash(self, vectors: Vectors) -> list[bytes]:
        """Return 32 bytes for each of `[n, 384] float32`."""
        return [np.packbits(row).tobytes() for row in (vectors @ self._directions) > 0.0]
