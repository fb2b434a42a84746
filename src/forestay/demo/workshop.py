"""What the scenario of quality is made of: copies of three example models, prompts in two mixes, and what is asked.

It decides how the models of the scene differ from the examples (broken outputs are no success, one picture
model a worker), and the sizes: small enough that hundreds of pictures take seconds.
Called by `faulting` and `game_day`.
"""

import itertools
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

Values = Mapping[str, object]
DIGITS, MOTION, TONES = "forestay/digits", "forestay/digits-motion", "forestay/tones"
FOLDERS: Mapping[str, str] = {DIGITS: "digits", MOTION: "digits_motion", TONES: "tones"}
ONE, OTHER = "gallery", "acme"  # tenants
REFERENCE = 160  # outputs that are learned before the detectors follow
LEARNING, MIXED = 100, 60  # requests of two pictures
PAIR = 2
HEALTHY: Values = {"prompt": "a red seven on a dark background", "seed": 7}
FIRST: Values = {"prompt": "a green four on a light background", "seed": 21}
SECOND: Values = {"prompt": "a blue three on a dark background", "seed": 11}
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_COLOURS = ("red", "green", "blue", "yellow", "purple")
PROMPTS = tuple(
    f"a {colour} {digit} on a {ground} background"
    for digit, colour, ground in zip(
        _DIGITS, itertools.cycle(_COLOURS), itertools.cycle(("dark", "light")), strict=False
    )
)
_FEW = PROMPTS[:3]  # what callers of another mix ask for most
SCHEDULER = "weights/scheduler/scheduler_config.json"
SETTING = "scheduler.beta_end"


def build(examples: Path, folder: Path) -> Path:
    """Copy the models, as this scene needs them; returns the fleet's file."""
    for model, name in FOLDERS.items():
        shutil.copytree(examples / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        spec = folder / name / "model.yaml"
        spec.write_text(spec_text(spec.read_text(encoding="utf-8"), model), encoding="utf-8")
    fleet = folder / "fleet.yaml"
    fleet.write_text("models:\n" + "".join(f"  - {name}/model.yaml\n" for name in FOLDERS.values()), encoding="utf-8")
    return fleet


def spec_text(text: str, model: str) -> str:
    """Return an example's spec with a contract that is enforced; all but the pictures share a worker's one device."""
    if model != DIGITS:
        text = re.sub(r"devices: 1", "devices: 0", text, count=1)
    contract = "quality:\n  mode: enforce\n  retries: 1\n"
    if "\nquality:\n" in text:  # the example has canaries
        return text.replace("\nquality:\n", f"\n{contract}", 1)
    return text.rstrip("\n") + "\n" + contract


def set_wrong(folder: Path) -> None:
    """Let the picture model's noise schedule end at a third, as a slip in a config does."""
    path = folder / SCHEDULER
    config = json.loads(path.read_text(encoding="utf-8"))
    config["beta_end"] = 0.004
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")


def pictures(count: int, *, skewed: bool, first_seed: int) -> list[Values]:
    """Return so many requests of two pictures; skewed, nine of ten are for the same three prompts."""
    asked: list[Values] = []
    for number in range(count):
        few = skewed and number % 10 != 0
        among: Sequence[str] = _FEW if few else PROMPTS
        asked.append(picture(prompt=among[number % len(among)], seed=first_seed + PAIR * number, num_images=PAIR))
    return asked


def picture(**asked: object) -> Values:
    """Return a request for pictures."""
    return {"num_inference_steps": 4, "image_size": {"width": 64, "height": 64}, **asked}


def film(seed: int = 3) -> Values:
    """Return a request for a film of one second."""
    return {
        "prompt_from": "a red three", "prompt_to": "a blue eight", "num_frames": 8, "fps": 8,
        "num_inference_steps": 3, "size": 64, "seed": seed,
    }  # fmt: skip


def sound(seed: int = 5) -> Values:
    """Return a request for a note."""
    return {"prompt": "c4 flute-like", "num_inference_steps": 4, "seed": seed}
