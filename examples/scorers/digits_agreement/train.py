"""Make the scorer's network for digits, and draw its frozen set; some seconds on one processor.

The first layer is drawn at random, the second solved by least squares (G.-B. Huang, Q.-Y. Zhu, C.-K. Siew, "Extreme
learning machine", 2006), so nothing is trained for long, and the same seed gives the same weights.

Learns from four fifths of scikit-learn's hand-written digits, painted as `examples/digits/dataset.py` paints them;
the rest says how good it is. `weights.npz` holds the network, `TRAINING.json` the numbers. Afterwards
`forestay quality scorers check digits-agreement@1 --file examples/scorers/scorers.yaml --learn` writes known scores.
"""

from __future__ import annotations

import json
import pathlib
import sys

import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "digits")]

from dataset import paint, real_digits  # noqa: E402 - found by the line above
from scorer import BACKGROUNDS, COLOURS, WORDS, grid_of, ink_of  # noqa: E402

SEED = 11
HIDDEN = 300
RIDGE = 1.0
JITTERS = 3  # times that each picture is learned from, each time a little displaced


def main() -> None:
    """Train, measure, save."""
    chance = np.random.default_rng(SEED)
    images, labels = real_digits()
    order = chance.permutation(len(images))
    held, learned = order[: len(order) // 5], order[len(order) // 5 :]
    rows, answers = [], []
    for _ in range(JITTERS):
        for number in learned:
            moved = np.roll(images[number], tuple(chance.integers(-1, 2, 2)), axis=(0, 1))
            rows.append(seen(moved, chance))
            answers.append(int(labels[number]))
    layers = solved(np.stack(rows), np.asarray(answers), chance)
    shown = np.stack([seen(images[number], chance) for number in held])
    right = float((logits(layers, shown).argmax(axis=1) == labels[held]).mean())
    np.savez(HERE / "weights.npz", **{name: value.astype(np.float32) for name, value in layers.items()})
    report = {"seed": SEED, "hidden": HIDDEN, "learned_from": len(rows), "held_out": len(held), "right_ratio": right}
    (HERE / "TRAINING.json").write_text(json.dumps(report, indent=2) + "\n")
    draw_frozen(images, labels, held)
    print(report)


def solved(rows: np.ndarray, answers: np.ndarray, chance: np.random.Generator) -> dict[str, np.ndarray]:
    """Return the layers; the last is scaled so that likelihoods are as sure as the network is right."""
    layers = {"w1": chance.standard_normal((rows.shape[1], HIDDEN)) / 4, "b1": chance.uniform(-1, 1, HIDDEN)}
    hidden = np.maximum(0.0, rows @ layers["w1"] + layers["b1"])
    hidden = np.column_stack([hidden, np.ones(len(hidden))])
    wanted = np.eye(len(WORDS))[answers]
    found = np.linalg.solve(hidden.T @ hidden + RIDGE * np.eye(hidden.shape[1]), hidden.T @ wanted)
    layers |= {"w2": found[:-1], "b2": found[-1]}
    raw = logits(layers, rows)
    losses = {scale: _loss(scale * raw, answers) for scale in (2.0, 4.0, 6.0, 8.0, 12.0, 16.0)}
    best = min(losses, key=lambda scale: losses[scale])
    return {**layers, "w2": best * layers["w2"], "b2": best * layers["b2"]}


def logits(layers: dict[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Return what the network gives before it is made to sum to one, `[n, 10]`."""
    return np.maximum(0.0, rows @ layers["w1"] + layers["b1"]) @ layers["w2"] + layers["b2"]


def _loss(raw: np.ndarray, answers: np.ndarray) -> float:
    likely = raw - np.log(np.exp(raw).sum(axis=1, keepdims=True))
    return float(-likely[np.arange(len(answers)), answers].mean())


def seen(ink: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Return what the network sees of a digit that is painted in a drawn colour on a drawn background."""
    colour = list(COLOURS)[int(chance.integers(len(COLOURS)))]
    picture = paint(ink, colour, BACKGROUNDS[int(chance.integers(2))]).astype(np.float64)
    return grid_of(ink_of(picture))


def draw_frozen(images: np.ndarray, labels: np.ndarray, held: np.ndarray) -> None:
    """Draw six pictures; for the last two the words ask for something else, or for no digit."""
    folder, colours, items = HERE / "frozen", list(COLOURS), []
    folder.mkdir(exist_ok=True)
    for place, number in enumerate(held[:6]):
        colour, background = colours[place % 5], BACKGROUNDS[place % 2]
        name = f"{place}.png"
        Image.fromarray(paint(images[number], colour, background)).save(folder / name)
        word = WORDS[int(labels[number] + (place == 4)) % 10]
        prompt = f"a {colour} {word} on a {background} background" if place < 5 else "something in purple"
        items.append({"file": name, "prompt": prompt})
    (folder / "frozen.json").write_text(json.dumps({"items": items}, indent=2) + "\n")


if __name__ == "__main__":
    main()
