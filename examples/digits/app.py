"""Digits: a whole Stable Diffusion pipeline, small enough for one processor core, as a plain `fal.App`.

It draws hand-written digits in five colours on two backgrounds. Endpoints: `/` makes pictures from a prompt, `/edit`
redraws a given picture, `/stream` shows every denoising step, and `{path}/cancel` stops a running request between
two steps. Nothing here knows which platform hosts it.
"""

# ruff: noqa: PLC0415 - heavy imports belong in setup() and behind it: the file itself is read by hosts without torch

import asyncio
import base64
import contextvars
import io
import json
import os
import secrets
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import fal
from fal.exceptions import FieldException, RequestCancelledException
from fal.toolkit import Image
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

HERE = Path(__file__).resolve().parent
STYLES = ("thick-strokes", "inverted-palette")
DOWNLOAD_TIMEOUT_SECONDS = 10.0
DOWNLOAD_LIMIT_BYTES = 10 * 1024 * 1024
PICTURE_LIMIT_PIXELS = 4096 * 4096
PREVIEW_SIZE_PIXELS = 64
SEED_LIMIT = 2**31
# Given as an argument, because the SDK shows `str(exception)`, which is empty for the exception's own default.
CANCELLED = "Request cancelled by the client."


class ImageSize(BaseModel):
    """A size in pixels."""

    width: int = Field(256, ge=32, le=1024, description="Width in pixels.")
    height: int = Field(256, ge=32, le=1024, description="Height in pixels.")


ImageSizePreset = Literal[
    "square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3", "landscape_16_9"
]  # fmt: skip
PRESETS: dict[str, tuple[int, int]] = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}


class LoraWeight(BaseModel):
    """A style to mix into the network for one request."""

    path: str = Field(description="Name of a built-in style: `thick-strokes` or `inverted-palette`.")
    scale: float = Field(1.0, ge=0.0, le=2.0, description="How strongly the style acts; 0 is not at all.")


class DigitsInput(BaseModel):
    """What to draw and how."""

    prompt: str = Field(
        description="What to draw: a digit, with a colour and a background if you like.",
        max_length=2000,
        examples=["a red seven on a dark background", "three", "9 in purple"],
    )
    negative_prompt: str = Field("", max_length=2000, description="What to stay away from.", examples=["a red one"])
    seed: int | None = Field(
        None, ge=0, lt=SEED_LIMIT, description="The same seed and inputs give the same pixels.", examples=[42]
    )
    num_inference_steps: int = Field(12, ge=1, le=50, description="Denoising steps.")
    guidance_scale: float = Field(3.0, ge=0.0, le=20.0, description="How closely to follow the prompt.")
    num_images: int = Field(1, ge=1, le=8, description="Pictures to make; picture n uses seed + n.")
    image_size: ImageSize | ImageSizePreset = Field(
        default_factory=ImageSize,
        description="Size of the picture. The network draws 32x32; the rest is enlargement.",
        examples=[{"width": 256, "height": 256}, "square"],
    )
    enlarge_with: Literal["lanczos", "nearest"] = Field("lanczos", description="Smooth or blocky enlargement.")
    loras: list[LoraWeight] = Field(
        default_factory=list,
        max_length=2,
        description="Styles to mix in, for this request only.",
        examples=[[{"path": "thick-strokes", "scale": 1.0}]],
    )
    output_format: Literal["png", "jpeg"] = Field("png", description="File format of the pictures.")
    enable_safety_checker: bool = Field(
        default=True,
        description="Accepted for compatibility. This network can draw nothing but digits; hosts check outputs.",
    )
    sync_mode: bool = Field(
        default=False, description="Return the pictures as data URIs inside the answer, stored nowhere."
    )


class EditInput(DigitsInput):
    """How to redraw a picture."""

    image_url: str = Field(description="The picture to start from: an http(s) URL or a data URI.", min_length=5)
    strength: float = Field(
        0.7, ge=0.05, le=1.0, description="How much to change: 1 ignores the given picture, near 0 keeps it."
    )


class DigitsOutput(BaseModel):
    """The pictures and what made them."""

    images: list[Image] = Field(description="The pictures, in order of seed.")
    seed: int = Field(description="Seed of the first picture.")
    prompt: str = Field(description="The prompt that was used.")
    timings: dict[str, float] = Field(description="Seconds spent: `waiting`, `inference`, `upload`.")
    has_nsfw_concepts: list[bool] = Field(description="For each picture, whether it was found unsuitable.")


class CancelOutput(BaseModel):
    """Whether there was anything to cancel."""

    cancelled: bool = Field(description="True when a running request had this id.")


