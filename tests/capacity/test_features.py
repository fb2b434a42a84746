"""What an input says of its work: names, forms, defaults, bounds."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.capacity.features import FEATURES, MAX_FEATURES, reader_of, scaled, usual_of

TEXT_TO_IMAGE = {
    "type": "object",
    "properties": {
        "prompt": {"type": "string"},
        "num_inference_steps": {"type": "integer", "default": 28},
        "image_size": {"anyOf": [{"$ref": "#/components/schemas/ImageSize"}], "default": "landscape_4_3"},
        "num_images": {"type": "integer", "default": 1},
        "loras": {"type": "array", "default": []},
    },
}
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
field_names = st.sampled_from(["steps", "image_size", "width", "height", "num_frames", "duration", "n", "loras"])


def test_what_an_input_leaves_out_is_the_schemas_default() -> None:
    """Steps, size and count are known even of an input that holds a prompt alone."""
    reader = reader_of(TEXT_TO_IMAGE, {}, ())
    usual = {"steps": 28.0, "pixels": 1024.0 * 768.0, "images": 1.0, "loras": 0.0}
    assert reader.read({"prompt": "a seven"}) == usual
    assert reader.read({"num_inference_steps": None, "num_images": 4}) == {**usual, "images": 4.0}
    assert reader.read(["not", "an", "object"]) == usual


def test_a_field_that_the_model_does_not_know_says_nothing() -> None:
    """A caller cannot make a request look light or heavy by adding fields."""
    reader = reader_of(TEXT_TO_IMAGE, {}, ())
    assert reader.read({"steps": 1, "frames": 900, "width": 8, "height": 8}) == reader.defaults


@pytest.mark.parametrize(
    ("said", "pixels"),
    [
        ("square_hd", 1024 * 1024),
        ("1280x720", 1280 * 720),
        ("1080p", 1920 * 1080),
        ({"width": 640, "height": 480}, 640 * 480),
        ([640, 480], 640 * 480),
        (512, 512 * 512),
        ("a large one", 1024 * 768),
        ({"width": 640}, 1024 * 768),
        (True, 1024 * 768),
    ],
)
def test_sizes_are_read_in_every_usual_form(said: object, pixels: float) -> None:
    """Names, sides, resolutions, pairs; what is none of them leaves the default."""
    assert reader_of(TEXT_TO_IMAGE, {}, ()).read({"image_size": said})["pixels"] == pixels


def test_width_and_height_are_multiplied_and_one_alone_takes_the_other_from_the_schema() -> None:
    """A model that declares both sides has an area even when one of them is left out."""
    schema = {"properties": {"width": {"default": 512}, "height": {"default": 256}}}
    reader = reader_of(schema, {}, ())
    assert reader.read({})["pixels"] == 512 * 256
    assert reader.read({"width": 1024})["pixels"] == 1024 * 256


def test_without_a_schema_fields_of_usual_names_are_read_in_any_spelling() -> None:
    """Case, `_` and `-` do not matter; of two that say the same, the larger counts."""
    reader = reader_of(None, {}, ())
    said = {"numInferenceSteps": 20, "Steps": "50", "DURATION": "7.5s", "num-frames": 81, "loras": [{}, {}], "n": 2}
    assert reader.read(said) == {"steps": 50.0, "seconds": 7.5, "frames": 81.0, "loras": 2.0, "images": 2.0}
    assert reader.read({"prompt": "steps: 90"}) == {}


def test_the_spec_decides_what_counts() -> None:
    """Only what it names is read; a name of its own is a number of the input."""
    reader = reader_of(None, {}, ("characters", "tiles"))
    assert reader.read({"text": "hello", "tiles": 9, "steps": 50}) == {"characters": 5.0, "tiles": 9.0}


def test_references_and_parts_of_the_schema_are_followed() -> None:
    """`$ref` and `allOf`, as FastAPI writes them; a reference to itself ends."""
    document = {
        "components": {
            "schemas": {
                "Input": {"allOf": [{"$ref": "#/components/schemas/Base"}], "properties": {"n": {"default": 2}}},
                "Base": {"properties": {"num_steps": {"default": 9}}, "allOf": [{"$ref": "#/components/schemas/Base"}]},
            }
        }
    }
    reader = reader_of({"$ref": "#/components/schemas/Input"}, document, ())
    assert reader.defaults == {"steps": 9.0, "images": 2.0}


@pytest.mark.parametrize("value", [10**400, -(10**400), 1e308, float("inf"), float("-inf"), float("nan"), "9" * 5000])
def test_no_value_leaves_its_bounds(value: object) -> None:
    """A number longer than any float, infinities and none at all are read as the bound, or not at all."""
    for name in ("steps", "width", "num_frames", "duration", "n", "loras", "image_size"):
        for feature, amount in reader_of(None, {}, ()).read({name: value}).items():
            assert FEATURES[feature].least <= amount <= FEATURES[feature].most


@given(st.dictionaries(field_names | st.text(max_size=8), anything, max_size=12))
def test_any_input_is_read_to_few_bounded_numbers(body: dict[str, object]) -> None:
    """Whatever a caller sends, with a schema and without one; the result is JSON that any database takes."""
    for reader in (reader_of(None, {}, ()), reader_of(TEXT_TO_IMAGE, {}, ())):
        found = reader.read(body)
        assert len(found) <= MAX_FEATURES
        assert all(FEATURES[name].least <= value <= FEATURES[name].most for name, value in found.items())
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        assert all(math.isfinite(scaled(name, value, usual_of(name))) for name, value in found.items())
