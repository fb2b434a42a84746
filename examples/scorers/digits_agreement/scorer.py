"""Scores how far a picture of a digit agrees with the words that asked for it, as CLIP-score does for photographs.

Words become a point (which digits, colours and backgrounds they name), the picture becomes another (how likely each of
them is), and the score is the cosine between the two. The picture's side is a small network for the digit, and
distances to the named colours. It knows nothing of the model that drew. A prompt that names no digit has no score.
"""

from __future__ import annotations

import pathlib
import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE, GRID = 32, 8
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = {
    "red": (226, 52, 52),
    "green": (44, 172, 84),
    "blue": (62, 104, 236),
    "yellow": (240, 196, 24),
    "purple": (168, 66, 204),
}
BACKGROUNDS = ("dark", "light")
WEIGHTS = pathlib.Path(__file__).with_name("weights.npz")
INKED = 0.7  # share of full ink from which a pixel tells the colour
SOFTNESS = 40.0  # levels of distance between colours that make one e times less likely

Vector = NDArray[np.float64]


class Agreement:
    """The scorer; see the module."""

    name = "digits-agreement"
    version = 1
    modality = "image"
    scores = {"agreement": {"low": 0, "high": 1}, "digit": {"low": 0, "high": 1}}  # noqa: RUF012 - read, never changed

    def setup(self) -> None:
        """Load the network."""
        with np.load(WEIGHTS) as found:
            self._layers = {name: found[name].astype(np.float64) for name in ("w1", "b1", "w2", "b2")}

    def score(self, items: list) -> list:
        """Return for each picture the cosine, and the likelihood of the digit that was named."""
        return [self._one(item.path, item.prompt) for item in items]

    def _one(self, path: pathlib.Path, prompt: str) -> dict[str, float] | None:
        wanted = concepts_of(prompt)
        if not wanted[: len(WORDS)].any():
            return None
        shown = self.shown(picture_of(path))
        named = [slice(0, 10), slice(10, 15), slice(15, 17)]
        likely = np.concatenate([shown[part] if wanted[part].any() else 0 * shown[part] for part in named])
        length = float(np.linalg.norm(likely) * np.linalg.norm(wanted))
        cosine = float(likely @ wanted) / length if length else 0.0
        return {"agreement": min(1.0, max(0.0, cosine)), "digit": float(shown[:10] @ wanted[:10])}

    def shown(self, picture: Vector) -> Vector:
        """Return how likely each digit, colour and background is, `[17]`, of a picture `[32, 32, 3]`."""
        light = float(np.median(ring_of(picture).mean(axis=1)) / 255.0)
        ink, layers = ink_of(picture), self._layers
        hidden = np.maximum(0.0, grid_of(ink) @ layers["w1"] + layers["b1"])
        digits = softmax(hidden @ layers["w2"] + layers["b2"])
        inked = picture[ink > INKED]
        mean = inked.mean(axis=0) if len(inked) else np.full(3, 128.0)
        far = np.linalg.norm(np.asarray(list(COLOURS.values()), np.float64) - mean, axis=1)
        return np.concatenate([digits, softmax(-far / SOFTNESS), [1.0 - light, light]])


def concepts_of(prompt: str) -> Vector:
    """Return which of the digits, colours and backgrounds a prompt names, `[17]`."""
    words = set(re.findall(r"[a-z]+|[0-9]", prompt.lower()))
    digits = [float(word in words or str(number) in words) for number, word in enumerate(WORDS)]
    rest = [float(name in words) for name in (*COLOURS, *BACKGROUNDS)]
    return np.array([*digits, *rest])


def picture_of(path: pathlib.Path) -> Vector:
    """Return a file as a picture `[32, 32, 3]`, 0 to 255, by area average."""
    with Image.open(path) as image:
        small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, np.float64)


def ring_of(picture: Vector) -> Vector:
    """Return the outermost pixels, `[n, 3]`: the paper."""
    return np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])


def ink_of(picture: Vector) -> Vector:
    """Return how much of each pixel is ink, 0 to 1, `[32, 32]`: how far it is from the paper."""
    far = np.linalg.norm(picture - np.median(ring_of(picture), axis=0), axis=2)
    return np.clip(far / max(float(np.quantile(far, 0.92)), 30.0), 0.0, 1.0)


def grid_of(ink: Vector) -> Vector:
    """Return the area average of the ink on an 8x8 grid, `[64]`."""
    cell = SIDE // GRID
    return ink.reshape(GRID, cell, GRID, cell).mean(axis=(1, 3)).ravel()


def softmax(values: Vector) -> Vector:
    """Return what sums to one."""
    raised = np.exp(values - values.max())
    return raised / raised.sum()
