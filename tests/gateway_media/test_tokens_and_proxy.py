"""Realtime tokens, published keys, and the JavaScript client's proxy protocol."""

import datetime as dt

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.errors import UsageError
from forestay.fleet.grants import Verb
from forestay.gateway.js_proxy import parse_target
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.signed_tokens import Claims, Use, sign_token, verify_token
from forestay.ids import KeyId, ModelId, TenantId

from .conftest import Credential

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
UNTIL = NOW + dt.timedelta(seconds=60)
CLAIMS = Claims(TenantId("t"), KeyId("k"), frozenset({Use.REALTIME, Use.QUEUE}), ("alias",), UNTIL)
SECRET = "a secret"


def test_a_token_says_what_was_signed_until_it_expires() -> None:
    """Not a second longer."""
    token = sign_token(CLAIMS, secret=SECRET, now=NOW)
    assert verify_token(token, secret=SECRET, now=NOW) == CLAIMS
    assert verify_token(token, secret=SECRET, now=CLAIMS.expires_at) is None
    assert verify_token(token, secret="another", now=NOW) is None
    assert verify_token(token, secret="", now=NOW) is None


@given(st.integers(0, 400), st.integers(1, 255))
def test_a_token_with_any_byte_changed_is_refused(place: int, change: int) -> None:
    """Header, claims and code alike."""
    token = sign_token(CLAIMS, secret=SECRET, now=NOW).encode()
    place %= len(token)
    changed = bytearray(token)
    changed[place] ^= change
    text = bytes(changed).decode("latin-1")
    found = verify_token(text, secret=SECRET, now=NOW)
    # The last character of unpadded base64 carries spare bits: another spelling of the same code is no other token.
    assert found is None or (found == CLAIMS and place == len(token) - 1)


@given(st.text(max_size=200))
def test_any_text_is_judged_as_a_token(text: str) -> None:
    """Garbage is None, never an exception."""
    assert verify_token(text, secret=SECRET, now=NOW) is None
    assert verify_token(f"eyJhbGciOiJub25lIn0.{text}.", secret=SECRET, now=NOW) is None


@pytest.mark.parametrize(
    ("apps", "opens"),
    [
        (("digits",), True),
        (("forestay/digits",), True),
        (("forestay/digits/realtime",), True),
        (("other", "digits"), True),
        (("digit",), False),
        (("digits2",), False),
        (("other/digits",), False),
        (("forestay/digits2/realtime",), False),
        (("*",), False),
        ((), False),
    ],
)
def test_a_token_opens_the_models_it_names(apps: tuple[str, ...], *, opens: bool) -> None:
    """By alias, as both clients send it, or by the whole id."""
    grant = Claims(TenantId("t"), KeyId("k"), frozenset({Use.REALTIME}), apps, NOW).grant()
    assert grant.covers(Verb.REALTIME, ModelId("forestay/digits")) is opens
    assert not grant.covers(Verb.RUN, ModelId("forestay/digits"))
    upload = Claims(TenantId("t"), KeyId("k"), frozenset({Use.UPLOAD}), apps, NOW).grant()
    assert upload.covers(Verb.UPLOAD, None)
    assert not upload.covers(Verb.REALTIME, ModelId("forestay/digits"))


def test_without_a_token_key_none_is_signed() -> None:
    """The message names the setting."""
    with pytest.raises(UsageError, match="FORESTAY_TOKEN_KEY"):
        sign_token(CLAIMS, secret="", now=NOW)


async def test_both_clients_get_tokens_in_their_shape(
    client: httpx.AsyncClient, acme: Credential, ports: GatewayPorts
) -> None:
    """A JSON string at /tokens/, an object at /tokens/realtime."""
    body = {"allowed_apps": ["digits"], "token_expiration": 120}
    plain = await client.post("https://rest.fal.ai/tokens/", headers=acme.headers, json=body)
    documented = {"allowed_apps": ["forestay/digits/realtime"], "duration": 30}
    realtime = await client.post("/rest/tokens/realtime", headers=acme.headers, json=documented)
    assert (plain.status_code, realtime.status_code) == (201, 201)
    for token, seconds in ((plain.json(), 120), (realtime.json()["token"], 30)):
        claims = verify_token(token, secret="a token key", now=ports.clock.now())
        assert claims is not None
        assert (claims.tenant_id, claims.key_id, claims.uses) == (acme.tenant_id, acme.key_id, {Use.REALTIME, Use.RUN})
        assert claims.grant().covers(Verb.REALTIME, ModelId("forestay/digits"))
        assert (claims.expires_at - ports.clock.now()).total_seconds() == pytest.approx(seconds, abs=3)


