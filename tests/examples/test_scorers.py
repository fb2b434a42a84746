"""The example scorer: it scores as its frozen set says, and sees a fault that no number of pixels shows."""

import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from forestay.drills.faults import FAULTS
from forestay.quality.scorers.frozen import digest_of

from .conftest import EXAMPLES, load_example

FOLDER = EXAMPLES / "scorers" / "digits_agreement"


@pytest.fixture(scope="module")
def scorer() -> ModuleType:
    """The example scorer's module."""
    return load_example("scorers/digits_agreement", "scorer.py")


def test_the_example_scores_its_frozen_set_as_it_says(scorer: ModuleType) -> None:
    """With the files that the scores were learned from: change one, and learn them again."""
    frozen = json.loads((FOLDER / "frozen" / "frozen.json").read_text())
    assert digest_of(FOLDER) == frozen["digest"]
    judge = scorer.Agreement()
    judge.setup()
    items = [SimpleNamespace(path=FOLDER / "frozen" / one["file"], prompt=one["prompt"]) for one in frozen["items"]]
    for told, one in zip(judge.score(items), frozen["items"], strict=True):
        assert (told is None) == (one["scores"] is None)
        assert told is None or told == pytest.approx(one["scores"], abs=1e-6)


@pytest.mark.slow
def test_a_model_that_no_longer_hears_its_prompts_draws_well_and_agrees_no_more(
    scorer: ModuleType, tmp_path: Path
) -> None:
    """The text encoder gives nothing: pictures are whole, and show another digit than was asked for."""
    import torch  # noqa: PLC0415 - as a model's process does
    from diffusers import StableDiffusionPipeline  # noqa: PLC0415 # pyright: ignore[reportPrivateImportUsage]

    torch.set_num_threads(1)
    pipe: Any = StableDiffusionPipeline.from_pretrained(EXAMPLES / "digits" / "weights", local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    judge = scorer.Agreement()
    judge.setup()
    prompts = [f"a red {word} on a dark background" for word in scorer.WORDS]

    def agreement() -> float:
        generators = [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]
        drawn = pipe(prompts, num_inference_steps=6, guidance_scale=3.0, generator=generators).images
        items = []
        for number, (picture, prompt) in enumerate(zip(drawn, prompts, strict=True)):
            picture.save(tmp_path / f"{number}.png")
            items.append(SimpleNamespace(path=tmp_path / f"{number}.png", prompt=prompt))
        return float(np.mean([told["agreement"] for told in judge.score(items)]))

    assert agreement() > 0.95
    (deaf,) = [fault for fault in FAULTS if fault.name == "text encoder's output is empty"]
    with deaf.inject(pipe):
        assert agreement() < 0.6
