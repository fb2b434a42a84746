"""Every fault of the kit changes what a real pipeline draws, and leaves the pipeline as it was."""

import pathlib
from typing import Any

import numpy as np
import pytest

from forestay.drills.faults import FAULTS, PipelineFault

WEIGHTS = pathlib.Path(__file__).parents[2] / "examples" / "digits" / "weights"


def test_faults_have_names_of_their_own_and_cover_many_rows() -> None:
    """A name finds one fault; no row is left to chance."""
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert len({fault.row for fault in FAULTS}) >= 25


class Studio:
    """The example pipeline and what it draws when it is whole."""

    def __init__(self) -> None:
        import torch  # noqa: PLC0415 - a model's library, for slow tests alone
        from diffusers import StableDiffusionPipeline  # noqa: PLC0415 # pyright: ignore[reportPrivateImportUsage]

        torch.set_num_threads(1)
        self.generator = torch.Generator
        self.pipe: Any = StableDiffusionPipeline.from_pretrained(WEIGHTS, local_files_only=True)
        self.pipe.set_progress_bar_config(disable=True)
        self.whole = self.draw()

    def draw(self) -> list[bytes]:
        """Draw twice two pictures plainly, with a negative prompt, and two in a style."""
        made: list[bytes] = []
        for words, style in ((("a red three", "a green eight"), ""), (("a blue one", "a red six"), "thick-strokes")):
            if style:
                folder, name = WEIGHTS / "loras", f"{style}.safetensors"
                self.pipe.load_lora_weights(folder, weight_name=name, adapter_name=style, prefix=None)
                self.pipe.set_adapters([style], adapter_weights=[1.0])
            images = self.pipe(
                prompt=list(words), negative_prompt=["a blue one"] * 2, num_inference_steps=6, guidance_scale=3.0,
                generator=[self.generator().manual_seed(seed) for seed in (3, 4)],
            ).images  # fmt: skip
            made += [np.asarray(image).tobytes() for image in images]
            if style:
                self.pipe.unload_lora_weights()
        return made


@pytest.fixture(scope="module")
def studio() -> Studio:
    """Loaded once."""
    return Studio()


@pytest.mark.slow  # a real pipeline draws
@pytest.mark.filterwarnings("ignore")  # the libraries warn about what is done to them here
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_real_and_is_taken_out_again(studio: Studio, fault: PipelineFault) -> None:
    """Within it the pictures are others, or fewer; after it they are the same to the last bit."""
    with fault.inject(studio.pipe):
        assert studio.draw() != studio.whole
    assert studio.draw() == studio.whole
