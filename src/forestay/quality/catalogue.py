"""The catalogue of failures of generative pipelines that the numbers of outputs can tell apart, as data.

Each row has its number, what it is called, the contracts that it breaks, and a signature: which features move, up or
down, and how strongly beside one another. Signatures come from what each fault does to a picture, a film or a sound,
and were looked up on drawn pictures with `faults`, not on any model's outputs. Rows that only a canary, a probe or a
fingerprint can show have a name and no signature. Read by `diagnosis`.
"""

import dataclasses
from collections.abc import Mapping

from forestay.fleet.spec_quality import OutputCheck

EITHER = "|"  # before a feature: its shift counts, whichever way
PROMPT_MIX = 45


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """One way in which a pipeline fails. Weights are of the logarithm of a shift in standard deviations."""

    row: int
    name: str
    signatures: Mapping[str, tuple[Mapping[str, float], ...]] = dataclasses.field(
        default_factory=dict[str, tuple[Mapping[str, float], ...]]
    )  # kind of medium -> features and weights


def _image(*signatures: Mapping[str, float]) -> Mapping[str, tuple[Mapping[str, float], ...]]:
    return {"image": signatures, "video": signatures}


FAILURES: tuple[Failure, ...] = (
    Failure(1, "numbers that are none (half precision) became a black picture"),
    Failure(2, "an upcast was lost by an upgrade: black pictures"),
    Failure(3, "attention slicing or offload corrupts pictures on one worker"),
    Failure(4, "compiled kernels give no numbers for some settings"),
    Failure(6, "quantisation collapsed: pictures are noise", _image({
        "fine_share": 1.0, "checker": 1.0, "dots": 1.0, "row_stripes": 0.75, "column_stripes": 0.75,
        "sharpness": 0.65, "colourfulness": 0.4, "clipped_high": 0.4, "middle_share": 0.35,
    })),
    Failure(7, "a checkerboard lies over pictures (quantisation split, transposed convolutions)", _image(
        {"checker": 1.0, "fine_share": 0.8, "sharpness": 0.6, "clipped_low": 0.5, "clipped_high": 0.5},
    )),
    Failure(9, "the scheduler expects another prediction type", _image(
        {"spread": -0.7, "fine_share": 0.8, "colourfulness": -0.5, "sharpness": 0.5},
    )),
    Failure(10, "the noise schedule is another: low contrast, noise", _image(
        {"spread": -0.6, "fine_share": 0.8, "middle_share": 0.6, "sharpness": 0.4},
    )),
    Failure(14, "fewer steps than asked for: pictures are soft", _image(
        {"sharpness": -1.0, "fine_share": -0.9, "middle_share": -0.6, "checker": -0.5},
    )),
    Failure(15, "the decoder's scaling factor is wrong: washed-out colours", _image(
        {"spread": -0.8, "colourfulness": -0.8, "entropy": -0.7, "sharpness": -0.6, "row_stripes": -0.5,
         "column_stripes": -0.5, "clipped_low": -0.4, "clipped_high": -0.4, "|mean": 0.3},
        {"spread": 0.8, "colourfulness": 0.8, "clipped_low": 0.6, "clipped_high": 0.6},
    )),
    Failure(16, "latent channels or the decoder were swapped: colours shift", _image(
        {"|red_green": 1.0, "|yellow_blue": 1.0, "|mean": 0.5, "|spread": 0.4, "|sharpness": 0.3},
    )),
    Failure(17, "seams between tiles of the decoder", _image(
        {"blockiness": 0.9, "clipped_high": 0.5, "clipped_low": 0.4, "row_stripes": 0.35, "column_stripes": 0.35},
    )),
    Failure(18, "red and blue are swapped", _image(
        {"|yellow_blue": 1.0, "|red_green": 0.7, "clipped_low": 0.2, "clipped_high": 0.2},
    )),
    Failure(19, "isolated dots: a watermark in the wrong channels, or corruption", _image(
        {"dots": 1.0, "fine_share": 0.45, "sharpness": 0.4, "clipped_high": 0.3, "clipped_low": 0.3,
         "checker": 0.3, "row_stripes": 0.25},
    )),
    Failure(30, "guidance is too strong: burnt colours", _image(
        {"clipped_low": 1.0, "clipped_high": 1.0, "dots": 0.7, "spread": 0.6, "colourfulness": 0.6,
         "entropy": -0.6, "sharpness": 0.5, "row_stripes": 0.5, "column_stripes": 0.5},
    )),
    Failure(31, "a fishnet lies over pictures", _image(
        {"row_stripes": 1.0, "column_stripes": 1.0, "blockiness": 0.75, "fine_share": 0.6, "clipped_low": 0.5,
         "sharpness": 0.5, "clipped_high": 0.4},
    )),
    Failure(34, "the same output for different requests (a cache)"),
    Failure(35, "another number of outputs than asked for"),
    Failure(36, "pictures are enlarged from a lower resolution", _image(
        {"blockiness": 1.0, "checker": -0.6, "fine_share": -0.4, "row_stripes": 0.3, "column_stripes": 0.3},
        {"fine_share": -1.0, "checker": -0.9, "dots": -0.2},
    )),
    Failure(37, "stripes or banding", _image(
        {"row_stripes": 1.0, "fine_share": 0.55, "clipped_high": 0.5, "clipped_low": 0.4},
        {"column_stripes": 1.0, "fine_share": 0.55, "clipped_high": 0.5, "clipped_low": 0.4},
    )),
    Failure(38, "a film is noise", {"video": (
        {"steadiness": -1.0, "motion": 1.0, "fine_share": 1.0, "checker": 1.0, "dots": 0.8, "sharpness": 0.6,
         "row_stripes": 0.6, "column_stripes": 0.6},
    )}),
    Failure(39, "the film's file is damaged, or its frames are torn"),
    Failure(40, "a film is frozen, cut short, or has another rate", {"video": (
        {"motion": -1.0, "motion_spread": -0.8, "steadiness": 0.6},
    )}),
    Failure(41, "sound and pictures are out of step"),
    Failure(42, "sound is silent, or no numbers", {"audio": (
        {"level_db": -1.0, "silent_share": 1.0, "level_spread_db": 0.3},
    )}),
    Failure(43, "sound is noise, clips or clicks", {"audio": (
        {"flatness": 1.0, "centroid": 0.8, "bandwidth": 0.8, "zero_crossings": 0.8, "level_spread_db": -0.5},
        {"clicks": 1.0, "crest_db": 0.6, "flatness": 0.4, "bandwidth": 0.4},
        {"clipped_share": 1.0, "level_db": 0.7, "crest_db": -0.6, "bandwidth": 0.4},
    )}),
    Failure(44, "out of memory, and a silent fall-back: smaller or slower"),
    Failure(5, "compiled kernels shift what is drawn"),
    Failure(8, "weights were rounded: other pictures for the same seed"),
    Failure(11, "a noise schedule that ends at nothing, with a network that predicts noise"),
    Failure(12, "the same seed draws something else: a scheduler, a library or a setting has changed"),
    Failure(13, "another scheduler than the checkpoint's"),
    Failure(23, "an adapter leaked into a request that did not ask for it"),
    Failure(24, "an adapter that was asked for does not act"),
    Failure(26, "prompts are cut"),
    Failure(27, "weights are missing: a layer with fresh random ones"),
    Failure(28, "what was asked for does not reach the network: conditioning is dropped or mislabelled"),
    Failure(29, "weights or a device are corrupt: one replica draws something else for the same seed"),
    Failure(33, "the seed is not obeyed"),
    Failure(PROMPT_MIX, "the mix of prompts has changed; the model has not"),
)  # fmt: skip

# The rows that a failed contract speaks for, the likeliest first.
BY_CHECK: Mapping[OutputCheck, tuple[int, ...]] = {
    OutputCheck.BLACK: (1, 2, 4),
    OutputCheck.CONSTANT: (1, 2, 4),
    OutputCheck.CLIPPED: (30, 15, 9),
    OutputCheck.COUNT: (35,),
    OutputCheck.SIZE: (36, 44),
    OutputCheck.FORMAT: (44, 39),
    OutputCheck.STEPS: (14,),
    OutputCheck.DECODES: (39,),
    OutputCheck.TORN: (39,),
    OutputCheck.FROZEN: (40,),
    OutputCheck.FRAMES: (40,),
    OutputCheck.DURATION: (40,),
    OutputCheck.FRAME_RATE: (40,),
    OutputCheck.NOT_A_NUMBER: (42,),
    OutputCheck.SILENT: (42,),
    OutputCheck.SOUND_CLIPPED: (43,),
    OutputCheck.OUT_OF_SYNC: (41,),
}
_BY_ROW = {failure.row: failure for failure in FAILURES}


def name_of(row: int) -> str:
    """Return what a row is called; empty where it is not one of these."""
    failure = _BY_ROW.get(row)
    return failure.name if failure is not None else ""
