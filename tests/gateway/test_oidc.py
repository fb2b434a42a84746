"""Signing in by OpenID Connect, against a real little provider: what opens a session, and everything that does not."""

import base64
import dataclasses
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, quote, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.oidc_provider import CLIENT, SECRET, Provider, a_provider, unsigned
from tests.gateway.world import Reply, World

from forestay.chance import SystemChance
from forestay.clock import SystemClock
from forestay.errors import UsageError
from forestay.fleet.roles import Role
from forestay.fleet.sign_in import NETWORK
from forestay.gateway.oidc_flow import DeviceFlow, Flow, Sealer, is_own_path, new_flow
from forestay.gateway.oidc_provider import OidcProvider
from forestay.gateway.oidc_tokens import Fault, claimed_by, parse_role_map
from forestay.settings import Identity

HOUR = 3600


@pytest.fixture(params=["ES256"])
async def provider(request: pytest.FixtureRequest) -> AsyncIterator[Provider]:
    """A provider whose keys are of one kind."""
    async with a_provider(request.param) as one:
        yield one


@pytest.fixture
def oidc(world: World, provider: Provider) -> World:
    """A gateway that this provider vouches for people at."""
    identity = Identity(
        oidc_issuer=provider.url,
        oidc_client_id=CLIENT,
        oidc_client_secret=SECRET,
        oidc_role_map="sre=operator, admins=admin, trust=analyst",
    )
    object.__setattr__(world.ports, "oidc", OidcProvider(identity, SystemClock()))
    return world


async def start(world: World, query: str = "") -> tuple[str, dict[str, str]]:
    """Begin as a browser does; returns where it is sent, and the cookie it keeps."""
    reply = await world.call("GET", f"/admin/oidc/start{query}", key=None)
    assert reply.status == 302, reply.body
    return reply.headers["location"], {"cookie": reply.headers["set-cookie"].partition(";")[0]}


async def come_back(world: World, url: str, cookie: dict[str, str]) -> Reply:
    """Follow the provider's redirect."""
    parts = urlsplit(url)
    return await world.call("GET", f"{parts.path}?{parts.query}", headers=cookie, key=None)


async def sign_in(world: World, provider: Provider) -> Reply:
    """The whole way."""
    location, cookie = await start(world)
    return await come_back(world, provider.authorize(location), cookie)


def cookies(reply: Reply) -> list[str]:
    """Every cookie that an answer sets."""
    start_message = next(item for item in reply.messages if item["type"] == "http.response.start")
    pairs: list[tuple[bytes, bytes]] = start_message["headers"]  # type: ignore[assignment]
    return [value.decode() for name, value in pairs if name == b"set-cookie"]


@pytest.mark.parametrize("provider", ["RS256", "ES256", "EdDSA"], indirect=True)
async def test_a_browser_signs_in(oidc: World, provider: Provider) -> None:
    """Code, PKCE, nonce; then a session in a cookie, with the role of the person's group."""
    reply = await sign_in(oidc, provider)
    assert reply.status == 200, reply.body
    assert b'content="0;url=/"' in reply.body
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    session = next(text for text in cookies(reply) if text.startswith("forestay-session="))
    assert "SameSite=Strict" in session
    assert "HttpOnly" in session
    who = await oidc.call("GET", "/admin/whoami", headers={"cookie": session.partition(";")[0]}, key=None)
    assert (who.field("email"), who.field("role")) == ("olga@example.com", "operator")


async def test_the_start_binds_the_sign_in_to_its_browser(oidc: World, provider: Provider) -> None:
    """A fresh state, nonce and challenge each time; the cookie is out of scripts' reach and lives minutes."""
    asked = [parse_qs(urlsplit((await start(oidc))[0]).query) for _ in range(2)]
    for name in ("state", "nonce", "code_challenge"):
        assert asked[0][name] != asked[1][name]
    assert asked[0]["redirect_uri"] == ["http://gateway.test/admin/oidc/callback"]
    reply = await oidc.call("GET", "/admin/oidc/start", key=None)
    assert {"HttpOnly", "SameSite=Lax", "Max-Age=600"} <= set(reply.headers["set-cookie"].split("; "))
    assert provider.url in reply.headers["location"]


