"""From a text's features to scores: linear heads, one for each way of writing, and a gate that mixes them. Pure numpy.

Prompts come in three registers that share few habits: a request to an assistant, running prose, the description of a
picture. One head judges each, a gate says how much of each register a text is, and the mixed score is read at one
scale: 0.5 is the operating point that was fixed on rows which the head had not seen. A further head says which
category it is. All heads are linear over hashed n-grams, lexicon counts and, where the embedding model is installed,
the means of its third layer (`early`) or of the last four (`meaning`). The weights are an npz without pickles, made by
`tools/train_text_guard.py`. Called by `detector` and by the training tool.
"""

import dataclasses
import enum
import hashlib
import importlib.resources
import io
import json
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

from forestay.errors import UsageError
from forestay.safety.taxonomy import Category
from forestay.safety.text.grams import Grams

Floats = npt.NDArray[np.floating]
_FOLDER = importlib.resources.files("forestay.safety.text").joinpath("data")
WINDOW_TOKENS, STRIDE_TOKENS = 62, 48  # of a text embedded at once; windows overlap
MODES = ("linear", "early", "meaning")  # the more, the dearer


class Register(enum.StrEnum):
    """A way of writing."""

    REQUEST = "request"  # to an assistant: "how do I ..."
    PROSE = "prose"  # a post, a story, an article
    PICTURE = "picture"  # what a picture should show


@dataclasses.dataclass(frozen=True, slots=True)
class Features:
    """What heads see of a text: n-grams, lexicon counts `[L]`, and means of layers: none, `[384]` or `[4 * 384]`."""

    grams: Grams
    counts: Floats
    meaning: Floats | None


@dataclasses.dataclass(frozen=True, slots=True)
class Heads:
    """Linear heads side by side: `grams [buckets, heads]`, `dense [counts (+ meaning), heads]`, `bias [heads]`."""

    grams: Floats
    dense: Floats
    bias: Floats

    def decide(self, features: Features) -> Floats:
        """Return `[heads]`."""
        dense = features.counts
        if len(self.dense) > len(dense):
            if features.meaning is None:
                raise ValueError("these heads need the meaning of a text")
            dense = np.concatenate([dense, features.meaning])
        buckets = features.grams.buckets % len(self.grams)
        return features.grams.weights @ self.grams[buckets].astype(np.float32) + dense @ self.dense + self.bias


@dataclasses.dataclass(frozen=True, slots=True)
class Mode:
    """The heads of one depth: without the embedding model, with half of it, with all of it."""

    gate: Heads
    registers: Heads
    slope: Floats  # [registers]
    offset: Floats  # [registers]: the head's value that scores 0.5
    categories: Heads


@dataclasses.dataclass(frozen=True, slots=True)
class Weights:
    """Everything that was learned."""

    digest: str  # "sha256:<hex>" of the file of weights
    modes: Mapping[str, Mode]  # of MODES
    categories: tuple[Category, ...]


def score(mode: Mode, features: Features) -> float:
    """Return how likely a text is harmful, in [0, 1]; 0.5 is the operating point."""
    share = gate(mode.gate, features)
    each = 1.0 / (1.0 + np.exp(-np.clip(mode.slope * (mode.registers.decide(features) - mode.offset), -30, 30)))
    return float(np.clip(share @ each, 0.0, 1.0))


def gate(heads: Heads, features: Features) -> Floats:
    """Return how much a text is of each register, `[registers]`, together 1."""
    return _softmax(heads.decide(features))


def by_category(weights: Weights, mode: Mode, features: Features, overall: float) -> dict[Category, float]:
    """Return the overall score for the likeliest category, and less for the others by how likely they are."""
    likely = _softmax(mode.categories.decide(features))
    return {
        category: float(overall * part / likely.max())
        for category, part in zip(weights.categories, likely, strict=True)
    }


def early_of(layer: Floats) -> Floats:
    """Return what the heads of `early` see of the third layer's mean, `[384]` or `[n, 384]`: it has length 1."""
    return layer / np.maximum(np.linalg.norm(layer, axis=-1, keepdims=True), 1e-12)


def _softmax(values: Floats) -> Floats:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


@dataclasses.dataclass(frozen=True, slots=True)
class Card:
    """What is told of weights beside them."""

    digest: str
    categories: tuple[Category, ...]


def read_card(data: bytes | None = None) -> Card:
    """Read the card of the weights that ship, or the one given."""
    told = cast("dict[str, object]", json.loads(data or _FOLDER.joinpath("weights.json").read_bytes()))
    return Card(str(told["digest"]), tuple(map(Category, cast("Sequence[str]", told["categories"]))))


def load(data: bytes | None = None, card: Card | None = None) -> Weights:
    """Read the weights that ship, or those given; raises UsageError when they are not what their card says."""
    data = _FOLDER.joinpath("weights.npz").read_bytes() if data is None else data
    card = card or read_card()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if card.digest != digest:
        raise UsageError("weights.npz", f"has digest {digest}, its card says {card.digest}; reinstall forestay")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        kept = {name: cast("Floats", arrays[name]) for name in arrays.files}
    return Weights(digest, {name: _mode(kept, name) for name in MODES}, card.categories)


def _mode(arrays: Mapping[str, Floats], name: str) -> Mode:
    registers, categories = _heads(arrays, f"{name}_registers"), _heads(arrays, f"{name}_categories")
    return Mode(
        _heads(arrays, f"{name}_gate"), registers, arrays[f"{name}_slope"], arrays[f"{name}_offset"], categories
    )


def _heads(arrays: Mapping[str, Floats], name: str) -> Heads:
    dense = arrays[f"{name}_dense"].astype(np.float32)
    return Heads(arrays[f"{name}_grams"], dense, arrays[f"{name}_bias"].astype(np.float32))


def save(weights: Weights) -> bytes:
    """Return weights as an npz; n-grams as float16."""
    arrays: dict[str, Floats] = {}
    for name, heads in _all_heads(weights).items():
        arrays[f"{name}_grams"] = heads.grams.astype(np.float16)
        arrays[f"{name}_dense"] = heads.dense.astype(np.float32)
        arrays[f"{name}_bias"] = heads.bias.astype(np.float32)
    for name, mode in weights.modes.items():
        arrays[f"{name}_slope"] = mode.slope.astype(np.float32)
        arrays[f"{name}_offset"] = mode.offset.astype(np.float32)
    sink = io.BytesIO()
    np.savez_compressed(sink, allow_pickle=False, **arrays)
    return sink.getvalue()


def _all_heads(weights: Weights) -> dict[str, Heads]:
    found: dict[str, Heads] = {}
    for name, mode in weights.modes.items():
        found[f"{name}_gate"] = mode.gate
        found |= {f"{name}_registers": mode.registers, f"{name}_categories": mode.categories}
    return found
