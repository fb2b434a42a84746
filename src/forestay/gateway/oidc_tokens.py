"""What an OpenID provider's ID token is worth: its signature, whom it is for, when, and which role it means here.

By OpenID Connect Core 1.0, section 3.1.3.7. Only signatures with a public key count (RS256, ES256, EdDSA): neither
`none` nor a code made with something that the provider publishes. The key must be of the kind that the algorithm names.
Pure: keys and `now` come in. A token that fails is a value that says why; whoever signs in is not told. Called by
`oidc_provider`.
"""

import dataclasses
import datetime as dt
import hmac
from collections.abc import Mapping, Sequence
from typing import cast

from forestay.errors import UsageError
from forestay.fleet.people import Claimed
from forestay.fleet.roles import Role

_KINDS: Mapping[str, tuple[str, str | None]] = {
    "RS256": ("RSA", None),
    "ES256": ("EC", "P-256"),
    "EdDSA": ("OKP", "Ed25519"),
}
LEEWAY_SECONDS = 60.0
MAX_TOKEN = 64 * 1024
_LEAST_RSA_BITS = 2048
_STRONGEST_FIRST = (Role.ADMIN, Role.OPERATOR, Role.ANALYST, Role.VIEWER)

Jwk = Mapping[str, object]


@dataclasses.dataclass(frozen=True, slots=True)
class Expected:
    """What a token must say."""

    issuer: str
    client_id: str
    nonce: str | None  # None: it came by a way that has none (device, exchange)
    longest_age_seconds: float | None = None  # since it was issued; None: until it expires


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """Why a token is worth nothing: for logs and counters."""

    why: str


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """What a token says of its signature, unproven."""

    algorithm: str
    key_id: str | None


def read_header(token: str) -> Header | Fault:
    """Read which key a token claims to be signed with."""
    import jwt  # noqa: PLC0415 - only gateways that people sign in to by OIDC pay for it

    if len(token) > MAX_TOKEN:
        return Fault("too large")
    try:
        header = cast("dict[str, object]", jwt.get_unverified_header(token))
    except jwt.PyJWTError:
        return Fault("malformed")
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in _KINDS:
        return Fault("algorithm not allowed")
    if "crit" in header:
        return Fault("critical header not understood")
    return Header(algorithm, key_id if isinstance(key_id, str) else None)


def find_key(header: Header, keys: Sequence[Jwk]) -> Jwk | None:
    """Return the published key that the header names; without a name, the only one of its kind."""
    kind, curve = _KINDS[header.algorithm]
    fitting = [
        key
        for key in keys
        if key.get("kty") == kind
        and (curve is None or key.get("crv") == curve)
        and key.get("use", "sig") == "sig"
        and key.get("alg", header.algorithm) == header.algorithm
    ]
    if header.key_id is not None:
        fitting = [key for key in fitting if key.get("kid") == header.key_id]
    return fitting[0] if len(fitting) == 1 else None


def verify_id_token(
    token: str, header: Header, key: Jwk, expected: Expected, now: dt.datetime
) -> dict[str, object] | Fault:
    """Return the claims of a token that holds."""
    import jwt  # noqa: PLC0415

    try:
        public = jwt.PyJWK.from_dict(dict(key), algorithm=header.algorithm).key
        if getattr(public, "key_size", _LEAST_RSA_BITS) < _LEAST_RSA_BITS and header.algorithm == "RS256":
            return Fault("key too short")
        claims = cast(
            "dict[str, object]",
            jwt.decode(
                token,
                public,
                algorithms=[header.algorithm],
                audience=expected.client_id,
                issuer=expected.issuer,
                options={
                    "require": ["iss", "sub", "aud", "exp", "iat"],
                    "verify_exp": False,  # by our own clock, below
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            ),
        )
    except jwt.PyJWTError as error:
        return Fault(type(error).__name__)
    fault = _untimely(claims, expected, now) or _meant_for_another(claims, expected)
    return claims if fault is None else Fault(fault)


def claimed_by(claims: Mapping[str, object], role_claim: str, role_map: Mapping[str, Role]) -> Claimed | Fault:
    """Return who the claims say someone is here; a Fault when no group of theirs has a role."""
    subject, issuer, email = claims.get("sub"), claims.get("iss"), claims.get("email")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255:
        return Fault("no subject")
    said = claims.get(role_claim)
    groups = [said] if isinstance(said, str) else cast("list[object]", said) if isinstance(said, list) else []
    held = {role_map[group] for group in ("*", *groups) if isinstance(group, str) and group in role_map}
    role = next((role for role in _STRONGEST_FIRST if role in held), None)
    if role is None:
        return Fault("no role")
    return Claimed(str(issuer), subject, email[:254].lower() if isinstance(email, str) else "", role)


def parse_role_map(text: str) -> dict[str, Role]:
    """Read FORESTAY_OIDC_ROLE_MAP, `group=role` separated by commas; UsageError names what is none."""
    found: dict[str, Role] = {}
    for pair in (part.strip() for part in text.split(",") if part.strip()):
        group, _, role = pair.rpartition("=")
        if not group or role.strip() not in {item.value for item in Role}:
            mend = f"write group=role, the role one of {', '.join(Role)}"
            raise UsageError("FORESTAY_OIDC_ROLE_MAP", f"{pair!r} is no pair; {mend}")
        found[group.strip()] = Role(role.strip())
    return found


def _untimely(claims: Mapping[str, object], expected: Expected, now: dt.datetime) -> str | None:
    moment = now.timestamp()
    times = {name: claims[name] for name in ("exp", "iat", "nbf") if name in claims}
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in times.values()):
        return "times are no numbers"
    numbers = cast("dict[str, float]", times)
    if numbers["exp"] + LEEWAY_SECONDS <= moment:
        return "expired"
    if numbers["iat"] - LEEWAY_SECONDS > moment or numbers.get("nbf", moment) - LEEWAY_SECONDS > moment:
        return "from the future"
    longest = expected.longest_age_seconds
    return "too old" if longest is not None and numbers["iat"] + longest + LEEWAY_SECONDS < moment else None


def _meant_for_another(claims: Mapping[str, object], expected: Expected) -> str | None:
    """Look at what binds a token to this platform and to this sign-in."""
    audience = claims["aud"]
    party = claims.get(
        "azp", expected.client_id if isinstance(audience, str) or len(cast("list[str]", audience)) == 1 else None
    )
    if party != expected.client_id:
        return "issued to another party"
    nonce = claims.get("nonce")
    if expected.nonce is None or (
        isinstance(nonce, str) and hmac.compare_digest(nonce.encode(), expected.nonce.encode())
    ):
        return None
    return "wrong nonce"
