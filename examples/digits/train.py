"""Train the digits model from nothing: autoencoder, then UNet with text encoder, then two style LoRAs.

Every stage is counted in steps, not in seconds, and seeded, so the same script, library versions and kind of
processor give the same weights. Each stage saves what it made (also now and then while it runs), so stages can be
run one at a time. `weights/TRAINING.json` records the script's hash, settings, processor seconds and scores.
"""

# ruff: noqa: PLC0415 - tests judge pictures without loading what only training needs

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from configs import forget_paths
from dataset import STYLES, caption_for, clear_digits, learn_merges, mix, paint, paint_in_style, real_digits
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from judge import BACKGROUNDS, COLOURS, score
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

HERE = Path(__file__).resolve().parent
TOKENS_PER_PROMPT = 16
TEXT_WIDTH = 64


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides the weights."""

    seed: int = 7
    vae_steps: int = 5000
    vae_batch: int = 16
    vae_learning_rate: float = 3e-3
    unet_steps: int = 6800
    unet_stop_step: int = 3200
    unet_restart_steps: int = 4800
    unet_restart_rate: float = 1.6e-3
    unet_batch: int = 48
    unet_learning_rate: float = 2e-3
    ema_decay: float = 0.998
    lora_steps: int = 600
    # New colours for every picture take longer to learn than thicker strokes.
    palette_lora_steps: int = 1600
    lora_batch: int = 32
    lora_learning_rate: float = 3e-3
    lora_rank: int = 3
    warm_up_steps: int = 150


# ---------------------------------------------------------------------------------------------------- building


def byte_alphabet() -> list[str]:
    """Return the 256 printable stand-ins for bytes that byte-level BPE uses."""
    kept = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    shifted = iter(range(256, 512))
    return [chr(byte) if byte in kept else chr(next(shifted)) for byte in range(256)]


def build_tokenizer() -> CLIPTokenizer:
    """Return a CLIP tokenizer with a closed vocabulary: bytes, then one chain of merges for each caption word."""
    alphabet = byte_alphabet()
    merges = learn_merges()
    pieces = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TOKENS_PER_PROMPT)


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Return an untrained CLIP text encoder, two layers of 64."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS_PER_PROMPT,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_vae() -> AutoencoderKL:
    """Return an untrained autoencoder: 32x32x3 to 8x8x4 and back."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 24, 32),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
        mid_block_add_attention=False,
    )


