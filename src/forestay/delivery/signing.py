"""Webhook signatures in fal's form: Ed25519 over request id, user id, timestamp and the body's hash; keys as JWKS.

The key file holds one or more PEM private keys: the first signs, all are published, so that a new key can be published
before it signs. Decides nothing about delivery. Callers: `delivery/webhooks` (sign), `gateway/jwks` (publish).
"""

import base64
import dataclasses
import hashlib
import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from forestay.errors import UsageError

_END = b"-----END PRIVATE KEY-----"
_VARIABLE = "FORESTAY_SIGNING_KEY_FILE"
_WIDER_THAN_OWNER = stat.S_IRWXG | stat.S_IRWXO


@dataclasses.dataclass(frozen=True, slots=True)
class Signed:
    """What is signed: one delivery."""

    request_id: str
    user_id: str
    timestamp: int  # unix seconds
    body: bytes

    def message(self) -> bytes:
        """Return the bytes under the signature: four lines joined by newlines, the last one hex SHA-256 of the body."""
        digest = hashlib.sha256(self.body).hexdigest()
        return "\n".join((self.request_id, self.user_id, str(self.timestamp), digest)).encode()


class SigningKeys:
    """The platform's keys for webhooks."""

    def __init__(self, keys: Sequence[Ed25519PrivateKey]) -> None:
        if not keys:
            raise UsageError(_VARIABLE, "holds no Ed25519 private key")
        self._keys = tuple(keys)

    def headers(self, signed: Signed) -> dict[str, str]:
        """Return the four headers of a delivery."""
        return {
            "X-Fal-Webhook-Request-Id": signed.request_id,
            "X-Fal-Webhook-User-Id": signed.user_id,
            "X-Fal-Webhook-Timestamp": str(signed.timestamp),
            "X-Fal-Webhook-Signature": self._keys[0].sign(signed.message()).hex(),
        }

    def sign(self, message: bytes) -> tuple[str, str]:
        """Sign something of the platform's own, such as an audit checkpoint; returns the key's name and hex."""
        return _jwk(self._keys[0])["kid"], self._keys[0].sign(message).hex()

    def holds(self, message: bytes, key_id: str, signature: str) -> bool:
        """Tell whether the named key of ours made this signature."""
        key = next((key for key in self._keys if _jwk(key)["kid"] == key_id), None)
        if key is None:
            return False
        try:
            key.public_key().verify(bytes.fromhex(signature), message)
        except (InvalidSignature, ValueError):
            return False
        return True

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the public keys as a JWK set (RFC 7517, RFC 8037)."""
        return {"keys": [_jwk(key) for key in self._keys]}


def load_or_create_keys(path: Path) -> SigningKeys:
    """Read the key file, making it (mode 0600) if there is none; several processes may do so at once."""
    if not path.exists():
        _create(path)
    if path.stat().st_mode & _WIDER_THAN_OWNER:
        raise UsageError(_VARIABLE, f"{path} may be read by others; run: chmod 600 {path}")
    blocks = [block.strip() + b"\n" + _END + b"\n" for block in path.read_bytes().split(_END) if block.strip()]
    return SigningKeys([_read(block, path) for block in blocks])


def _create(path: Path) -> None:
    """Write a key beside the file and link it into place: whoever comes second keeps the first one's key."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    with os.fdopen(handle, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        return  # another process was quicker, and its key is the one
    finally:
        Path(draft).unlink()


def _read(pem: bytes, path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UsageError(_VARIABLE, f"{path} is not an unencrypted PEM private key") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(_VARIABLE, f"{path} holds a key that is not Ed25519")
    return key


def _jwk(key: Ed25519PrivateKey) -> dict[str, str]:
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    x = base64.urlsafe_b64encode(public).rstrip(b"=").decode()
    # The thumbprint of RFC 7638 names the key: it needs no table of names and never repeats.
    thumbprint = hashlib.sha256(f'{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}'.encode()).digest()
    kid = base64.urlsafe_b64encode(thumbprint).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "use": "sig", "alg": "EdDSA"}
