"""What a scorer is and what it says: values, and the names of the streams that its scores make. Pure.

A scorer is a plug-in with a name and a version that looks at outputs of one kind and gives each a few numbers, of which
it says the range and which way is better. It decides nothing here. What its scores are worth, `decide` says; the shells
are `worker/scorer_process` and `worker/scoring`.
"""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Literal

from forestay.quality.noting import NAMES

Modality = Literal["image", "video", "audio"]
MODALITIES: tuple[Modality, ...] = ("image", "video", "audio")
MAX_MEASURES = 8
STREAM = "score:"  # how the kind of a stream of scores begins


@dataclasses.dataclass(frozen=True, slots=True)
class Measure:
    """One number that a scorer gives."""

    name: str
    low: float  # the least it may be
    high: float
    higher_is_better: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Described:
    """What a scorer says of itself when it starts."""

    scorer_id: str  # "digits-agreement@1"
    modality: Modality
    measures: tuple[Measure, ...]

    @property
    def kind(self) -> str:
        """Return the kind of its streams, which says everything of them: `score:digits-agreement@1:agreement+`."""
        told = ",".join(f"{item.name}{'+' if item.higher_is_better else '-'}" for item in self.measures)
        return f"{STREAM}{self.scorer_id}:{told}"


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One output for a scorer."""

    data: bytes  # the file, as the model gave it
    prompt: str


class Trouble(enum.StrEnum):
    """Why a scorer gives no scores. None of them says anything of a model."""

    NOT_STARTED = "not_started"  # its interpreter, its imports, its setup, or this machine's isolation
    CRASH = "crash"
    HANG = "hang"  # no answer within its time
    MEMORY = "memory"
    GARBAGE = "garbage"  # an answer that is none
    CHANGED = "changed"  # its files, or its scores of the frozen set, are not what they were


@dataclasses.dataclass(frozen=True, slots=True)
class Failed:
    """A scorer gave no scores. `words` holds nothing of prompts or media."""

    trouble: Trouble
    words: str


@dataclasses.dataclass(frozen=True, slots=True)
class Given:
    """The scores of one output, in the order of the measures."""

    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Missing:
    """An output without scores: `abstained`, `not_finite` or `out_of_range`."""

    why: Literal["abstained", "not_finite", "out_of_range"]


Score = Given | Missing


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenItem:
    """An output whose scores are known."""

    name: str
    item: Item
    scores: tuple[float, ...] | None  # None: the scorer abstains


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSet:
    """What a scorer must reproduce before its scores count."""

    digest: str  # of the scorer's folder
    tolerance: float  # share of a measure's range
    items: tuple[FrozenItem, ...]


def names_of(kind: str) -> tuple[str, ...]:
    """Return the names of a stream's numbers: features of a kind of medium, or a scorer's; empty: not followed."""
    if not kind.startswith(STREAM):
        return NAMES.get(kind, ())
    return tuple(_signs(kind))


def scorer_of(kind: str) -> str:
    """Return whose scores a stream holds; empty where they are features of a medium."""
    return kind.split(":")[1] if kind.startswith(STREAM) else ""


def direction_of(kind: str, shifts: Mapping[str, float]) -> Literal["better", "worse", "otherwise"]:
    """Say which way the scores of a stream went, of those that moved by half a standard deviation or more."""
    signs = _signs(kind) if kind.startswith(STREAM) else {}
    moved = [value * signs[name] for name, value in shifts.items() if name in signs and abs(value) >= 0.5]
    if any(value < 0 for value in moved):
        return "worse"
    return "better" if moved else "otherwise"


def _signs(kind: str) -> dict[str, int]:
    told = kind.rpartition(":")[2].split(",")
    return {part[:-1]: 1 if part.endswith("+") else -1 for part in told if part}
