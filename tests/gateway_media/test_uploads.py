"""Uploads in the shapes of both clients, under both kinds of address, and everything that is refused."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.types import ASGIApp, Message

from forestay.fleet.postgres_keys import PostgresKeyStore
from forestay.gateway.ports import GatewayPorts
from forestay.storage.objects import ObjectStore
from forestay.storage.postgres import Database

from .conftest import MAX_UPLOAD, Credential

PNG = b"\x89PNG\r\n\x1a\n" + b"picture" * 1000
OWN = ("http://gateway.example:8080/rest", "http://gateway.example:8080/cdn")
FAL = ("https://rest.fal.ai", "https://v3.fal.media")
both_addresses = pytest.mark.parametrize(("rest", "cdn"), [OWN, FAL], ids=["own", "fal"])


async def upload_token(client: httpx.AsyncClient, rest: str, caller: Credential) -> tuple[dict[str, str], str]:
    """Fetch a token as the Python client does; returns headers and the base that it names."""
    answer = await client.post(
        f"{rest}/storage/auth/token?storage_type=fal-cdn-v3", headers=caller.headers, content=b"{}"
    )
    assert answer.status_code == 200
    data = answer.json()
    return {"Authorization": f"{data['token_type']} {data['token']}"}, data["base_url"]


async def initiate(
    client: httpx.AsyncClient,
    caller: Credential,
    *,
    rest: str = OWN[0],
    multipart: bool = False,
    headers: dict[str, str] | None = None,
) -> tuple[str, str]:
    """Announce a file as the JavaScript client does; returns upload and file URL."""
    answer = await client.post(
        f"{rest}/storage/upload/initiate{'-multipart' if multipart else ''}?storage_type=fal-cdn-v3",
        headers={**caller.headers, **(headers or {})},
        json={"file_name": "my cat.png", "content_type": "image/png"},
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["upload_url"], answer.json()["file_url"]


@both_addresses
async def test_the_python_client_uploads_with_a_token(
    client: httpx.AsyncClient, acme: Credential, rest: str, cdn: str
) -> None:
    """Token from REST, bytes to the CDN, and the URL answers under the address that was used."""
    headers, base = await upload_token(client, rest, acme)
    assert base == cdn
    answer = await client.post(
        f"{cdn}/files/upload",
        headers={**headers, "Content-Type": "image/png", "X-Fal-File-Name": "my cat.png"},
        content=PNG,
    )
    url = answer.json()["access_url"]
    assert url.startswith(f"{cdn}/files/")
    assert url.endswith("/my_cat.png")
    assert (await client.get(url)).content == PNG


@both_addresses
async def test_the_python_client_uploads_in_parts(
    client: httpx.AsyncClient, acme: Credential, rest: str, cdn: str
) -> None:
    """Each part answers with an ETag header; completing twice is the same as once."""
    headers, base = await upload_token(client, rest, acme)
    begun = await client.post(f"{base}/files/upload/multipart", headers={**headers, "X-Fal-File-Name": "big.png"})
    url, upload_id = begun.json()["access_url"], begun.json()["uploadId"]
    assert url.startswith(cdn)
    assert (await client.get(url)).status_code == 404
    pieces = [PNG[:3000], PNG[3000:6000], PNG[6000:]]
    parts: list[dict[str, object]] = []
    for number in (3, 1, 2):
        put = await client.put(f"{url}/multipart/{upload_id}/{number}", headers=headers, content=pieces[number - 1])
        parts.append({"partNumber": number, "etag": put.headers["etag"]})
    for _ in range(2):
        done = await client.post(f"{url}/multipart/{upload_id}/complete", headers=headers, json={"parts": parts})
        assert (done.status_code, done.json()["access_url"]) == (200, url)
    answer = await client.get(url)
    assert (answer.content, answer.headers["content-type"]) == (PNG, "image/png")


@both_addresses
async def test_the_javascript_client_uploads_without_a_key_on_its_bytes(
    client: httpx.AsyncClient, acme: Credential, rest: str, cdn: str
) -> None:
    """The upload URL, on our own origin, is the right to upload."""
    upload_url, file_url = await initiate(client, acme, rest=rest)
    assert upload_url.startswith(f"{cdn}/files/")
    assert (await client.put(upload_url, content=PNG)).status_code == 200
    assert (await client.get(file_url)).content == PNG


@both_addresses
async def test_the_javascript_client_uploads_in_parts(
    client: httpx.AsyncClient, acme: Credential, rest: str, cdn: str
) -> None:
    """Each part answers with JSON that goes back as it came."""
    upload_url, file_url = await initiate(client, acme, rest=rest, multipart=True)
    assert upload_url.startswith(cdn)
    parts = [(await client.put(f"{upload_url}/{n}", content=PNG[(n - 1) * 4000 : n * 4000])).json() for n in (1, 2)]
    assert [part["partNumber"] for part in parts] == [1, 2]
    assert (await client.post(f"{upload_url}/complete", json={"parts": parts})).status_code == 200
    assert (await client.get(file_url)).content == PNG


async def test_the_python_clients_fallback_sends_its_key_to_our_own_origin_only(
    client: httpx.AsyncClient, acme: Credential, other: Credential
) -> None:
    """The fallback's PUT carries the key: a good one of the same tenant is accepted, any other is not."""
    answer = await client.post(
        f"{FAL[0]}/storage/upload/initiate?storage_type=gcs",
        headers=acme.headers,
        json={"file_name": "a.bin", "content_type": "application/octet-stream"},
    )
    upload_url = answer.json()["upload_url"]
    assert upload_url.startswith("https://v3.fal.media/files/")
    assert (await client.put(upload_url, headers=other.headers, content=b"x")).status_code == 404
    assert (await client.put(upload_url, headers={"Authorization": "Key no:no"}, content=b"x")).status_code == 401
    assert (await client.put(upload_url, headers=acme.headers, content=b"x")).status_code == 200


