"""Passwords of people: scrypt (RFC 7914) with its parameters beside each hash, so that they can be raised later.

Parameters: N = 2^15, r = 8, p = 3, as strong as the first choice of OWASP's Password Storage Cheat Sheet with 32 MiB of
memory (https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html). A check takes a good part of
a second of one core on purpose: callers run it in a thread and bound how many run at once. Pure.
"""

import base64
import binascii
import dataclasses
import hashlib
import hmac
import unicodedata

from forestay.chance import Chance
from forestay.errors import UsageError

SHORTEST, LONGEST = 12, 256
_SALT_BITS = 128
_MAX_MEMORY = 256 * 1024 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """How hard a hash is to make."""

    log2_n: int = 15
    r: int = 8
    p: int = 3


COST = Cost()


def check_new(password: str, email: str = "") -> None:
    """Raise UsageError when this may not become a password: length is what counts (NIST SP 800-63B, 5.1.1.2)."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise UsageError("password", f"must have {SHORTEST} to {LONGEST} characters")
    if email and password.lower() == email.lower():
        raise UsageError("password", "must not be the e-mail address")
    if len(set(password)) < 4:
        raise UsageError("password", "must not repeat so few characters")


def hash_password(password: str, chance: Chance, cost: Cost = COST) -> str:
    """Return `scrypt$<log2 n>$<r>$<p>$<salt>$<hash>`."""
    salt = chance.bits(_SALT_BITS).to_bytes(_SALT_BITS // 8)
    digest = _scrypt(password, salt, cost)
    return "$".join(("scrypt", str(cost.log2_n), str(cost.r), str(cost.p), _encode(salt), _encode(digest)))


def unprovable(chance: Chance, cost: Cost = COST) -> str:
    """Return what looks like a hash and is none of any password: checked where there is nothing to check."""
    salt, digest = (chance.bits(bits).to_bytes(bits // 8) for bits in (_SALT_BITS, 256))
    return "$".join(("scrypt", str(cost.log2_n), str(cost.r), str(cost.p), _encode(salt), _encode(digest)))


def proves(password: str, stored: str) -> bool:
    """Tell in constant time whether this is the password that was hashed; a hash that cannot be read proves nothing."""
    parts = _parse(stored)
    if parts is None or len(password) > LONGEST:
        return False
    cost, salt, digest = parts
    return hmac.compare_digest(_scrypt(password, salt, cost), digest)


def is_outdated(stored: str, cost: Cost = COST) -> bool:
    """Tell whether a hash was made at another cost than is asked for now."""
    parts = _parse(stored)
    return parts is None or parts[0] != cost


def _parse(stored: str) -> tuple[Cost, bytes, bytes] | None:
    try:
        kind, log2_n, r, p, salt, digest = stored.split("$")
        cost = Cost(int(log2_n), int(r), int(p))
        found = (cost, base64.b64decode(salt, validate=True), base64.b64decode(digest, validate=True))
    except (ValueError, binascii.Error):
        return None
    return found if kind == "scrypt" and 1 <= cost.log2_n <= 20 and cost.r <= 32 and cost.p <= 16 else None


def _scrypt(password: str, salt: bytes, cost: Cost) -> bytes:
    text = unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")  # as SP 800-63B advises
    return hashlib.scrypt(text, salt=salt, n=1 << cost.log2_n, r=cost.r, p=cost.p, maxmem=_MAX_MEMORY, dklen=32)


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()
