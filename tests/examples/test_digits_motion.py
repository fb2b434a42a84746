"""The film app over HTTP: size, length, decodability, repeatability and cancellation."""

import io
from itertools import pairwise
from typing import Any

import av
import numpy as np

from .conftest import Hosted, bytes_of

SHORT: dict[str, Any] = {
    "prompt_from": "a red three on a dark background",
    "prompt_to": "a blue eight on a light background",
    "num_frames": 8,
    "fps": 8,
    "size": 64,
    "num_inference_steps": 6,
    "seed": 3,
}


def frames_of(film: bytes) -> list[np.ndarray[Any, Any]]:
    """Decode a film to frames `[height, width, 3] uint8`."""
    with av.open(io.BytesIO(film)) as opened:
        return [frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]  # type: ignore[attr-defined] - av.open's overloads hide the kind


def test_the_film_has_the_asked_frames_size_and_speed(motion: Hosted) -> None:
    """It decodes to what was asked for, in the common pixel format."""
    made = motion.made("/", SHORT)
    film = bytes_of(made["video"])
    with av.open(io.BytesIO(film)) as opened:
        track = opened.streams.video[0]
        assert (track.width, track.height, track.average_rate, track.format.name) == (64, 64, 8, "yuv420p")
    assert len(frames_of(film)) == made["frames"] == 8
    assert made["video"]["content_type"] == "video/mp4"
    assert made["seed"] == 3


def test_the_film_moves_from_one_prompt_to_the_other(motion: Hosted) -> None:
    """It starts dark and ends light, as the prompts say, and no two neighbouring frames are the same."""
    frames = frames_of(bytes_of(motion.made("/", SHORT)["video"]))
    assert frames[0][:4].mean() < 80
    assert frames[-1][:4].mean() > 170
    assert all(np.abs(a.astype(int) - b).mean() > 0.3 for a, b in pairwise(frames))


def test_the_same_seed_gives_the_same_film(motion: Hosted) -> None:
    """Frames repeat to the bit."""
    first, second = (frames_of(bytes_of(motion.made("/", SHORT)["video"])) for _ in range(2))
    assert np.array_equal(first, second)


def test_progress_is_logged_with_the_number_of_frames(motion: Hosted) -> None:
    """The log says how far the film is."""
    motion.call("/", SHORT, request_id="progress")
    assert "frame 4/8 request_id=progress" in motion.log()
    assert "frame 8/8 request_id=progress" in motion.log()


def test_a_film_can_be_cancelled_while_it_is_made(motion: Hosted) -> None:
    """499, and no frame is drawn after it."""
    cancelled = motion.cancelled_while_running("/", SHORT | {"num_frames": 120, "num_inference_steps": 50})
    assert cancelled.status_code == 499
    assert "frame 120/120" not in motion.log()


def test_lengths_out_of_bounds_are_refused(motion: Hosted) -> None:
    """Too few frames, too many, and an odd size name their fields."""
    for field, value in (("num_frames", 7), ("num_frames", 121), ("size", 65)):
        refused = motion.call("/", SHORT | {field: value})
        assert refused.status_code == 422
        assert refused.json()["detail"][0]["loc"] == ["body", field]