async def test_an_upload_url_takes_one_file_for_good(client: httpx.AsyncClient, acme: Credential) -> None:
    """The same bytes again are the retry of a lost answer; others would swap a file that is already in use."""
    upload_url, file_url = await initiate(client, acme)
    assert (await client.put(upload_url, content=PNG)).status_code == 200
    assert (await client.put(upload_url, content=PNG)).status_code == 200
    assert (await client.put(upload_url, content=b"<html>")).status_code == 403
    assert (await client.get(file_url)).content == PNG


BEGINNINGS = (
    "/rest/storage/auth/token",
    "/rest/storage/upload/initiate",
    "/rest/storage/upload/initiate-multipart",
    "/cdn/files/upload",
    "/cdn/files/upload/multipart",
    "/rest/tokens/",
    "/rest/tokens/realtime",
)
BAD_CREDENTIALS = ("", "Key wrong:wrong", "Key 0123456789abcdef:x", "Bearer a.b.c", "Basic eDp5", "Bearer ", "x")


async def test_without_a_good_key_nothing_begins(client: httpx.AsyncClient, objects: ObjectStore) -> None:
    """401, whatever is wrong with the credential."""
    for path in BEGINNINGS:
        for authorization in BAD_CREDENTIALS:
            headers = {"Authorization": authorization} if authorization else {}
            answer = await client.post(path, headers=headers, json={})
            assert (answer.status_code, path, authorization) == (401, path, authorization)
    assert [found async for found in objects.list("")] == []


async def test_a_revoked_keys_token_uploads_no_more(
    client: httpx.AsyncClient, acme: Credential, keys: PostgresKeyStore, ports: GatewayPorts
) -> None:
    """A token lives no longer than its key: the gateway asks each second what was revoked."""
    headers, base = await upload_token(client, OWN[0], acme)
    assert (await client.post(f"{base}/files/upload", headers=headers, content=b"x")).status_code == 200
    await keys.revoke(acme.key_id, actor="test", reason="leaked")
    await ports.keys.refresh()
    assert (await client.post(f"{base}/files/upload", headers=headers, content=b"x")).status_code == 401


async def test_an_upload_token_is_no_key(client: httpx.AsyncClient, acme: Credential) -> None:
    """It cannot fetch its successor or a realtime token."""
    headers, _ = await upload_token(client, OWN[0], acme)
    for path in ("/rest/storage/auth/token", "/rest/tokens/"):
        assert (await client.post(path, headers=headers, json={"allowed_apps": ["a"]})).status_code == 401


async def endless(pieces: int) -> AsyncIterator[bytes]:
    """A body that does not say its size."""
    for _ in range(pieces):
        yield b"x" * 10_000


async def test_a_file_over_the_cap_is_refused_whether_it_says_so_or_not(
    client: httpx.AsyncClient, acme: Credential, objects: ObjectStore
) -> None:
    """413, and nothing of it stays."""
    headers, base = await upload_token(client, OWN[0], acme)
    upload_url, _ = await initiate(client, acme)
    parts_url, _ = await initiate(client, acme, multipart=True)
    for method, url in (("POST", f"{base}/files/upload"), ("PUT", upload_url), ("PUT", f"{parts_url}/1")):
        for content in (b"x" * (MAX_UPLOAD + 1), endless(MAX_UPLOAD // 10_000 + 2)):
            answer = await client.request(method, url, headers=headers, content=content)
            assert (answer.status_code, "larger" in answer.json()["detail"]) == (413, True)
    assert [found async for found in objects.list("")] == []


async def test_parts_together_over_the_cap_are_refused(client: httpx.AsyncClient, acme: Credential) -> None:
    """The cap is the file's, not the part's."""
    url, _ = await initiate(client, acme, multipart=True)
    assert (await client.put(f"{url}/1", content=b"x" * (MAX_UPLOAD - 10))).status_code == 200
    assert (await client.put(f"{url}/2", content=b"x" * 11)).status_code == 413


async def test_a_part_number_out_of_range_is_refused(client: httpx.AsyncClient, acme: Credential) -> None:
    """1 to 10,000."""
    url, _ = await initiate(client, acme, multipart=True)
    for number in ("0", "10001", "99999999999999999999", "-1", "one", "1.5"):
        assert (await client.put(f"{url}/{number}", content=b"x")).status_code in {400, 404, 405}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"parts": []}',
        b'{"parts": [{"partNumber": 1}]}',
        b'{"parts": [{"partNumber":9,"etag":"x"}]}',
    ],
)
async def test_a_bad_completion_is_refused_with_its_reason(
    client: httpx.AsyncClient, acme: Credential, body: bytes
) -> None:
    """400, and the upload can still be completed properly."""
    url, file_url = await initiate(client, acme, multipart=True)
    part = (await client.put(f"{url}/1", content=b"x")).json()
    answer = await client.post(f"{url}/complete", content=body)
    assert answer.status_code == 400
    assert answer.json()["detail"]
    assert (await client.post(f"{url}/complete", json={"parts": [part]})).status_code == 200
    assert (await client.get(file_url)).content == b"x"


