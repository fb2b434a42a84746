"""Tones: a small diffusion model of sound, as a plain `fal.App`.

It makes one second of a note from c3 to b5 in one of four timbres. The waveform, 16,384 samples at 16 kHz, is folded
into 1,024 frames of 16 samples, and a 1-D UNet denoises all frames at once. Like PeriodGrad (Hono and others, 2024,
arXiv:2402.14692) the network is told the pitch by periodic waves beside the noise; attack, decay, overtones and breath
are its own.
"""

# ruff: noqa: PLC0415 - heavy imports belong in setup() and behind it: the file itself is read by hosts without torch

import io
import os
import re
import secrets
import threading
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fal
from fal.exceptions import FieldException, RequestCancelledException
from fal.toolkit import Audio
from pydantic import BaseModel, Field

HERE = Path(__file__).resolve().parent
SAMPLE_RATE_HZ = 16_000
FRAME_SAMPLES = 16
FRAMES = 1024
SAMPLES = FRAME_SAMPLES * FRAMES
# The network works on samples divided by this, so that they are about as large as the noise.
SAMPLE_SCALE = 0.22
TIMBRES = ("flute", "reed", "string", "bell")
TIMBRE_WORDS = {
    "flute": "flute", "whistle": "flute", "reed": "reed", "clarinet": "reed", "oboe": "reed",
    "string": "string", "violin": "string", "plucked": "string", "guitar": "string", "bell": "bell", "chime": "bell",
}  # fmt: skip
STEPS_FROM_C = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
# MIDI numbers of c3 and b5.
LOWEST_NOTE, HIGHEST_NOTE = 48, 83
NOTE_PATTERN = re.compile(r"(?<![a-z0-9])([a-g])([#b♯♭]?)(-?\d)(?![a-z0-9])", re.IGNORECASE)
CONDITION_CHANNELS = 4 * FRAME_SAMPLES + len(TIMBRES) + 2
SEED_LIMIT = 2**31
# Given as an argument, because the SDK shows `str(exception)`, which is empty for the exception's own default.
CANCELLED = "Request cancelled by the client."


class TonesInput(BaseModel):
    """Which note to make."""

    prompt: str = Field(
        description="A note from c3 to b5 and, if you like, a timbre: flute-like, reed-like, string-like or bell-like.",
        max_length=500,
        examples=["a4 flute-like", "c4", "f#3 like a bell"],
    )
    seed: int | None = Field(
        None, ge=0, lt=SEED_LIMIT, description="The same seed and inputs give the same samples.", examples=[7]
    )
    num_inference_steps: int = Field(16, ge=1, le=50, description="Denoising steps.")
    sync_mode: bool = Field(default=False, description="Return the sound as a data URI inside the answer.")


class TonesOutput(BaseModel):
    """The sound and what made it."""

    audio: Audio = Field(description="WAV, 16 kHz, mono, 16 bit, about one second.")
    seed: int = Field(description="The seed that was used.")
    note: str = Field(description="The note that was understood.", examples=["a4"])
    timbre: str = Field(description="The timbre that was understood.", examples=["flute"])
    timings: dict[str, float] = Field(description="Seconds spent: `inference`, `upload`.")


class CancelOutput(BaseModel):
    """Whether there was anything to cancel."""

    cancelled: bool = Field(description="True when a running request had this id.")


@dataclass(frozen=True, slots=True)
class Tone:
    """One sound to make: a MIDI note number, a timbre and a seed."""

    note: int
    timbre: str
    seed: int


class Tones(fal.App, name="tones", keep_alive=300):
    """Text to a musical note."""

    machine_type = "S"
    requirements = ["torch", "diffusers", "safetensors", "numpy"]  # noqa: RUF012 - the SDK declares it so
    app_files = ["weights"]  # noqa: RUF012
    max_multiplexing = 1
    request_timeout = 60
    startup_timeout = 120
    termination_grace_period_seconds = 5

    def setup(self) -> None:
        """Load the network once."""
        import torch

        torch.set_num_threads(1)
        self.network, self.scheduler = load_network(Path(os.environ.get("TONES_WEIGHTS_DIR") or HERE / "weights"))
        self.turn = threading.Lock()
        self.cancel_events: dict[str, threading.Event] = {}

    @fal.endpoint("/")
    def generate(self, input: TonesInput) -> TonesOutput:  # noqa: A002 - fal's own convention
        """Make one note."""
        note, timbre = note_in(input.prompt), timbre_in(input.prompt)
        seed = secrets.randbelow(SEED_LIMIT) if input.seed is None else input.seed
        with self.request() as cancelled, self.turn:
            began = time.monotonic()
            tone = Tone(note, timbre, seed)
            samples = sample_tones(self.network, self.scheduler, [tone], input.num_inference_steps, cancelled)[0]
            made = time.monotonic()
            audio = store(as_wav(samples), name_of(note), sync_mode=input.sync_mode)
        timings = {"inference": round(made - began, 4), "upload": round(time.monotonic() - made, 4)}
        return TonesOutput(audio=audio, seed=seed, note=name_of(note), timbre=timbre, timings=timings)

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
            print(f"tones path=/ request_id={request_id} seconds={seconds:.3f} outcome={outcome}", flush=True)