@pytest.mark.threat("API2:2023")
async def test_a_sign_in_is_finished_once_and_only_in_its_browser(oidc: World, provider: Provider) -> None:
    """A replayed state, another browser's cookie, none at all, a changed one: refused alike, and no session."""
    location, cookie = await start(oidc)
    back = provider.authorize(location)
    other_location, other_cookie = await start(oidc)
    provider.authorize(other_location)
    for wrong in ({}, other_cookie, {"cookie": cookie["cookie"][:-2] + "xx"}):
        refused = await come_back(oidc, back, wrong)
        assert (refused.status, refused.json()) == (400, {"detail": "The sign-in was refused"})
    assert (await come_back(oidc, back, cookie)).status == 200
    again = provider.authorize(location)  # even with a code that the provider would still take
    replayed = await come_back(oidc, again, cookie)
    assert (replayed.status, replayed.json()) == (400, {"detail": "The sign-in was refused"})
    assert not any("session" in text for text in cookies(replayed))


async def test_an_answer_of_another_issuer_is_refused(oidc: World, provider: Provider) -> None:
    """RFC 9207: a code meant for another provider's client is not sent anywhere."""
    location, cookie = await start(oidc)
    back = provider.authorize(location).replace("iss=", "iss=https%3A%2F%2Fevil.example%2F")
    assert (await come_back(oidc, back, cookie)).status == 400
    assert "/token" not in provider.asked


async def test_a_wrong_code_opens_nothing(oidc: World, provider: Provider) -> None:
    """Nor does an answer without one, nor a provider's error."""
    location, cookie = await start(oidc)
    state = parse_qs(urlsplit(location).query)["state"][0]
    for query in (f"state={state}&code=guess", f"state={state}", f"state={state}&error=access_denied", "code=x"):
        reply = await oidc.call("GET", f"/admin/oidc/callback?{query}", headers=cookie, key=None)
        assert reply.status in {400, 401}
        assert reply.json() == {"detail": "The sign-in was refused"}
    assert provider.codes == {}


def forged(provider: Provider, name: str) -> str:
    """Make a token that is wrong in one way."""
    now = int(SystemClock().now().timestamp())
    public = provider.key.public_key()  # type: ignore[attr-defined]
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = {"iss": provider.url, "aud": CLIENT, "iat": now, "exp": now + 300, "sub": "42", "groups": ["admins"]}

    def by_code() -> str:
        """HS256 with the provider's public key for a secret."""
        parts = [json.dumps({"alg": "HS256", "kid": "one"}).encode(), json.dumps(claims).encode()]
        signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
        code = hmac.digest(pem, signed, hashlib.sha256)
        return (signed + b"." + base64.urlsafe_b64encode(code).rstrip(b"=")).decode()

    made = {
        "wrong signature": lambda: provider.sign(provider.other_key),
        "unknown key": lambda: provider.sign(provider.other_key, {"kid": "two"}),
        "no signature": lambda: unsigned(claims),
        "a code instead of a signature": by_code,
        "wrong audience": lambda: provider.sign(aud="someone else"),
        "issued to another": lambda: provider.sign(aud=[CLIENT, "x"], azp="x"),
        "several audiences, no party": lambda: provider.sign(aud=[CLIENT, "x"]),
        "wrong issuer": lambda: provider.sign(iss="https://evil.example"),
        "expired": lambda: provider.sign(iat=now - 2 * HOUR, exp=now - HOUR),
        "from the future": lambda: provider.sign(iat=now + HOUR, exp=now + 2 * HOUR),
        "not yet": lambda: provider.sign(nbf=now + HOUR),
        "no expiry": lambda: provider.sign(exp=None),
        "no subject": lambda: provider.sign(sub=None),
        "endless": lambda: provider.sign(exp=True),
        "critical header": lambda: provider.sign(headers={"crit": ["x"], "x": 1}),
        "garbage": lambda: "a.b.c",
        "empty": lambda: "",
        "too large": lambda: provider.sign(groups=["x" * 100] * 600),
        "changed": lambda: provider.sign()[:-6] + "AAAAAA",
    }
    return made[name]()


