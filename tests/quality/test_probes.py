"""What the probes in a pipeline say, held against what a request asked for."""

import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.fleet.spec_quality import OutputCheck
from forestay.ids import ModelId
from forestay.quality.findings import Where
from forestay.quality.probes import (
    MAX_REPORT_CHARS,
    NotFinite,
    PipelineCall,
    Report,
    asks_adapters,
    check_report,
    read_report,
)

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
WHERE = Where(ModelId("acme/digits"))
WHOLE = PipelineCall("P", "DDIM", steps=12, steps_given=12.0, tokens=(5, 0), device="cuda:0")


def rows(call: PipelineCall, asked: object = None, left: dict[str, float] | None = None) -> list[int]:
    """Rows of the catalogue that are found."""
    seen = check_report(Report((call,), left or {}), asked, WHERE, NOW)
    return [finding.catalogue for finding in seen.findings]


def changed(**fields: object) -> PipelineCall:
    """A whole call, but for this."""
    return PipelineCall(**{name: getattr(WHOLE, name) for name in WHOLE.__struct_fields__} | fields)  # type: ignore[arg-type]


def test_a_call_without_fault_finds_nothing() -> None:
    """Also one of which little is known, and one with an adapter that was asked for."""
    assert rows(WHOLE, {"num_inference_steps": 12}) == []
    assert rows(PipelineCall()) == []
    assert rows(changed(adapters={"ink": 1.0}), {"loras": [{"path": "ink"}]}) == []


def test_values_that_are_no_numbers_break_the_output_and_name_the_stage() -> None:
    """The row says where it began; so does the finding, with device and stage."""
    ill = changed(not_finite=NotFinite("denoiser", 7), dtype="float16")
    seen = check_report(Report((WHOLE, ill)), {}, WHERE, NOW)
    assert seen.broken is not None
    assert (seen.broken.check, seen.broken.failed) == (OutputCheck.NOT_A_NUMBER, True)
    assert "denoiser" in seen.broken.words
    assert "step 7" in seen.broken.words
    [finding] = seen.findings
    assert (finding.catalogue, finding.where.parameter, finding.where.device) == (1, "stage=denoiser", "cuda:0")


@pytest.mark.parametrize(
    ("call", "asked", "row"),
    [
        (changed(adapters={"ink": 1.0}), {"prompt": "x"}, 23),
        (WHOLE, {"loras": [{"path": "ink"}]}, 24),
        (changed(steps=2), {"num_inference_steps": 12}, 14),
        (changed(steps=11, steps_given=11.0), {"num_inference_steps": 12}, 14),
        (changed(tokens=(8, 3)), {}, 26),
    ],
    ids=["adapter left over", "adapter not applied", "steps not done", "fewer steps handed on", "prompt cut"],
)
def test_each_fault_of_a_pipeline_is_named(call: PipelineCall, asked: object, row: int) -> None:
    """One finding, with its row of the catalogue."""
    assert rows(call, asked) == [row]


def test_an_adapter_that_stays_after_its_request_is_found_on_that_request() -> None:
    """Before the next caller gets the style of this one."""
    assert rows(changed(adapters={"ink": 1.0}), {"lora": "ink"}, left={"ink": 1.0}) == [23]


@pytest.mark.parametrize(
    ("call", "asked"),
    [
        (changed(steps=24, scheduler_order=2), {"num_inference_steps": 12}),
        (changed(steps=23, scheduler_order=2), {"num_inference_steps": 12}),
        (changed(steps=8, strength=0.7), {"num_inference_steps": 12}),
        (changed(tokens=(77, 30)), {}),
    ],
    ids=["second order", "second order less one", "redrawn", "long prompt"],
)
def test_what_pipelines_do_by_design_is_no_fault(call: PipelineCall, asked: object) -> None:
    """Schedulers of order two, redrawing with a strength, and the ordinary limit of 77 tokens."""
    assert rows(call, asked) == []


def test_only_a_named_and_filled_field_asks_for_an_adapter() -> None:
    """Empty lists and zero scales ask for none."""
    assert asks_adapters({"extra": {"lora_url": "https://a"}})
    assert not asks_adapters({"loras": [], "lora_scale": 0, "prompt": "lora"})


@given(st.text(max_size=200) | st.binary(max_size=100).map(repr) | st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["calls", "left", "steps"]), inner),
).map(json.dumps))  # fmt: skip
def test_no_report_of_a_model_process_can_harm_the_worker(text: str) -> None:
    """Whatever it says is read or ignored."""
    report = read_report(text)
    if report is not None:
        check_report(report, {"num_inference_steps": 3}, WHERE, NOW)


def test_a_report_that_is_too_long_is_not_read() -> None:
    """A bound on what a model can make the worker parse."""
    assert read_report('{"left":{"x":1.0}}' + " " * MAX_REPORT_CHARS) is None
    assert read_report('{"left":{"x":1.0}}') == Report(left={"x": 1.0})
