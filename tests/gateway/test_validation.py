"""The gateway's schema gate: never stricter than pydantic, and as clear."""

import datetime as dt
import enum
import json
from decimal import Decimal
from typing import Annotated, Literal
from uuid import UUID

import pytest
from fal.toolkit import Image
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, StringConstraints, ValidationError

from forestay.fleet.model import Revision
from forestay.fleet.spec import EndpointSpec, HostKind, HostSpec, ModelSpec
from forestay.gateway.validation import Contract, Contracts
from forestay.ids import ModelId, RevisionId
from forestay.telemetry.metrics import GUARD_OPEN, Metrics

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class Colour(enum.StrEnum):
    """A choice of texts."""

    RED = "red"
    BLUE = "blue"


class Size(BaseModel):
    """A nested object."""

    width: int = Field(ge=16, le=2048, multiple_of=8)
    height: int = Field(gt=0, lt=4096)


class Input(BaseModel):
    """Every kind of field that fal models use."""

    prompt: Annotated[str, StringConstraints(min_length=1, max_length=8, pattern="^[a-z0-9 ]*$")]
    seed: int | None = Field(default=None, ge=0)
    scale: float = Field(default=7.5, ge=0, le=20)
    step: float = Field(default=0.1, multiple_of=0.1)
    safe: bool = True
    colour: Colour = Colour.RED
    size: Size | Literal["square", "wide"] = "square"
    many: list[int] = Field(default_factory=list, max_length=3)
    few: set[int] = Field(default_factory=set, max_length=2)
    steps: Literal[1, 2, 4] = 4
    when: dt.datetime | None = None
    how_long: dt.timedelta | None = None
    price: Decimal | None = None
    identity: UUID | None = None
    weights: dict[str, float] = Field(default_factory=dict)
    pair: tuple[int, str] | None = None
    nested: Size | None = None


def contract_for(model: type[BaseModel], endpoints: tuple[EndpointSpec, ...] = ()) -> Contract:
    """A contract as FastAPI would publish it."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    openapi: dict[str, object] = {
        "paths": {
            "/": {
                "post": {
                    "requestBody": {
                        "required": True,
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Input"}}},
                    }
                }
            },
            "/things/{name}": {"post": {}},
            "/cancel": {"post": {}},
        },
        "components": {"schemas": {"Input": schema, **definitions}},
    }
    return Contract(revision(openapi, endpoints), Metrics())


def revision(openapi: dict[str, object] | None, endpoints: tuple[EndpointSpec, ...] = ()) -> Revision:
    """A revision that says `openapi` of itself."""
    spec = ModelSpec(ModelId("o/m"), "", "", "", "", "public", HostSpec(HostKind.HTTP_SERVER), endpoints)
    return Revision(RevisionId("m-1"), ModelId("o/m"), "d", spec, None, openapi, NOW)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(["42", " 7 ", "1_000", "1.0", "1e3", "inf", "NaN", "true", "ON", "red", "2020-01-01", "4", "-0"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.fixed_dictionaries(
    {"prompt": st.text("abc 1", max_size=10) | JSON},
    optional={name: JSON for name in Input.model_fields if name not in {"prompt", "size", "nested"}}
    | {
        "size": JSON | st.fixed_dictionaries({"width": JSON, "height": JSON}),
        "nested": JSON | st.fixed_dictionaries({"width": st.sampled_from([16, "16", 17, True]), "height": JSON}),
    },
)
CONTRACT = contract_for(Input)


@settings(max_examples=400, deadline=None)
@given(FIELDS)
def test_what_pydantic_accepts_is_never_refused(value: dict[str, object]) -> None:
    """Whatever the model's own validation takes passes the gateway."""
    try:
        Input.model_validate(value)
    except ValidationError:
        return
    body = json.dumps(value).encode()
    if b"\\ud" in body:
        return  # lone surrogates are no JSON text
    refused = CONTRACT.check("/", body)
    assert refused is None, refused.body


