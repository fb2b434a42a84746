"""The port to what is recorded of models' files: reports by bundle, and the keys that the operator trusts.

Adapter: `postgres_store`; the tests' fake stands beside the other memory adapters. Changes of trust leave an audit row
in the same transaction.
"""

import dataclasses
import datetime as dt
from typing import Protocol

from forestay.artefacts.report import Report
from forestay.artefacts.signing import TrustedKey


@dataclasses.dataclass(frozen=True, slots=True)
class StoredKey:
    """A trusted key with who added it, and when."""

    key: TrustedKey
    added_by: str
    added_at: dt.datetime


class ArtefactStore(Protocol):
    """Reports and trusted keys. Every method raises Unavailable when the store does not answer."""

    async def save_report(self, bundle_digest: str, report: Report) -> None:
        """Keep the report on a bundle; an earlier one is replaced."""
        ...

    async def report(self, bundle_digest: str) -> Report | None:
        """Return the report on a bundle; None when it was never examined, or by readers of another form."""
        ...

    async def trusted_keys(self) -> list[StoredKey]:
        """List the trusted keys by name."""
        ...

    async def trust(self, key: TrustedKey, *, actor: str) -> bool:
        """Trust a key; False when its name or the key itself is there already."""
        ...

    async def distrust(self, name: str, *, actor: str) -> bool:
        """Stop trusting a key; False when there is none of that name."""
        ...
