"""The OpenID provider that vouches for people: discovery, keys, codes and devices, each asked within limits.

OpenID Connect Discovery 1.0, RFC 6749 (code), RFC 7636 (PKCE), RFC 8628 (device). Every answer is bounded in time and
size, no redirect is followed, and every address is https unless the provider is on this very machine. What a token is
worth, `oidc_tokens` decides. A provider that does not answer is Unavailable. Called by `admin_oidc`.
"""

import asyncio
import base64
import enum
from collections.abc import Mapping
from typing import TypeVar, cast
from urllib.parse import quote_plus, urlencode, urlsplit

import aiohttp
import msgspec

from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.fleet.people import Claimed
from forestay.gateway.oidc_flow import Flow, challenge_of
from forestay.gateway.oidc_tokens import (
    Expected,
    Fault,
    Jwk,
    claimed_by,
    find_key,
    parse_role_map,
    read_header,
    verify_id_token,
)
from forestay.settings import Identity

T = TypeVar("T")
_ASK_SECONDS = 10.0
_MAX_ANSWER = 1024 * 1024
_MAX_KEYS = 100
_DISCOVERY_SECONDS = 3600.0
_KEYS_SECONDS = 600.0
_KEYS_PAUSE_SECONDS = 30.0  # between two readings because of an unknown key
_MAX_ASKING = 8
_EXCHANGE_AGE_SECONDS = 600.0
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


class Pending(enum.StrEnum):
    """A device's sign-in that is not over yet."""

    WAIT = "authorization_pending"
    SLOW_DOWN = "slow_down"


class _Discovery(msgspec.Struct, frozen=True):
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    device_authorization_endpoint: str = ""
    token_endpoint_auth_methods_supported: list[str] = msgspec.field(default_factory=lambda: ["client_secret_basic"])


class Device(msgspec.Struct, frozen=True):
    """What a person needs to sign a command line in from any browser."""

    device_code: str
    user_code: str
    verification_uri: str
    expires_in: int = 600
    interval: int = 5
    verification_uri_complete: str = ""


