"""Digits in motion: a short MP4 in which one digit turns into another, as a plain `fal.App`.

It uses the network of `../digits/weights`. For each frame it takes a point on the way between two prompts and between
two starts of noise (on the sphere on which noise lies, so no point of the way is paler than its ends), and denoises
it from there. It is the slow model with large outputs of the example fleet, and says in its log how far it is.
"""

# ruff: noqa: PLC0415 - heavy imports belong in setup() and behind it: the file itself is read by hosts without torch

import io
import math
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fal
from fal.exceptions import RequestCancelledException
from fal.toolkit import Video
from pydantic import BaseModel, Field

HERE = Path(__file__).resolve().parent
FRAMES_AT_ONCE = 4
GUIDANCE_SCALE = 3.0
SEED_LIMIT = 2**31
# Given as an argument, because the SDK shows `str(exception)`, which is empty for the exception's own default.
CANCELLED = "Request cancelled by the client."


class MotionInput(BaseModel):
    """Where the film starts, where it ends, and how long it is."""

    prompt_from: str = Field(
        description="What the first frame shows.", max_length=2000, examples=["a red three on a dark background"]
    )
    prompt_to: str = Field(
        description="What the last frame shows.", max_length=2000, examples=["a blue eight on a dark background"]
    )
    num_frames: int = Field(24, ge=8, le=120, description="Frames of the film.")
    fps: int = Field(12, ge=1, le=60, description="Frames a second.")
    seed: int | None = Field(
        None, ge=0, lt=SEED_LIMIT, description="The same seed and inputs give the same frames.", examples=[42]
    )
    num_inference_steps: int = Field(12, ge=1, le=50, description="Denoising steps of each frame.")
    size: int = Field(256, ge=64, le=512, multiple_of=2, description="Width and height in pixels.")


class MotionOutput(BaseModel):
    """The film and what made it."""

    video: Video = Field(description="MP4, H.264 where the encoder is there and MPEG-4 part 2 otherwise, 4:2:0.")
    seed: int = Field(description="The seed that was used.")
    frames: int = Field(description="Frames in the film.")
    timings: dict[str, float] = Field(description="Seconds spent: `inference`, `encoding`, `upload`.")


class CancelOutput(BaseModel):
    """Whether there was anything to cancel."""

    cancelled: bool = Field(description="True when a running request had this id.")


