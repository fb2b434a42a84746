"""How a gateway and a worker prove to each other that both hold `FORESTAY_INTERNAL_KEY` (decision 0002).

The gateway signs the method, the path, its clock and a nonce; the worker signs the nonce back. Decides whether a proof
holds; does not decide what to do about it. Who calls it: the gateway's direct lane and the worker's server.
"""

import hmac
from hashlib import sha256

from forestay.chance import Chance

AUTH_HEADER = "X-Forestay-Auth"
TENANT_HEADER = "x-forestay-tenant"  # to a worker: whose the files are that a direct call makes
RISK_HEADER = "x-forestay-risk"  # to a worker: the highest score that the guard gave the input of a direct call
POLICY_HEADER = "x-forestay-upload-policy"  # to a worker: the caller's own bucket for the files of a direct call
KEY_HEADER = "x-forestay-key"  # to a worker: the key that makes a direct call, so that its holder may appeal
STORE_HEADER = "x-forestay-store-io"  # to a worker: 1 where content of a direct call may be kept for people to look at
PREDICTED_HEADER = "x-forestay-predicted"  # to a worker: device-seconds that a direct call is thought to take
LIFETIME_HEADER = "x-forestay-object-lifetime"  # to a worker: seconds for which they are kept
FILES_HEADER = "x-forestay-files"  # of a worker: files of a direct answer with a manifest, and without
SKEW_SECONDS = 30
NONCE_BYTES = 12
_NONCE_MEMORY = 200_000  # nonces remembered before the oldest go: a flood cannot grow it further


def sign_call(key: str, *, method: str, path: str, now_seconds: float, nonce: str) -> str:
    """Return the gateway's header value for one call; `path` is the raw path without its query."""
    seconds = int(now_seconds)
    code = _code(key, f"gateway\n{method}\n{path}\n{seconds}\n{nonce}")
    return f"{seconds}.{nonce}.{code}"


def sign_reply(key: str, nonce: str) -> str:
    """Return the worker's header value that answers `nonce`."""
    return _code(key, f"worker\n{nonce}")


def reply_holds(key: str, nonce: str, value: str | None) -> bool:
    """Tell whether the worker proved itself; a reply for which this is false must be dropped."""
    return value is not None and hmac.compare_digest(sign_reply(key, nonce).encode(), value.encode())


def new_nonce(chance: Chance) -> str:
    """Return a nonce that never occurs twice in practice (96 bits)."""
    return f"{chance.bits(NONCE_BYTES * 8):024x}"


class CallVerifier:
    """The worker's side: checks proofs and remembers nonces for as long as their clock reading is acceptable."""

    def __init__(self, key: str) -> None:
        if not key:
            message = "FORESTAY_INTERNAL_KEY is empty: gateways and workers cannot prove themselves; set it"
            raise ValueError(message)
        self._key = key
        self._seen: dict[str, int] = {}  # nonce -> when it may be forgotten, oldest first

    def check(self, value: str | None, *, method: str, path: str, now_seconds: float) -> str | None:
        """Return the nonce to answer when the proof holds, None (answer 401) when it does not."""
        parts = (value or "").split(".")
        if len(parts) != 3 or not parts[0].isascii() or not parts[0].isdigit() or len(parts[0]) > 12:
            return None
        seconds, nonce = int(parts[0]), parts[1]
        if abs(now_seconds - seconds) > SKEW_SECONDS or not 0 < len(nonce) <= 64:
            return None
        expected = sign_call(self._key, method=method, path=path, now_seconds=seconds, nonce=nonce)
        if not hmac.compare_digest(expected.encode(), (value or "").encode()):
            return None
        return nonce if self._first_use(nonce, int(now_seconds)) else None

    def _first_use(self, nonce: str, now_seconds: int) -> bool:
        if nonce in self._seen:
            return False
        while self._seen:
            oldest = next(iter(self._seen))
            if self._seen[oldest] > now_seconds and len(self._seen) < _NONCE_MEMORY:
                break
            del self._seen[oldest]
        self._seen[nonce] = now_seconds + 2 * SKEW_SECONDS
        return True


def _code(key: str, message: str) -> str:
    return hmac.new(key.encode(), message.encode(), sha256).hexdigest()