FORGERIES = (
    "wrong signature", "unknown key", "no signature", "a code instead of a signature", "wrong audience",
    "issued to another", "several audiences, no party", "wrong issuer", "expired", "from the future", "not yet",
    "no expiry", "no subject", "endless", "critical header", "garbage", "empty", "too large", "changed",
)  # fmt: skip


@pytest.mark.threat("API2:2023")
@pytest.mark.parametrize("name", FORGERIES)
async def test_a_token_that_is_wrong_in_any_way_opens_nothing(oidc: World, provider: Provider, name: str) -> None:
    """By code, by device and by exchange: the same 401, and nobody is added."""
    provider.token = forged(provider, name) or "empty"
    by_code = await sign_in(oidc, provider)
    begun = await oidc.call("POST", "/admin/oidc/device", {}, key=None)
    by_device = await oidc.call("POST", "/admin/oidc/device/token", {"handle": begun.field("handle")}, key=None)
    by_exchange = await oidc.call("POST", "/admin/oidc/exchange", {"id_token": forged(provider, name)}, key=None)
    for reply in (by_code, by_device, by_exchange):
        assert (reply.status, reply.json()) == (401, {"detail": "The sign-in was refused"}), name
        assert "set-cookie" not in reply.headers
    assert await oidc.ports.people.people() == []


@pytest.mark.threat("API2:2023")
async def test_a_token_of_another_sign_in_is_refused(oidc: World, provider: Provider) -> None:
    """Its nonce is not this sign-in's: stolen tokens cannot be injected."""
    for nonce in ("another's", None, 7):
        provider.token = provider.sign(nonce=nonce)
        assert (await sign_in(oidc, provider)).status == 401


async def test_a_command_line_signs_in_by_device(oidc: World, provider: Provider) -> None:
    """202 until the person has agreed somewhere else; a handle that is not ours asks nobody anything."""
    provider.approved = False
    begun = await oidc.call("POST", "/admin/oidc/device", {}, key=None)
    assert (begun.field("user_code"), begun.field("interval")) == ("ABCD", 1)
    assert b"d-1" not in base64.b64decode(str(begun.field("handle")).partition(".")[2] + "==", altchars=b"-_")
    asked = {"handle": begun.field("handle")}
    assert (await oidc.call("POST", "/admin/oidc/device/token", asked, key=None)).status == 202
    provider.approved = True
    signed = await oidc.call("POST", "/admin/oidc/device/token", asked, key=None)
    assert (signed.status, signed.field("role")) == (201, "operator")
    headers = {"authorization": f"Bearer {signed.field('token')}"}
    assert (await oidc.call("GET", "/admin/fleet", headers=headers)).status == 200
    before = len(provider.asked)
    for handle in ("", "x.y", str(begun.field("handle"))[:-2] + "xx"):
        assert (await oidc.call("POST", "/admin/oidc/device/token", {"handle": handle}, key=None)).status == 401
    assert len(provider.asked) == before


async def test_an_id_token_is_exchanged_once_and_only_fresh(oidc: World, provider: Provider) -> None:
    """A program's way; a token found in a log an hour later opens nothing."""
    token = provider.sign()
    signed = await oidc.call("POST", "/admin/oidc/exchange", {"id_token": token}, key=None)
    assert (signed.status, signed.field("role")) == (201, "operator")
    assert (await oidc.call("POST", "/admin/oidc/exchange", {"id_token": token}, key=None)).status == 401
    now = int(SystemClock().now().timestamp())
    old = provider.sign(iat=now - HOUR, exp=now + HOUR)
    assert (await oidc.call("POST", "/admin/oidc/exchange", {"id_token": old}, key=None)).status == 401


