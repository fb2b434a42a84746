"""Admin routes of keys and tenants. A secret is shown once, in the answer that creates it, and never again."""

import dataclasses
import datetime as dt

import msgspec

from forestay.errors import UsageError
from forestay.fleet.keys import Key, KeyRequest, Scope, is_tenant_id
from forestay.gateway.admin_reading import Act, NotThere, Problem, plain_text
from forestay.gateway.responses import Reply, json_reply
from forestay.ids import KeyId, TenantId

_LONGEST_SECONDS = 10 * 365 * 86_400


class _NewKey(msgspec.Struct, forbid_unknown_fields=True):
    name: str = ""
    tenant_id: str = ""  # empty: the caller's own
    scopes: list[Scope] = msgspec.field(default_factory=lambda: [Scope.API])
    expires_in_seconds: float | None = None


class _NewTenant(msgspec.Struct, forbid_unknown_fields=True):
    tenant_id: str
    name: str = ""


async def post_key(act: Act) -> Reply:
    """Issue a key."""
    wanted = await act.json(_NewKey)
    if not wanted.scopes:
        raise UsageError("scopes", "name at least one of API and ADMIN")
    seconds = wanted.expires_in_seconds
    if seconds is not None and not 0 < seconds <= _LONGEST_SECONDS:
        raise UsageError("expires_in_seconds", f"must be above 0 and at most {_LONGEST_SECONDS}")
    expires_at = None if seconds is None else act.ports.clock.now() + dt.timedelta(seconds=seconds)
    tenant_id = TenantId(plain_text("tenant_id", wanted.tenant_id) or act.caller.tenant_id)
    asked = KeyRequest(tenant_id, plain_text("name", wanted.name), frozenset(wanted.scopes), expires_at)
    issued = await act.ports.key_store.create(asked, actor=act.actor)
    if issued is None:
        raise UsageError("tenant_id", f"no tenant {tenant_id!r}; create it with `forestay tenant create`")
    return json_reply(201, {**view(issued.key), "key": issued.credential}, (b"cache-control", b"no-store"))


async def get_keys(act: Act) -> Reply:
    """List keys, newest first."""
    tenant_id = act.query("tenant_id")
    found = await act.ports.key_store.keys(None if tenant_id is None else TenantId(tenant_id))
    return json_reply(200, {"keys": [view(key) for key in found]})


async def delete_key(act: Act) -> Reply:
    """Revoke a key; other gateways feel it within two seconds."""
    key_id = KeyId(act.path("key_id"))
    if key_id == act.caller.key_id:
        raise Problem(409, f"{key_id} is the key that you are using; revoke it with another ADMIN key", "own_key")
    reason = plain_text("reason", act.query("reason") or "asked for")
    key = None if "\x00" in key_id else await act.ports.key_store.revoke(key_id, actor=act.actor, reason=reason)
    if key is None:
        raise NotThere(f"no key {key_id[:60]!r}; `forestay key list` shows those that exist")
    act.ports.keys.forget([key_id])
    return json_reply(200, view(key))


async def post_tenant(act: Act) -> Reply:
    """Create a tenant."""
    wanted = await act.json(_NewTenant)
    if not is_tenant_id(wanted.tenant_id):
        raise UsageError("tenant_id", "use lower-case letters, digits, `_`, `.` and `-`; at most 63")
    name = plain_text("name", wanted.name) or wanted.tenant_id
    tenant = await act.ports.key_store.create_tenant(TenantId(wanted.tenant_id), name, actor=act.actor)
    if tenant is None:
        raise Problem(409, f"tenant {wanted.tenant_id!r} exists already", "tenant_exists")
    return json_reply(201, tenant)


async def get_tenants(act: Act) -> Reply:
    """List tenants."""
    return json_reply(200, {"tenants": await act.ports.key_store.tenants()})


def view(key: Key) -> dict[str, object]:
    """Return a key as it is shown."""
    return {**dataclasses.asdict(key), "scopes": sorted(scope.value for scope in key.scopes)}
