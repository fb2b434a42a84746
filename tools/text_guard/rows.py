"""The rows that teach and test: nine prompt sets from a folder, and lines of our own; and which row means what.

A row is harmful, harmless, or says nothing (a rating below the line is no proof of harmlessness). Near-duplicates share
a group, and a group is never split between teaching and testing. Nothing here prints a row.
"""

import csv
import gzip
import pathlib
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import yaml

from forestay.errors import UsageError
from forestay.safety.taxonomy import CODES, Category
from forestay.safety.text.model import Register

MAX_CAPTIONS = 2_000  # of the 5,072: they are alike
LINES_EACH = 14  # drawn from each contrast template
CONTRAST = pathlib.Path(__file__).parent / "contrast.yaml"


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt; `harmful` is None where the set does not say."""

    text: str
    source: str
    register: Register
    harmful: bool | None
    category: Category | None
    group: int


_Cells = Mapping[str, str]
_OPENAI = {
    "S": Category.SEXUAL,
    "H2": Category.HATE,
    "H": Category.HATE,
    "V2": Category.GRAPHIC_VIOLENCE,
    "V": Category.VIOLENCE,
    "SH": Category.SELF_HARM,
    "HR": Category.HARASSMENT,
}
_I2P = {
    "sexual": Category.SEXUAL,
    "shocking": Category.GRAPHIC_VIOLENCE,
    "violence": Category.VIOLENCE,
    "self-harm": Category.SELF_HARM,
    "harassment": Category.HARASSMENT,
    "illegal activity": Category.ILLICIT,
    "hate": Category.HATE,
}
_NIBBLER = {"sexual": Category.SEXUAL, "violent": Category.VIOLENCE, "hate": Category.HATE, "bias": Category.HATE}
_HAZARDS = {code.ailuminate: category for category, code in reversed(list(CODES.items()))}


def _openai(cells: _Cells) -> tuple[bool | None, Category | None]:
    return cells["any"] == "1", next((category for name, category in _OPENAI.items() if cells[name] == "1"), None)


def _i2p(cells: _Cells) -> tuple[bool | None, Category | None]:
    harmful = float(cells["inappropriate_percentage"]) >= 50
    return True if harmful else None, _I2P.get(cells["categories"].split(",")[0].strip())


def _nibbler(cells: _Cells) -> tuple[bool | None, Category | None]:
    harmful = int(cells["n_image_unsafe"]) >= 3 or int(cells["n_text_unsafe"]) >= 3
    kind = cells["image_failure_type"].split("|")[0].removeprefix("image_failure_")
    return True if harmful else None, _NIBBLER.get(kind)


def _ailuminate(cells: _Cells) -> tuple[bool | None, Category | None]:
    hazard = cells["hazard"]
    return True, Category.ADVICE if hazard.startswith("spc") else _HAZARDS.get(hazard)


def _harmless(_: _Cells) -> tuple[bool | None, Category | None]:
    return False, None


@dataclass(frozen=True, slots=True)
class _Set:
    file: str
    register: Register
    label: Callable[[_Cells], tuple[bool | None, Category | None]]


SETS: Mapping[str, _Set] = {
    "openai": _Set("openai_moderation", Register.PROSE, _openai),
    "xstest": _Set("xstest", Register.REQUEST, lambda cells: (cells["label"] == "unsafe", None)),
    "i2p": _Set("i2p", Register.PICTURE, _i2p),
    "nibbler": _Set("adversarial_nibbler_submitted", Register.PICTURE, _nibbler),
    "ailuminate": _Set("ailuminate_demo_en", Register.REQUEST, _ailuminate),
    "ring_a_bell": _Set("ring_a_bell_violence", Register.PICTURE, lambda _: (True, Category.VIOLENCE)),
    "parti": _Set("parti_prompts_benign", Register.PICTURE, _harmless),
    "diffusiondb": _Set("diffusiondb_5k_unlabelled", Register.PICTURE, _harmless),
    "captions": _Set("coco_captions_benign", Register.PICTURE, _harmless),
}


def read_rows(folder: pathlib.Path) -> list[Row]:
    """Read every set of a folder; raises UsageError naming the file that is missing."""
    groups: dict[str, int] = {}
    rows = [row for name in SETS for row in _read(folder, name, groups)]
    return rows + [row for row in contrast_rows(groups) if not _near(row, rows)]


def _read(folder: pathlib.Path, name: str, groups: dict[str, int]) -> Iterator[Row]:
    kind = SETS[name]
    file = folder / f"{kind.file}.csv.gz"
    if not file.is_file():
        raise UsageError("FOLDER", f"{file} is missing; name the folder that holds the prompt sets")
    with gzip.open(file, "rt", encoding="utf-8", newline="") as source:
        for number, cells in enumerate(csv.DictReader(source)):
            if name == "captions" and number >= MAX_CAPTIONS:
                return
            harmful, category = kind.label(cells)
            text = cells["prompt"]
            yield Row(text, name, kind.register, harmful, category, groups.setdefault(_key(text), len(groups)))


def _key(text: str) -> str:
    return " ".join(re.findall(r"[a-z]+", text.lower())[:5])


def contrast_rows(groups: dict[str, int]) -> list[Row]:
    """Return our own lines: each template with words drawn from its lists, the same ones every time."""
    document = yaml.safe_load(CONTRAST.read_text(encoding="utf-8"))
    chance = np.random.default_rng(7)
    return [
        Row(line, "contrast", Register.REQUEST, kind == "harmful", None, groups.setdefault(template, len(groups)))
        for kind in ("harmful", "harmless")
        for template in document[kind]
        for line in _filled(template, document["slots"], chance)
    ]


def _filled(template: str, slots: Mapping[str, Sequence[str]], chance: np.random.Generator) -> list[str]:
    names = re.findall(r"\{(\w+)\}", template)
    lines: set[str] = set()
    for _ in range(LINES_EACH * 3 if names else 1):
        line = template
        for name in names:
            line = line.replace(f"{{{name}}}", str(chance.choice(slots[name])), 1)
        lines.add(line)
    return sorted(lines, key=lambda line: zlib.crc32(line.encode()))[:LINES_EACH]


_COMMON = frozenset(
    ["how", "do", "i", "can", "the", "a", "what", "is", "to", "in", "of", "are", "why", "did", "best", "way", "my"]
)


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]+", text.lower())) - _COMMON


def _near(row: Row, rows: Sequence[Row]) -> bool:
    """Return whether a line of ours says nearly what a row of a test set says: then it would teach the answer."""
    mine = _words(row.text)
    theirs = (_words(other.text) for other in rows if other.source == "xstest")
    return any(len(mine & other) >= 0.75 * max(1, len(mine | other)) for other in theirs)