async def test_a_person_without_a_role_or_disabled_here_is_refused(oidc: World, provider: Provider) -> None:
    """403, whatever the provider says."""
    provider.claims["groups"] = ["sales"]
    assert (await sign_in(oidc, provider)).status == 403
    assert await oidc.ports.people.people() == []
    provider.claims["groups"] = "admins"
    assert (await sign_in(oidc, provider)).status == 200
    (person,) = await oidc.ports.people.people()
    assert person.role is Role.ADMIN
    await oidc.ports.people.set_enabled(person.person_id, False, actor="human:test", reason="left")
    assert (await sign_in(oidc, provider)).status == 403


async def test_a_role_of_the_provider_is_changed_there(oidc: World, provider: Provider) -> None:
    """Not here; the next sign-in brings what the groups say. No local person is taken over by their address."""
    local = await oidc.ports.people.add("olga@example.com", Role.ADMIN, "hash", None, actor="human:test")
    assert local is not None
    assert (await sign_in(oidc, provider)).status == 200
    person = next(one for one in await oidc.ports.people.people() if not one.is_local)
    assert (person.role, person.email) == (Role.OPERATOR, "olga@example.com")
    path = f"/admin/people/{person.person_id}"
    for what, body in (("role", {"role": "admin"}), ("reset", {})):
        assert (await oidc.call("POST", f"{path}/{what}", body, key=oidc.admin_key)).status == 409
    provider.claims["groups"] = ["trust"]
    assert (await sign_in(oidc, provider)).status == 200
    changed = await oidc.ports.people.find(person.person_id)
    assert changed is not None
    assert changed.person.role is Role.ANALYST


async def test_a_new_key_of_the_provider_is_found_and_asking_for_unknown_ones_floods_nobody(
    oidc: World, provider: Provider
) -> None:
    """The set is read anew for an unknown key, but not for each who names one."""
    for _ in range(5):
        token = provider.sign(provider.other_key, {"kid": "two"})
        assert (await oidc.call("POST", "/admin/oidc/exchange", {"id_token": token}, key=None)).status == 401
    assert provider.asked.count("/jwks") == 1
    assert provider.asked.count("/.well-known/openid-configuration") == 1


async def test_tries_wait_as_passwords_do(oidc: World, provider: Provider) -> None:
    """Per network, before the provider is asked."""
    for _ in range(NETWORK.free + 1):
        assert (await oidc.call("POST", "/admin/oidc/exchange", {"id_token": "x"}, key=None)).status == 401
    assert (await oidc.call("POST", "/admin/oidc/exchange", {"id_token": provider.sign()}, key=None)).status == 429
    assert (await oidc.call("POST", "/admin/oidc/device", {}, key=None)).status == 429


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": "http://evil.example/token"},
        {"jwks_uri": "http://evil.example/jwks"},
        {"token_endpoint": 7},
    ],
)
async def test_a_provider_that_describes_itself_wrongly_is_not_used(
    oidc: World, provider: Provider, discovery: dict[str, object]
) -> None:
    """Another issuer, a plain address elsewhere, nonsense: 503, and nothing is sent there."""
    provider.discovery = discovery
    location = await oidc.call("GET", "/admin/oidc/start", key=None)
    if location.status == 302:
        cookie = {"cookie": location.headers["set-cookie"].partition(";")[0]}
        back = await come_back(oidc, provider.authorize(location.headers["location"]), cookie)
        assert back.status == 503
    else:
        assert location.status == 503


async def test_without_a_provider_there_is_no_such_way(world: World) -> None:
    """404, naming the setting."""
    for method, path in (("GET", "start"), ("GET", "callback"), ("POST", "device"), ("POST", "exchange")):
        reply = await world.call(method, f"/admin/oidc/{path}", {"id_token": "x"}, key=None)
        assert reply.status == 404
        assert b"FORESTAY_OIDC_ISSUER" in reply.body


