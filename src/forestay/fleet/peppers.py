"""How a key's secret is recognised: HMAC-SHA-256 under a pepper that the database does not hold.

Whoever reads the `keys` table alone can check no guess against it. Each row says in its `form` how it was hashed:
`sha256` (rows from before peppers) or `hmac-sha256:<id>`, where the id names the pepper. A key shown under an older
form is hashed anew, so that after a rotation the old pepper can be dropped (`fleet/key_ring`). A slow hash would add
nothing: secrets are 256 random bits. Pure; a pepper is never shown.
"""

import hashlib
import hmac
from collections.abc import Sequence

from forestay.errors import UsageError

PLAIN = "sha256"
_KEYED = "hmac-sha256:"
_SHORTEST = 32


class Peppers:
    """The pepper in use and those before it; without any, secrets are hashed plainly."""

    __slots__ = ("_by_form", "form")

    def __init__(self, current: str = "", old: Sequence[str] = ()) -> None:
        if old and not current:
            raise UsageError("FORESTAY_KEY_PEPPER", "is not set, but FORESTAY_OLD_KEY_PEPPERS is; set the new pepper")
        self._by_form: dict[str, bytes | None] = {PLAIN: None}
        for pepper in (*old, current):
            if pepper and len(pepper) < _SHORTEST:
                variable = "FORESTAY_KEY_PEPPER" if pepper == current else "FORESTAY_OLD_KEY_PEPPERS"
                raise UsageError(variable, f"is too short; use at least {_SHORTEST} random characters")
            if pepper:
                self._by_form[_form_of(pepper)] = pepper.encode()
        self.form = _form_of(current) if current else PLAIN  # of new hashes

    def knows(self, form: str) -> bool:
        """Tell whether secrets of this form can be checked here."""
        return form in self._by_form

    def pepper_of(self, form: str) -> bytes | None:
        """Return the pepper of a known form, None for plain hashes."""
        return self._by_form[form]

    def hash(self, secret: str) -> bytes:
        """Return the 32 bytes by which a new secret will be recognised, in the form `form`."""
        return hash_secret(secret, self._by_form[self.form])


NO_PEPPERS = Peppers()


def hash_secret(secret: str, pepper: bytes | None = None) -> bytes:
    """Return the 32 bytes by which a secret is recognised."""
    data = secret.encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).digest() if pepper is None else hmac.digest(pepper, data, "sha256")


def _form_of(pepper: str) -> str:
    """Name a pepper by the start of its hash: of 32 random characters that tells nothing."""
    return _KEYED + hashlib.sha256(b"forestay key pepper\n" + pepper.encode()).hexdigest()[:12]
