"""Webhook signatures, verified as a receiver would: from the published keys and the four headers alone."""

import base64
import hashlib
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from forestay.delivery.signing import Signed, load_or_create_keys
from forestay.errors import UsageError

SIGNED = Signed("019a-request", "acme", 1_767_225_600, b'{"status":"OK"}')


def verify(jwks: dict[str, list[dict[str, str]]], headers: dict[str, str], body: bytes) -> bool:
    """Verify as fal's documentation tells receivers to."""
    names = ("X-Fal-Webhook-Request-Id", "X-Fal-Webhook-User-Id", "X-Fal-Webhook-Timestamp")
    message = "\n".join([*(headers[name] for name in names), hashlib.sha256(body).hexdigest()]).encode()
    for key in jwks["keys"]:
        public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "="))
        try:
            public.verify(bytes.fromhex(headers["X-Fal-Webhook-Signature"]), message)
        except InvalidSignature:
            continue
        return True
    return False


def test_a_receiver_can_verify_and_a_change_of_anything_shows(tmp_path: Path) -> None:
    """The body and each signed header are covered."""
    keys = load_or_create_keys(tmp_path / "keys" / "signing.pem")
    headers = keys.headers(SIGNED)
    assert verify(keys.jwks(), headers, SIGNED.body)
    assert not verify(keys.jwks(), headers, SIGNED.body + b" ")
    for name in ("X-Fal-Webhook-Request-Id", "X-Fal-Webhook-User-Id", "X-Fal-Webhook-Timestamp"):
        assert not verify(keys.jwks(), {**headers, name: headers[name] + "1"}, SIGNED.body)


def test_the_key_file_is_private_and_kept(tmp_path: Path) -> None:
    """Mode 0600, and the same keys after a restart."""
    path = tmp_path / "signing.pem"
    first = load_or_create_keys(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_keys(path).jwks() == first.jwks()
    assert [entry.name for entry in tmp_path.iterdir()] == ["signing.pem"]


def test_processes_that_start_together_share_one_key(tmp_path: Path) -> None:
    """Whoever comes second takes the first one's."""
    path = tmp_path / "signing.pem"
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(load_or_create_keys, [path] * 16))
    assert len({keys.jwks()["keys"][0]["x"] for keys in found}) == 1


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """The message says how to mend it."""
    path = tmp_path / "signing.pem"
    load_or_create_keys(path)
    path.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        load_or_create_keys(path)


def test_during_a_rotation_both_keys_are_published_and_the_first_signs(tmp_path: Path) -> None:
    """So that receivers know the new key before it is used."""
    path = tmp_path / "signing.pem"
    old = load_or_create_keys(path)
    new = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(new + path.read_bytes())
    both = load_or_create_keys(path)
    assert len(both.jwks()["keys"]) == 2
    assert verify(both.jwks(), old.headers(SIGNED), SIGNED.body)
    assert verify(both.jwks(), both.headers(SIGNED), SIGNED.body)
    assert not verify(old.jwks(), both.headers(SIGNED), SIGNED.body)


@pytest.mark.parametrize("kind", ["empty", "garbage", "other"])
def test_a_file_without_a_usable_key_is_refused(tmp_path: Path, kind: str) -> None:
    """Naming the setting."""
    other = X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = tmp_path / "signing.pem"
    path.touch(mode=0o600)
    path.write_bytes({"empty": b"", "garbage": b"not a key", "other": other}[kind])
    with pytest.raises(UsageError, match="FORESTAY_SIGNING_KEY_FILE"):
        load_or_create_keys(path)
