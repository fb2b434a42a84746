"""What requests and answers say, and what follows from a broken output."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.worker.test_conclude import lease_of

from forestay.fleet.spec import RetrySpec, parse_spec, spec_from_json, spec_to_json
from forestay.fleet.spec_quality import OutputCheck, QualityMode, QualitySpec, Thresholds
from forestay.fleet.spec_yaml import SpecError
from forestay.quality.asked import Asked, asked_of, served_of
from forestay.quality.contracts import Row, Standing
from forestay.quality.decide import MAX_ASIDE, Budget, broken_answer, decide_aside, decide_broken
from forestay.queue.model import Answer, Options
from forestay.queue.retry import Condition, Retry, RetryPolicy

SPEC = """\
version: 0
model: acme/probe
description: A model.
owner: {team: tests, contact: tests@forestay.invalid}
licence: Apache-2.0
host: {kind: http_server, url: "http://127.0.0.1:1"}
endpoints: [{path: /}]
"""
ROW = Row(OutputCheck.BLACK, "images[0].url", Standing.FAILED, 0.0, 2.0, "every value lies between 0 and 0 of 255")
BUDGET = Budget(RetrySpec(), RetryPolicy(), 0.5)


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        ({"num_images": 4, "image_size": "square_hd"}, Asked(count=4, size=(1024, 1024))),
        ({"image_size": {"width": 640, "height": 384}}, Asked(size=(640, 384))),
        ({"width": 640, "height": 384}, Asked(size=(640, 384))),
        ({"width": 640}, Asked()),
        ({"size": "1024x768"}, Asked(size=(1024, 768))),
        ({"image_size": "as you like"}, Asked()),
        ({"duration": "5s", "fps": 24}, Asked(seconds=5.0, frame_rate=24.0)),
        ({"duration": 60_000}, Asked()),  # milliseconds: nobody asks for so many seconds
        ({"num_frames": 81, "num_inference_steps": 30}, Asked(frames=81, steps=30)),
        ({"output_format": "JPEG"}, Asked(content_types=frozenset({"image/jpeg"}))),
        ({"num_images": True, "fps": None, "num_frames": -3, "duration": "long"}, Asked()),
        ("no object", Asked()),
    ],
)
def test_an_input_is_read_only_where_it_leaves_no_doubt(body: object, asked: Asked) -> None:
    """A field that is not understood is not checked."""
    assert asked_of(body) == asked


def test_an_answer_says_how_many_files_and_which_were_filtered() -> None:
    """The flag of a file counts for that file; a single flag for all."""
    said = served_of({"images": [{}, {}], "has_nsfw_concepts": [False, True]})
    assert (said.count, said.is_filtered(0), said.is_filtered(1), said.is_filtered(2)) == (2, False, True, False)
    assert served_of({"image": {}, "nsfw_content_detected": True}).is_filtered(None)
    assert served_of({"text": "hello"}).count is None


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["5s", "1x2", "square"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=3,
)
NAMES = ("num_images", "image_size", "width", "height", "fps", "duration", "steps", "output_format", "images",
         "has_nsfw_concepts")  # fmt: skip


@given(st.dictionaries(st.sampled_from(NAMES), values, max_size=3))
def test_whatever_stands_in_a_body_is_read_without_an_error(body: dict[str, object]) -> None:
    """Numbers beyond bounds, texts, lists: what is read is positive and bounded."""
    asked = asked_of(body)
    served_of(body)
    for value in (asked.count, asked.frames, asked.frame_rate, asked.seconds, asked.steps):
        assert value is None or 0 < value <= 1_000_000


def test_a_broken_output_is_tried_again_within_its_own_budget() -> None:
    """One retry by default, charged to a condition of its own; then the answer names check, place and numbers."""
    first = decide_broken(ROW, lease_of(), QualitySpec(QualityMode.ENFORCE), BUDGET)
    assert isinstance(first, Retry)
    assert (first.condition, "black" in first.reason) == (Condition.BROKEN_OUTPUT.value, True)
    used = lease_of(attempt=2, retries_used={Condition.BROKEN_OUTPUT.value: 1})
    last = decide_broken(ROW, used, QualitySpec(QualityMode.ENFORCE), BUDGET)
    assert isinstance(last, Answer)
    assert (last.status_code, last.error_type) == (502, "output_check_failed")
    assert "`black` at images[0].url" in (last.error or "")


@given(
    retries=st.integers(0, 5),
    used=st.integers(0, 12),
    others=st.integers(0, 12),
    forbidden=st.booleans(),
)
def test_no_ceiling_is_exceeded_by_broken_outputs(retries: int, used: int, others: int, forbidden: bool) -> None:
    """Neither the model's budget nor the platform's attempts, and a caller's word counts."""
    lease = lease_of(
        retries_used={Condition.BROKEN_OUTPUT.value: used, "server_error": others}, options=Options(no_retry=forbidden)
    )
    decided = decide_broken(ROW, lease, QualitySpec(QualityMode.ENFORCE, retries=retries), BUDGET)
    may = not forbidden and used < retries and 1 + used + others < BUDGET.policy.max_attempts
    assert isinstance(decided, Retry) == may