class OidcProvider:
    """One provider; what it publishes is kept for a while."""

    def __init__(self, settings: Identity, clock: Clock) -> None:
        self._settings = settings
        self._issuer = settings.oidc_issuer
        self._clock = clock
        self._role_map = parse_role_map(settings.oidc_role_map)
        self._discovery: tuple[float, _Discovery] | None = None
        self._keys: tuple[float, list[Jwk]] | None = None
        self._reading = asyncio.Lock()
        self._asking = 0

    async def authorization_url(self, flow: Flow) -> str:
        """Return where a browser goes to sign in."""
        endpoint = (await self._discover()).authorization_endpoint
        asked = {
            "response_type": "code",
            "client_id": self._settings.oidc_client_id,
            "redirect_uri": flow.redirect_uri,
            "scope": self._settings.oidc_scopes,
            "state": flow.state,
            "nonce": flow.nonce,
            "code_challenge": challenge_of(flow.verifier),
            "code_challenge_method": "S256",
        }
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}"

    async def redeem(self, code: str, flow: Flow) -> Claimed | Fault:
        """Exchange the code that a browser brought back for who signed in."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": flow.redirect_uri,
            "code_verifier": flow.verifier,
        }
        status, answer = await self._ask_for_token(form)
        token = answer.get("id_token")
        if status != 200 or not isinstance(token, str):
            return Fault(f"the provider refused the code ({status})")
        return await self.judge(token, nonce=flow.nonce)

    async def begin_device(self) -> Device | None:
        """Begin a command line's sign-in; None when the provider knows no devices."""
        endpoint = (await self._discover()).device_authorization_endpoint
        if not endpoint:
            return None
        form = {"client_id": self._settings.oidc_client_id, "scope": self._settings.oidc_scopes}
        status, answer = await self._send("POST", endpoint, form)
        if status != 200:
            raise Unavailable(f"the OpenID provider refused a device (HTTP {status})", retry_after_seconds=30.0)
        return _convert(answer, Device)

    async def poll_device(self, device_code: str) -> Claimed | Fault | Pending:
        """Ask whether the person has signed in meanwhile."""
        status, answer = await self._ask_for_token({"grant_type": _DEVICE_GRANT, "device_code": device_code})
        token, error = answer.get("id_token"), answer.get("error")
        if status == 200 and isinstance(token, str):
            return await self.judge(token, nonce=None)
        if error in {Pending.WAIT, Pending.SLOW_DOWN}:
            return Pending(str(error))
        return Fault(f"the provider refused the device ({status})")

    async def judge(self, token: str, *, nonce: str | None, fresh: bool = False) -> Claimed | Fault:
        """Tell whom an ID token proves; `fresh`: only one that was issued minutes ago."""
        header = read_header(token)
        if isinstance(header, Fault):
            return header
        key = find_key(header, await self._published()) or find_key(header, await self._published(again=True))
        if key is None:
            return Fault("signed with a key that the provider does not publish")
        age = _EXCHANGE_AGE_SECONDS if fresh else None
        expected = Expected(self._issuer, self._settings.oidc_client_id, nonce, age)
        claims = verify_id_token(token, header, key, expected, self._clock.now())
        if isinstance(claims, Fault):
            return claims
        return claimed_by(claims, self._settings.oidc_role_claim, self._role_map)

    @property
    def issuer(self) -> str:
        """Return the issuer's URL."""
        return self._issuer

    async def _discover(self) -> _Discovery:
        async with self._reading:
            now = self._clock.monotonic()
            if self._discovery is None or now - self._discovery[0] > _DISCOVERY_SECONDS:
                url = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
                status, answer = await self._send("GET", url)
                found = _convert(answer, _Discovery) if status == 200 else None
                if found is None or found.issuer != self._issuer:
                    message = (
                        f"{url} does not describe the issuer {self._issuer} (HTTP {status}); see FORESTAY_OIDC_ISSUER"
                    )
                    raise Unavailable(message, retry_after_seconds=30.0)
                self._discovery = (now, found)
            return self._discovery[1]

    async def _published(self, *, again: bool = False) -> list[Jwk]:
        """Return the provider's keys; `again`: read anew for a key not among them, but not for everyone who asks."""
        url = (await self._discover()).jwks_uri
        async with self._reading:
            now = self._clock.monotonic()
            longest = _KEYS_PAUSE_SECONDS if again else _KEYS_SECONDS
            if self._keys is None or now - self._keys[0] > longest:
                status, answer = await self._send("GET", url)
                keys = answer.get("keys")
                if status != 200 or not isinstance(keys, list):
                    raise Unavailable(f"the OpenID provider's keys cannot be read (HTTP {status})")
                found = [cast("Jwk", key) for key in cast("list[object]", keys)[:_MAX_KEYS] if isinstance(key, dict)]
                self._keys = (now, found)
            return self._keys[1]

    async def _ask_for_token(self, form: Mapping[str, str]) -> tuple[int, dict[str, object]]:
        found = await self._discover()
        client_id, secret = self._settings.oidc_client_id, self._settings.oidc_client_secret
        if secret and "client_secret_basic" in found.token_endpoint_auth_methods_supported:
            return await self._send("POST", found.token_endpoint, form, _basic(client_id, secret))
        named = {**form, "client_id": client_id}
        return await self._send("POST", found.token_endpoint, {**named, "client_secret": secret} if secret else named)

    async def _send(
        self, method: str, url: str, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, object]]:
        """Ask the provider; returns the status and a JSON object, empty when it is none."""
        parts, home = urlsplit(url), urlsplit(self._issuer).hostname
        if parts.scheme != "https" and not (home in _LOOPBACK and parts.hostname in _LOOPBACK):
            raise Unavailable(f"{url[:200]} is not https; the OpenID provider must be", retry_after_seconds=60.0)
        if self._asking >= _MAX_ASKING:
            raise Unavailable("too many sign-ins wait for the OpenID provider", retry_after_seconds=5.0)
        self._asking += 1
        try:
            timeout = aiohttp.ClientTimeout(total=_ASK_SECONDS)
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=headers, cookie_jar=aiohttp.DummyCookieJar()) as session,
                session.request(method, url, data=form, allow_redirects=False) as response,
            ):
                body = await _bounded(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"the OpenID provider does not answer ({type(error).__name__})") from None
        finally:
            self._asking -= 1
        return response.status, body


def _basic(client_id: str, secret: str) -> dict[str, str]:
    """Return the header by which a client proves itself: both parts encoded as in a form (RFC 6749, section 2.3.1)."""
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


async def _bounded(response: aiohttp.ClientResponse) -> dict[str, object]:
    data = bytearray()
    async for piece in response.content.iter_any():
        data += piece
        if len(data) > _MAX_ANSWER:
            raise Unavailable("the OpenID provider's answer is too large")
    try:
        value: object = msgspec.json.decode(bytes(data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def _convert(answer: Mapping[str, object], kind: type[T]) -> T:
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        raise Unavailable(f"the OpenID provider's answer lacks something: {error}", retry_after_seconds=30.0) from None
