"""Features of many rows at once, as matrices; embeddings are kept in a file, since they take minutes.

They are made by the very functions that the detector uses, one text at a time.
"""

import hashlib
import os
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from forestay.safety.text.canonical import views
from forestay.safety.text.detector import MAX_WINDOWS, Embedding
from forestay.safety.text.grams import BUCKETS, grams_of
from forestay.safety.text.lexicon import counts
from forestay.safety.text.model import STRIDE_TOKENS, WINDOW_TOKENS, early_of
from forestay.sentences import MODEL_SHA256, SIZE

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Matrix:
    """`counts [n, L]`, `meaning [n, 1536]`, `grams [n, BUCKETS]` sparse."""

    counts: Floats
    meaning: Floats
    grams: sp.csr_matrix

    def rows(self, which: npt.NDArray[np.int64]) -> "Matrix":
        """Return some rows of it."""
        return Matrix(self.counts[which], self.meaning[which], self.grams[which])

    def dense(self, mode: str) -> Floats:
        """Return what the dense part of a mode's heads sees."""
        if mode == "linear":
            return self.counts
        early = mode == "early"
        return np.hstack([self.counts, early_of(self.meaning[:, :SIZE]).astype(np.float64) if early else self.meaning])


def matrix_of(texts: Sequence[str]) -> Matrix:
    """Return the features of texts, folded."""
    folded = [views(text).folded for text in texts]
    return Matrix(np.array([counts(text) for text in folded], dtype=np.float64), _meanings(folded), _grams(folded))


def _grams(folded: Sequence[str]) -> sp.csr_matrix:
    each = [grams_of(text) for text in folded]
    starts = np.concatenate([[0], np.cumsum([len(one.buckets) for one in each])])
    values = np.concatenate([one.weights for one in each]).astype(np.float64)
    return sp.csr_matrix((values, np.concatenate([one.buckets for one in each]), starts), shape=(len(each), BUCKETS))


def _meanings(folded: Sequence[str]) -> Floats:
    """Embed texts, or read what the same texts gave before from the temporary folder."""
    settings = f"{MODEL_SHA256} in integers, few operators {WINDOW_TOKENS} {STRIDE_TOKENS} {MAX_WINDOWS}"
    digest = hashlib.sha256("\0".join([settings, *folded]).encode()).hexdigest()[:16]
    kept = pathlib.Path(tempfile.gettempdir()) / f"forestay-text-guard-{digest}.npy"
    if kept.is_file():
        return np.load(kept, allow_pickle=False).astype(np.float64)
    embedding = Embedding()
    found = np.zeros((len(folded), 1536), dtype=np.float32)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for at, vector in enumerate(pool.map(embedding.of, folded)):
            found[at] = vector
            if at % 500 == 0:
                print(f"embedded {at:,} of {len(folded):,} texts", file=sys.stderr, flush=True)
    np.save(kept, found, allow_pickle=False)
    return found.astype(np.float64)