def load_network(weights: Path) -> tuple[Any, Any]:
    """Return the denoiser and its noise schedule from a folder of weights."""
    import torch
    from diffusers import DDIMScheduler, UNet1DModel

    network = UNet1DModel.from_pretrained(weights / "unet", local_files_only=True, torch_dtype=torch.float32).eval()
    return network, DDIMScheduler.from_pretrained(weights / "scheduler", local_files_only=True)


def note_in(prompt: str) -> int:
    """Return the MIDI number of the first note named in a prompt, or refuse naming the field."""
    found = NOTE_PATTERN.search(prompt)
    if found is None:
        raise FieldException("prompt", "names no note; say for example `c4` or `f#3 bell-like`")
    letter, accidental, octave = found.groups()
    shift = {"#": 1, "♯": 1, "b": -1, "♭": -1}.get(accidental.lower(), 0)
    note = 12 * (int(octave) + 1) + STEPS_FROM_C[letter.lower()] + shift
    if not LOWEST_NOTE <= note <= HIGHEST_NOTE:
        raise FieldException("prompt", "the note must lie between c3 and b5")
    return note


def name_of(note: int) -> str:
    """Return the name of a MIDI note number: 69 is `a4`."""
    names = ("c", "c#", "d", "d#", "e", "f", "f#", "g", "g#", "a", "a#", "b")
    return f"{names[note % 12]}{note // 12 - 1}"


def timbre_in(prompt: str) -> str:
    """Return the first timbre that a prompt mentions; a flute where it mentions none."""
    words = re.findall(r"[a-z]+", prompt.lower())
    return next((TIMBRE_WORDS[word] for word in words if word in TIMBRE_WORDS), "flute")


def condition_for(note: int, timbre: str, phase: float) -> Any:
    """Return what the network is told, `[70, 1024]`: periodic waves, timbre and place in time."""
    import torch

    seconds = torch.arange(SAMPLES, dtype=torch.float64) / SAMPLE_RATE_HZ
    angle = 2 * torch.pi * 440.0 * 2.0 ** ((note - 69) / 12.0) * seconds + phase
    waves = torch.stack([angle.sin(), angle.cos(), (2 * angle).sin(), (3 * angle).sin()]).float()
    folded = waves.reshape(4, FRAMES, FRAME_SAMPLES).transpose(1, 2).reshape(4 * FRAME_SAMPLES, FRAMES)
    place = seconds[::FRAME_SAMPLES].float()
    kind = torch.zeros(len(TIMBRES), FRAMES)
    kind[TIMBRES.index(timbre)] = 1.0
    return torch.cat([folded, kind, place[None], torch.exp(-place / 0.05)[None]])


def sample_tones(
    network: Any,
    scheduler: Any,
    tones: list[Tone],
    steps: int,
    cancelled: threading.Event | None = None,
) -> Any:
    """Return samples `[n, 16384]` in -1 to 1; raise when cancelled, at the latest one step later."""
    import torch

    generators = [torch.Generator().manual_seed(seed) for seed in (tone.seed for tone in tones)]
    phases = [float(torch.rand(1, generator=generator)) * 2 * torch.pi for generator in generators]
    conditions = [condition_for(tone.note, tone.timbre, phase) for tone, phase in zip(tones, phases, strict=True)]
    condition = torch.stack(conditions)
    frames = torch.stack([torch.randn(FRAME_SAMPLES, FRAMES, generator=generator) for generator in generators])
    scheduler.set_timesteps(steps)
    with torch.no_grad():
        for moment in scheduler.timesteps:
            if cancelled is not None and cancelled.is_set():
                raise RequestCancelledException(CANCELLED)
            predicted = network(torch.cat([frames, condition], dim=1), moment).sample
            frames = scheduler.step(predicted, moment, frames).prev_sample
    unfolded = frames.transpose(1, 2).reshape(len(tones), SAMPLES) * SAMPLE_SCALE
    return unfolded.clamp(-1.0, 1.0).numpy()


def as_wav(samples: Any) -> bytes:
    """Return samples in -1 to 1 as a 16-bit WAV file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SAMPLE_RATE_HZ)
        sound.writeframes((samples * 32767.0).round().astype("<i2").tobytes())
    return buffer.getvalue()


def store(data: bytes, name: str, *, sync_mode: bool) -> Audio:
    """Store a sound where the platform says, or inside the answer in sync mode."""
    file_name = f"{name.replace('#', '-sharp')}-{secrets.token_hex(6)}.wav"
    if sync_mode:
        return Audio.from_bytes(data, content_type="audio/wav", file_name=file_name, repository="in_memory")
    return Audio.from_bytes(data, content_type="audio/wav", file_name=file_name)