class Digits(
    fal.App,
    name="digits",
    keep_alive=300,
):
    """Text to picture of a digit."""

    machine_type = "S"
    requirements = [  # noqa: RUF012 - the SDK declares it so
        "torch",
        "diffusers",
        "transformers",
        "peft",
        "accelerate",
        "safetensors",
        "pillow",
        "numpy",
    ]
    app_files = ["weights"]  # noqa: RUF012
    max_multiplexing = 1
    request_timeout = 60
    startup_timeout = 120
    termination_grace_period_seconds = 5

    def setup(self) -> None:
        """Load the pipelines once and draw one picture, so that the first caller does not pay for warming up."""
        quieten()
        import torch
        from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline

        torch.set_num_threads(1)
        self.weights = Path(os.environ.get("DIGITS_WEIGHTS_DIR") or HERE / "weights")
        self.text_pipeline = StableDiffusionPipeline.from_pretrained(self.weights, local_files_only=True)
        self.text_pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
        self.edit_pipeline = StableDiffusionImg2ImgPipeline(
            **self.text_pipeline.components, requires_safety_checker=False
        )
        for pipeline in (self.text_pipeline, self.edit_pipeline):
            pipeline.set_progress_bar_config(disable=True)
        # One network, one scheduler: requests take turns, whatever the platform sends.
        self.turn = threading.Lock()
        self.cancel_events: dict[str, threading.Event] = {}
        self.text_pipeline("a red seven", num_inference_steps=1)

    # ------------------------------------------------------------------------------------------------- endpoints

    @fal.endpoint("/")
    def generate(self, input: DigitsInput) -> DigitsOutput:  # noqa: A002 - fal's own convention
        """Draw pictures from a prompt."""
        with self.request("/", input) as cancelled:
            return self.run(input, cancelled)

    @fal.endpoint("/edit")
    def edit(self, input: EditInput) -> DigitsOutput:  # noqa: A002
        """Redraw a picture after a prompt."""
        with self.request("/edit", input) as cancelled:
            if int(input.num_inference_steps * input.strength) < 1:
                raise FieldException("strength", "strength x num_inference_steps must be at least 1")
            return self.run(input, cancelled, start=fetch_picture(input.image_url))

    @fal.endpoint("/stream")
    def stream(self, input: DigitsInput) -> StreamingResponse:  # noqa: A002
        """Draw pictures and send a small preview after each step; the last event is the full answer."""
        check_styles(input)
        request_id = self.request_id()
        events = self.stream_events(input, request_id, contextvars.copy_context())
        return ClosedWithItsCaller(events, media_type="text/event-stream")

    @fal.endpoint("/cancel")
    def cancel_generate(self) -> CancelOutput:
        """Stop the request to `/` whose id this call carries."""
        return self.cancel()

    @fal.endpoint("/edit/cancel")
    def cancel_edit(self) -> CancelOutput:
        """Stop the request to `/edit` whose id this call carries."""
        return self.cancel()

    @fal.endpoint("/stream/cancel")
    def cancel_stream(self) -> CancelOutput:
        """Stop the request to `/stream` whose id this call carries."""
        return self.cancel()

    # ------------------------------------------------------------------------------------------------ cancelling

    def request_id(self) -> str:
        """Return the platform's id of the request being handled, or a made-up one."""
        context = self.current_request
        return (context.request_id if context else None) or secrets.token_hex(8)

    def cancel(self) -> CancelOutput:
        """Tell the running request with the same `x-fal-request-id` to stop after its present step."""
        event = self.cancel_events.get(self.request_id())
        if event is not None:
            event.set()
        return CancelOutput(cancelled=event is not None)

    @contextmanager
    def request(self, path: str, asked: DigitsInput, request_id: str | None = None) -> Iterator[threading.Event]:
        """Make the request cancellable while it runs and print one line about it, without its prompt."""
        request_id = request_id or self.request_id()
        cancelled = self.cancel_events.setdefault(request_id, threading.Event())
        started, outcome = time.monotonic(), "failed"
        try:
            check_styles(asked)
            yield cancelled
            outcome = "done"
        except RequestCancelledException:
            outcome = "cancelled"
            raise
        except FieldException as refusal:
            outcome = f"refused field={refusal.field}"
            raise
        finally:
            self.cancel_events.pop(request_id, None)
            print(
                f"digits path={path} request_id={request_id} pictures={asked.num_images} "
                f"steps={asked.num_inference_steps} seconds={time.monotonic() - started:.3f} outcome={outcome}",
                flush=True,
            )

    # --------------------------------------------------------------------------------------------------- drawing

    def run(
        self,
        asked: DigitsInput,
        cancelled: threading.Event,
        start: Any = None,
        on_step: Callable[[int, Any], None] | None = None,
    ) -> DigitsOutput:
        """Wait for the network, draw, enlarge, store, and say how long each took."""
        seed = secrets.randbelow(SEED_LIMIT - 8) if asked.seed is None else asked.seed
        began = time.monotonic()
        with self.turn, self.styled(asked.loras):
            drawing = time.monotonic()
            pictures = self.draw(asked, seed, cancelled, start, on_step)
        drawn = time.monotonic()
        images = [store(enlarge(picture, asked), asked) for picture in pictures]
        timings = {"waiting": drawing - began, "inference": drawn - drawing, "upload": time.monotonic() - drawn}
        return DigitsOutput(
            images=images,
            seed=seed,
            prompt=asked.prompt,
            timings={name: round(seconds, 4) for name, seconds in timings.items()},
            has_nsfw_concepts=[False] * len(images),
        )

    def draw(
        self,
        asked: DigitsInput,
        seed: int,
        cancelled: threading.Event,
        start: Any,
        on_step: Callable[[int, Any], None] | None,
    ) -> list[Any]:
        """Return 32x32 pictures; raise when cancelled, at the latest one step later."""
        import torch

        def after_step(_pipeline: Any, step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
            if cancelled.is_set():
                raise RequestCancelledException(CANCELLED)
            if on_step is not None:
                on_step(step, values["latents"])
            return values

        if cancelled.is_set():
            raise RequestCancelledException(CANCELLED)
        common: dict[str, Any] = {
            "prompt": [asked.prompt] * asked.num_images,
            "negative_prompt": [asked.negative_prompt] * asked.num_images,
            "num_inference_steps": asked.num_inference_steps,
            "guidance_scale": asked.guidance_scale,
            "generator": [torch.Generator().manual_seed(seed + n) for n in range(asked.num_images)],
            "callback_on_step_end": after_step,
        }
        if start is None:
            return list(self.text_pipeline(**common).images)
        return list(self.edit_pipeline(image=start, strength=asked.strength, **common).images)  # type: ignore[attr-defined]

    @contextmanager
    def styled(self, loras: list[LoraWeight]) -> Iterator[None]:
        """Mix styles into the network and always take them out again, so that none leaks into the next request."""
        if not loras:
            yield
            return
        scales: dict[str, float] = {}
        for lora in loras:
            scales[lora.path] = scales.get(lora.path, 0.0) + lora.scale
        try:
            for name in scales:
                self.text_pipeline.load_lora_weights(
                    self.weights / "loras", weight_name=f"{name}.safetensors", adapter_name=name
                )
            self.text_pipeline.set_adapters(list(scales), adapter_weights=list(scales.values()))
            yield
        finally:
            self.text_pipeline.unload_lora_weights()

    # ------------------------------------------------------------------------------------------------- streaming

    async def stream_events(
        self, asked: DigitsInput, request_id: str, context: contextvars.Context
    ) -> AsyncIterator[str]:
        """Yield server-sent events while a second thread draws; stop it when the caller leaves."""
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

        def put(event: dict[str, Any] | None) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        # Registered here, not in the thread, so that a caller who leaves at once still stops the work.
        cancelled = self.cancel_events.setdefault(request_id, threading.Event())
        # The context carries what the caller asked of stored files; a new thread would not have it.
        work = (self.draw_into, put, asked, request_id)
        threading.Thread(target=context.run, args=work, daemon=True).start()
        try:
            while (event := await events.get()) is not None:
                yield f"data: {json.dumps(event)}\n\n"
        finally:
            cancelled.set()

    def draw_into(self, put: Callable[[dict[str, Any] | None], None], asked: DigitsInput, request_id: str) -> None:
        """Draw, handing over a preview per step and then the answer (or the reason for none), and `None` at the end."""

        def on_step(step: int, latents: Any) -> None:
            previews = [data_uri(picture) for picture in self.decode(latents)]
            images = [
                {"url": url, "content_type": "image/png", "width": PREVIEW_SIZE_PIXELS, "height": PREVIEW_SIZE_PIXELS}
                for url in previews
            ]
            put({"step": step + 1, "total_steps": asked.num_inference_steps, "images": images})

        try:
            with self.request("/stream", asked, request_id) as cancelled:
                put(self.run(asked, cancelled, on_step=on_step).model_dump(mode="json"))
        except RequestCancelledException as stopped:
            put({"error": {"status": 499, "detail": str(stopped)}})
        except Exception:
            # The status line has gone out already, so an event is the only way left to say so.
            put({"error": {"status": 500, "detail": "Internal Server Error"}})
            raise
        finally:
            put(None)

    def decode(self, latents: Any) -> list[Any]:
        """Return small pictures of half-finished latents."""
        import torch
        from PIL.Image import Resampling

        pipeline = self.text_pipeline
        with torch.no_grad():
            pixels = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
        small = pipeline.image_processor.postprocess(pixels, output_type="pil")
        return [picture.resize((PREVIEW_SIZE_PIXELS,) * 2, Resampling.NEAREST) for picture in small]


class ClosedWithItsCaller(StreamingResponse):
    """Events whose source is closed as soon as the response ends, also when the caller leaves in mid-send.

    Without it a source that was held up at a `yield` is only closed by the garbage collector, after the work is done.
    """

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send, then close the source whatever happened."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self.body_iterator.aclose()  # type: ignore[attr-defined]


def quieten() -> None:
    """Keep progress bars and notes about packages that this app does not use out of the runner's log."""
    import diffusers.utils.logging
    import transformers.utils.logging

    diffusers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def check_styles(asked: DigitsInput) -> None:
    """Refuse a style that is not built in, naming the field."""
    for lora in asked.loras:
        if lora.path not in STYLES:
            raise FieldException("loras", f"unknown style; choose from {', '.join(STYLES)}")


def size_of(asked: DigitsInput) -> tuple[int, int]:
    """Return width and height in pixels."""
    if isinstance(asked.image_size, str):
        return PRESETS[asked.image_size]
    return asked.image_size.width, asked.image_size.height


def enlarge(picture: Any, asked: DigitsInput) -> Any:
    """Enlarge a 32x32 picture; a size that is not square gets more background, not a stretched digit."""
    from PIL import Image as PILImage

    width, height = size_of(asked)
    side = min(width, height)
    way = PILImage.Resampling.NEAREST if asked.enlarge_with == "nearest" else PILImage.Resampling.LANCZOS
    square = picture.resize((side, side), way)
    if width == height:
        return square
    ring = sorted(picture.getpixel((x, y)) for x in range(32) for y in (0, 31))
    canvas = PILImage.new("RGB", (width, height), ring[len(ring) // 2])
    canvas.paste(square, ((width - side) // 2, (height - side) // 2))
    return canvas


def store(picture: Any, asked: DigitsInput) -> Image:
    """Store a picture where the platform says, or inside the answer in sync mode."""
    if asked.sync_mode:
        return Image.from_pil(picture, format=asked.output_format, repository="in_memory")
    return Image.from_pil(picture, format=asked.output_format)


def data_uri(picture: Any) -> str:
    """Return a picture as a PNG data URI."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuse redirects: the platform checked this address, not the next one."""

    def redirect_request(self, *_: Any) -> None:
        """Follow nothing."""


def fetch_picture(url: str) -> Any:
    """Return the caller's picture as 32x32 RGB, or refuse naming the field.

    A host is expected to have fetched and checked the caller's address and to pass its own copy. Where nobody did,
    set `DIGITS_PUBLIC_MEDIA_ONLY=1`, and addresses inside private networks are refused here.
    """
    from PIL import Image as PILImage
    from PIL import ImageOps

    try:
        opened = PILImage.open(io.BytesIO(fetch_bytes(url)))
        if opened.width * opened.height > PICTURE_LIMIT_PIXELS:
            raise FieldException("image_url", f"more than {PICTURE_LIMIT_PIXELS} pixels", type="image_too_large")
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, PILImage.DecompressionBombError) as problem:
        raise FieldException("image_url", "could not be read as a picture", type="image_load_error") from problem
    return ImageOps.fit(picture, (32, 32), PILImage.Resampling.BOX)


def fetch_bytes(url: str) -> bytes:
    """Return what a data URI holds or what an http(s) address serves, within limits of size and time."""
    scheme = url.partition(":")[0].lower()
    if scheme not in ("data", "http", "https"):
        raise FieldException("image_url", "must be an http(s) URL or a data URI", type="url_scheme")
    if scheme != "data" and os.environ.get("DIGITS_PUBLIC_MEDIA_ONLY") == "1":
        return fetch_public_bytes(url)
    opener = urllib.request.build_opener(NoRedirect)
    try:
        with opener.open(url, timeout=DOWNLOAD_TIMEOUT_SECONDS) as answer:
            data = answer.read(DOWNLOAD_LIMIT_BYTES + 1)
    except (urllib.error.URLError, TimeoutError, ValueError) as problem:
        raise FieldException("image_url", "could not be downloaded", type="file_download_error") from problem
    if len(data) > DOWNLOAD_LIMIT_BYTES:
        raise FieldException("image_url", f"larger than {DOWNLOAD_LIMIT_BYTES} bytes", type="file_too_large")
    return data


def fetch_public_bytes(url: str) -> bytes:
    """Return what a public address serves, through the SDK's own guard against private addresses."""
    import tempfile

    from fal.toolkit.utils.ssrf import ssrf_safe_get_to_file

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "picture"
        try:
            ssrf_safe_get_to_file(url, target, headers={}, max_size=DOWNLOAD_LIMIT_BYTES)
        except Exception as problem:
            raise FieldException("image_url", "could not be downloaded", type="file_download_error") from problem
        return target.read_bytes()
