"""What a new interface does to those who call the old one."""

import copy
from collections.abc import Mapping
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.rollouts.interface import Kind, compare_interfaces

Document = dict[str, object]
INPUT: Document = {
    "type": "object",
    "required": ["prompt"],
    "properties": {
        "prompt": {"type": "string", "maxLength": 100, "description": "what to draw"},
        "steps": {"type": "integer", "minimum": 1, "maximum": 50, "default": 12},
        "style": {"enum": ["ink", "oil"]},
        "image": {"anyOf": [{"$ref": "#/components/schemas/Image"}, {"type": "null"}]},
    },
}
OUTPUT: Document = {
    "type": "object",
    "required": ["images"],
    "properties": {
        "images": {"type": "array", "items": {"$ref": "#/components/schemas/Image"}},
        "seed": {"type": "integer"},
    },
}
IMAGE: Document = {"type": "object", "required": ["url"], "properties": {"url": {"type": "string"}}}


def document_of(
    taken: Document = INPUT, given: Document = OUTPUT, image: Document = IMAGE, path: str = "/"
) -> Document:
    """An OpenAPI document with one endpoint."""
    operation = {
        "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/In"}}}},
        "responses": {"200": {"content": {"application/json": {"schema": given}}}},
    }
    return {"paths": {path: {"post": operation}}, "components": {"schemas": {"In": taken, "Image": image}}}


def changed(schema: Document, path: str, value: object) -> Document:
    """The schema with one place changed; None takes it away. Parts of the path are split by dots."""
    made = copy.deepcopy(schema)
    *way, last = path.split(".")
    inside: object = made
    for part in way:
        inside = cast("Document", inside)[part]
    if value is None:
        del cast("Document", inside)[last]
    else:
        cast("Document", inside)[last] = value
    return made


NUMBER = {"type": "number"}


@pytest.mark.parametrize(
    ("after", "kind", "where"),
    [
        (document_of(changed(INPUT, "required", ["prompt", "steps"])), Kind.BREAKING, "/ input.steps"),
        (document_of(changed(INPUT, "properties.steps", None)), Kind.BREAKING, "/ input.steps"),
        (document_of(changed(INPUT, "properties.mask", {"type": "string"})), Kind.ADDITIVE, "/ input.mask"),
        (document_of(changed(INPUT, "properties.steps.maximum", 20)), Kind.BREAKING, "/ input.steps"),
        (document_of(changed(INPUT, "properties.steps.maximum", 80)), Kind.ADDITIVE, "/ input.steps"),
        (document_of(changed(INPUT, "properties.steps.minimum", None)), Kind.ADDITIVE, "/ input.steps"),
        (document_of(changed(INPUT, "properties.steps.exclusiveMaximum", value=True)), Kind.BREAKING, "/ input.steps"),
        (document_of(changed(INPUT, "properties.steps.exclusiveMaximum", 50)), Kind.BREAKING, "/ input.steps"),
        (document_of(changed(INPUT, "properties.steps.maximum", [50])), Kind.ADDITIVE, "/ input.steps"),
        (document_of(changed(INPUT, "properties.steps.type", "number")), Kind.ADDITIVE, "/ input.steps"),
        (document_of(changed(INPUT, "properties.prompt.type", "array")), Kind.BREAKING, "/ input.prompt"),
        (document_of(changed(INPUT, "properties.prompt.pattern", "^a")), Kind.BREAKING, "/ input.prompt"),
        (document_of(changed(INPUT, "properties.style.enum", ["ink"])), Kind.BREAKING, "/ input.style"),
        (document_of(changed(INPUT, "properties.style.enum", ["ink", "oil", "wax"])), Kind.ADDITIVE, "/ input.style"),
        (document_of(given=changed(OUTPUT, "properties.seed", None)), Kind.BREAKING, "/ output.seed"),
        (document_of(given=changed(OUTPUT, "required", [])), Kind.BREAKING, "/ output.images"),
        (document_of(given=changed(OUTPUT, "properties.seed", NUMBER)), Kind.BREAKING, "/ output.seed"),
        (document_of(given=changed(OUTPUT, "properties.time", NUMBER)), Kind.ADDITIVE, "/ output.time"),
        (document_of(image=changed(IMAGE, "properties.url", None)), Kind.BREAKING, "/ output.images[].url"),
        (document_of(path="/edit"), Kind.BREAKING, "/"),
    ],
)  # fmt: skip
def test_each_change_is_known_for_what_it_does_to_callers(after: Document, kind: Kind, where: str) -> None:
    """Inputs may only become wider, outputs only richer."""
    changes = compare_interfaces(document_of(), after)
    assert (kind, where) in {(item.kind, item.where) for item in changes}, changes
    if kind is Kind.ADDITIVE:
        assert all(item.kind is Kind.ADDITIVE for item in changes)


def test_words_for_people_change_nothing() -> None:
    """Descriptions, titles, examples and defaults."""
    told = changed(changed(INPUT, "properties.prompt.description", "what to paint"), "properties.steps.default", 20)
    assert compare_interfaces(document_of(), document_of(told)) == []


def test_a_schema_that_refers_to_itself_or_to_nothing_ends() -> None:
    """A tree of layers, and a broken reference: neither hangs nor raises."""
    tree = {"type": "object", "properties": {"child": {"$ref": "#/components/schemas/In"}, "x": {"$ref": "#/nowhere"}}}
    assert compare_interfaces(document_of(tree), document_of(tree)) == []
    other = {"type": "object", "properties": {"child": {"$ref": "#/components/schemas/In"}, "x": {"type": "string"}}}
    compare_interfaces(document_of(tree), document_of(other))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["object", "string", "number", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "properties", "required", "items", "enum", "anyOf", "allOf", "$ref", "minimum", "a"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON, JSON)
def test_no_document_makes_it_fail_and_none_differs_from_itself(one: object, other: object) -> None:
    """Whatever a model's server calls its interface."""
    before, after = (document_of(cast("Document", item), cast("Document", item)) for item in (one, other))
    compare_interfaces(cast("Mapping[str, object]", before), after)
    assert compare_interfaces(before, copy.deepcopy(before)) == []
