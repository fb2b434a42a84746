"""The first key of an installation: what whoever has the database may open it with, while no key does. Pure.

It decides whether one is due, and what it may do. It issues nothing (`fleet/postgres_keys`), and `forestay up` has its
own first keys. Called by `forestay key first`.
"""

import datetime as dt
from collections.abc import Iterable

from forestay.fleet.keys import Key, KeyRequest, Scope
from forestay.ids import KeyId, TenantId

FIRST_TENANT = TenantId("default")  # its ADMIN keys see every tenant


def decide_first_key(keys: Iterable[Key], now: dt.datetime, *, anyway: bool = False) -> KeyRequest | KeyId:
    """Return the key to make; or the id of an ADMIN key that works, where one is there and nobody says `anyway`."""
    working = [key.key_id for key in keys if Scope.ADMIN in key.scopes and _works(key, now)]
    if working and not anyway:
        return working[0]
    return KeyRequest(FIRST_TENANT, "first admin-key", frozenset({Scope.API, Scope.ADMIN}))


def _works(key: Key, now: dt.datetime) -> bool:
    return key.tenant_id == FIRST_TENANT and key.revoked_at is None and (key.expires_at is None or key.expires_at > now)
