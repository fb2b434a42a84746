"""Downloads: ranges, conditions, headers against scripts, and the one 404 for everything that is not there."""

import datetime as dt

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.gateway.ports import GatewayPorts
from forestay.gateway.ranges import Piece, Unsatisfiable, Version, Whole, http_date, select
from forestay.ids import TenantId
from forestay.media.store import MediaItem, MediaState
from forestay.media.urls import MEDIA_ID_BYTES
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database

BODY = bytes(range(256)) * 4
NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
VERSION = Version('"v"', NOW, 1000)


async def save(
    ports: GatewayPorts,
    data: bytes = BODY,
    *,
    name: str = "a.bin",
    content_type: str = "",
    state: MediaState = "released",
    lifetime_seconds: int | None = 100,
) -> MediaItem:
    """Store a file."""
    return await ports.media.save(
        data,
        tenant_id=TenantId("acme"),
        file_name=name,
        content_type=content_type,
        request_id=None,
        attempt=None,
        lifetime_seconds=lifetime_seconds,
        state=state,
    )


def path_of(item: MediaItem) -> str:
    """Return the file's path under our prefix."""
    return f"/cdn/files/{item.media_id}/{item.file_name}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes=0-", Piece(0, 1000)),
        ("bytes=0-0", Piece(0, 1)),
        ("bytes=10-19", Piece(10, 20)),
        ("bytes=999-", Piece(999, 1000)),
        ("bytes=900-5000", Piece(900, 1000)),
        ("bytes=-1", Piece(999, 1000)),
        ("bytes=-5000", Piece(0, 1000)),
        ("Bytes= 3 - 4 ", Piece(3, 5)),
        ("bytes=1000-", Unsatisfiable()),
        ("bytes=5000-6000", Unsatisfiable()),
        ("bytes=-0", Unsatisfiable()),
        ("bytes=20-10", Whole()),
        ("bytes=0-1,5-6", Whole()),
        ("bytes=-", Whole()),
        ("bytes=a-b", Whole()),
        ("items=0-1", Whole()),
        ("", Whole()),
        ("bytes=0-99999999999999999999999", Whole()),
    ],
)
def test_one_range_is_read_as_the_rfc_says(text: str, expected: object) -> None:
    """Several ranges and nonsense are answered with the whole file."""
    assert select({"range": text}, VERSION) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"if-range": '"v"'}, Piece),
        ({"if-range": '"w"'}, Whole),
        ({"if-range": 'W/"v"'}, Whole),
        ({"if-range": http_date(NOW)}, Piece),
        ({"if-range": http_date(NOW + dt.timedelta(seconds=1))}, Whole),
        ({"if-range": "nonsense"}, Whole),
    ],
)
def test_a_range_of_another_version_is_not_given(headers: dict[str, str], expected: type[object]) -> None:
    """If-Range: what a client has and what it asks for must be of the same file."""
    assert isinstance(select({"range": "bytes=0-1", **headers}, VERSION), expected)


@given(st.text(max_size=30), st.text(max_size=30), st.integers(0, 10_000))
def test_no_header_selects_bytes_that_are_not_there(text: str, condition: str, size: int) -> None:
    """Whatever a client sends, the piece lies within the file and is not empty."""
    for value in (text, f"bytes={text}"):
        chosen = select({"range": value, "if-range": condition}, Version('"v"', NOW, size))
        chosen_alone = select({"range": value}, Version('"v"', NOW, size))
        for one in (chosen, chosen_alone):
            if isinstance(one, Piece):
                assert 0 <= one.start < one.end <= size


async def test_a_file_is_sent_whole_in_pieces_and_by_head(client: httpx.AsyncClient, ports: GatewayPorts) -> None:
    """With its type, size and validators; HEAD says the same without the bytes."""
    item = await save(ports)
    whole = await client.get(path_of(item))
    assert (whole.status_code, whole.content) == (200, BODY)
    assert whole.headers["accept-ranges"] == "bytes"
    piece = await client.get(path_of(item), headers={"Range": "bytes=100-199"})
    assert (piece.status_code, piece.content) == (206, BODY[100:200])
    assert piece.headers["content-range"] == f"bytes 100-199/{len(BODY)}"
    assert piece.headers["content-length"] == "100"
    assert piece.headers["etag"] == whole.headers["etag"]
    head = await client.head(path_of(item))
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(BODY)))


async def test_a_range_beyond_the_end_says_the_size(client: httpx.AsyncClient, ports: GatewayPorts) -> None:
    """416 with the size, so that a client can ask again."""
    item = await save(ports)
    answer = await client.get(path_of(item), headers={"Range": "bytes=5000-"})
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(BODY)}")


async def test_a_known_file_is_not_sent_again(client: httpx.AsyncClient, ports: GatewayPorts) -> None:
    """304 by tag and by date."""
    item = await save(ports)
    first = await client.get(path_of(item))
    for headers in (
        {"If-None-Match": first.headers["etag"]},
        {"If-None-Match": f'"x", W/{first.headers["etag"]}'},
        {"If-Modified-Since": first.headers["last-modified"]},
    ):
        answer = await client.get(path_of(item), headers=headers)
        assert (answer.status_code, answer.content) == (304, b"")
    assert (await client.get(path_of(item), headers={"If-None-Match": '"x"'})).status_code == 200


