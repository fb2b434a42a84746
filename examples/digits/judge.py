"""Judge pictures of digits: which digit, which colour, which background.

The judge never sees the diffusion model. It is a support-vector machine trained on real scikit-learn digits
painted the way `dataset.py` paints them, plus a nearest-mean rule for colour. `train.py` reports its numbers and
the tests ask it about fresh pictures.
"""

# ruff: noqa: PLC0415 - tests judge pictures without loading what only training needs

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (226, 52, 52),
    "green": (44, 172, 84),
    "blue": (62, 104, 236),
    "yellow": (240, 196, 24),
    "purple": (168, 66, 204),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {"dark": (24, 26, 36), "light": (238, 236, 228)}
PICTURE_SIZE_PIXELS = 32
GRID_SIZE = 8

Pixels = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one picture shows."""

    digit: int
    colour: str
    background: str


def ink_of(picture: NDArray[np.uint8]) -> Pixels:
    """Return how much of each pixel is ink, 0 to 1, for a picture `[32, 32, 3] uint8`."""
    pixels = picture.astype(np.float32)
    paper = np.asarray(BACKGROUNDS[background_of(picture)], np.float32)
    distance = np.linalg.norm(pixels - paper, axis=2)
    # The strongest tenth of the ink is "full ink", so a pale colour weighs as much as a bright one.
    full = max(float(np.quantile(distance, 0.92)), 30.0)
    return np.clip(distance / full, 0.0, 1.0)


def background_of(picture: NDArray[np.uint8]) -> str:
    """Name the background by the brightness of the outermost ring of pixels."""
    ring = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]]).astype(np.float32)
    return "light" if float(np.median(ring.mean(axis=1))) > 128.0 else "dark"


def colour_of(picture: NDArray[np.uint8]) -> str:
    """Name the colour whose mean is nearest to the mean of the inked pixels."""
    ink = ink_of(picture)
    inked = picture[ink > 0.7].astype(np.float32)
    if not len(inked):
        return "none"
    mean = inked.mean(axis=0)
    return min(COLOURS, key=lambda name: float(np.linalg.norm(mean - np.asarray(COLOURS[name]))))


def grid_of(picture: NDArray[np.uint8]) -> Pixels:
    """Return the area average of the ink on an 8x8 grid, flattened to 64 numbers."""
    cell = PICTURE_SIZE_PIXELS // GRID_SIZE
    return ink_of(picture).reshape(GRID_SIZE, cell, GRID_SIZE, cell).mean(axis=(1, 3)).ravel()


@cache
def fitted_machine() -> object:
    """Train the support-vector machine on every real digit, painted once on each background."""
    from dataset import paint, real_digits
    from sklearn.svm import SVC

    images, labels = real_digits()
    colours = list(COLOURS)
    grids, answers = [], []
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        for background in BACKGROUNDS:
            grids.append(grid_of(paint(image, colours[index % len(colours)], background)))
            answers.append(int(label))
    return SVC(C=10.0, gamma="scale").fit(np.stack(grids), np.asarray(answers))


def judge(pictures: list[NDArray[np.uint8]]) -> list[Judgement]:
    """Judge pictures `[32, 32, 3] uint8` in one batch."""
    machine = fitted_machine()
    digits = machine.predict(np.stack([grid_of(picture) for picture in pictures]))  # type: ignore[attr-defined]
    return [
        Judgement(int(digit), colour_of(picture), background_of(picture))
        for digit, picture in zip(digits, pictures, strict=True)
    ]


def to_native(picture: object) -> NDArray[np.uint8]:
    """Return a PIL picture of any size as `[32, 32, 3] uint8` by area average."""
    from PIL import Image

    small = picture.convert("RGB").resize((PICTURE_SIZE_PIXELS, PICTURE_SIZE_PIXELS), Image.Resampling.BOX)  # type: ignore[attr-defined]
    return np.asarray(small, np.uint8)


def score(pipeline: object, steps: int, guidance: float, rounds: int = 1) -> dict[str, float]:
    """Generate each digit in each colour (`50 * rounds` pictures) and return the shares that are right."""
    import torch

    asked = [
        (digit, colour, background)
        for turn in range(rounds)
        for digit in range(10)
        for index, colour in enumerate(COLOURS)
        for background in [list(BACKGROUNDS)[(digit + index + turn) % 2]]
    ]
    pictures: list[NDArray[np.uint8]] = []
    for start in range(0, len(asked), 25):
        batch = asked[start : start + 25]
        prompts = [f"a {c} {WORDS[d]} on a {b} background" for d, c, b in batch]
        generators = [torch.Generator().manual_seed(1000 + start + i) for i in range(len(batch))]
        made = pipeline(  # type: ignore[operator]
            prompts, num_inference_steps=steps, guidance_scale=guidance, generator=generators
        ).images
        pictures += [to_native(picture) for picture in made]
    found = judge(pictures)
    pairs = list(zip(found, asked, strict=True))
    return {
        "pictures": float(len(asked)),
        "digits_right_ratio": sum(f.digit == a[0] for f, a in pairs) / len(pairs),
        "colours_right_ratio": sum(f.colour == a[1] for f, a in pairs) / len(pairs),
        "backgrounds_right_ratio": sum(f.background == a[2] for f, a in pairs) / len(pairs),
    }


def main() -> None:
    """Judge the saved pipeline and print the shares that are right."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--weights", type=Path, default=Path(__file__).parent / "weights")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=2, help="50 pictures a round")
    options = parser.parse_args()
    import torch
    from diffusers import StableDiffusionPipeline

    torch.set_num_threads(1)
    pipeline = StableDiffusionPipeline.from_pretrained(options.weights)
    pipeline.set_progress_bar_config(disable=True)
    print(score(pipeline, options.steps, options.guidance, options.rounds))


if __name__ == "__main__":
    main()
