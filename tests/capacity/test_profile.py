"""Which inputs a profile run measures, and what it makes of the times."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.capacity.test_sample_inputs import document

from forestay.capacity.profile import best_level, growth_of, level_of, next_level, plan_variants
from forestay.capacity.sample_inputs import sample_input

FIELDS: dict[str, Any] = {
    "prompt": {"type": "string"},
    "num_inference_steps": {"type": "integer", "default": 20, "minimum": 1, "maximum": 50},
    "image_size": {"enum": ["square", "square_hd"], "default": "square"},
    "guidance": {"type": "number", "default": 7.5},
    "num_images": {"anyOf": [{"type": "integer", "maximum": 4}, {"type": "null"}], "default": 1},
}


def test_each_field_that_means_work_is_varied_alone_within_its_bounds() -> None:
    """A field that says nothing of work is left alone; the usual input comes first."""
    asked = document(FIELDS, ["prompt"])
    usual = sample_input(asked, "/")
    planned = plan_variants(asked, "/", usual, ())
    assert planned[0].body == usual
    tried = {(item.field, item.value) for item in planned[1:]}
    pixels = 1024.0 * 1024.0
    steps, images = "num_inference_steps", "num_images"
    assert tried == {(steps, 5.0), (steps, 50.0), ("image_size", pixels), (images, 4.0)}
    assert all(set(item.body) - set(usual) <= {item.field} for item in planned)
    assert len(plan_variants(None, "/", usual, ())) == 1


def test_time_in_proportion_is_told_as_such() -> None:
    """Twice the steps, twice the time: to the power of one."""
    asked = document(FIELDS, ["prompt"])
    usual = sample_input(asked, "/")
    planned = [item for item in plan_variants(asked, "/", usual, ()) if item.field in {"", "num_inference_steps"}]
    seconds = [2.0, *(item.value / 10 for item in planned[1:])]
    [grows] = growth_of(planned, {"steps": 20.0}, seconds)
    assert (grows.feature, grows.values) == ("steps", (5.0, 20.0, 50.0))
    assert grows.exponent is not None
    assert abs(grows.exponent - 1.0) < 1e-9


@settings(deadline=None)
@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=6))
def test_the_best_level_is_the_least_that_is_nearly_as_good_as_any(throughputs: list[float]) -> None:
    """Doubling ends when it helps no more, and never goes beyond the most."""
    levels = [level_of(2**n, [1.0] * 10, 10 / value) for n, value in enumerate(throughputs)]
    best = best_level(levels)
    assert best.per_second >= 0.9 * max(item.per_second for item in levels)
    assert all(item.per_second < 0.9 * max(throughputs) * (1 + 1e-9) for item in levels if item.at_once < best.at_once)
    following = next_level(levels, 64)
    assert following is None or following == 2 * levels[-1].at_once <= 64
    assert next_level([], 64) == 1