def test_an_answer_is_bounded_however_long_its_reason() -> None:
    """A decoder's words may be long."""
    answer = broken_answer(dataclasses.replace(ROW, words="x" * 10_000))
    assert len(answer.body) < 1_000


@given(st.integers(0, 100))
def test_a_replica_steps_aside_a_few_times_at_most(times: int) -> None:
    """Free of charge, and only so often: there may be no other one."""
    step = decide_aside(times)
    assert (step is not None) == (times < MAX_ASIDE)
    assert step is None or (step.condition, step.delay_seconds > 0) == ("", True)


def test_a_new_spec_has_its_outputs_checked_and_an_old_one_has_not() -> None:
    """A revision that was stored by an older version stays as it was until it is deployed again."""
    spec = parse_spec(SPEC, "model.yaml")
    assert spec.quality == QualitySpec(QualityMode.ENFORCE, 1, (), Thresholds())
    stored = spec_to_json(spec)
    assert spec_from_json(stored) == spec
    del stored["quality"]
    assert spec_from_json(stored).quality.mode is QualityMode.OFF


def test_the_section_is_read_and_its_faults_are_told_with_their_line() -> None:
    """Checks by name, thresholds within bounds."""
    text = SPEC + "quality: {mode: observe, retries: 0, skip: [black, size], thresholds: {frozen_share: 0.9}}\n"
    quality = parse_spec(text, "model.yaml").quality
    assert (quality.mode, quality.retries, quality.skip) == (
        QualityMode.OBSERVE, 0, (OutputCheck.BLACK, OutputCheck.SIZE),
    )  # fmt: skip
    assert quality.thresholds.frozen_share == 0.9
    assert parse_spec(SPEC + "quality: {mode: off}\n", "model.yaml").quality.mode is QualityMode.OFF
    for wrong in ("skip: [blak]", "thresholds: {frozen_share: 2}", "thresholds: {frozen: 1}", "retries: 9"):
        with pytest.raises(SpecError, match="quality"):
            parse_spec(SPEC + f"quality: {{{wrong}}}\n", "model.yaml")


def test_forbidden_combinations_are_read_and_name_at_least_one_part() -> None:
    """Parts by their names; an empty rule would forbid everything or nothing."""
    text = SPEC + "quality: {forbidden: [{dtype: float16, scheduler: DDIMScheduler, why: it overflows}]}\n"
    (rule,) = parse_spec(text, "model.yaml").quality.forbidden
    assert (rule.parts, rule.why) == ({"dtype": "float16", "scheduler": "DDIMScheduler"}, "it overflows")
    for wrong in ("[{why: nothing}]", "[{precision: half}]"):
        with pytest.raises(SpecError, match=r"name at least one part|no such field"):
            parse_spec(SPEC + f"quality: {{forbidden: {wrong}}}\n", "model.yaml")


def test_canaries_are_read_and_their_faults_are_told_with_the_mend() -> None:
    """Each has a name of its own and asks a declared endpoint; the same name with another input is another canary."""
    text = SPEC + "quality: {canaries: {every_seconds: 60, inputs: [{name: seven, input: {seed: 7}}]}}\n"
    seen = parse_spec(text, "model.yaml").quality.canaries
    assert (seen.every_seconds, seen.reruns, seen.inputs[0].input) == (60, 3, '{"seed": 7}')
    other = parse_spec(text.replace("seed: 7", "seed: 8"), "model.yaml").quality.canaries
    assert (seen.inputs[0].key, seen.inputs[0].key[:6]) != (other.inputs[0].key, "seven@")
    assert parse_spec(SPEC, "model.yaml").quality.canaries.inputs == ()
    one = "{name: seven, input: {seed: 7}}"
    for wrong, mend in (
        (f"inputs: [{one}, {one}]", "named twice"),
        ("inputs: [{name: seven, endpoint: /none, input: {}}]", "name an endpoint of"),
        ("inputs: [{name: Seven, input: {}}]", "lower-case"),
        (f"inputs: [{one}], budget: 3", "did you mean `budget_seconds_per_hour`|no such field"),
    ):
        with pytest.raises(SpecError, match=mend):
            parse_spec(SPEC + f"quality: {{canaries: {{{wrong}}}}}\n", "model.yaml")