@pytest.mark.parametrize("body", [b"", b"null", b'{"file_name": 5}', b"\xff"])
async def test_a_bad_announcement_is_refused_or_gets_defaults(
    client: httpx.AsyncClient, acme: Credential, body: bytes
) -> None:
    """Never a 500."""
    answer = await client.post("/rest/storage/upload/initiate", headers=acme.headers, content=body)
    assert answer.status_code == (400 if body else 200)


async def test_an_upload_under_another_files_path_is_unknown(client: httpx.AsyncClient, acme: Credential) -> None:
    """The id must belong to the file that the path names."""
    first, _ = await initiate(client, acme)
    second, _ = await initiate(client, acme)
    crossed = first.rpartition("/")[0] + "/" + second.rpartition("/")[2]
    assert (await client.put(crossed, content=b"x")).status_code == 404
    assert (await client.put(first + "x", content=b"x")).status_code == 404


async def test_an_announced_upload_ends_with_its_day(
    client: httpx.AsyncClient, acme: Credential, database: Database
) -> None:
    """After that its URL is worth nothing."""
    upload_url, _ = await initiate(client, acme)
    await database.execute("UPDATE multipart_uploads SET created_at = now() - interval '25 hours'")
    assert (await client.put(upload_url, content=b"x")).status_code == 404


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ({}, 600),
        ({"X-Fal-Object-Lifecycle": json.dumps({"expiration_duration_seconds": 3600})}, 3600),
        ({"X-Fal-Object-Lifecycle-Preference": json.dumps({"expiration_duration_seconds": 60})}, 60),
        ({"X-Fal-Object-Lifecycle": json.dumps({"initial_acl": {"default": "allow"}})}, 600),
    ],
)
async def test_a_file_is_kept_as_long_as_its_sender_wants(
    client: httpx.AsyncClient, acme: Credential, ports: GatewayPorts, header: dict[str, str], seconds: int
) -> None:
    """The default is the platform's."""
    upload_url, file_url = await initiate(client, acme, headers=header)
    await client.put(upload_url, content=PNG)
    item = await ports.media.find(file_url.split("/")[-2])
    assert item is not None
    assert item.expires_at is not None
    assert (item.expires_at - item.created_at).total_seconds() == pytest.approx(seconds, abs=2)


@pytest.mark.parametrize(
    "text",
    [
        "soon",
        "[]",
        '{"expiration_duration_seconds": 0}',
        '{"expiration_duration_seconds": -5}',
        '{"expiration_duration_seconds": 1e30}',
        '{"expiration_duration_seconds": "1h"}',
        '{"initial_acl": {"default": "forbid"}}',
    ],
)
async def test_a_lifetime_that_cannot_be_kept_is_refused(
    client: httpx.AsyncClient, acme: Credential, text: str
) -> None:
    """Access lists too: nothing enforces them here, and silence would be a broken promise."""
    answer = await client.post(
        "/rest/storage/upload/initiate", headers={**acme.headers, "X-Fal-Object-Lifecycle": text}, json={}
    )
    assert answer.status_code == 400
    assert "x-fal-object-lifecycle" in answer.json()["detail"]


async def test_a_slow_sender_is_answered_and_a_lost_one_leaves_nothing(
    gateway: ASGIApp, client: httpx.AsyncClient, acme: Credential, objects: ObjectStore
) -> None:
    """408 after the time-out between pieces; a broken connection is just cleaned up."""
    upload_url, file_url = await initiate(client, acme)
    path = httpx.URL(upload_url).path
    for then, status in (("silence", 408), ("disconnect", 499)):
        sent: list[Message] = []
        pieces: list[Message] = [{"type": "http.request", "body": b"x" * 1000, "more_body": True}]

        async def receive(then: str = then, pieces: list[Message] = pieces) -> Message:
            if pieces:
                return pieces.pop()
            if then == "silence":
                await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        async def send(message: Message, sent: list[Message] = sent) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "PUT",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"host", b"gateway.example:8080")],
            "scheme": "http",
        }
        await gateway(scope, receive, send)
        assert sent[0]["status"] == status
        assert [found async for found in objects.list("")] == []
    assert (await client.put(upload_url, content=PNG)).status_code == 200
    assert (await client.get(file_url)).content == PNG
