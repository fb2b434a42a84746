"""The seal on content that is kept for review: AES-256-GCM, a key of its own for each copy, large copies in frames.

    version (1 byte) | salt (16) | frames: ciphertext and tag of 1 MiB each, the last one shorter

Each copy has its own key: HKDF-SHA256 (RFC 5869) over the platform's sealing key, the salt, and the copy's name, so
that a copy put in another's place does not open. Frames are numbered and the last one is marked in their nonces (the
STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizar, CRYPTO 2015), so that none can be left out, moved or
cut off. The sealing key comes from FORESTAY_SEAL_KEY, or from FORESTAY_INTERNAL_KEY where that is empty; its name
stands with each copy, so that old copies open after a rotation. Pure but for the salt. Called by `sealed`.
"""

import hashlib
from collections.abc import Iterator, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from forestay.chance import Chance
from forestay.errors import Refused

FRAME_BYTES = 1024 * 1024
SALT_BYTES = 16
_VERSION = b"\x01"
_TAG_BYTES = 16
_LABEL = b"forestay sealed content 1\n"
_NAME_LABEL = b"forestay sealed content, name of the key 1\n"


class ContentSeal:
    """Seals under the newest key, opens under any that is known."""

    def __init__(self, secrets: Sequence[str], chance: Chance) -> None:
        """`secrets`: the newest first; at least one."""
        self._keys = {_name_of(secret): secret.encode() for secret in reversed([text for text in secrets if text])}
        if not self._keys:
            raise ValueError("a seal needs a key: set FORESTAY_SEAL_KEY or FORESTAY_INTERNAL_KEY")
        self.key_name = _name_of(next(text for text in secrets if text))
        self._chance = chance

    def closing(self, name: str) -> "Closing":
        """Begin to seal a copy of that name."""
        salt = self._chance.bits(8 * SALT_BYTES).to_bytes(SALT_BYTES)
        return Closing(_derived(self._keys[self.key_name], salt, name), salt)

    def opening(self, name: str, key_name: str) -> "Opening":
        """Begin to open the copy of that name; raises Refused when its key is not known here."""
        secret = self._keys.get(key_name)
        if secret is None:
            raise Refused(f"copy {name} is sealed under key {key_name}: add its secret to FORESTAY_OLD_SEAL_KEYS")
        return Opening(secret, name)

    def close(self, name: str, data: bytes) -> bytes:
        """Seal a small copy at once."""
        closing = self.closing(name)
        return b"".join((*closing.add(data), *closing.end()))

    def open(self, name: str, key_name: str, sealed: bytes) -> bytes:
        """Open a small copy at once; raises Refused when it is not what was sealed under that name."""
        opening = self.opening(name, key_name)
        return b"".join((*opening.add(sealed), *opening.end()))


class Closing:
    """One copy while it is sealed."""

    def __init__(self, key: AESGCM, salt: bytes) -> None:
        self._key = key
        self._held = bytearray()
        self._head = _VERSION + salt
        self._number = 0

    def add(self, data: bytes) -> Iterator[bytes]:
        """Take more of the content; yields what is ready to be stored."""
        self._held += data
        while len(self._held) > FRAME_BYTES:  # never all of it: the last frame is marked
            frame, self._held = bytes(self._held[:FRAME_BYTES]), self._held[FRAME_BYTES:]
            yield self._sealed(frame, last=False)

    def end(self) -> Iterator[bytes]:
        """Seal what is left."""
        yield self._sealed(bytes(self._held), last=True)

    def _sealed(self, frame: bytes, *, last: bool) -> bytes:
        head, self._head = self._head, b""
        sealed = self._key.encrypt(_nonce(self._number, last=last), frame, None)
        self._number += 1
        return head + sealed


class Opening:
    """One copy while it is opened."""

    def __init__(self, secret: bytes, name: str) -> None:
        self._secret = secret
        self._name = name
        self._held = bytearray()
        self._key: AESGCM | None = None
        self._number = 0

    def add(self, data: bytes) -> Iterator[bytes]:
        """Take more of what was stored; yields content that is proven to be what was sealed."""
        self._held += data
        if self._key is None and len(self._held) >= 1 + SALT_BYTES:
            version, salt = bytes(self._held[:1]), bytes(self._held[1 : 1 + SALT_BYTES])
            if version != _VERSION:
                raise Refused(f"copy {self._name} is of a form that is not known here")
            self._key = _derived(self._secret, salt, self._name)
            del self._held[: 1 + SALT_BYTES]
        whole = FRAME_BYTES + _TAG_BYTES
        while self._key is not None and len(self._held) > whole:
            frame = bytes(self._held[:whole])
            del self._held[:whole]
            yield self._opened(self._key, frame, last=False)

    def end(self) -> Iterator[bytes]:
        """Open the last frame."""
        if self._key is None:
            raise Refused(f"copy {self._name} is not whole")
        yield self._opened(self._key, bytes(self._held), last=True)

    def _opened(self, key: AESGCM, frame: bytes, *, last: bool) -> bytes:
        try:
            data = key.decrypt(_nonce(self._number, last=last), frame, None)
        except InvalidTag:
            raise Refused(f"copy {self._name} is not what was sealed: it was altered, cut, or is another one") from None
        self._number += 1
        return data


def _derived(secret: bytes, salt: bytes, name: str) -> AESGCM:
    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=salt, info=_LABEL + name.encode()).derive(secret))


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11) + (b"\x01" if last else b"\x00")


def _name_of(secret: str) -> str:
    return hashlib.sha256(_NAME_LABEL + secret.encode()).hexdigest()[:16]