async def test_a_token_request_that_cannot_be_met_names_its_field(client: httpx.AsyncClient, acme: Credential) -> None:
    """422 in pydantic's shape."""
    table: list[tuple[dict[str, object], str]] = [
        ({}, "allowed_apps"),
        ({"allowed_apps": []}, "allowed_apps"),
        ({"allowed_apps": [""]}, "allowed_apps"),
        ({"allowed_apps": ["x"] * 51}, "allowed_apps"),
        ({"allowed_apps": ["a"], "token_expiration": 0}, "token_expiration"),
        ({"allowed_apps": ["a"], "token_expiration": 10**6}, "token_expiration"),
        ({"allowed_apps": "a"}, "body"),
        ({"allowed_apps": [5]}, "body"),
    ]
    for body, field in table:
        answer = await client.post("/rest/tokens/", headers=acme.headers, json=body)
        assert (answer.status_code, answer.json()["detail"][0]["loc"][-1]) == (422, field)


async def test_the_webhook_keys_are_published(client: httpx.AsyncClient) -> None:
    """Where verifiers look for them, and nothing private among them."""
    for url in ("https://rest.fal.ai/.well-known/jwks.json", "/rest/.well-known/jwks.json"):
        (key,) = (await client.get(url)).json()["keys"]
        assert (key["kty"], key["crv"]) == ("OKP", "Ed25519")
        assert "d" not in key


async def test_the_proxy_answers_as_the_target_would(client: httpx.AsyncClient, acme: Credential) -> None:
    """Method, body and query go along; URLs in the answer are ones that its caller can reach."""
    target = "https://rest.fal.ai/storage/upload/initiate?storage_type=fal-cdn-v3"
    answer = await client.post(
        "/api/fal/proxy", headers={**acme.headers, "x-fal-target-url": target}, json={"file_name": "a.png"}
    )
    assert answer.status_code == 200
    assert answer.json()["upload_url"].startswith("http://gateway.example:8080/cdn/files/")
    assert (await client.put(answer.json()["upload_url"], content=b"x")).status_code == 200
    keys = await client.get("/api/fal/proxy", headers={"x-fal-target-url": "https://rest.fal.ai/.well-known/jwks.json"})
    assert keys.json()["keys"]


async def test_the_proxy_adds_no_key_of_its_own(client: httpx.AsyncClient) -> None:
    """Who shows none gets nothing."""
    target = {"x-fal-target-url": "https://rest.fal.ai/storage/auth/token"}
    assert (await client.post("/api/fal/proxy", headers=target)).status_code == 401


async def test_the_proxy_wants_one_target_that_is_fals(client: httpx.AsyncClient) -> None:
    """Nothing else is dispatched, not even inside."""
    assert (await client.get("/api/fal/proxy")).status_code == 400
    for target in ("https://example.com/", "http://rest.fal.ai/", "https://rest.fal.ai.example.com/", "rest.fal.ai"):
        assert (await client.get("/api/fal/proxy", headers={"x-fal-target-url": target})).status_code == 412


@pytest.mark.parametrize(
    ("target", "known"),
    [
        (b"https://fal.run/a/b", True),
        (b"https://queue.fal.run/a/b?x=1", True),
        (b"https://rest.fal.ai:443/tokens/", True),
        (b"https://v3.fal.media/files/upload", True),
        (b"https://fal.run:8443/a/b", False),
        (b"https://user@fal.run/a/b", False),
        (b"https://evil.com/@fal.run/", False),
        (b"https://evil.com#.fal.run", False),
        (b"https://evilfal.run/", False),
        (b"https://fal.run\\@evil.com/", False),
        (b"https://fal.run/a b", False),
        (b"wss://fal.run/a/b", False),
        (b"//fal.run/a", False),
        (b"https://[::1/", False),
        (b"https://fal.run/\xff", False),
    ],
)
def test_a_target_is_read_strictly(target: bytes, *, known: bool) -> None:
    """One reading only."""
    assert (parse_target(target) is not None) is known
