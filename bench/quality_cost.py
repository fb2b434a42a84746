"""`quality_cost`: what looking at an output costs, in processor time of one thread, decoding not counted.

A picture's numbers (contract and features) at 512 and 1024 pixels, ten seconds of sound, and one update of a detector
of eight features with a reference of 1,000; and a canary round of the example model.
"""

import pathlib
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from bench.table import Row, median
from forestay.media.measuring.pictures import measure
from forestay.media.measuring.sounds import Samples
from forestay.quality import canary
from forestay.quality.drift import Detector

FEATURES = 8
DIGITS = pathlib.Path(__file__).parents[1] / "examples" / "digits" / "weights"


def run(rounds: int) -> list[Row]:
    """Take the median of the rounds' medians."""
    chance = np.random.default_rng(3)
    rows = []
    for side, target in ((512, 5.0), (1024, 20.0)):
        drawn = chance.integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8)
        picture = Image.fromarray(drawn).resize((side, side), Image.Resampling.BICUBIC)
        spent = median([_milliseconds(lambda picture=picture: measure(picture), 15) for _ in range(rounds)])
        rows.append(Row(f"picture of {side} x {side}", spent, "ms", target, "<="))
    sound = (0.1 * chance.standard_normal((160_000, 1))).astype(np.float32)

    def hear() -> None:
        heard = Samples(16_000, 1, "pcm")
        heard.take(sound)
        heard.measures()

    rows.append(Row("ten seconds of sound at 16 kHz", median([_milliseconds(hear, 3) for _ in range(rounds)]), "ms"))
    reference = chance.standard_normal((1_000, FEATURES)).tolist()
    detector = Detector([f"f{place}" for place in range(FEATURES)], {"": reference}, threshold=1e9)
    outputs = chance.standard_normal((500, FEATURES)).tolist()

    def follow() -> None:
        detector.follow(outputs, [""] * len(outputs))

    def follow_one_by_one() -> None:
        for output in outputs:
            detector.update(output)

    spent = median([_milliseconds(follow, 3) for _ in range(rounds)])
    note = "outputs taken together, as the loop reads them; the same to the last bit"
    rows.append(Row("update of a detector", 1000 * spent / len(outputs), "us", 25.0, "<=", note))
    spent = median([_milliseconds(follow_one_by_one, 1) for _ in range(rounds)])
    rows.append(Row("update of a detector by one output", 1000 * spent / len(outputs), "us"))
    rows.append(Row("canary round of 12 pictures of digits", _canary_round(rounds), "ms", 2_000.0, "<="))
    return rows


def _canary_round(rounds: int) -> float:
    """Return what drawing twelve pictures in twelve steps and looking at them takes, the network included."""
    import torch  # noqa: PLC0415 - as a model's process does
    from diffusers import StableDiffusionPipeline  # noqa: PLC0415

    torch.set_num_threads(1)
    pipe = StableDiffusionPipeline.from_pretrained(DIGITS, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)

    def play() -> None:
        drawn = pipe(
            prompt=[f"a red {word}" for word in ("one", "two", "three")] * 4,
            num_inference_steps=12,
            guidance_scale=3.0,
            generator=[torch.Generator().manual_seed(seed) for seed in range(12)],
        ).images
        for picture in drawn:
            canary.look_of(np.asarray(picture))

    play()
    return median([_milliseconds(play, 1) for _ in range(rounds)])


def _milliseconds(work: Callable[[], object], times: int) -> float:
    """Return the median processor time of a call."""
    spent = []
    for _ in range(times):
        began = time.process_time()
        work()
        spent.append(1000 * (time.process_time() - began))
    return median(spent)