@pytest.mark.parametrize("path", ["https://evil.example", "//evil.example", "/\\evil.example", "evil", "", "/a\nb"])
async def test_nobody_is_sent_elsewhere_afterwards(oidc: World, provider: Provider, path: str) -> None:
    """`next` is a path of ours."""
    assert not is_own_path(path)
    reply = await oidc.call("GET", f"/admin/oidc/start?next={quote(path, safe='')}", key=None)
    assert reply.status == 400
    assert provider.asked == []


async def test_where_one_wanted_to_go_is_not_taken_for_html(oidc: World, provider: Provider) -> None:
    """The page that ends a sign-in cannot be scripted through it."""
    location, cookie = await start(oidc, "?next=/a%22%3E%3Cscript%3Ex%3C/script%3E")
    reply = await come_back(oidc, provider.authorize(location), cookie)
    assert reply.status == 200
    assert b"<script>" not in reply.body


def test_what_we_sealed_is_read_until_it_is_over_and_as_what_it_is() -> None:
    """Not by another secret, not as another kind, not changed."""
    sealer, flow = Sealer("s"), new_flow(SystemChance(), "http://a/b", "/", 1000.0)
    text = sealer.seal(flow)
    assert sealer.open(text, Flow, 1000.0) == flow
    assert sealer.open(text, Flow, float(flow.until)) is None
    assert Sealer("other").open(text, Flow, 1000.0) is None
    assert sealer.open(text, DeviceFlow, 1000.0) is None
    assert sealer.open(sealer.seal(DeviceFlow("d", 2000)), Flow, 1000.0) is None
    with pytest.raises(UsageError, match="FORESTAY_TOKEN_KEY"):
        Sealer("").seal(flow)


@given(st.text(max_size=100))
def test_any_text_is_judged_as_a_flow(text: str) -> None:
    """Garbage is none, never an exception."""
    assert Sealer("s").open(text, Flow, 0.0) is None


@given(st.lists(st.sampled_from(["a", "b", "c", "x"]) | st.integers() | st.none(), max_size=5))
def test_the_strongest_role_of_the_groups_counts(groups: list[object]) -> None:
    """And no role without a group that has one."""
    roles = {"a": Role.ADMIN, "b": Role.OPERATOR, "c": Role.VIEWER}
    found = claimed_by({"sub": "1", "iss": "i", "groups": groups}, "groups", roles)
    if "a" in groups or "b" in groups or "c" in groups:
        strongest = next(roles[name] for name in ("a", "b", "c") if name in groups)
        assert not isinstance(found, Fault)
        assert found.role is strongest
    else:
        assert found == Fault("no role")


def test_everyone_may_be_given_a_role() -> None:
    """By a star; whoever has more keeps more."""
    roles = parse_role_map("*=viewer, admins=admin,")
    assert claimed_by({"sub": "1", "iss": "i"}, "groups", roles) != Fault("no role")
    found = claimed_by({"sub": "1", "iss": "i", "groups": ["admins"]}, "groups", roles)
    assert not isinstance(found, Fault)
    assert found.role is Role.ADMIN


@pytest.mark.parametrize("text", ["admins", "admins=king", "=admin"])
def test_a_role_map_that_cannot_be_read_is_named(text: str) -> None:
    """At start, not at the first sign-in."""
    with pytest.raises(UsageError, match="FORESTAY_OIDC_ROLE_MAP"):
        OidcProvider(dataclasses.replace(Identity(), oidc_role_map=text), SystemClock())


def test_our_tests_forge_with_a_library_that_knows_how() -> None:
    """The forged tokens are well formed: they fail for the reason they should."""
    assert jwt.get_unverified_header(unsigned({"a": 1}))["alg"] == "none"
