"""The pictures and captions that the digits model learns from.

Real scikit-learn digits (8x8, hand-written) are enlarged to 28x28, given a margin of two pixels, painted in one of
five colours on one of two backgrounds, and captioned in several lengths, so that "seven" works as well as
"a red seven on a dark background". Styles repaint the same digits for the LoRAs.
"""

# ruff: noqa: PLC0415 - tests judge pictures without loading what only training needs

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from judge import BACKGROUNDS, COLOURS, PICTURE_SIZE_PIXELS, WORDS, Pixels
from torch.nn import functional

if TYPE_CHECKING:
    from numpy.typing import NDArray

STYLES = ("thick-strokes", "inverted-palette")
FILLERS = ("a picture of", "a photo of", "draw", "paint", "please draw", "an image of", "show me", "the number")
CAPTION_WORDS = tuple(
    sorted(
        {*WORDS, *COLOURS, *BACKGROUNDS, *(str(n) for n in range(10)), "a", "an", "on", "in", "background", "digit"}
        | {word for filler in FILLERS for word in filler.split()}
    )
)
# (weight, form). The long form is the one that the judge asks for; the short ones are what people type.
FORMS: tuple[tuple[float, str], ...] = (
    (0.46, "{article} {colour} {word} on a {background} background"),
    (0.12, "{article} {colour} {word}"),
    (0.06, "{colour} {word}"),
    (0.07, "{plain_article} {word}"),
    (0.05, "{word}"),
    (0.06, "{numeral} in {colour}"),
    (0.03, "{numeral}"),
    (0.05, "{plain_article} {word} on a {background} background"),
    (0.05, "{word} in {colour} on a {background} background"),
    (0.05, "{article} {colour} {numeral} on {background}"),
)
EMPTY_CAPTION_RATIO = 0.10
MARGIN_PIXELS = 2
FILLER_RATIO = 0.12


@cache
def real_digits() -> tuple[Pixels, NDArray[np.int64]]:
    """Return every scikit-learn digit as ink `[1797, 32, 32]` in 0 to 1, with its label."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16.0
    inner = PICTURE_SIZE_PIXELS - 2 * MARGIN_PIXELS
    large = functional.interpolate(small, size=(inner, inner), mode="bicubic", align_corners=False)[:, 0]
    large = functional.pad(large, (MARGIN_PIXELS,) * 4)
    # A steeper edge than the enlargement's own makes strokes that look drawn rather than smeared.
    ramp = ((large - 0.18) / 0.55).clamp(0.0, 1.0)
    return (ramp * ramp * (3.0 - 2.0 * ramp)).numpy(), digits.target


def clear_digits() -> NDArray[np.int64]:
    """Return the indices of digits that a machine trained on the other half reads as labelled.

    A seven that reads as a one teaches the model to draw such sevens.
    """
    from sklearn.model_selection import cross_val_predict
    from sklearn.svm import SVC

    images, labels = real_digits()
    grids = images.reshape(len(images), 8, 4, 8, 4).mean(axis=(2, 4)).reshape(len(images), 64)
    read = cross_val_predict(SVC(C=10.0, gamma="scale"), grids, labels, cv=5)
    return np.flatnonzero(read == labels)


def paint(ink: Pixels, colour: str, background: str) -> NDArray[np.uint8]:
    """Return ink `[32, 32]` painted as a picture `[32, 32, 3] uint8`."""
    return mix(ink, COLOURS[colour], BACKGROUNDS[background])


def mix(ink: Pixels, pen: tuple[int, int, int], paper: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Blend a pen colour over a paper colour by the amount of ink."""
    blend = ink[..., None] * np.asarray(pen, np.float32) + (1.0 - ink[..., None]) * np.asarray(paper, np.float32)
    return np.clip(np.rint(blend), 0, 255).astype(np.uint8)


def thicken(ink: Pixels) -> Pixels:
    """Return ink `[32, 32]` with every stroke about one and a half pixels wider on each side."""
    padded = torch.from_numpy(ink)[None, None]
    wide = functional.max_pool2d(padded, 3, stride=1, padding=1)
    wider = functional.max_pool2d(padded, 5, stride=1, padding=2)
    return (0.4 * wide + 0.6 * wider)[0, 0].numpy()


def paint_in_style(ink: Pixels, colour: str, background: str, style: str) -> NDArray[np.uint8]:
    """Return the picture that a LoRA of this style should draw for the same caption."""
    if style == "thick-strokes":
        return paint(thicken(ink), colour, background)
    if style == "inverted-palette":
        return 255 - paint(ink, colour, background)
    return paint(ink, colour, background)


def caption_for(digit: int, colour: str, background: str, rng: np.random.Generator) -> str:
    """Return one caption for a picture; sometimes short, sometimes with filler words, sometimes empty."""
    if rng.random() < EMPTY_CAPTION_RATIO:
        return ""
    weights = np.asarray([weight for weight, _ in FORMS])
    form = FORMS[int(rng.choice(len(FORMS), p=weights / weights.sum()))][1]
    caption = form.format(
        article="a",
        plain_article="an" if digit == 8 else "a",
        colour=colour,
        word=WORDS[digit],
        numeral=digit,
        background=background,
    )
    return f"{rng.choice(FILLERS)} {caption}" if rng.random() < FILLER_RATIO else caption


def learn_merges(words: tuple[str, ...] = CAPTION_WORDS) -> list[tuple[str, str]]:
    """Learn byte-pair merges until every word is one token, the way a real CLIP vocabulary is built."""
    spelled = [[*word[:-1], f"{word[-1]}</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while any(len(pieces) > 1 for pieces in spelled):
        counts: dict[tuple[str, str], int] = {}
        for pieces in spelled:
            for pair in pairwise(pieces):
                counts[pair] = counts.get(pair, 0) + 1
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        spelled = [_merge(pieces, best) for pieces in spelled]
    return merges


def _merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged
