"""A little OpenID provider with real keys, on loopback: it does what a good one does, or what a test tells it to."""

import base64
import dataclasses
import hashlib
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import cast
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from tests.gateway.world import serving

from forestay.clock import SystemClock

CLIENT, SECRET = "forestay", "a client secret"
PROOF = base64.b64encode(b"forestay:a+client+secret").decode()
_KINDS = {
    "RS256": RSAAlgorithm,
    "ES256": ECAlgorithm,
    "EdDSA": OKPAlgorithm,
}


def new_key(algorithm: str) -> object:
    """Make a real private key."""
    if algorithm == "RS256":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else ed25519.Ed25519PrivateKey.generate()


@dataclasses.dataclass(slots=True)
class Provider:
    """One provider and one person, who always agrees."""

    algorithm: str = "ES256"
    url: str = ""
    key: object = None
    other_key: object = None  # never published
    claims: dict[str, object] = dataclasses.field(default_factory=lambda: {"sub": "42", "email": "Olga@example.com"})
    approved: bool = True  # of the device
    discovery: dict[str, object] = dataclasses.field(default_factory=dict[str, object])
    codes: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict[str, dict[str, str]])
    asked: list[str] = dataclasses.field(default_factory=list[str])
    token: str | None = None  # handed out instead of an honest one

    def __post_init__(self) -> None:
        self.key = self.key or new_key(self.algorithm)
        self.other_key = new_key(self.algorithm)

    def sign(self, key: object = None, headers: Mapping[str, object] | None = None, **claims: object) -> str:
        """Sign an ID token; claims of None are left out."""
        now = int(SystemClock().now().timestamp())
        said = {
            "iss": self.url,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            "groups": ["sre"],
            **self.claims,
            **claims,
        }
        kept = {name: value for name, value in said.items() if value is not None}
        return jwt.encode(kept, key or self.key, self.algorithm, {"kid": "one", **(headers or {})})  # type: ignore[arg-type]

    def published(self) -> dict[str, object]:
        """The key set."""
        public = self.key.public_key()  # type: ignore[attr-defined]
        jwk = cast("dict[str, object]", _KINDS[self.algorithm].to_jwk(public, as_dict=True))
        return {"keys": [{**jwk, "kid": "one", "use": "sig", "alg": self.algorithm}]}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer by path."""
        self.asked.append(request.path)
        match request.path:
            case "/.well-known/openid-configuration":
                return web.json_response(self._described())
            case "/jwks":
                return web.json_response(self.published())
            case "/token":
                return await self._token(request)
            case "/device":
                body = {"device_code": "d-1", "user_code": "ABCD", "verification_uri": f"{self.url}/go", "interval": 1}
                return web.json_response({**body, "expires_in": 600})
        return web.Response(status=404)

    def authorize(self, location: str) -> str:
        """Do what the provider's page does when the person agrees; returns where the browser is sent back to."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
        assert (asked["client_id"], asked["response_type"], asked["code_challenge_method"]) == (CLIENT, "code", "S256")
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state'], 'iss': self.url})}"

    def _described(self) -> dict[str, object]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "device_authorization_endpoint": f"{self.url}/device",
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            **self.discovery,
        }

    async def _token(self, request: web.Request) -> web.StreamResponse:
        form = dict(await request.post())
        if request.headers.get("authorization") != f"Basic {PROOF}":
            return web.json_response({"error": "invalid_client"}, status=401)
        if form["grant_type"] != "authorization_code":
            if not self.approved:
                return web.json_response({"error": "authorization_pending"}, status=400)
            return web.json_response({"id_token": self.token or self.sign()})
        asked = self.codes.pop(str(form["code"]), None)  # each code once
        digest = hashlib.sha256(str(form["code_verifier"]).encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if asked is None or asked["code_challenge"] != challenge or asked["redirect_uri"] != form["redirect_uri"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        return web.json_response({"id_token": self.token or self.sign(**{"nonce": asked["nonce"], **self.claims})})


@asynccontextmanager
async def a_provider(algorithm: str = "ES256") -> AsyncGenerator[Provider]:
    """Run a provider on loopback."""
    provider = Provider(algorithm)
    async with serving(provider.handle) as provider.url:
        yield provider


def unsigned(claims: Mapping[str, object]) -> str:
    """An ID token that nobody signed."""
    parts = [json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, claims)]
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), ""])
