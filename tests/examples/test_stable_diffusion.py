"""The full-size app's loading code, tried with a tiny pipeline of random weights."""

import json
from pathlib import Path

from .conftest import EXAMPLES, Fleet

TRIAL = """
import importlib.util, json, os, pathlib, sys
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

torch.manual_seed(0)
folder = pathlib.Path(sys.argv[2])
donor = pathlib.Path(sys.argv[3])
text = CLIPTextConfig(vocab_size=1000, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                      num_attention_heads=2, max_position_embeddings=16)
StableDiffusionPipeline(
    vae=AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
                      block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1),
    text_encoder=CLIPTextModel(text), tokenizer=CLIPTokenizer.from_pretrained(donor / "tokenizer"),
    unet=UNet2DConditionModel(sample_size=8, down_block_types=("CrossAttnDownBlock2D",),
                              up_block_types=("CrossAttnUpBlock2D",), block_out_channels=(16,), layers_per_block=1,
                              cross_attention_dim=16, attention_head_dim=2, norm_num_groups=4),
    scheduler=DDIMScheduler(steps_offset=1, clip_sample=False), safety_checker=None, feature_extractor=None,
    requires_safety_checker=False,
).save_pretrained(folder)

sys.dont_write_bytecode = True
spec = importlib.util.spec_from_file_location("stable_diffusion_app", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from fastapi.testclient import TestClient
app = module.StableDiffusion()
with TestClient(app._build_app()) as client:
    body = {"prompt": "a lighthouse", "seed": 1, "width": 64, "height": 64, "num_inference_steps": 2,
            "num_images": 2, "sync_mode": True, "output_format": "png"}
    answers = [client.post("/", json=body) for _ in range(2)]
    urls = [[image["url"] for image in a.json()["images"]] for a in answers]
    print("ANSWER " + json.dumps({"status": [a.status_code for a in answers],
                                  "same": urls[0] == urls[1],
                                  "sizes": [i["width"] for i in answers[0].json()["images"]],
                                  "nsfw": answers[0].json()["has_nsfw_concepts"],
                                  "device": app.device, "dtype": str(app.pipeline.unet.dtype)}))
os.environ["STABLE_DIFFUSION_PATH"] = str(folder / "nothing-here")
try:
    module.weights_folder()
except FileNotFoundError as problem:
    print("REFUSAL " + str(problem))
"""


def test_it_loads_a_pipeline_from_disk_warms_up_and_repeats_itself(torch_fleet: Fleet, tmp_path: Path) -> None:
    """A saved pipeline of random weights is found, loaded as safetensors and served; a missing one is explained."""
    variables = {
        "STABLE_DIFFUSION_PATH": str(tmp_path / "weights"),
        "STABLE_DIFFUSION_DEVICE": "cpu",
        "STABLE_DIFFUSION_ATTENTION_SLICING": "1",
    }
    arguments = [EXAMPLES / "stable_diffusion" / "app.py", tmp_path / "weights", EXAMPLES / "digits" / "weights"]
    status, printed = torch_fleet.run("stable_diffusion", TRIAL, [str(path) for path in arguments], variables)
    assert status == 0, printed[-3000:]
    lines = {line.partition(" ")[0]: line.partition(" ")[2] for line in printed.splitlines()}
    assert json.loads(lines["ANSWER"]) == {
        "status": [200, 200],
        "same": True,
        "sizes": [64, 64],
        "nsfw": [False, False],
        "device": "cpu",
        "dtype": "torch.float32",
    }
    assert "set STABLE_DIFFUSION_PATH" in lines["REFUSAL"]
    assert "stable-diffusion ready device=cpu" in printed
