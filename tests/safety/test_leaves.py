"""What an answer consists of: nothing hides, and nothing is half looked at."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.safety.leaves import (
    Leaf,
    LeafKind,
    Path,
    TooMuch,
    inside,
    leaves_of,
    parsed,
    path_of,
    replaced,
    unpacked,
    where_of,
    with_links,
)
from forestay.safety.text.fields import texts_of

ANSWER = {
    "images": [{"url": "forestay-media://" + "a" * 32 + "/out.png", "width": 8}, {"url": "data:image/png;base64,AAAA"}],
    "video": "https://elsewhere.example/film.mp4?x=1",
    "caption": "a lighthouse",
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


def test_every_string_is_found_with_its_kind_and_place() -> None:
    """Files of ours, data: URIs, links of others, texts."""
    assert [(leaf.where, leaf.kind) for leaf in leaves_of(ANSWER)] == [
        ("images[0].url", LeafKind.STORED),
        ("images[1].url", LeafKind.DATA),
        ("video", LeafKind.LINK),
        ("caption", LeafKind.TEXT),
    ]


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("see ![a house](https://a.example/x?id=1) here", ["https://a.example/x?id=1"]),
        ('<img width=1 src="https://a.example/x"> and <video src=https://a.example/y>', ["https://a.example/x", "https://a.example/y"]),
        ("it is at https://a.example/b/c.PNG?sig=1, or https://a.example/c.mp4.", ["https://a.example/b/c.PNG?sig=1", "https://a.example/c.mp4"]),
        ("twice https://a.example/c.png and https://a.example/c.png", ["https://a.example/c.png"]),
        ("read https://a.example/page.html or https://a.example/a.png.html or [this](https://a.example/x)", []),
        ("http://" * 5_000, []),
    ],
)  # fmt: skip
def test_media_that_a_text_shows_is_a_file(text: str, links: list[str]) -> None:
    """Markdown, HTML, and links that end like media; links to pages are none."""
    assert [(leaf.kind, leaf.text) for leaf in inside(Leaf(("text",), LeafKind.TEXT, text))] == [
        (LeafKind.LINK, link) for link in links
    ]


def test_what_an_address_says_is_an_error_of_its_field() -> None:
    """A caller is told which field to change."""
    assert path_of("pages[1].prompt:address") == ["pages", 1, "prompt"]


def test_links_take_their_places_in_a_text() -> None:
    """Each by its own, also where one begins like another."""
    value = {"url": " https://a.example/a ", "text": "![](https://a.example/a) ![](https://a.example/ab)"}
    links: dict[Path, dict[str, str]] = {
        ("url",): {"https://a.example/a": "ours://1"},
        ("text",): {"https://a.example/a": "ours://1", "https://a.example/ab": "ours://2"},
    }
    assert with_links(value, links) == {"url": "ours://1", "text": "![](ours://1) ![](ours://2)"}


def test_a_name_that_stands_twice_hides_nothing() -> None:
    """Readers differ in which value they take: both are looked at."""
    leaves = leaves_of(parsed(b'{"prompt": "one", "prompt": "two", "prompt": "three"}'))
    assert sorted(leaf.text for leaf in leaves) == ["one", "three", "two"]


@pytest.mark.parametrize("value", ["[" * 40 + "]" * 40, json.dumps(["x"] * 6_000)])
def test_too_much_is_said_and_not_cut(value: str) -> None:
    """Depth and number are bounded."""
    with pytest.raises(TooMuch):
        leaves_of(json.loads(value))


def test_a_deep_text_is_refused_before_it_is_parsed_to_the_end() -> None:
    """JSON nested beyond the parser's own limit."""
    with pytest.raises(TooMuch):
        parsed(b"[" * 100_000)


@given(json_values)
def test_every_string_of_any_value_is_a_leaf(value: object) -> None:
    """However it is nested."""
    found = [leaf.text for leaf in leaves_of(value)]
    assert sorted(found) == sorted(_strings(value))


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for inner in value.values() for text in _strings(inner)]
    return [text for inner in value for text in _strings(inner)] if isinstance(value, list) else []


def test_other_strings_take_their_places() -> None:
    """The rest stays as it was."""
    changed = replaced(ANSWER, {("video",): "forestay-media://" + "b" * 32 + "/film.mp4"})
    assert isinstance(changed, dict)
    assert str(changed["video"]).startswith("forestay-media://b")
    assert changed["images"] == ANSWER["images"]


def test_a_place_is_written_in_one_word_and_read_back() -> None:
    """For the `loc` of an error."""
    assert where_of(("images", 0, "url")) == "images[0].url"
    assert path_of("images[0].url") == ["images", 0, "url"]


@pytest.mark.parametrize(
    ("uri", "content"),
    [("data:text/plain,a%20b", b"a b"), ("data:;base64,YQ", b"a"), (" DATA:image/png;base64,YWI=", b"ab")],
)
def test_a_data_uri_is_unpacked(uri: str, content: bytes) -> None:
    """With and without base64, padding or not."""
    assert unpacked(uri) == content


@pytest.mark.parametrize("uri", ["data:image/png;base64", "data:;base64,***"])
def test_a_data_uri_that_holds_nothing_is_refused(uri: str) -> None:
    """It is then a place that cannot be looked at."""
    with pytest.raises(ValueError, match="data: URI"):
        unpacked(uri)


def test_a_place_does_not_tell_what_a_name_says() -> None:
    """Refusals and records name places, and never content."""
    for name in ("describe_the_blue_lighthouse", "describe the blue lighthouse", "x" * 65):
        assert where_of(("images", name, 0)) == "images.<key>[0]"
        [said] = texts_of({"images": {name: 1}}).texts
        assert said.where == "images.<key>"
        assert "lighthouse" in said.text or name[0] == "x"
