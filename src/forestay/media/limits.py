"""How much of a stranger's file may be opened: the limits that the decoding child holds itself to.

Values only. Defaults suit inputs of image, video and audio models on a small worker; `settings.Ingress` names each.
Read by `decode` (what the parent enforces) and by `opening` (what is checked before and while a file is opened).
"""

import dataclasses
from typing import Literal

Kind = Literal["image", "video", "audio"]
KINDS: tuple[Kind, ...] = ("image", "video", "audio")


@dataclasses.dataclass(frozen=True, slots=True)
class Looking:
    """Which looks are taken at a file, for those who judge content."""

    every_seconds: float = 1.0  # of a film or animation, at most so far apart
    most: int = 16  # frames; half of them by time alone, the others where the scene changes
    long_side: int = 512  # pixels of a frame, at most
    most_pixels: int = 16_000_000  # of a picture; a larger one is reduced by a whole factor
    measure: bool = False  # take numbers of the whole file too; with `most` 0 nothing else


@dataclasses.dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Caps on one file."""

    max_pixels: int = 50_000_000  # of one picture, frame or page
    max_side: int = 16_384  # pixels, either way
    max_frames: int = 1_000  # frames of an animation
    max_pages: int = 64  # of a TIFF
    max_total_pixels: int = 500_000_000  # all frames or pages; of a JPEG all scans
    max_seconds: float = 600.0  # of a film or a recording
    max_streams: int = 8  # in one film
    max_frame_rate: float = 240.0  # frames a second, on average
    max_sample_rate: int = 192_000  # samples a second and channel
    max_channels: int = 8
    max_metadata_bytes: int = 8 * 1024 * 1024  # what compressed texts and colour profiles may unpack to, all together
    max_profile_bytes: int = 1024 * 1024  # of the colour profile that is kept
    max_output_bytes: int = 256 * 1024 * 1024  # of the clean file
    memory_bytes: int = 420 * 1024 * 1024  # of the child, beyond what it has before it sees the file
    cpu_seconds: int = 8
    wall_seconds: float = 10.0
    look_seconds: float = 60.0  # instead, while looks are taken: those who judge them are waited for