class DigitsMotion(fal.App, name="digits-motion", keep_alive=300):
    """Two prompts to a film of a digit that changes."""

    machine_type = "S"
    requirements = [  # noqa: RUF012 - the SDK declares it so
        "torch", "diffusers", "transformers", "accelerate", "safetensors", "pillow", "numpy", "av",
    ]  # fmt: skip
    app_files = ["../digits/weights"]  # noqa: RUF012
    max_multiplexing = 1
    request_timeout = 180
    startup_timeout = 120
    termination_grace_period_seconds = 5

    def setup(self) -> None:
        """Load the digits pipeline once."""
        quieten()
        import torch
        from diffusers import StableDiffusionPipeline

        torch.set_num_threads(1)
        weights = Path(os.environ.get("DIGITS_WEIGHTS_DIR") or HERE.parent / "digits" / "weights")
        self.pipeline = StableDiffusionPipeline.from_pretrained(weights, local_files_only=True)
        self.pipeline.set_progress_bar_config(disable=True)
        self.turn = threading.Lock()
        self.cancel_events: dict[str, threading.Event] = {}

    @fal.endpoint("/")
    def generate(self, input: MotionInput) -> MotionOutput:  # noqa: A002 - fal's own convention
        """Make the film."""
        seed = secrets.randbelow(SEED_LIMIT - 1) if input.seed is None else input.seed
        with self.request() as (request_id, cancelled), self.turn:
            began = time.monotonic()
            pictures = self.draw(input, seed, request_id, cancelled)
            drawn = time.monotonic()
            film = encode(pictures, input.fps, input.size)
            encoded = time.monotonic()
            name = f"digits-{secrets.token_hex(6)}.mp4"
            video = Video.from_bytes(film, content_type="video/mp4", file_name=name)
        seconds = {"inference": drawn - began, "encoding": encoded - drawn, "upload": time.monotonic() - encoded}
        timings = {name: round(value, 4) for name, value in seconds.items()}
        return MotionOutput(video=video, seed=seed, frames=len(pictures), timings=timings)

    @fal.endpoint("/cancel")
    def cancel(self) -> CancelOutput:
        """Stop the running request whose `x-fal-request-id` this call carries."""
        event = self.cancel_events.get(self.request_id())
        if event is not None:
            event.set()
        return CancelOutput(cancelled=event is not None)

    def request_id(self) -> str:
        """Return the platform's id of the request being handled, or a made-up one."""
        context = self.current_request
        return (context.request_id if context else None) or secrets.token_hex(8)

    @contextmanager
    def request(self) -> Iterator[tuple[str, threading.Event]]:
        """Make a request cancellable while it runs and print one line at its end, without its prompts."""
        request_id = self.request_id()
        cancelled = self.cancel_events.setdefault(request_id, threading.Event())
        started, outcome = time.monotonic(), "failed"
        try:
            yield request_id, cancelled
            outcome = "done"
        except RequestCancelledException:
            outcome = "cancelled"
            raise
        finally:
            self.cancel_events.pop(request_id, None)
            seconds = time.monotonic() - started
            print(f"digits-motion path=/ request_id={request_id} seconds={seconds:.3f} outcome={outcome}", flush=True)

    def draw(self, asked: MotionInput, seed: int, request_id: str, cancelled: threading.Event) -> list[Any]:
        """Return the frames, 32x32; raise when cancelled, at the latest one step later."""
        first, last, empty = self.encode_prompts(asked.prompt_from, asked.prompt_to)
        start, end = self.noise(seed), self.noise(seed + 1)
        pictures: list[Any] = []
        while len(pictures) < asked.num_frames:
            stop = min(len(pictures) + FRAMES_AT_ONCE, asked.num_frames)
            ways = [number / (asked.num_frames - 1) for number in range(len(pictures), stop)]
            pictures += self.denoise(
                noise=[slerp(start, end, way) for way in ways],
                prompts=[first + (last - first) * ease(way) for way in ways],
                empty=empty,
                steps=asked.num_inference_steps,
                cancelled=cancelled,
            )
            print(f"frame {len(pictures)}/{asked.num_frames} request_id={request_id}", flush=True)
        return pictures

    def encode_prompts(self, first: str, last: str) -> tuple[Any, Any, Any]:
        """Return the text encodings `[1, 16, 64]` of both prompts and of no prompt."""
        import torch

        with torch.no_grad():
            encoded, empty = self.pipeline.encode_prompt([first, last], "cpu", 1, do_classifier_free_guidance=True)
        return encoded[:1], encoded[1:], empty[:1]

    def noise(self, seed: int) -> Any:
        """Return the noise `[1, 4, 8, 8]` of a seed."""
        import torch

        network = self.pipeline.unet.config
        shape = (1, network.in_channels, network.sample_size, network.sample_size)
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    def denoise(
        self, noise: list[Any], prompts: list[Any], empty: Any, steps: int, cancelled: threading.Event
    ) -> list[Any]:
        """Return pictures, 32x32, one for each noise and prompt."""
        import torch

        def after_step(_pipeline: Any, _step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
            if cancelled.is_set():
                raise RequestCancelledException(CANCELLED)
            return values

        if cancelled.is_set():
            raise RequestCancelledException(CANCELLED)
        return list(
            self.pipeline(
                prompt_embeds=torch.cat(prompts),
                negative_prompt_embeds=empty.repeat(len(prompts), 1, 1),
                latents=torch.cat(noise),
                num_inference_steps=steps,
                guidance_scale=GUIDANCE_SCALE,
                callback_on_step_end=after_step,
            ).images
        )


def quieten() -> None:
    """Keep progress bars and notes about packages that this app does not use out of the runner's log."""
    import diffusers.utils.logging
    import transformers.utils.logging

    diffusers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def slerp(start: Any, end: Any, way: float) -> Any:
    """Return the point at `way` (0 to 1) of the arc between two noises."""
    cosine = float((start * end).sum() / (start.norm() * end.norm()))
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    if angle < 1e-4:
        return start
    return (math.sin((1 - way) * angle) * start + math.sin(way * angle) * end) / math.sin(angle)


def ease(way: float) -> float:
    """Return `way` slowed at both ends, so that the first and last digit can be read."""
    return way * way * (3.0 - 2.0 * way)


def encode(pictures: list[Any], fps: int, size: int) -> bytes:
    """Return an MP4 of the pictures, enlarged."""
    import av
    from PIL.Image import Resampling

    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="mp4") as film:
        # One thread, because the number of threads changes the bytes.
        options = {"crf": "18", "preset": "veryfast", "threads": "1"} if codec == "libx264" else {"qscale": "3"}
        track = film.add_stream(codec, rate=fps, options=options)
        track.width, track.height, track.pix_fmt = size, size, "yuv420p"
        for picture in pictures:
            frame = av.VideoFrame.from_image(picture.resize((size, size), Resampling.LANCZOS))
            film.mux(track.encode(frame))
        film.mux(track.encode(None))
    return buffer.getvalue()
