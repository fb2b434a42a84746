"""The model spec: what a person writes, what is made of it, and how faults are told."""

import contextlib
import pathlib
from typing import cast

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from forestay.errors import UsageError
from forestay.fleet.spec import HostKind, parse_spec, spec_from_json, spec_schema, spec_to_json

EXAMPLES = sorted((pathlib.Path(__file__).parents[2] / "examples").glob("*/model.yaml"))
GOOD = """\
version: 0
model: acme/digits
description: Draws digits.
owner: {team: vision, contact: vision@acme.invalid}
licence: Apache-2.0
host:
  kind: fal_app
  app: app.py::Digits
endpoints:
  - {path: /}
"""


def faults(text: str) -> list[str]:
    """The faults of a spec that must have some."""
    with pytest.raises(UsageError) as caught:
        parse_spec(text, "model.yaml")
    return list(cast("tuple[str, ...]", caught.value.faults))  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_the_examples_are_good_and_survive_json(path: pathlib.Path) -> None:
    """Each example reads, and comes back from the stored form as it was."""
    spec = parse_spec(path.read_text(), str(path))
    assert spec_from_json(spec_to_json(spec)) == spec


def test_the_how_to_on_files_shows_a_spec_that_reads() -> None:
    """The block of the page, put into a whole spec."""
    page = (pathlib.Path(__file__).parents[2] / "docs/howto/take-files-as-inputs.md").read_text(encoding="utf-8")
    block = page.partition("```yaml")[2].partition("\n")[2].partition("```")[0]
    spec = parse_spec(GOOD.partition("endpoints:")[0] + block, "model.yaml")
    assert spec.endpoints[0].media_kinds == {"mask_url": "image", "loras": "weights"}


def test_media_inputs_are_names_or_names_with_a_kind() -> None:
    """The short form of older specs takes any media; both forms may stand in one list."""
    fields = "[image_url, {field: mask_url, kind: image}, {field: loras, kind: weights}]"
    endpoint = parse_spec(GOOD.replace("{path: /}", f"{{path: /, media_inputs: {fields}}}"), "model.yaml").endpoints[0]
    assert endpoint.media_inputs == ("image_url", "mask_url", "loras")
    assert endpoint.media_kinds == {"mask_url": "image", "loras": "weights"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("[{field: a, kind: picture}]", "media_inputs.0.kind: input should be 'any', 'image'"),
        ("[{fild: a}]", "did you mean `field`?"),
        ("[a, {field: a, kind: image}]", "media input a is declared twice"),
        ("[5]", "write a field's name, or `{field: NAME, kind: image}`"),
    ],
)
def test_a_fault_in_media_inputs_is_told_with_its_mend(fields: str, words: str) -> None:
    """Kinds, names, doubles and forms."""
    told = faults(GOOD.replace("{path: /}", f"{{path: /, media_inputs: {fields}}}"))
    assert any(words in fault for fault in told), told


def test_what_is_not_written_has_its_default() -> None:
    """A short spec is a whole spec."""
    spec = parse_spec(GOOD, "model.yaml")
    assert (spec.visibility, spec.limits.max_multiplexing, spec.resources.pool) == ("shared", 1, "cpu")
    assert spec.host.kind is HostKind.FAL_APP


@pytest.mark.parametrize(
    ("before", "after", "line", "words"),
    [
        ("description:", "descripton:", 3, "did you mean `description`?"),
        ("  app: app.py::Digits", "  aap: app.py::Digits", 8, "did you mean `app`?"),
        ("model: acme/digits", "model: digits", 2, "owner/alias"),
        ("  - {path: /}", "  - {path: edit}", 10, "write a path"),
        ("  - {path: /}", "  - {path: /}\n  - {path: /}", 1, "declared twice"),
        ("  app: app.py::Digits", "  app: ../app.py::Digits", 8, "below it"),
        ("  app: app.py::Digits", "  url: http://x", 6, "needs `app`"),
        ("kind: fal_app", "kind: http_server\n  url: http://x", 6, "no meaning for http_server"),
        ("kind: fal_app", "kind: fal_ap", 7, "fal_app"),
        ("licence: Apache-2.0\n", "", 1, "licence: is missing"),
        ("version: 0", "version: 7", 1, "version"),
        ("version: 0", "version: 0\nversion: 0", 2, "written twice"),
        ("licence: Apache-2.0", "licence: &a x", 5, "anchors"),
        ("licence: Apache-2.0", "licence: [", 7, "not YAML"),
        ("licence: Apache-2.0", "licence: a\nlimits: {max_multiplexing: 0}", 6, "max_multiplexing"),
        ("licence: Apache-2.0", "licence: a\nlimits: {termination_grace_seconds: 31}", 6, "30"),
        ("licence: Apache-2.0", "licence: a\nretry: {config: {sometimes: 1}}", 6, "server_error"),
        ("licence: Apache-2.0", "licence: a\ncapacity: {gpu_seconds: 0}", 6, "greater than 0"),
        ("licence: Apache-2.0", "licence: a\ncapacity: {scales_with: [steps, steps]}", 6, "names steps twice"),
        ("licence: Apache-2.0", "licence: a\ncapacity: {gpu_seconds: 9, max_gpu_seconds: 5}", 6, "would be refused"),
        ("licence: Apache-2.0", "licence: a\ncapacity: {gpu_second: 9}", 6, "did you mean `gpu_seconds`?"),
        ("  kind: fal_app", "  kind: fal_app\n  env: {FORESTAY_X: '1'}", 8, "belong to the platform"),
        ("  kind: fal_app", "  kind: fal_app\n  requirements: ['--index-url=x']", 8, "options of the installer"),
    ],
)
def test_a_fault_names_line_field_and_mend(before: str, after: str, line: int, words: str) -> None:
    """Whoever reads the message knows where to look and what to write."""
    assert before in GOOD
    told = faults(GOOD.replace(before, after, 1))
    assert any(item.startswith(f"model.yaml:{line}:") and words in item for item in told), told


def test_every_fault_is_told_at_once() -> None:
    """Nobody mends one line at a time."""
    told = faults(GOOD.replace("model: acme/digits", "model: x").replace("  - {path: /}", "  - {path: x, kind: y}"))
    assert len(told) == 3


@given(st.text(max_size=300))
def test_no_text_whatever_breaks_the_reader(text: str) -> None:
    """Anything that is no spec is a UsageError."""
    with pytest.raises(UsageError):
        parse_spec(text, "model.yaml")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.sampled_from(["model", "owner", "host", "endpoints", "limits", "resources", "retry", "capacity", "version"]),
    _JSON,
)
def test_wrong_shapes_are_told_not_raised(field: str, value: object) -> None:
    """A field of any shape gives either a spec or a UsageError."""
    values = yaml.safe_load(GOOD)
    values[field] = value
    with contextlib.suppress(UsageError):
        parse_spec(yaml.safe_dump(values), "model.yaml")


@pytest.mark.threat("API4:2023", "AML.T0029")
def test_a_huge_or_deep_file_is_refused() -> None:
    """Neither size nor nesting hurts."""
    assert "larger" in faults("a" * 300_000)[0]
    for deep in ("[" * 250_000, "{a: " * 60_000, "- " * 120_000 + "a", "x: " + "[" * 51 + "]" * 51):
        assert "nests deeper than 50 levels" in faults(deep)[0]


def test_the_published_schema_knows_every_field() -> None:
    """Editors complete the same fields that the reader takes."""
    schema = spec_schema()
    properties = cast("dict[str, object]", schema["properties"])
    assert set(yaml.safe_load(GOOD)) <= set(properties)
    assert schema["additionalProperties"] is False