INTEGER_TEXTS = st.tuples(
    st.sampled_from(["", " ", "\t", "\u2003"]),
    st.sampled_from(["", "+"]),
    st.integers(0, 10**30).map(str) | st.integers(1, 999).map(lambda n: f"{n}_000") | st.just("007"),
    st.sampled_from(["", ".0", ".", ".00"]),
    st.sampled_from(["", " ", "\n"]),
).map("".join)
NUMBER_TEXTS = st.tuples(
    st.sampled_from(["", " "]),
    st.sampled_from(["", "+"]),
    st.sampled_from(["1", "1.5", ".5", "2.", "1e1", "1.5E+0", "0_1", "1_0.5"]) | st.floats(0, 20).map(repr),
    st.sampled_from(["", " "]),
).map("".join)
BOOLEAN_TEXTS = st.sampled_from(["0", "off", "f", "false", "n", "no", "1", "on", "t", "true", "y", "yes"]).flatmap(
    lambda text: st.sampled_from([text, text.upper(), text.title()])
)
LIKELY: dict[str, st.SearchStrategy[object]] = {
    "seed": INTEGER_TEXTS | st.booleans() | st.integers(0, 2**70) | st.integers(0, 2**40).map(float) | st.none(),
    "scale": NUMBER_TEXTS | st.booleans() | st.integers(0, 20) | st.floats(0, 20),
    "step": st.integers(0, 200).map(lambda n: n * 0.1),
    "safe": BOOLEAN_TEXTS | st.sampled_from([0, 1, 0.0, 1.0, True, False]),
    "many": st.lists(INTEGER_TEXTS | st.integers(), max_size=3),
    "few": st.lists(st.integers(1, 2), max_size=6),
    "when": st.datetimes().map(str) | st.integers(0, 2**31) | st.floats(0, 2**31) | st.just("2026-01-01"),
    "how_long": st.integers(0, 10**6) | st.floats(0, 10**6) | st.sampled_from(["P1D", "PT5M", "1 days, 00:00:05"]),
    "price": NUMBER_TEXTS | st.integers() | st.sampled_from(["1e5", "-0.10", " 3 "]),
    "identity": st.uuids().map(str) | st.uuids().map(lambda value: value.hex),
    "weights": st.dictionaries(st.text(max_size=3), NUMBER_TEXTS | st.floats(0, 1), max_size=3),
    "pair": st.tuples(INTEGER_TEXTS, st.text(max_size=3)).map(list),
    "steps": st.sampled_from([1, 2, 4, 1.0]),
    "nested": st.fixed_dictionaries({"width": st.sampled_from([16, "16", 32.0, " 48 "]), "height": INTEGER_TEXTS}),
    "size": st.sampled_from(["square", "wide", {"width": "16", "height": 1}]),
    "prompt": st.text("abc 1", min_size=1, max_size=8),
}


@pytest.mark.parametrize("name", sorted(LIKELY))
def test_single_fields_agree_with_pydantic(name: str) -> None:
    """Field by field, in every spelling that lax mode takes: accepted by pydantic means accepted here."""
    accepted = 0

    @settings(max_examples=120, deadline=None, database=None)
    @given(LIKELY[name] | JSON)
    def agrees(value: object) -> None:
        nonlocal accepted
        whole = {"prompt": "a", name: value}
        body = json.dumps(whole).encode()
        try:
            Input.model_validate(json.loads(body))
        except ValidationError:
            return
        if b"\\ud" not in body:
            accepted += 1
            assert CONTRACT.check("/", body) is None

    agrees()
    assert accepted >= 3, "the strategy must reach what pydantic accepts"


@pytest.mark.parametrize(
    ("value", "loc", "kind"),
    [
        ({}, ["body", "prompt"], "missing"),
        ({"prompt": 3}, ["body", "prompt"], "string_type"),
        ({"prompt": ""}, ["body", "prompt"], "string_too_short"),
        ({"prompt": "abcdefghi"}, ["body", "prompt"], "string_too_long"),
        ({"prompt": "A"}, ["body", "prompt"], "string_pattern_mismatch"),
        ({"prompt": "a", "seed": "x"}, ["body", "seed"], "int_parsing"),
        ({"prompt": "a", "seed": 1.5}, ["body", "seed"], "int_from_float"),
        ({"prompt": "a", "seed": -1}, ["body", "seed"], "greater_than_equal"),
        ({"prompt": "a", "scale": 21}, ["body", "scale"], "less_than_equal"),
        ({"prompt": "a", "scale": "x"}, ["body", "scale"], "float_parsing"),
        ({"prompt": "a", "safe": 2}, ["body", "safe"], "bool_parsing"),
        ({"prompt": "a", "safe": []}, ["body", "safe"], "bool_type"),
        ({"prompt": "a", "many": 1}, ["body", "many"], "list_type"),
        ({"prompt": "a", "many": [1, "z"]}, ["body", "many", 1], "int_parsing"),
        ({"prompt": "a", "many": [1, 2, 3, 4]}, ["body", "many"], "too_long"),
        ({"prompt": "a", "nested": {"width": 17, "height": 1}}, ["body", "nested", "width"], "multiple_of"),
        ({"prompt": "a", "nested": {"width": 16}}, ["body", "nested", "height"], "missing"),
        ({"prompt": "a", "nested": {"width": 16, "height": 0}}, ["body", "nested", "height"], "greater_than"),
        ([], ["body"], "model_attributes_type"),
    ],
)
def test_errors_use_pydantics_words(value: object, loc: list[object], kind: str) -> None:
    """Location and type are those that the model itself would report."""
    reply = CONTRACT.check("/", json.dumps(value).encode())
    assert reply is not None
    assert reply.status_code == 422
    (first,) = json.loads(reply.body)["detail"]
    assert (first["loc"], first["type"]) == (loc, kind)
    with pytest.raises(ValidationError) as caught:
        Input.model_validate(value)
    theirs = caught.value.errors()[0]
    if kind != "model_attributes_type":
        assert (first["type"], first["msg"]) == (theirs["type"], theirs["msg"])


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ("https://example.com/a.png", None),
        ("data:image/png;base64,AAAA", None),
        ({"url": "https://example.com/a.png"}, None),
        ("a.png", "model_attributes_type"),
        (7, "model_attributes_type"),
        ({"content_type": "image/png"}, "missing"),
    ],
)
def test_a_file_of_the_toolkit_may_be_given_as_its_url(given: object, kind: str | None) -> None:
    """Its validator takes one, and its schema does not say so; whatever else the model refuses is refused before it."""

    class Input(BaseModel):
        """What many apps take."""

        image: Image

    reply = contract_for(Input).check("/", json.dumps({"image": given}).encode())
    assert (None if reply is None else json.loads(reply.body)["detail"][0]["type"]) == kind
    accepted = True
    try:
        Input.model_validate({"image": given})
    except ValidationError:
        accepted = False
    assert accepted == (reply is None)


