"""One call as the signals see it: who, from where, what for, how it ended; never what it said.

Decides which causes of a refusal mean the same thing. Pure. Made from stored facts (`from_fact`) or by the simulator of
the bench; read by every signal.
"""

import functools
import ipaddress
from collections.abc import Mapping

import msgspec

CONTENT, LIMIT, AUTH, STANDING, OTHER = "content", "limit", "auth", "standing", "other"
_CATEGORIES: Mapping[str, str] = {
    "content_policy_violation": CONTENT,
    "content_blocked": CONTENT,
    "content_throttled": CONTENT,  # it went on, and counts all the same
    "blocked": CONTENT,
    "rate_limit": LIMIT,
    "budget": LIMIT,
    "budget_exceeded": LIMIT,
    "concurrent_requests_limit": LIMIT,
    "queue_full": LIMIT,
    "malformed": AUTH,
    "unknown": AUTH,
    "wrong_secret": AUTH,
    "revoked": AUTH,
    "expired": AUTH,
    "no_credential": AUTH,
    "suspended": STANDING,
    "step_up_required": STANDING,
    "throttled": STANDING,
}
GUESSES = frozenset({"unknown", "wrong_secret"})  # what a guess looks like; an expired key is a forgotten one


class Call(msgspec.Struct, frozen=True, gc=False):
    """One call. Times are seconds since 1970 in UTC; `seconds` is device-seconds as predicted."""

    id: str
    at: float
    tenant: str = ""
    key: str = ""
    model: str = ""
    lane: str = "queue"
    verb: str = "submit"
    network: str = ""  # /24 of IPv4, /48 of IPv6; empty when unknown
    agent: str = ""  # digest of the client's kind
    accepted: bool = True
    cause: str = ""  # of a refusal, as the gateway counts it
    category: str = ""  # content | limit | auth | standing | other; empty when accepted
    seconds: float = 0.0
    prompt: int | None = None  # 64 bits, see `simhash`
    raw: int = 0  # digest of the prompt as it was written; one prompt in two spellings has two
    meaning: bytes | None = None  # 256 bits, see `meaning`; None where meanings are not hashed
    shape: int = 0  # digest of what was asked beside text: size, steps, ...
    claimed: str = ""  # the key id that a refused credential names
    tried: int = 0  # digest of the refused credential


def category_of(cause: str) -> str:
    """Return what kind of refusal a cause is; empty for an accepted call."""
    return _CATEGORIES.get(cause, OTHER) if cause else ""


@functools.lru_cache(maxsize=65_536)
def wide_network(network: str) -> str:
    """Return the provider-sized network around: /16 of IPv4, /32 of IPv6; empty when `network` is none."""
    try:
        found = ipaddress.ip_network(network)
    except ValueError:
        return ""
    return str(found.supernet(new_prefix=min(found.prefixlen, 16 if found.version == 4 else 32)))


def narrow_network(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Return the network that facts keep of an address: its /24, or /48."""
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False))
