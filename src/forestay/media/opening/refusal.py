"""Why a file is not opened, and the checks that all formats share.

A refusal names the limit, so that a caller can mend the file and an operator can find the setting. Used by every
reader of this package.
"""

import dataclasses
import mmap
from typing import Literal

from forestay.media.limits import DecodeLimits, Kind

# unsupported: not a format that is opened; broken: lies about itself or does not decode; the others name the limit.
Fault = Literal["unsupported", "broken", "too_large", "too_long", "too_heavy"]
View = bytes | mmap.mmap


class Refusal(Exception):
    """The file is not opened; `limit` is the name of a field of `DecodeLimits`, empty where none applies."""

    def __init__(
        self, fault: Fault, message: str, limit: str = "", *, allowed: float = 0.0, given: float = 0.0
    ) -> None:
        super().__init__(message)
        self.fault: Fault = fault
        self.message = message
        self.limit = limit
        self.allowed = allowed
        self.given = given


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """A part of the file that is copied as it is: bytes [start, end)."""

    start: int
    end: int


Piece = bytes | Span


@dataclasses.dataclass(frozen=True, slots=True)
class Walked:
    """What a reader learned without decoding anything, and the clean file as pieces."""

    kind: Kind
    content_type: str
    codec: str  # Pillow's name of the format, or FFmpeg's of the demuxer
    pieces: tuple[Piece, ...] = ()  # empty: the file itself is handed on, to be written anew
    width: int = 0
    height: int = 0
    frames: int = 1
    orientation: int = 1  # Exif: 1 is upright
    seconds: float = 0.0  # 0: not told by the file
    samples: int = 0  # per channel; 0: not told


def broken(message: str) -> Refusal:
    """Return the refusal of a file that is not what it says."""
    return Refusal("broken", message)


def unsupported(message: str) -> Refusal:
    """Return the refusal of a format or a variant that is not opened."""
    return Refusal("unsupported", message)


def check_size(width: int, height: int, limits: DecodeLimits) -> None:
    """Refuse a picture of no size or of more than the limits."""
    if width < 1 or height < 1:
        raise broken(f"the picture measures {width} x {height} pixels")
    if max(width, height) > limits.max_side:
        message = f"{width} x {height} pixels: a side may have {limits.max_side} at most"
        raise Refusal("too_large", message, "max_side", allowed=limits.max_side, given=max(width, height))
    if width * height > limits.max_pixels:
        message = f"{width} x {height} pixels: a picture may have {limits.max_pixels} at most"
        raise Refusal("too_large", message, "max_pixels", allowed=limits.max_pixels, given=width * height)


def check_frames(frames: int, pixels: int, limits: DecodeLimits) -> None:
    """Refuse an animation of too many frames, or of too many pixels in all (`pixels`)."""
    if frames > limits.max_frames:
        message = f"{frames} frames: an animation may have {limits.max_frames} at most"
        raise Refusal("too_heavy", message, "max_frames", allowed=limits.max_frames, given=frames)
    check_total(pixels, limits, "frames")


def check_total(pixels: int, limits: DecodeLimits, what: str) -> None:
    """Refuse more pixels in all than the limit; `what` they are spread over."""
    if pixels > limits.max_total_pixels:
        message = f"{pixels} pixels over all {what}: {limits.max_total_pixels} are allowed"
        raise Refusal("too_heavy", message, "max_total_pixels", allowed=limits.max_total_pixels, given=pixels)


def check_seconds(seconds: float, limits: DecodeLimits) -> None:
    """Refuse what plays too long."""
    if seconds > limits.max_seconds:
        message = f"{seconds:.0f} seconds: {limits.max_seconds:g} are allowed"
        raise Refusal("too_long", message, "max_seconds", allowed=limits.max_seconds, given=seconds)


def check_sound(rate: int, channels: int, limits: DecodeLimits) -> None:
    """Refuse sample rates and channel counts that no model takes."""
    if not 1 <= channels <= limits.max_channels:
        message = f"{channels} channels: 1 to {limits.max_channels} are allowed"
        raise Refusal("too_heavy", message, "max_channels", allowed=limits.max_channels, given=channels)
    if not 1 <= rate <= limits.max_sample_rate:
        message = f"{rate} samples a second: 1 to {limits.max_sample_rate} are allowed"
        raise Refusal("too_heavy", message, "max_sample_rate", allowed=limits.max_sample_rate, given=rate)


def check_profile(size: int, limits: DecodeLimits) -> None:
    """Refuse a colour profile larger than the limit (bytes)."""
    if size > limits.max_profile_bytes:
        message = f"the colour profile has {size} bytes: {limits.max_profile_bytes} are allowed"
        raise Refusal("too_heavy", message, "max_profile_bytes", allowed=limits.max_profile_bytes, given=size)