def test_a_choice_names_its_options() -> None:
    """A wrong choice is answered with the choices."""
    reply = CONTRACT.check("/", b'{"prompt":"a","colour":"green"}')
    assert reply is not None
    assert json.loads(reply.body)["detail"][0]["msg"] == "Input should be 'red' or 'blue'"


@pytest.mark.parametrize("body", [b"{", b"[1,]", b"NaN", b'{"a": NaN}', b"\xff", b"1 2", b"[" * 100_000, b"tru"])
def test_malformed_json_has_fastapis_shape(body: bytes) -> None:
    """JSON that does not parse, NaN and endless nesting are a 422 of type json_invalid."""
    reply = CONTRACT.check("/", body)
    assert reply is not None
    (first,) = json.loads(reply.body)["detail"]
    assert first["type"] == "json_invalid"
    assert first["loc"][0] == "body"


def test_an_empty_body_is_missing() -> None:
    """No body where one is required."""
    reply = CONTRACT.check("/", b"")
    assert reply is not None
    assert json.loads(reply.body)["detail"][0]["type"] == "missing"


def test_a_large_input_is_not_repeated() -> None:
    """The error does not carry a large input back."""
    reply = CONTRACT.check("/", json.dumps({"prompt": "x" * 100_000}).encode())
    assert reply is not None
    assert len(reply.body) < 1_000


def test_endpoints_are_known_from_document_and_spec() -> None:
    """Unknown paths are told apart; templates match one segment; the spec may add endpoints."""
    contract = contract_for(Input, endpoints=(EndpointSpec("/live", "realtime"),))
    assert contract.has_endpoint("/")
    assert contract.has_endpoint("/things/a")
    assert contract.has_endpoint("/live")
    assert not contract.has_endpoint("/things/a/b")
    assert contract.is_realtime("/live")
    assert not contract.is_realtime("/realtime")
    assert contract.offers_cancel("/")
    assert not contract.offers_cancel("/live")


def test_a_revision_that_says_nothing_accepts_every_endpoint() -> None:
    """Without document and declared endpoints the gateway cannot know better than the model."""
    contract = Contract(revision(None), Metrics())
    assert contract.has_endpoint("/whatever")
    assert contract.check("/whatever", b'{"a": 1}') is None


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"$ref": "#/missing"}, {"pattern": "(", "type": "string"}])
def test_a_broken_schema_is_not_enforced_and_counted(schema: dict[str, object]) -> None:
    """A model whose document is broken still serves; the guard's opening is counted."""
    metrics = Metrics()
    content = {"application/json": {"schema": schema}}
    openapi: dict[str, object] = {"paths": {"/": {"post": {"requestBody": {"required": True, "content": content}}}}}
    contract = Contract(revision(openapi), metrics)
    assert contract.check("/", b"{}") is None
    assert metrics.value(GUARD_OPEN, "schema") == 1


def test_nothing_is_fetched_for_a_foreign_reference() -> None:
    """A reference to another document accepts everything rather than reaching out."""
    content = {"application/json": {"schema": {"$ref": "http://127.0.0.1:9/x.json"}}}
    openapi: dict[str, object] = {"paths": {"/": {"post": {"requestBody": {"content": content}}}}}
    assert Contract(revision(openapi), Metrics()).check("/", b"{}") is None


def test_contracts_are_kept_per_revision() -> None:
    """The same revision gives the same compiled contract."""
    contracts = Contracts(Metrics())
    first = revision(None)
    assert contracts.of(first) is contracts.of(first)
