"""Train the tones model: a 1-D UNet that denoises one second of a note.

The notes it learns from are computed: harmonics with a timbre's strengths, each a little different every time, a
timbre's attack and decay, and breath. Counted in steps and seeded, so the same script, library versions and kind of
processor give the same weights. `weights/TRAINING.json` records hash, settings, processor seconds and scores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from app import (
    CONDITION_CHANNELS,
    FRAME_SAMPLES,
    FRAMES,
    SAMPLE_RATE_HZ,
    SAMPLE_SCALE,
    SAMPLES,
    TIMBRES,
    Tone,
    condition_for,
    load_network,
    sample_tones,
)
from diffusers import DDIMScheduler, UNet1DModel
from judge import HIGHEST_NOTE, LOWEST_NOTE, TOLERANCE_CENTS, cents_off, frequency_of
from torch.nn import functional

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides the weights."""

    seed: int = 11
    steps: int = 3600
    batch: int = 4
    learning_rate: float = 1.5e-3
    warm_up_steps: int = 150
    ema_decay: float = 0.997


@dataclass(frozen=True, slots=True)
class Timbre:
    """How an instrument sounds: strengths of its harmonics, and how it starts and fades."""

    harmonics: tuple[float, ...]
    attack_seconds: float
    decay_seconds: float
    breath: float


VOICES = {
    "flute": Timbre((1.0, 0.28, 0.10, 0.03), attack_seconds=0.06, decay_seconds=9.0, breath=0.030),
    "reed": Timbre((1.0, 0.04, 0.55, 0.04, 0.34, 0.02, 0.18), attack_seconds=0.03, decay_seconds=9.0, breath=0.010),
    "string": Timbre((1.0, 0.6, 0.42, 0.3, 0.22, 0.15, 0.1), attack_seconds=0.006, decay_seconds=0.6, breath=0.004),
    "bell": Timbre((1.0, 0.5, 0.0, 0.35, 0.0, 0.2), attack_seconds=0.002, decay_seconds=0.35, breath=0.002),
}