def build_unet() -> UNet2DConditionModel:
    """Return an untrained denoiser with cross-attention in every block."""
    return UNet2DConditionModel(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        block_out_channels=(32, 64),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def build_scheduler() -> DDIMScheduler:
    """Return the usual Stable Diffusion noise schedule with trailing steps."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
    )


# ---------------------------------------------------------------------------------------------------- learning


@dataclass(frozen=True, slots=True)
class Course:
    """How long and how fast to learn. With `stop_step` the decay still aims at `steps`, but learning ends sooner."""

    name: str
    steps: int
    rate: float
    stop_step: int | None = None


class Average:
    """Keep an exponential moving average of parameters; the average is what is saved."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], decay: float) -> None:
        """Start from the parameters as they are."""
        self.live = list(parameters)
        self.shadow = [parameter.detach().clone() for parameter in self.live]
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the parameters, faster while training is young."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.shadow, [p.detach() for p in self.live], 1.0 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the average with the live parameters; call twice to undo."""
        for live, shadow in zip(self.live, self.shadow, strict=True):
            kept = live.detach().clone()
            live.copy_(shadow)
            shadow.copy_(kept)


def learn(
    parameters: list[torch.nn.Parameter],
    loss_of_step: Callable[[int], torch.Tensor],
    course: Course,
    settings: Settings,
    save: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Minimise a loss with AdamW, warm-up and cosine decay; leave the averaged weights in place."""
    steps, rate, last_step = course.steps, course.rate, course.stop_step or course.steps
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-3, fused=True)
    average = Average(parameters, settings.ema_decay)
    started_cpu, started_wall, smooth = time.process_time(), time.monotonic(), math.nan
    for step in range(last_step):
        warm = min(1.0, (step + 1) / settings.warm_up_steps)
        optimiser.param_groups[0]["lr"] = rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        loss = loss_of_step(step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        average.update()
        value = float(loss.detach())
        smooth = value if math.isnan(smooth) else 0.98 * smooth + 0.02 * value
        if step % 200 == 199 or step + 1 == last_step:
            wall = time.monotonic() - started_wall
            print(f"{course.name} step {step + 1}/{last_step} loss {smooth:.4f} {wall:.0f} s", flush=True)
        if save is not None and step % 800 == 799:
            average.swap()
            save()
            average.swap()
    average.swap()
    return {"cpu_seconds": round(time.process_time() - started_cpu, 1), "steps": last_step, "loss": round(smooth, 5)}


def as_input(pictures: list[np.ndarray[Any, Any]]) -> torch.Tensor:
    """Return pictures `[32, 32, 3] uint8` as one tensor `[n, 3, 32, 32]` in -1 to 1."""
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()
    return (stacked / 127.5 - 1.0).contiguous()


def varied_picture(rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Return one picture for the autoencoder: mostly the plain ones, some in a style, some in any colours."""
    images, _ = real_digits()
    ink = images[rng.integers(len(images))]
    colour, background = str(rng.choice(list(COLOURS))), str(rng.choice(list(BACKGROUNDS)))
    kind = rng.random()
    if kind < 0.70:
        return paint(ink, colour, background)
    if kind < 0.88:
        return paint_in_style(ink, colour, background, str(rng.choice(STYLES)))
    pen, paper = (tuple(int(v) for v in rng.integers(0, 256, 3)) for _ in range(2))
    shifted = np.roll(ink, rng.integers(-4, 5, 2), axis=(0, 1))
    return mix(shifted, pen, paper)  # type: ignore[arg-type]


def train_vae(weights: Path, settings: Settings) -> dict[str, Any]:
    """Train the autoencoder (absolute plus squared error, a touch of KL) and set its latent scale."""
    rng = np.random.default_rng(settings.seed)
    vae = build_vae().to(memory_format=torch.channels_last)

    def loss_of_step(_step: int) -> torch.Tensor:
        batch = as_input([varied_picture(rng) for _ in range(settings.vae_batch)])
        latents = vae.encode(batch).latent_dist
        difference = vae.decode(latents.sample()).sample - batch
        return difference.abs().mean() + difference.square().mean() + 1e-4 * latents.kl().mean() / 256

    parameters = list(vae.parameters())
    record: dict[str, Any] = learn(
        parameters, loss_of_step, Course("vae", settings.vae_steps, settings.vae_learning_rate), settings
    )
    plain = np.random.default_rng(settings.seed + 1)
    images, _ = real_digits()
    chosen = [
        (plain.integers(len(images)), plain.choice(list(COLOURS)), plain.choice(list(BACKGROUNDS))) for _ in range(400)
    ]
    batch = as_input([paint(images[i], str(c), str(b)) for i, c, b in chosen])
    with torch.no_grad():
        latents = vae.encode(batch).latent_dist.mode()
        mean_squared = float((vae.decode(latents).sample.clamp(-1, 1) - batch).square().mean())
    vae.register_to_config(scaling_factor=round(1.0 / float(latents.std()), 5))
    vae.save_pretrained(weights / "vae")
    return record | {"psnr_db": round(10 * math.log10(4.0 / mean_squared), 2)}


# -------------------------------------------------------------------------------------------------- conditioning


def tokenise(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """Return token ids `[n, 16]` as the pipeline makes them."""
    return tokenizer(
        captions, padding="max_length", max_length=TOKENS_PER_PROMPT, truncation=True, return_tensors="pt"
    ).input_ids


@torch.no_grad()
def encode_all(vae: AutoencoderKL, style: str) -> tuple[torch.Tensor, list[tuple[int, str, str]]]:
    """Encode every clear digit in every colour and background; return scaled latents and what each shows."""
    images, labels = real_digits()
    what, chunks = [], []
    for colour in COLOURS:
        for background in BACKGROUNDS:
            pictures = [paint_in_style(images[i], colour, background, style) for i in clear_digits()]
            what += [(int(labels[i]), colour, background) for i in clear_digits()]
            chunks += [vae.encode(part).latent_dist.mode() for part in as_input(pictures).split(128)]
    return torch.cat(chunks) * vae.config.scaling_factor, what


def noise_loss(
    predict: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
    latents: torch.Tensor,
    tokens: torch.Tensor,
    scheduler: DDIMScheduler,
    generator: torch.Generator,
    *,
    middle_ratio: float = 0.0,
) -> torch.Tensor:
    """Return the squared error of the predicted noise at random timesteps.

    `middle_ratio` of the timesteps are drawn from 50 to 650, where the noise leaves the digit in doubt and the
    caption can settle it.
    """
    noise = torch.randn(latents.shape, generator=generator)
    times = torch.randint(0, scheduler.config.num_train_timesteps, (len(latents),), generator=generator)
    if middle_ratio > 0:
        count = round(middle_ratio * len(times))
        times[:count] = torch.randint(50, 650, (count,), generator=generator)
    noisy = scheduler.add_noise(latents, noise, times)
    return functional.mse_loss(predict(noisy, times, tokens), noise)


class Lessons:
    """Draw batches of latents with captions, the same ones for the same seed."""

    def __init__(self, latents: torch.Tensor, what: list[tuple[int, str, str]], seed: int) -> None:
        """Keep the encoded pictures and what each one shows."""
        self.latents, self.what = latents, what
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, count: int) -> tuple[torch.Tensor, list[str]]:
        """Return `count` latents with a caption each."""
        chosen = self.rng.integers(len(self.what), size=count)
        return self.latents[torch.from_numpy(chosen)], [caption_for(*self.what[i], self.rng) for i in chosen]


def train_unet(weights: Path, settings: Settings, *, restart: bool) -> dict[str, Any]:
    """Train denoiser and text encoder together and save the whole pipeline.

    In two legs. The first learns colours and backgrounds and begins on digits. The second starts a new optimiser from
    the first one's averaged weights (a warm restart, arXiv:1608.03983) and dwells on the timesteps that decide digits.
    """
    vae = AutoencoderKL.from_pretrained(weights / "vae")
    tokenizer = build_tokenizer()
    text_encoder = CLIPTextModel.from_pretrained(weights / "text_encoder") if restart else build_text_encoder(tokenizer)
    unet = UNet2DConditionModel.from_pretrained(weights / "unet") if restart else build_unet()
    unet = unet.to(memory_format=torch.channels_last).train()
    text_encoder.train()
    scheduler = build_scheduler()
    started_cpu = time.process_time()
    lessons = Lessons(*encode_all(vae, "plain"), seed=settings.seed + 100 * restart)
    encode_seconds = time.process_time() - started_cpu

    def predict(noisy: torch.Tensor, times: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return unet(noisy, times, text_encoder(tokens)[0]).sample

    def loss_of_step(_step: int) -> torch.Tensor:
        latents, captions = lessons.draw(settings.unet_batch)
        tokens = tokenise(tokenizer, captions)
        middle = 0.5 if restart else 0.0
        return noise_loss(predict, latents, tokens, scheduler, lessons.generator, middle_ratio=middle)

    def save() -> None:
        pipeline_of(vae, text_encoder, tokenizer, unet, scheduler).save_pretrained(weights)

    first = Course("unet", settings.unet_steps, settings.unet_learning_rate, settings.unet_stop_step)
    second = Course("unet restart", settings.unet_restart_steps, settings.unet_restart_rate)
    record: dict[str, Any] = learn(
        [*unet.parameters(), *text_encoder.parameters()],
        loss_of_step,
        second if restart else first,
        settings,
        save,
    )
    save()
    return record | {"encode_cpu_seconds": round(encode_seconds, 1)}


def pipeline_of(
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    unet: UNet2DConditionModel,
    scheduler: DDIMScheduler,
) -> StableDiffusionPipeline:
    """Return a complete pipeline; the safety checker is the platform's."""
    return StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def train_lora(weights: Path, settings: Settings, style: str) -> dict[str, Any]:
    """Train one style as low-rank updates of the denoiser's attention and convolutions."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipeline = StableDiffusionPipeline.from_pretrained(weights)
    unet = pipeline.unet
    unet.requires_grad_(requires_grad=False)
    unet.add_adapter(
        LoraConfig(
            r=settings.lora_rank, lora_alpha=settings.lora_rank, init_lora_weights="gaussian",
            target_modules=["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "conv_in", "conv_out"],
        )
    )  # fmt: skip
    lessons = Lessons(*encode_all(pipeline.vae, style), seed=settings.seed + 10 + STYLES.index(style))

    def predict(noisy: torch.Tensor, times: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            text = pipeline.text_encoder(tokens)[0]
        return unet(noisy, times, text).sample

    def loss_of_step(_step: int) -> torch.Tensor:
        latents, captions = lessons.draw(settings.lora_batch)
        tokens = tokenise(pipeline.tokenizer, captions)
        return noise_loss(predict, latents, tokens, pipeline.scheduler, lessons.generator)

    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    steps = settings.palette_lora_steps if style == "inverted-palette" else settings.lora_steps
    record: dict[str, Any] = learn(
        parameters, loss_of_step, Course(f"lora {style}", steps, settings.lora_learning_rate), settings
    )
    layers = {name: tensor.half() for name, tensor in get_peft_model_state_dict(unet).items()}
    StableDiffusionPipeline.save_lora_weights(
        weights / "loras", unet_lora_layers=layers, weight_name=f"{style}.safetensors"
    )
    return record


# ----------------------------------------------------------------------------------------------------- recording


def sha256_of(path: Path) -> str:
    """Return the hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def record_training(weights: Path, settings: Settings, stages: dict[str, Any]) -> None:
    """Merge what this run did into TRAINING.json and hash every weight file again."""
    forget_paths(weights)
    path = weights / "TRAINING.json"
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"stages": {}}
    scripts = {name: sha256_of(HERE / name) for name in ("train.py", "dataset.py", "judge.py")}
    for stage in stages.values():
        stage["scripts_sha256"] = scripts
    record["stages"] |= stages
    record["settings"] = asdict(settings)
    record["cpu_seconds"] = round(sum(stage.get("cpu_seconds", 0.0) for stage in record["stages"].values()), 1)
    record["torch_version"] = torch.__version__
    record["files_sha256"] = {
        str(file.relative_to(weights)): sha256_of(file) for file in sorted(weights.rglob("*.safetensors"))
    }
    path.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")


def measure(weights: Path) -> dict[str, Any]:
    """Judge 100 pictures at 6, 12 and 20 steps with guidance 3."""
    pipeline = StableDiffusionPipeline.from_pretrained(weights)
    pipeline.set_progress_bar_config(disable=True)
    return {f"steps_{steps}": score(pipeline, steps, guidance=3.0, rounds=2) for steps in (6, 12, 20)}


def main() -> None:
    """Train the digits model; all stages by default, about 30 minutes on one processor core."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "--stage",
        choices=("all", "vae", "unet", "unet-restart", "loras", *(f"lora {s}" for s in STYLES), "measure"),
        default="all",
    )
    parser.add_argument("--weights", type=Path, default=HERE / "weights")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = Settings()
    torch.manual_seed(settings.seed)
    work: dict[str, Callable[[], dict[str, Any]]] = {
        "vae": lambda: train_vae(options.weights, settings),
        "unet": lambda: train_unet(options.weights, settings, restart=False),
        "unet-restart": lambda: train_unet(options.weights, settings, restart=True),
        **{f"lora {style}": lambda style=style: train_lora(options.weights, settings, style) for style in STYLES},
        "measure": lambda: measure(options.weights),
    }
    for name, run in work.items():
        if options.stage in ("all", name) or (options.stage == "loras" and name.startswith("lora")):
            torch.manual_seed(settings.seed)
            outcome = run()
            print(f"{name}: {outcome}", flush=True)
            record_training(options.weights, settings, {name: outcome})


if __name__ == "__main__":
    main()
