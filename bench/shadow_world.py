"""What healthy and broken revisions of the example model draw for the same requests: made once, kept in a file.

A process of its own holds torch. Pictures are `[requests, 32, 32, 3] uint8`, as the network draws them. Each fault is
one line of a configuration, one file of weights or one habit of a server that somebody has got wrong; the number is its
row in the catalogue of failures that `quality/faults` cites.
"""

import hashlib
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Pictures = npt.NDArray[np.uint8]  # [requests, height, width, 3]

REQUESTS = 64
_ROOT = pathlib.Path(__file__).resolve().parents[1]
_WEIGHTS = _ROOT / "examples" / "digits" / "weights"
HEALTHY = ("control", "other batches", "bfloat16", "half")
PIPELINE_FAULTS: Mapping[str, int] = {
    "prediction type": 9,
    "linear betas": 10,
    "leading spacing": 12,
    "other sampler": 13,
    "half the steps": 14,
    "11 steps for 12": 14,
    "vae scale x1.3": 15,
    "vae scale x0.8": 15,
    "latent channels swapped": 16,
    "style leaks": 23,
    "prompt cut": 26,
    "middle block zeroed": 29,
    "weights off by 5 %": 29,
    "guidance 4 for 3": 30,
    "4-bit weights": 8,
    "seed ignored": 33,
}
_PROGRAM = """
import pathlib, sys
import numpy as np, torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, StableDiffusionPipeline
weights, out, first, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(1)
digits = "zero one two three four five six seven eight nine".split()
colours = "red green blue yellow purple".split()
grounds = "dark light".split()
def load():
    found = StableDiffusionPipeline.from_pretrained(weights, local_files_only=True)
    found.set_progress_bar_config(disable=True)
    return found
def draw(pipeline, batch=32, steps=12, guidance=3.0, shift=0, words=99):
    prompts = [f"a {colours[n % 5]} {digits[n % 10]} on a {grounds[n % 2]} background".split()[:words]
               for n in range(first, first + count)]
    prompts = [" ".join(part) for part in prompts]
    seeds = [torch.Generator().manual_seed(first + n + shift) for n in range(count)]
    made = []
    for at in range(0, count, batch):
        made += pipeline(prompts[at:at + batch], num_inference_steps=steps, guidance_scale=guidance,
                         generator=seeds[at:at + batch]).images
    return np.stack([np.asarray(image.convert("RGB")) for image in made])
def scheduled(**changed):
    found = load()
    found.scheduler = DDIMScheduler.from_config({**found.scheduler.config, **changed})
    return found
def rounded(kind):
    found = load()
    for part in (found.unet, found.vae, found.text_encoder):
        part.to(kind).to(torch.float32)
    return found
def each(pipeline, change):
    with torch.no_grad():
        for name, value in pipeline.unet.named_parameters():
            value.copy_(change(name, value))
    return pipeline
def four_bits(name, value):
    top = value.abs().max().clamp(min=1e-8) / 7
    return (value / top).round().clamp(-7, 7) * top
noise = torch.Generator().manual_seed(5)
def off(name, value):
    spread = value.std() if value.numel() > 1 else 0.0
    return value + 0.05 * spread * torch.randn(value.shape, generator=noise)
def middle(name, value):
    return torch.zeros_like(value) if name.startswith("mid_block") and name.endswith("conv2.weight") else value
def scaled(part):
    found = load()
    found.vae.register_to_config(scaling_factor=found.vae.config.scaling_factor * part)
    return found
def swapped():
    found = load()
    decode = found.vae.decode
    found.vae.decode = lambda latents, *rest, **named: decode(latents[:, [1, 0, 2, 3]], *rest, **named)
    return found
def leaking():
    found = load()
    found.load_lora_weights(pathlib.Path(weights) / "loras", weight_name="thick-strokes.safetensors", adapter_name="s")
    return found
def euler():
    found = load()
    found.scheduler = EulerDiscreteScheduler.from_config(found.scheduler.config)
    return found
made = {
    "control": draw(load()),
    "other batches": draw(load(), batch=8),
    "bfloat16": draw(rounded(torch.bfloat16)),
    "half": draw(rounded(torch.float16)),
    "prediction type": draw(scheduled(prediction_type="v_prediction")),
    "linear betas": draw(scheduled(beta_schedule="linear")),
    "leading spacing": draw(scheduled(timestep_spacing="leading")),
    "other sampler": draw(euler()),
    "half the steps": draw(load(), steps=6),
    "11 steps for 12": draw(load(), steps=11),
    "vae scale x1.3": draw(scaled(1.3)),
    "vae scale x0.8": draw(scaled(0.8)),
    "latent channels swapped": draw(swapped()),
    "style leaks": draw(leaking()),
    "prompt cut": draw(load(), words=3),
    "middle block zeroed": draw(each(load(), middle)),
    "weights off by 5 %": draw(each(load(), off)),
    "guidance 4 for 3": draw(load(), guidance=4.0),
    "4-bit weights": draw(each(load(), four_bits)),
    "seed ignored": draw(load(), shift=1_000_000),
}
np.savez(out, **made)
"""


def pictures(first: int, count: int = REQUESTS) -> dict[str, Pictures]:
    """Return what each revision draws for requests `first` to `first + count`: prompt and seed follow the number."""
    marked = hashlib.sha256(_PROGRAM.encode())
    for path in sorted(_WEIGHTS.rglob("*.safetensors")):
        marked.update(path.read_bytes())
    kept = pathlib.Path(tempfile.gettempdir()) / f"forestay-shadow-{marked.hexdigest()[:16]}-{first}-{count}.npz"
    if not kept.exists():
        part = kept.with_suffix(".part.npz")
        command = [sys.executable, "-c", _PROGRAM, str(_WEIGHTS), str(part), str(first), str(count)]
        subprocess.run(command, check=True, capture_output=True, timeout=900)
        part.replace(kept)
    with np.load(kept) as found:
        return {name: found[name] for name in found.files}
