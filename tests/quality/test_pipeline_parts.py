"""What of a pipeline has changed since its golden was drawn: named by its setting, with its row of the catalogue."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.quality.catalogue import name_of
from forestay.quality.pipeline_parts import (
    MAX_CHARS,
    MAX_PARTS,
    Parts,
    changes_between,
    numbers_of,
    parts_of,
    row_of,
    words_of,
)
from forestay.quality.probes import PipelineCall, Report

PARTS: dict[str, dict[str, object]] = {
    "scheduler": {"class": "DDIMScheduler", "config": "c0ffee"},
    "unet": {"class": "UNet2DConditionModel", "config": "beef", "dtype": "torch.float32", "weights": "w0"},
}
REPORT = Report(
    calls=(PipelineCall(pipeline="StableDiffusionPipeline"),),
    prints=({"pipeline": "Other", "parts": {}}, {"pipeline": "StableDiffusionPipeline", "parts": PARTS}),
    settings={"StableDiffusionPipeline": {"beta_end": "0.012", "prediction_type": "epsilon"}},
)
BEFORE = parts_of(REPORT)


def with_(part: str, what: str, value: str) -> Parts:
    """Return the parts with one of their values changed."""
    return {**BEFORE, part: {**BEFORE[part], what: value}}


@pytest.mark.parametrize(
    ("part", "what", "value", "row", "words"),
    [
        ("scheduler", "setting.beta_end", "0.004", 10, "scheduler.beta_end 0.012, now 0.004"),
        ("scheduler", "setting.prediction_type", "v_prediction", 9, "prediction_type epsilon, now v_prediction"),
        ("scheduler", "class", "EulerDiscreteScheduler", 13, "scheduler.class DDIMScheduler, now EulerDiscrete"),
        ("scheduler", "setting.clip_sample", "True", 12, "scheduler.clip_sample unset, now True"),
        ("unet", "dtype", "torch.float16", 8, "unet.dtype torch.float32, now torch.float16"),
        ("unet", "weights", "w1", 12, "the weights of unet are others"),
        ("unet", "config", "dead", 12, "the settings of unet are others"),
    ],
)
def test_one_change_names_the_setting_and_its_row(part: str, what: str, value: str, row: int, words: str) -> None:
    """A scheduler's settings one by one; weights and other settings by their digests."""
    changes = changes_between(BEFORE, with_(part, what, value))
    assert words in words_of(changes)
    assert row_of(changes) == row
    assert name_of(row)


def test_a_settings_name_stands_for_the_digest_of_them_all() -> None:
    """One change is told, once, with its numbers before and after."""
    after = {**BEFORE, "scheduler": {**BEFORE["scheduler"], "config": "cafe", "setting.beta_end": "0.004"}}
    changes = changes_between(BEFORE, after)
    assert [item.name for item in changes] == ["scheduler.beta_end"]
    assert numbers_of(changes) == {"scheduler.beta_end_before": 0.012, "scheduler.beta_end_now": 0.004}


def test_changes_that_do_not_agree_name_no_single_cause() -> None:
    """A scheduler and weights: something has changed, and both are told."""
    after = {**with_("scheduler", "class", "Euler"), "unet": {**BEFORE["unet"], "weights": "w1"}}
    changes = changes_between(BEFORE, after)
    assert row_of(changes) == 12
    assert words_of(changes) == "scheduler.class DDIMScheduler, now Euler; the weights of unet are others"
    assert words_of(changes, most=1).endswith("; 1 more")


@pytest.mark.parametrize(("one", "two"), [({}, BEFORE), (BEFORE, {}), (BEFORE, BEFORE)])
def test_nothing_is_said_of_what_is_not_told(one: Parts, two: Parts) -> None:
    """Of a golden from before, of a pipeline that is not watched, of one that is the same."""
    assert changes_between(one, two) == ()
    assert (row_of(()), words_of(())) == (12, "")


ANYTHING = st.recursive(
    st.none() | st.integers() | st.text(max_size=200),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=90), inner, max_size=20),
    max_leaves=40,
)


@given(ANYTHING, st.dictionaries(st.text(max_size=99), st.text(max_size=99), max_size=60))
def test_whatever_a_models_process_says_is_bounded(told: object, settings: dict[str, str]) -> None:
    """Few parts, short printable values, and no markup."""
    report = Report(
        calls=(PipelineCall(pipeline="P"),), prints=({"pipeline": "P", "parts": told},), settings={"P": settings}
    )
    parts = parts_of(report)
    assert len(parts) <= MAX_PARTS
    values = [text for part in parts.values() for pair in part.items() for text in pair]
    assert all(len(text) <= MAX_CHARS + 10 and text.isprintable() and "<" not in text for text in [*parts, *values])
