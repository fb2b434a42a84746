"""The seal on a policy: proof that whoever set it held the platform's key, so that a row written past us sets nothing.

HMAC-SHA256 under a key derived from FORESTAY_INTERNAL_KEY, which gateways, workers and the controller share. Pure.
Called by the store (to make it) and by `policies` (to check it).
"""

import hashlib
import hmac

_LABEL = b"forestay safety policy 1\n"


class PolicySeal:
    """Makes and checks seals."""

    def __init__(self, secret: str) -> None:
        self._key = hmac.digest(secret.encode(), _LABEL, "sha256")

    def make(self, policy_id: str, version: int, text: str) -> bytes:
        """Return the 32 bytes that go with this version."""
        said = f"{policy_id}\n{version}\n{hashlib.sha256(text.encode()).hexdigest()}"
        return hmac.digest(self._key, said.encode(), "sha256")

    def holds(self, policy_id: str, version: int, text: str, seal: bytes) -> bool:
        """Tell whether the seal belongs to exactly this version."""
        return hmac.compare_digest(self.make(policy_id, version, text), seal)
