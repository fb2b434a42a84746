"""Pictures that are drawn, the same on every machine: no photograph of anyone is ever needed here."""

import numpy as np

from forestay.safety.hashes.pdq import Pixels


def drawn(seed: int, width: int, height: int) -> Pixels:
    """Return a picture of waves and discs, `[height, width, 3] uint8`."""
    chance = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    picture = np.zeros((height, width, 3))
    for channel in range(3):
        for _ in range(8):
            across, down = chance.uniform(-4, 4), chance.uniform(-4, 4)
            phase, strength = chance.uniform(0, 6.28), chance.uniform(5, 30)
            turns = across * columns / width + down * rows / height
            picture[:, :, channel] += strength * np.cos(2 * np.pi * turns + phase)
    for _ in range(12):
        centre, middle = chance.uniform(0, width), chance.uniform(0, height)
        radius = chance.uniform(0.03, 0.15) * min(width, height)
        inside = (columns - centre) ** 2 + (rows - middle) ** 2 < radius * radius
        picture[inside] += chance.uniform(-90, 90, 3)
    return np.clip(picture + 128, 0, 255).astype(np.uint8)
