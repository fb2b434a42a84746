"""Stable Diffusion: the loading code of a full-size pipeline as a plain `fal.App`, for those who have GPU and weights.

It loads any Stable Diffusion folder in the diffusers layout (1.x or 2.x) from a mounted path, safetensors only, picks
the device and number format, and warms up before it takes requests. It never downloads weights: what it serves is
what was put, checked and signed, on the mount.

Environment: `STABLE_DIFFUSION_PATH` (folder), `STABLE_DIFFUSION_DEVICE` (`auto`, `cuda`, `mps`, `cpu`),
`STABLE_DIFFUSION_DTYPE` (`auto`, `float16`, `bfloat16`, `float32`), `STABLE_DIFFUSION_ATTENTION_SLICING` (`0` or `1`),
`STABLE_DIFFUSION_VARIANT` (such as `fp16`), `STABLE_DIFFUSION_WARM_UP_STEPS`.
"""

# ruff: noqa: PLC0415 - heavy imports belong in setup() and behind it: the file itself is read by hosts without torch

import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import fal
from fal.exceptions import RequestCancelledException
from fal.toolkit import Image
from pydantic import BaseModel, Field

SEED_LIMIT = 2**31
# Given as an argument, because the SDK shows `str(exception)`, which is empty for the exception's own default.
CANCELLED = "Request cancelled by the client."


class StableDiffusionInput(BaseModel):
    """What to draw and how."""

    prompt: str = Field(description="What to draw.", max_length=2000, examples=["a lighthouse at dawn, oil painting"])
    negative_prompt: str = Field("", max_length=2000, description="What to stay away from.", examples=["blurry"])
    seed: int | None = Field(None, ge=0, lt=SEED_LIMIT, description="The same seed gives the same picture on one GPU.")
    num_inference_steps: int = Field(30, ge=1, le=100, description="Denoising steps.")
    guidance_scale: float = Field(7.5, ge=0.0, le=20.0, description="How closely to follow the prompt.")
    num_images: int = Field(1, ge=1, le=4, description="Pictures to make; picture n uses seed + n.")
    width: int = Field(512, ge=64, le=1024, multiple_of=8, description="Width in pixels.")
    height: int = Field(512, ge=64, le=1024, multiple_of=8, description="Height in pixels.")
    output_format: Literal["png", "jpeg"] = Field("jpeg", description="File format of the pictures.")
    enable_safety_checker: bool = Field(
        default=True,
        description="Accepted for compatibility. A checker among the weights always runs; hosts check outputs as well.",
    )
    sync_mode: bool = Field(default=False, description="Return the pictures as data URIs inside the answer.")


class StableDiffusionOutput(BaseModel):
    """The pictures and what made them."""

    images: list[Image] = Field(description="The pictures, in order of seed.")
    seed: int = Field(description="Seed of the first picture.")
    prompt: str = Field(description="The prompt that was used.")
    timings: dict[str, float] = Field(description="Seconds spent: `inference`, `upload`.")
    has_nsfw_concepts: list[bool] = Field(description="For each picture, whether the checker found it unsuitable.")


class CancelOutput(BaseModel):
    """Whether there was anything to cancel."""

    cancelled: bool = Field(description="True when a running request had this id.")