def play(note: int, timbre: str, phase: float, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Return samples `[16384]` of one note, a little different each time, peak about 0.7."""
    voice = VOICES[timbre]
    seconds = np.arange(SAMPLES) / SAMPLE_RATE_HZ
    angle = 2 * np.pi * frequency_of(note) * seconds + phase
    sound = np.zeros(SAMPLES)
    for number, strength in enumerate(voice.harmonics, start=1):
        if number * frequency_of(note) < 0.45 * SAMPLE_RATE_HZ:
            # Higher partials of struck and plucked things die sooner.
            fade = np.exp(-seconds * (1 + 0.35 * (number - 1)) / voice.decay_seconds)
            sound += strength * rng.uniform(0.8, 1.2) * fade * np.sin(number * angle)
    attack = np.clip(seconds / (voice.attack_seconds * rng.uniform(0.8, 1.25)), 0.0, 1.0)
    release = np.clip((SAMPLES / SAMPLE_RATE_HZ - seconds) / 0.08, 0.0, 1.0)
    sound = sound / sum(voice.harmonics) + voice.breath * rng.standard_normal(SAMPLES)
    return (0.75 * rng.uniform(0.85, 1.0) * np.sin(attack * np.pi / 2) * release * sound).astype(np.float32)


def build_network() -> UNet1DModel:
    """Return an untrained denoiser of 16 folded samples beside what it is told."""
    widths = (32, 32, 44)
    return UNet1DModel(
        sample_size=FRAMES,
        sample_rate=SAMPLE_RATE_HZ,
        in_channels=FRAME_SAMPLES + CONDITION_CHANNELS,
        out_channels=FRAME_SAMPLES,
        extra_in_channels=widths[0],
        time_embedding_type="positional",
        flip_sin_to_cos=True,
        freq_shift=0.0,
        down_block_types=("DownBlock1DNoSkip", "DownBlock1D", "DownBlock1D"),
        mid_block_type="UNetMidBlock1D",
        up_block_types=("UpBlock1D", "UpBlock1D", "UpBlock1DNoSkip"),
        block_out_channels=widths,
    )


def build_scheduler() -> DDIMScheduler:
    """Return a cosine noise schedule with velocity prediction and trailing steps."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )


def draw_lesson(count: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return folded notes `[count, 16, 1024]` and what the network is told about them."""
    frames, conditions = [], []
    for _ in range(count):
        note, timbre = int(rng.integers(LOWEST_NOTE, HIGHEST_NOTE + 1)), TIMBRES[rng.integers(len(TIMBRES))]
        phase = float(rng.uniform(0, 2 * np.pi))
        sound = torch.from_numpy(play(note, timbre, phase, rng)) / SAMPLE_SCALE
        frames.append(sound.reshape(FRAMES, FRAME_SAMPLES).T)
        conditions.append(condition_for(note, timbre, phase))
    return torch.stack(frames), torch.stack(conditions)


def train(weights: Path, settings: Settings) -> dict[str, Any]:
    """Train the denoiser, keep the moving average of its weights, save it now and then and at the end."""
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    network, scheduler = build_network(), build_scheduler()
    scheduler.save_pretrained(weights / "scheduler")
    parameters = list(network.parameters())
    average = [parameter.detach().clone() for parameter in parameters]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=1e-4, fused=True)
    started_cpu, started_wall, smooth = time.process_time(), time.monotonic(), math.nan
    for step in range(settings.steps):
        cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        optimiser.param_groups[0]["lr"] = (
            settings.learning_rate * cosine * min(1.0, (step + 1) / settings.warm_up_steps)
        )
        loss = loss_of(network, scheduler, *draw_lesson(settings.batch, rng))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        decay = min(settings.ema_decay, (2 + step) / (11 + step))
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1.0 - decay)
        smooth = float(loss.detach()) if math.isnan(smooth) else 0.98 * smooth + 0.02 * float(loss.detach())
        if step % 200 == 199 or step + 1 == settings.steps:
            print(
                f"step {step + 1}/{settings.steps} loss {smooth:.4f} {time.monotonic() - started_wall:.0f} s",
                flush=True,
            )
            save(average, weights)
    return {"cpu_seconds": round(time.process_time() - started_cpu, 1), "loss": round(smooth, 5)}


def loss_of(
    network: UNet1DModel, scheduler: DDIMScheduler, frames: torch.Tensor, condition: torch.Tensor
) -> torch.Tensor:
    """Return the squared error of the predicted velocity at random timesteps."""
    noise = torch.randn_like(frames)
    times = torch.randint(0, scheduler.config.num_train_timesteps, (len(frames),))
    noisy = scheduler.add_noise(frames, noise, times)
    wanted = scheduler.get_velocity(frames, noise, times)
    return functional.mse_loss(network(torch.cat([noisy, condition], dim=1), times).sample, wanted)


def save(average: list[torch.Tensor], weights: Path) -> None:
    """Save averaged weights as a network of their own."""
    network = build_network()
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), average, strict=True):
            parameter.copy_(value)
    network.save_pretrained(weights / "unet")


def score(weights: Path, steps: int) -> dict[str, float]:
    """Ask for every note in every timbre (144 tones) and return the share within 50 cents, and the spread."""
    network, scheduler = load_network(weights)
    every = [(note, timbre) for timbre in TIMBRES for note in range(LOWEST_NOTE, HIGHEST_NOTE + 1)]
    asked = [Tone(note, timbre, seed=500 + number) for number, (note, timbre) in enumerate(every)]
    errors: list[float] = []
    for start in range(0, len(asked), 12):
        tones = asked[start : start + 12]
        sounds = sample_tones(network, scheduler, tones, steps)
        errors += [cents_off(sound, tone.note) for sound, tone in zip(sounds, tones, strict=True)]
    return {
        "tones": float(len(errors)),
        "notes_right_ratio": float(np.mean(np.asarray(errors) <= TOLERANCE_CENTS)),
        "cents_off_median": round(float(np.median(errors)), 3),
        "cents_off_worst": round(float(np.max(errors)), 3),
    }


def record_training(weights: Path, settings: Settings, outcome: dict[str, Any]) -> None:
    """Write TRAINING.json with hashes of scripts and weights."""
    record = outcome | {
        "settings": asdict(settings),
        "scripts_sha256": {name: sha256_of(HERE / name) for name in ("train.py", "app.py", "judge.py")},
        "files_sha256": {str(f.relative_to(weights)): sha256_of(f) for f in sorted(weights.rglob("*.safetensors"))},
        "torch_version": torch.__version__,
    }
    (weights / "TRAINING.json").write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")


def sha256_of(path: Path) -> str:
    """Return the hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    """Train the tones model, about eight minutes on one processor core."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--weights", type=Path, default=HERE / "weights")
    parser.add_argument("--steps", type=int, default=Settings().steps)
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = Settings(steps=options.steps)
    outcome = train(options.weights, settings)
    outcome["metrics"] = {f"steps_{steps}": score(options.weights, steps) for steps in (8, 16, 32)}
    print(outcome, flush=True)
    record_training(options.weights, settings, outcome)


if __name__ == "__main__":
    main()
