"""Where media stands in an input: found wherever a caller puts it, and nothing unreadable passed over in silence."""

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.fleet.spec import EndpointSpec, HostKind, HostSpec
from forestay.safety.leaves import Leaf
from forestay.worker.input_media import Reader, media_of, media_of_body

PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
URI = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
ALONE = Reader({"image_url": "any", "lora": "weights", "archive": "file"}, fetches=False)
ONLINE = Reader(ALONE.kinds, fetches=True)
NAMES = st.text(st.sampled_from("abcxyz_"), min_size=1, max_size=6)


def wrapped(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Put a value into a list, an object, or a string that spells one."""
    return st.one_of(
        inner.map(lambda value: [0, value]),
        st.tuples(NAMES, inner).map(lambda pair: {pair[0]: pair[1], "other": "words"}),
        st.tuples(NAMES, inner).map(lambda pair: json.dumps({pair[0]: pair[1]})),
    )


@pytest.mark.threat("ML01:2023", "AML.T0054")
@given(
    st.recursive(
        st.sampled_from([URI, URI.upper().replace(URI.upper()[5:], URI[5:]), base64.b64encode(PNG).decode()]),
        wrapped,
        max_leaves=1,
    )
)
def test_a_picture_is_found_however_deep_it_stands(value: object) -> None:
    """In lists, objects, and JSON inside strings; deeper than anybody looks is unread, not passed over."""
    found = media_of(value, ALONE)
    assert len(found.files) + len(found.unread) == 1


@pytest.mark.parametrize(
    "value",
    [
        {"prompt": "a lighthouse", "seed": 3, "steps": [1, 2]},
        {"prompt": "anextremelylongwordthatnobodywritesbutwhichisnopicture"},
        {"callback": "https://example.org/hook"},
        {"note": "data:text/plain,hello"},
        {"note": base64.b64encode(b"a long text in base64, which the guard of texts has read " * 8).decode()},
        {"lora": "data:application/octet-stream;base64," + base64.b64encode(bytes(300)).decode()},
        {"archive": "data:application/octet-stream;base64," + base64.b64encode(b"PK\x03\x04" + bytes(300)).decode()},
    ],
)
def test_what_is_no_media_is_left_to_others(value: object) -> None:
    """Words, numbers, texts, declared weights and archives; to a model without a network a URL is a word."""
    found = media_of(value, ALONE)
    assert (found.files, found.unread) == ((), ())


def test_what_nobody_can_look_at_is_told() -> None:
    """Bytes of no known kind, and URLs that a model could fetch by itself; files of ours can be looked at."""
    assert media_of({"note": base64.b64encode(bytes(range(256))).decode()}, ALONE).unread == ("note",)
    assert media_of({"note": "https://example.org/a.png"}, ONLINE).unread == ("note",)
    assert media_of({"note": "s3://bucket/a.png"}, ONLINE).unread == ("note",)
    ours = f"https://v3.fal.media/files/{'a' * 32}/a.png"
    assert [leaf.where for leaf in media_of({"note": ours}, ONLINE).files] == ["note"]


def test_a_file_that_is_named_twice_is_looked_at_once() -> None:
    """Under its first name."""
    assert [leaf.where for leaf in media_of({"a": URI, "b": URI}, ALONE).files] == ["a"]


def test_a_body_that_is_no_json_is_a_file_and_the_query_is_read_too() -> None:
    """A raw picture as body; a data: URI in the query."""
    found = media_of_body(PNG, f"image_url={quote(URI, safe='')}&n=1", ALONE)
    assert [(leaf.where, leaf.data) for leaf in found.files] == [("body", PNG), ("query.image_url", b"")]
    assert media_of_body(b"", "n=1", ALONE).files == ()
    assert media_of_body(b"[" * 100_000, "", ALONE).unread == ("body",)


@pytest.mark.parametrize(
    ("host", "fetches"),
    [
        (HostSpec(HostKind.FAL_APP), False),
        (HostSpec(HostKind.FAL_APP, network="loopback"), False),
        (HostSpec(HostKind.FAL_APP, network="full"), True),
        (HostSpec(HostKind.HTTP_SERVER), True),
        (HostSpec(HostKind.PROVIDER), True),
    ],
)
def test_who_can_fetch_is_read_from_the_spec(host: HostSpec, fetches: bool) -> None:
    """A model in its own network namespace reaches nothing."""
    reader = Reader.of(host, EndpointSpec("/", media_inputs=("a", "b"), media_kinds={"b": "file"}))
    assert (reader.fetches, dict(reader.kinds)) == (fetches, {"a": "any", "b": "file"})


def test_media_in_an_object_that_names_a_field_twice_is_found_in_both() -> None:
    """Readers differ in which of the two they take."""
    found = media_of_body(b'{"a": "words", "a": "%s"}' % URI.encode(), "", ALONE)
    assert [type(leaf) for leaf in found.files] == [Leaf]
