"""Every string of an input that carries text is found, wherever it stands; what is cut off is told."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.safety.model import Trouble
from forestay.safety.text.fields import Limits, texts_of

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=30)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=10), inner, max_size=4)),
    max_leaves=25,
)


def places(value: object) -> dict[str, str]:
    """Return text by place."""
    return {text.where: text.text for text in texts_of(value).texts}


def test_prompts_negative_prompts_and_turns_are_found_by_their_places() -> None:
    """Not only `prompt`: whatever the field is called, and turns also as one text."""
    found = places(
        {
            "prompt": "a red house",
            "negative_prompt": "blur",
            "messages": [{"role": "user", "content": "how do"}, {"role": "user", "content": "I paint it"}],
            "steps": 30,
        }
    )
    assert found["prompt"] == "a red house"
    assert found["negative_prompt"] == "blur"
    assert found["messages[1].content"] == "I paint it"
    assert found["messages[*]"] == "how do I paint it"


@pytest.mark.threat("ML01:2023", "AML.T0015")
def test_json_inside_a_string_is_read_as_json() -> None:
    """A workflow's graph in one string hides no prompt."""
    inner = json.dumps({"nodes": [{"inputs": {"text": "a red house"}}]})
    assert places({"workflow": inner}) == {"workflow:json.nodes[0].inputs.text": "a red house"}


def test_a_key_that_is_a_sentence_is_text() -> None:
    """Words cannot hide in the name of a field."""
    assert "paint the house red now" in places({"paint the house red now": 1}).values()


def test_addresses_and_media_are_left_to_others_but_text_in_a_data_uri_is_text() -> None:
    """A picture is judged as a picture; a data URI of text says something."""
    picture = base64.b64encode(bytes(range(256)) * 4).decode()
    said = base64.b64encode(b"a red house").decode()
    value = {
        "image_url": "https://example.org/a.png",
        "image": f"data:image/png;base64,{picture}",
        "blob": picture,
        "note": f"data:text/plain;base64,{said}",
        "both": "https://example.org and a red house",
    }
    assert places(value) == {"note": "a red house", "both": "https://example.org and a red house"}


@pytest.mark.threat("ML01:2023", "AML.T0015")
@pytest.mark.parametrize(
    "address",
    [
        "https://the-red-house-is-old",
        "https://the-red-house-is-old.example",
        "http://example.org/the_red_house/is-old.png",
        "https://example.org/?q=the%20red+house%20is&x=old",
        "s3://example.org/#the-red-house-is-old",
    ],
)
def test_a_sentence_dressed_as_an_address_is_text(address: str) -> None:
    """A model that takes it for its prompt reads it; the place says that an address says it."""
    [(place, said)] = places({"prompt": address}).items()
    assert (place, {"the", "red", "house", "is", "old"} <= set(said.split())) == ("prompt:address", True)


@pytest.mark.parametrize(
    "address",
    [
        "https://cdn.example.org/files/penguin/3kd9sKx_abc.png",
        "http://127.0.0.1:8000/files/0199d0c2-1111-7000-8000-000000000000/out.png",
        "http://[::1]/a",
    ],
)
def test_an_address_of_a_few_words_is_none(address: str) -> None:
    """Names of files and folders are no prompt."""
    assert places({"image_url": address}) == {}


@pytest.mark.threat("ML01:2023", "AML.T0015")
@pytest.mark.parametrize("head", ["image/png", "image/png;base64", "text/plain;base64", "video/mp4;charset=utf-8", ""])
def test_words_under_the_head_of_a_picture_are_text(head: str) -> None:
    """What a data URI calls itself does not decide; a picture in long lines stays one."""
    assert places({"prompt": f"data:{head},the red house is old"}) == {"prompt": "the red house is old"}
    picture = base64.encodebytes(bytes(range(256)) * 4).decode()
    assert places({"image": f"data:image/png;base64,{picture}"}) == {}


def test_turns_of_parts_are_one_text() -> None:
    """As chat models have them: a turn's content is a list of parts, some of them pictures."""
    said = [
        [{"type": "text", "text": "how do"}, {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}],
        [{"type": "text", "text": "I paint it"}],
    ]
    found = places({"messages": [{"role": "user", "content": parts} for parts in said]})
    assert found["messages[*]"] == "how do I paint it"


def test_what_a_limit_cuts_off_is_unreadable_never_silent() -> None:
    """Too many, too long, too deep: each place is named with its trouble."""
    limits = Limits(texts=3, chars=50, each_chars=20, depth=3)
    found = texts_of({"long": "x" * 60, "deep": [[[[["hidden"]]]]], "more": ["a", "b", "c"]}, limits)
    assert {one.where for one in found.unread} >= {"long", "more[1]"}
    assert any(one.where.startswith("deep") for one in found.unread)
    assert all(one.trouble is Trouble.UNREADABLE for one in found.unread)


@given(JSON)
def test_any_json_is_walked_and_every_plain_string_is_found(value: object) -> None:
    """Nothing raises, limits hold, and a string of ordinary words is never missed."""
    found = texts_of({"value": value, "last": ["plain words here"]}, Limits(texts=100, chars=10_000))
    assert len(found.texts) <= 100
    assert sum(len(text.text) for text in found.texts) <= 10_000
    assert any(text.text == "plain words here" for text in found.texts)
