"""Inputs made from what a model declares."""

import base64
import io
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from forestay.capacity.sample_inputs import picture, sample_input, sample_inputs, sound
from forestay.errors import UsageError


def document(properties: dict[str, Any], required: list[str], **more: Any) -> dict[str, Any]:
    """An interface of one endpoint whose input has these fields."""
    schema = {"type": "object", "properties": properties, "required": required}
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Input"}}}}
    return {
        "paths": {"/": {"post": {"requestBody": body}}},
        "components": {"schemas": {"Input": schema, **more}},
    }


def test_what_is_required_is_filled_with_what_fits_and_the_rest_is_left_to_the_model() -> None:
    """Examples of the schema before our own words; a seed is always named, so that outputs differ."""
    asked = document(
        {
            "prompt": {"type": "string", "maxLength": 10},
            "style": {"enum": ["oil", "ink"]},
            "size": {"$ref": "#/components/schemas/Size"},
            "loras": {"type": "array", "items": {"type": "string"}},
            "steps": {"type": "integer", "minimum": 4},
            "strength": {"anyOf": [{"type": "number", "maximum": 0.5}, {"type": "null"}]},
            "name": {"type": "string", "examples": ["a boat"]},
            "safe": {"type": "boolean"},
            "seed": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "free": {"type": "string"},
        },
        ["prompt", "style", "size", "loras", "steps", "strength", "name", "safe"],
        Size={"type": "object", "properties": {"width": {"type": "integer"}}, "required": ["width"]},
    )
    made = sample_input(asked, "/", number=3)
    assert (made["style"], made["size"], made["loras"], made["steps"]) == ("oil", {"width": 1}, [], 4)
    assert (made["strength"], made["name"], made["safe"], made["seed"]) == (0.5, "a boat", False, 3)
    assert len(str(made["prompt"])) <= 10
    assert "free" not in made
    first, second = sample_inputs(asked, "/", None, 2)
    assert first["seed"] != second["seed"]
    assert first["prompt"] != second["prompt"]


def test_media_that_can_be_drawn_are_and_others_are_asked_for() -> None:
    """A picture opens as one, a sound begins as one; a film must come from the person."""
    asked = document({"image_url": {"type": "string"}, "masks": {"type": "array"}}, ["image_url", "masks"])
    made = sample_input(asked, "/", {"image_url": "image", "masks": "any"})
    whole = base64.b64decode(str(made["image_url"]).partition(",")[2])
    assert Image.open(io.BytesIO(whole)).size == Image.open(io.BytesIO(picture())).size
    assert isinstance(made["masks"], list)
    assert sound().startswith(b"RIFF")
    with pytest.raises(UsageError, match="--input"):
        sample_input(asked, "/", {"image_url": "video"})
    with pytest.raises(UsageError, match="--input"):
        sample_input(None, "/")
    with pytest.raises(UsageError, match="--input"):
        sample_input(asked, "/nowhere")


_LEAVES: list[dict[str, Any]] = [
    {},
    {"type": "string"},
    {"type": "integer", "minimum": 3},
    {"$ref": "#/components/schemas/Input"},
    {"enum": []},
]
_NODES: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.sampled_from(_LEAVES),
    lambda inner: (
        inner.map(lambda node: {"anyOf": [node]})
        | inner.map(lambda node: {"type": "array", "items": node, "minItems": 1})
    ),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["prompt", "seed", "a", "b"]), _NODES, max_size=4))
def test_every_required_field_gets_a_value_and_references_to_themselves_end(properties: dict[str, Any]) -> None:
    """Whatever a model declares."""
    made = sample_input(document(properties, sorted(properties)), "/")
    assert made.keys() == properties.keys()


_BOUNDS = st.tuples(st.integers(-40, 40), st.integers(8, 60), st.booleans(), st.booleans())


@given(_BOUNDS, st.sampled_from(["integer", "number"]), st.sampled_from([None, 2, 4, 0.5]))
def test_a_number_is_one_that_the_model_takes(
    bounds: tuple[int, int, bool, bool], kind: str, step: float | None
) -> None:
    """Bounds that are no numbers of their own, and multiples, are kept to: else onboarding stops at once."""
    low, width, above, below = bounds
    node: dict[str, Any] = {"type": kind, ("exclusiveMinimum" if above else "minimum"): low}
    node["exclusiveMaximum" if below else "maximum"] = low + width
    if step is not None and not (kind == "integer" and step < 1):
        node["multipleOf"] = step
    made = sample_input(document({"a": node}, ["a"]), "/")["a"]
    assert jsonschema_rs.is_valid(node, made), (node, made)


@pytest.mark.parametrize(
    "node",
    [
        {"type": "number", "exclusiveMinimum": 0.1, "exclusiveMaximum": 0.9},
        {"type": "number", "exclusiveMinimum": 3},
        {"type": "number", "maximum": -2},
        {"type": "integer", "multipleOf": 4, "minimum": 4},
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2},
        {"type": "string", "format": "uri", "pattern": "^https?://"},
        {"type": "string", "format": "date"},
    ],
)
def test_what_fields_of_models_ask_for_is_made(node: dict[str, Any]) -> None:
    """As pydantic writes them."""
    assert jsonschema_rs.is_valid(node, sample_input(document({"a": node}, ["a"]), "/")["a"])
