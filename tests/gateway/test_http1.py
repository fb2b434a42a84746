"""HTTP/1.1 as the direct lane writes and reads it: whole, in any pieces, and nothing that could be read in two ways."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.gateway.http1 import Body, ChunkedBody, Malformed, body_of, read_head, write_head


def feed_all(body: Body, pieces: list[bytes]) -> bytes:
    """Give a body all pieces and return its content."""
    return b"".join([body.feed(piece) for piece in pieces])


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut `data` at places."""
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


def chunked(chunks: list[bytes], trailer: bytes = b"") -> bytes:
    """Write chunks as a server does."""
    return b"".join(b"%x;ext=1\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailer + b"\r\n"


CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
PLACES = st.lists(st.integers(0, 10_000), max_size=12)


@given(chunks=CHUNKS, places=PLACES, after=st.binary(max_size=5))
def test_chunks_mean_the_same_however_they_are_cut(chunks: list[bytes], places: list[int], after: bytes) -> None:
    """Content, end and what follows it do not depend on how the network cut the bytes."""
    body = ChunkedBody()
    pieces = cut(chunked(chunks, b"x-checksum: 1\r\n"), places)
    assert feed_all(body, pieces) == b"".join(chunks)
    assert body.ended
    assert not body.rest
    body = ChunkedBody()
    assert body.feed(chunked(chunks) + after) == b"".join(chunks)
    assert body.rest == after


@given(chunks=CHUNKS.filter(bool), short=st.integers(1, 10_000), places=PLACES)
def test_chunks_that_break_off_have_no_end(chunks: list[bytes], short: int, places: list[int]) -> None:
    """Whatever is missing at the end, the body is not taken for whole."""
    data = chunked(chunks)
    body = ChunkedBody()
    feed_all(body, cut(data[: -(1 + short % (len(data) - 1))], places))
    assert not body.ends_here()


@pytest.mark.parametrize(
    "data",
    [b"zz\r\n", b"-1\r\n", b"\r\n", b"0x4\r\nabcd\r\n", b"2\r\nabXX", b"1" * 5_000, b"ffffffffffffffff\r\n"],
    ids=["letters", "negative", "empty", "prefixed", "longer than it says", "endless", "huge"],
)
def test_chunks_that_are_malformed_are_refused(data: bytes) -> None:
    """A size that is none, or a chunk that does not end where it says, is no body."""
    with pytest.raises(Malformed):
        ChunkedBody().feed(data)


def test_trailers_have_a_limit() -> None:
    """A server that never ends its trailers is refused."""
    body = ChunkedBody()
    body.feed(b"0\r\n")
    with pytest.raises(Malformed):
        body.feed((b"x: " + b"y" * 100 + b"\r\n") * 1_000)


@given(content=st.binary(max_size=60), places=PLACES, after=st.binary(max_size=5))
def test_a_sized_body_ends_at_its_length(content: bytes, places: list[int], after: bytes) -> None:
    """What comes after the length is kept apart."""
    body = body_of(read_head(b"HTTP/1.1 200 OK\r\ncontent-length: %d" % len(content), "GET"))
    read = feed_all(body, cut(content, places)) if content else b""
    assert read == content
    assert body.ended
    assert body.ends_here()
    if content:
        whole = body_of(read_head(b"HTTP/1.1 200 OK\r\ncontent-length: %d" % len(content), "GET"))
        assert whole.feed(content + after) == content
        assert whole.rest == after


@pytest.mark.parametrize(
    ("head", "method", "length", "is_chunked", "keeps"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3", "POST", 3, False, True),
        (b"HTTP/1.1 200\r\ncontent-length: 3\r\ncontent-length: 3", "POST", 3, False, True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", "POST", None, True, True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked", "POST", None, True, True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3", "POST", None, True, False),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip", "POST", None, False, False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nConnection: Close", "POST", 3, False, False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 3", "POST", 3, False, False),
        (b"HTTP/1.1 200 OK", "POST", None, False, False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3", "HEAD", 0, False, True),
        (b"HTTP/1.1 204 No Content", "POST", 0, False, True),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 3", "GET", 0, False, True),
    ],
)
def test_a_head_says_where_the_body_ends(
    head: bytes, method: str, length: int | None, is_chunked: bool, keeps: bool
) -> None:
    """Length, chunks or the end of the connection, as RFC 9112 orders them."""
    read = read_head(head, method)
    assert (read.length, read.chunked, read.keeps) == (length, is_chunked, keeps)


@pytest.mark.threat("API10:2023")
@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/2 200 OK",
        b"HTTP/1.1 20 OK",
        b"ICY 200 OK",
        b"",
        b"HTTP/1.1 200 OK\r\nno colon",
        b"HTTP/1.1 200 OK\r\nname : spaced",
        b"HTTP/1.1 200 OK\r\n: nameless",
        b"HTTP/1.1 200 OK\r\nx: a\r\n folded",
        b"HTTP/1.1 200 OK\r\nx: a\nb: c",
        b"HTTP/1.1 200 OK\r\nx: a\x00",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4",
        b"HTTP/1.1 200 OK\r\ncontent-length: +3",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3, 3",
        b"HTTP/1.1 200 OK\r\ncontent-length:",
    ],
)
def test_a_head_that_could_be_read_in_two_ways_is_refused(head: bytes) -> None:
    """Folded, bare or contradictory headers never reach a caller."""
    with pytest.raises(Malformed):
        read_head(head, "POST")


@given(data=st.binary(max_size=80))
def test_any_bytes_are_a_head_or_malformed(data: bytes) -> None:
    """Garbage raises nothing else."""
    try:
        head = read_head(b"HTTP/1.1 200 OK\r\n" + data, "POST")
    except Malformed:
        return
    assert all("\r" not in value and "\n" not in value and "\x00" not in value for _, value in head.headers)


def test_a_request_announces_its_body() -> None:
    """A call says its length; a GET without a body says none."""
    head = write_head("POST", "/a?b=c", "model:1", {"x": "1"}, 3)
    assert head == b"POST /a?b=c HTTP/1.1\r\nhost: model:1\r\nx: 1\r\ncontent-length: 3\r\n\r\n"
    assert b"content-length: 0" in write_head("POST", "/", "m", {}, 0)
    assert b"content-length" not in write_head("GET", "/", "m", {}, 0)


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\rb"])
def test_a_header_cannot_break_out_of_its_line(value: str) -> None:
    """A line break in a header is a defect of ours, never a second header."""
    with pytest.raises(ValueError, match="line break"):
        write_head("POST", "/", "m", {"x": value}, 0)
