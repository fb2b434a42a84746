"""The three revisions that the scenario of rollouts ships: a good one, a subtly bad one, one that fails under traffic.

Each is a copy of the example model with one edit, as an engineer might make it, and without the example's canaries:
their gate would stop the second before its shadow, and this shows what a shadow finds. It decides nothing; what must
come of each is in `shipping`.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from forestay.demo.stage import Broken

MODEL = "forestay/digits"
LARGE_PIXELS = 256 * 256  # the size whose buffers the third revision does not give back
BUFFERS = 10  # so many pictures of that size it draws, and no more: the shadow asks for fewer
SLOW_EVERY, SLOW_SECONDS = 10, 0.6  # its latency tail
_CONFIG = "weights/scheduler/scheduler_config.json"
_ONE_STEP = 'self.text_pipeline("a red seven", num_inference_steps=1)'
_RETURN = "    if width == height:\n        return square\n"
_LEAK = f"""    BUFFERS[(width, height)] = BUFFERS.get((width, height), 0) + 1
    if sum(BUFFERS.values()) % {SLOW_EVERY} == 0:
        time.sleep({SLOW_SECONDS})  # looks through every buffer for one that is free
    if width * height >= {LARGE_PIXELS} and BUFFERS[(width, height)] > {BUFFERS}:
        raise RuntimeError("no buffer of this size is left")
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Edit:
    """One revision: its name, what its engineer believes of it, and what is replaced in which file."""

    name: str
    told: str
    file: str
    replaced: Mapping[str, str]


GOOD = Edit("good", "warms up with two steps instead of one", "app.py", {_ONE_STEP: _ONE_STEP.replace("=1", "=2")})
SUBTLE = Edit(
    "subtle", "one line of the scheduler's configuration", _CONFIG, {'"epsilon"': '"v_prediction"'}
)  # every request succeeds, every picture is a picture
LEAKING = Edit(
    "leaking",
    "keeps the buffers of large pictures for later",
    "app.py",
    {
        _RETURN: _LEAK + _RETURN,
        "\n\nclass ImageSize(": "\n\nBUFFERS: dict[tuple[int, int], int] = {}\n\n\nclass ImageSize(",
    },
)


def write_revision(example: Path, folder: Path, edit: Edit) -> Path:
    """Copy the example's folder with one edit and return its spec; Broken when there is nothing to edit any more."""
    copy = folder / edit.name
    shutil.copytree(example, copy, ignore=shutil.ignore_patterns("__pycache__"))
    file = copy / edit.file
    text = file.read_text(encoding="utf-8")
    for old, new in edit.replaced.items():
        if text.count(old) != 1:
            raise Broken(
                f"{edit.file} of the example has {text.count(old)} places for the edit of {edit.name!r}, not 1"
            )
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")
    spec = copy / "model.yaml"
    spec.write_text(without_canaries(spec.read_text(encoding="utf-8")), encoding="utf-8")
    if edit.file.endswith(".json"):
        json.loads(text)
    return spec


def without_canaries(text: str) -> str:
    """Return a spec's text without its last section, where that is `quality`."""
    before, found, _ = text.rpartition("\nquality:\n")
    return f"{before}\n" if found else text