async def test_an_empty_file_is_an_empty_answer(client: httpx.AsyncClient, ports: GatewayPorts) -> None:
    """Not an error."""
    item = await save(ports, b"")
    answer = await client.get(path_of(item))
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")
    assert (await client.get(path_of(item), headers={"Range": "bytes=0-"})).status_code == 416


@pytest.mark.threat("API1:2023")
async def test_what_is_not_released_here_and_now_is_the_same_404(
    client: httpx.AsyncClient, ports: GatewayPorts, database: Database, objects: ObjectStore
) -> None:
    """Unknown, quarantined, expired, renamed or gone: nobody learns which."""
    held, expired = await save(ports, state="quarantine"), await save(ports)
    named, gone = await save(ports), await save(ports)
    await database.execute("UPDATE media SET expires_at = now() WHERE media_id = $1", expired.media_id)
    await objects.delete([gone.object_key])
    paths = [path_of(held), path_of(expired), path_of(gone), path_of(named) + "x", f"/cdn/files/{'x' * 32}/a.bin"]
    answers = [await client.get(path) for path in paths]
    assert {(answer.status_code, answer.text) for answer in answers} == {(404, answers[0].text)}
    assert all(answer.headers["cache-control"] == "no-store" for answer in answers)


@pytest.mark.threat("API8:2023")
@pytest.mark.parametrize(
    ("data", "name", "declared", "shown"),
    [
        (b"\x89PNG\r\n\x1a\n..", "a.png", "image/png", "inline"),
        (b"<html><script>alert(1)</script>", "a.html", "text/html", "attachment"),
        (b"<svg onload='alert(1)'/>", "a.svg", "image/svg+xml", "attachment"),
        (b"<html><script>alert(1)</script>", "a.png", "image/png", "attachment"),
        (b"alert(1)", "a.js", "text/javascript", "attachment"),
        (b"\x00\x00", "a.bin", "nonsense\r\nx: y", "attachment"),
    ],
)
async def test_a_strangers_file_cannot_act_in_our_name(
    client: httpx.AsyncClient, ports: GatewayPorts, data: bytes, name: str, declared: str, shown: str
) -> None:
    """Scripts are downloads; nothing is sniffed; whatever is opened is sandboxed."""
    item = await save(ports, data, name=name, content_type=declared)
    headers = (await client.get(path_of(item))).headers
    assert headers["content-disposition"] == f'{shown}; filename="{name}"'
    assert headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in headers["content-security-policy"]
    assert "default-src 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 200),
        ("HEAD", {}, 200),
        ("GET", {"range": "bytes=2-5"}, 206),
        ("GET", {"range": "bytes=5000-"}, 416),
        ("GET", {"if-none-match": "*"}, 304),
    ],
)
async def test_every_way_to_a_file_says_how_it_may_be_used(
    client: httpx.AsyncClient, ports: GatewayPorts, method: str, headers: dict[str, str], status: int
) -> None:
    """Whole, its head, a part, none of it, not again: each says it once."""
    item = await save(ports, b"<html><script>alert(1)</script>" * 20, name="a.html", content_type="text/html")
    answer = await client.request(method, path_of(item), headers=headers)
    assert answer.status_code == status
    for name, word in (("x-content-type-options", "nosniff"), ("content-security-policy", "sandbox")):
        assert answer.headers.get_list(name) == [answer.headers[name]]
        assert word in answer.headers[name]
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    if status in {200, 206}:
        assert answer.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "path",
    [
        "nobody/a.html",
        "../files/nobody/a",
        "..%2f..%2f..%2fetc%2fpasswd/a",
        "%2e%2e/%2e%2e/etc/passwd",
        "{id}/..%2f{name}",
        "{id}/%2e%2e",
        "{id}/{name}%00",
        "{id}//{name}",
        "{id}/other.bin",
        "{id}/",
    ],
)
async def test_a_path_that_climbs_or_guesses_finds_nothing(
    client: httpx.AsyncClient, ports: GatewayPorts, path: str
) -> None:
    """Files are found by an id of 192 random bits and its own name, never by a path in a store."""
    item = await save(ports)
    answer = await client.get("/cdn/files/" + path.format(id=item.media_id, name=item.file_name))
    assert answer.status_code == 404
    assert BODY not in answer.content


async def test_no_two_files_have_names_that_tell_of_one_another(ports: GatewayPorts) -> None:
    """The id alone opens a file, so nobody may come upon one."""
    assert len({(await save(ports)).media_id for _ in range(20)}) == 20
    assert MEDIA_ID_BYTES * 8 >= 128


async def test_caches_keep_a_file_no_longer_than_it_lives(client: httpx.AsyncClient, ports: GatewayPorts) -> None:
    """And a year at most."""
    for lifetime, low, high in ((100, 90, 100), (None, 31_536_000, 31_536_000), (10**9, 31_536_000, 31_536_000)):
        item = await save(ports, lifetime_seconds=lifetime)
        words = (await client.get(path_of(item))).headers["cache-control"].split(", ")
        assert low <= int(words[1].partition("=")[2]) <= high
        assert words[0] == "public"


async def test_a_file_answers_under_the_cdn_host_name_too(client: httpx.AsyncClient, ports: GatewayPorts) -> None:
    """As the clients of fal expect it."""
    item = await save(ports)
    answer = await client.get(f"https://v3.fal.media/files/{item.media_id}/{item.file_name}")
    assert answer.content == BODY