class StableDiffusion(fal.App, name="stable-diffusion", keep_alive=300):
    """Text to picture with full-size weights."""

    machine_type = "GPU-A100"
    num_gpus = 1
    requirements = [  # noqa: RUF012 - the SDK declares it so
        "torch", "diffusers", "transformers", "accelerate", "safetensors", "pillow",
    ]  # fmt: skip
    data_mounts = ["/data"]  # noqa: RUF012
    max_multiplexing = 1
    request_timeout = 120
    startup_timeout = 600
    termination_grace_period_seconds = 30

    def setup(self) -> None:
        """Load the pipeline onto its device and warm it up."""
        import torch

        self.device = choose_device(os.environ.get("STABLE_DIFFUSION_DEVICE", "auto"))
        dtype = choose_dtype(os.environ.get("STABLE_DIFFUSION_DTYPE", "auto"), self.device)
        if self.device == "cpu":
            torch.set_num_threads(1)
        self.pipeline = load_pipeline(weights_folder(), dtype, self.device)
        self.turn = threading.Lock()
        self.cancel_events: dict[str, threading.Event] = {}
        began = time.monotonic()
        self.warm_up(int(os.environ.get("STABLE_DIFFUSION_WARM_UP_STEPS", "2")))
        print(
            f"stable-diffusion ready device={self.device} dtype={dtype} warm_up={time.monotonic() - began:.2f} s",
            flush=True,
        )

    def warm_up(self, steps: int) -> None:
        """Draw once and throw it away: the first picture chooses kernels and fills memory pools."""
        if steps > 0:
            self.pipeline("warm up", num_inference_steps=steps, output_type="latent")

    @fal.endpoint("/")
    def generate(self, input: StableDiffusionInput) -> StableDiffusionOutput:  # noqa: A002 - fal's own convention
        """Draw pictures from a prompt."""
        seed = secrets.randbelow(SEED_LIMIT - 4) if input.seed is None else input.seed
        with self.request() as cancelled, self.turn:
            began = time.monotonic()
            made = self.draw(input, seed, cancelled)
            drawn = time.monotonic()
            images = [store(picture, input) for picture in made.images]
        return StableDiffusionOutput(
            images=images,
            seed=seed,
            prompt=input.prompt,
            timings={"inference": round(drawn - began, 4), "upload": round(time.monotonic() - drawn, 4)},
            has_nsfw_concepts=list(made.nsfw_content_detected or [False] * len(images)),
        )

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
    def request(self) -> Iterator[threading.Event]:
        """Make a request cancellable while it runs and print one line about it, without its prompt."""
        request_id = self.request_id()
        cancelled = self.cancel_events.setdefault(request_id, threading.Event())
        started, outcome = time.monotonic(), "failed"
        try:
            yield cancelled
            outcome = "done"
        except RequestCancelledException:
            outcome = "cancelled"
            raise
        finally:
            self.cancel_events.pop(request_id, None)
            seconds = time.monotonic() - started
            print(
                f"stable-diffusion path=/ request_id={request_id} seconds={seconds:.3f} outcome={outcome}", flush=True
            )

    def draw(self, asked: StableDiffusionInput, seed: int, cancelled: threading.Event) -> Any:
        """Return the pipeline's answer; raise when cancelled, at the latest one step later."""
        import torch

        def after_step(_pipeline: Any, _step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
            if cancelled.is_set():
                raise RequestCancelledException(CANCELLED)
            return values

        # Generators on the processor give the same noise whichever device draws.
        generators = [torch.Generator().manual_seed(seed + number) for number in range(asked.num_images)]
        return self.pipeline(
            prompt=[asked.prompt] * asked.num_images,
            negative_prompt=[asked.negative_prompt] * asked.num_images,
            num_inference_steps=asked.num_inference_steps,
            guidance_scale=asked.guidance_scale,
            width=asked.width,
            height=asked.height,
            generator=generators,
            callback_on_step_end=after_step,
        )


def weights_folder() -> Path:
    """Return the folder of weights, or say what to do."""
    folder = Path(os.environ.get("STABLE_DIFFUSION_PATH", "/data/models/stable-diffusion"))
    if not (folder / "model_index.json").is_file():
        message = (
            f"no Stable Diffusion pipeline at {folder}: expected model_index.json there; "
            "mount the weights in diffusers layout or set STABLE_DIFFUSION_PATH"
        )
        raise FileNotFoundError(message)
    return folder


def choose_device(wanted: str) -> str:
    """Return the device to use: the one asked for, or the best that there is."""
    import torch

    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def choose_dtype(wanted: str, device: str) -> Any:
    """Return the number format to use; half precision on GPUs, full on processors, unless told otherwise."""
    import torch

    if wanted == "auto":
        return torch.float32 if device == "cpu" else torch.float16
    formats = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
    if wanted not in formats:
        message = f"STABLE_DIFFUSION_DTYPE is {wanted!r}; expected auto or one of {', '.join(formats)}"
        raise ValueError(message)
    return formats[wanted]


def load_pipeline(folder: Path, dtype: Any, device: str) -> Any:
    """Return the pipeline on its device. Only safetensors are read: pickles can run code when loaded."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(
        folder,
        torch_dtype=dtype,
        variant=os.environ.get("STABLE_DIFFUSION_VARIANT") or None,
        use_safetensors=True,
        local_files_only=True,
    ).to(device)
    pipeline.set_progress_bar_config(disable=True)
    if os.environ.get("STABLE_DIFFUSION_ATTENTION_SLICING", "0") == "1":
        # Saves memory on small GPUs and costs a tenth or so of the speed.
        pipeline.enable_attention_slicing()
    return pipeline


def store(picture: Any, asked: StableDiffusionInput) -> Image:
    """Store a picture where the platform says, or inside the answer in sync mode."""
    if asked.sync_mode:
        return Image.from_pil(picture, format=asked.output_format, repository="in_memory")
    return Image.from_pil(picture, format=asked.output_format)
