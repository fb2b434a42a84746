"""What a request asked for, and what its answer says it served, as far as usual field names tell. Pure.

Names are read with care: only a value that leaves no doubt is believed, and what a request leaves out is not checked.
Called by `contracts` through the worker.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import cast

_MOST = 1_000_000
_MOST_SECONDS = 600.0  # a larger number is in milliseconds, or in frames
_AMOUNT = re.compile(r"\s*(\d{1,6}(?:\.\d{1,6})?)\s*(?:s|sec|secs|seconds?)?\s*", re.IGNORECASE)
_BY_SIDES = re.compile(r"\s*(\d{1,5})\s*[x*]\s*(\d{1,5})\s*", re.IGNORECASE)
_PRESETS: Mapping[str, tuple[int, int]] = {  # fal's names
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
_FORMATS: Mapping[str, frozenset[str]] = {
    "png": frozenset({"image/png"}),
    "jpeg": frozenset({"image/jpeg"}),
    "jpg": frozenset({"image/jpeg"}),
    "webp": frozenset({"image/webp"}),
    "gif": frozenset({"image/gif"}),
    "mp4": frozenset({"video/mp4"}),
    "webm": frozenset({"video/webm", "audio/webm"}),
    "wav": frozenset({"audio/wav"}),
    "mp3": frozenset({"audio/mpeg"}),
    "flac": frozenset({"audio/flac"}),
}
_COUNTS = ("num_images", "num_outputs", "num_samples")
_FRAMES = ("num_frames",)
_RATES = ("fps", "frames_per_second", "frame_rate")
_SECONDS = ("duration", "duration_seconds", "seconds_total", "audio_length_in_s", "video_length_seconds")
_STEPS = ("num_inference_steps", "num_steps", "steps")
_KINDS = ("output_format", "format", "audio_format", "video_format")
_FLAGS = ("has_nsfw_concepts", "has_nsfw_concept", "nsfw_content_detected", "nsfw_flags")


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What the caller named; None: nothing, or nothing that is understood."""

    count: int | None = None
    size: tuple[int, int] | None = None  # width, height
    frames: int | None = None
    frame_rate: float | None = None
    seconds: float | None = None
    steps: int | None = None
    content_types: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True)
class Served:
    """What the answer says of itself."""

    count: int | None = None  # of the files in its list
    steps: int | None = None
    filtered: tuple[bool, ...] = ()  # the model's own filter, file by file

    def is_filtered(self, index: int | None) -> bool:
        """Tell whether the model says that it blanked the file at this place of its list itself; None: of any."""
        if index is None or len(self.filtered) == 1:
            return any(self.filtered)
        return index < len(self.filtered) and self.filtered[index]


def asked_of(body: object) -> Asked:
    """Read a parsed input."""
    if not isinstance(body, dict):
        return Asked()
    said = cast("Mapping[str, object]", body)
    kind = next((value.lower() for name in _KINDS if isinstance(value := said.get(name), str)), "")
    return Asked(
        count=_whole(_first(said, _COUNTS)),
        size=_size(said),
        frames=_whole(_first(said, _FRAMES)),
        frame_rate=_amount(_first(said, _RATES)),
        seconds=_seconds(_first(said, _SECONDS)),
        steps=_whole(_first(said, _STEPS)),
        content_types=_FORMATS.get(kind, frozenset()),
    )


def served_of(answer: object) -> Served:
    """Read a parsed answer."""
    if not isinstance(answer, dict):
        return Served()
    said = cast("Mapping[str, object]", answer)
    lists = (said.get(name) for name in ("images", "videos", "audios", "outputs"))
    files = next((cast("Sequence[object]", value) for value in lists if isinstance(value, list)), None)
    one = any(isinstance(said.get(name), dict) for name in ("image", "video", "audio"))
    return Served(
        count=len(files) if files is not None else (1 if one else None),
        steps=_whole(_first(said, _STEPS)),
        filtered=_flags(_first(said, _FLAGS)),
    )


def _first(said: Mapping[str, object], names: Sequence[str]) -> object:
    return next((said[name] for name in names if said.get(name) is not None), None)


def _flags(value: object) -> tuple[bool, ...]:
    if isinstance(value, bool):
        return (value,)
    items = cast("Sequence[object]", value) if isinstance(value, list) else ()
    return tuple(item is True for item in items[:1_000])


def _whole(value: object) -> int | None:
    amount = _amount(value)
    return int(amount) if amount is not None and amount == int(amount) else None


def _amount(value: object) -> float | None:
    """Read a positive number, or a text such as `5` or `5s`."""
    if isinstance(value, str) and len(value) <= 32:
        found = _AMOUNT.fullmatch(value)
        value = float(found[1]) if found else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _MOST:
        return None
    return float(value)


def _size(said: Mapping[str, object]) -> tuple[int, int] | None:
    value = _first(said, ("image_size", "video_size", "size"))
    if isinstance(value, str):
        sides = _BY_SIDES.fullmatch(value) if len(value) <= 32 else None
        return (int(sides[1]), int(sides[2])) if sides else _PRESETS.get(value.strip().lower())
    pair = cast("Mapping[str, object]", value) if isinstance(value, dict) else said
    width, height = _whole(pair.get("width")), _whole(pair.get("height"))
    return (width, height) if width is not None and height is not None else None


def _seconds(value: object) -> float | None:
    amount = _amount(value)
    return amount if amount is not None and amount <= _MOST_SECONDS else None
