"""Admin routes of keys and tenants. A secret is shown once, in the answer that creates it, and never again."""

import dataclasses
import datetime as dt

import msgspec

from forestay.errors import UsageError
from forestay.fleet.grants import Grant, Privilege, check_grants
from forestay.fleet.keys import IssuedKey, Key, KeyRequest, Scope, Unrotatable, is_tenant_id
from forestay.fleet.networks import parse_networks
from forestay.gateway.admin_reading import Act, NotThere, Problem, plain_text
from forestay.gateway.responses import Reply, json_reply
from forestay.ids import KeyId, TenantId

_LONGEST_SECONDS = 10 * 365 * 86_400
_LONGEST_OVERLAP_SECONDS = 90 * 86_400


class _NewKey(msgspec.Struct, forbid_unknown_fields=True):
    name: str = ""
    tenant_id: str = ""  # empty: the key's own, or the only one
    scopes: list[Scope] = msgspec.field(default_factory=lambda: [Scope.API])
    expires_in_seconds: float | None = None
    grants: list[Grant] = []
    networks: list[str] = []
    privileges: list[Privilege] = []


class _Rotation(msgspec.Struct, forbid_unknown_fields=True):
    overlap_seconds: float = 86_400.0


class _NewTenant(msgspec.Struct, forbid_unknown_fields=True):
    tenant_id: str
    name: str = ""


async def post_key(act: Act) -> Reply:
    """Issue a key."""
    _need_pepper(act)
    wanted = await act.json(_NewKey)
    if not wanted.scopes:
        raise UsageError("scopes", "name at least one of API and ADMIN")
    seconds = wanted.expires_in_seconds
    if seconds is not None and not 0 < seconds <= _LONGEST_SECONDS:
        raise UsageError("expires_in_seconds", f"must be above 0 and at most {_LONGEST_SECONDS}")
    tenant_id = await act.tenant(wanted.tenant_id)
    asked = KeyRequest(
        tenant_id,
        plain_text("name", wanted.name),
        frozenset(wanted.scopes),
        None if seconds is None else act.ports.clock.now() + dt.timedelta(seconds=seconds),
        check_grants(wanted.grants),
        tuple(str(network) for network in parse_networks("networks", wanted.networks)),
        frozenset(wanted.privileges),
    )
    issued = await act.ports.key_store.create(asked, actor=act.actor)
    if issued is None:
        raise UsageError("tenant_id", f"no tenant {tenant_id!r}; create it with `forestay tenant create`")
    return _shown_once(issued)


async def get_keys(act: Act) -> Reply:
    """List keys, newest first."""
    tenant_id = act.query("tenant_id")
    found = await act.ports.key_store.keys(None if tenant_id is None else TenantId(tenant_id))
    return json_reply(200, {"keys": [view(key) for key in found]})


async def get_key(act: Act) -> Reply:
    """Show one key."""
    key_id = KeyId(act.path("key_id"))
    stored = None if "\x00" in key_id else await act.ports.key_store.find(key_id)
    if stored is None:
        raise _no_key(key_id)
    return json_reply(200, {**view(stored.key), "secret_form": stored.secret_form})


async def post_rotation(act: Act) -> Reply:
    """Issue a key's successor; the key itself expires after the overlap."""
    _need_pepper(act)
    key_id = KeyId(act.path("key_id"))
    overlap_seconds = (await act.json(_Rotation)).overlap_seconds
    if not 0 <= overlap_seconds <= _LONGEST_OVERLAP_SECONDS:
        raise UsageError("overlap_seconds", f"must be 0 to {_LONGEST_OVERLAP_SECONDS}")
    if "\x00" in key_id:
        raise _no_key(key_id)
    issued = await act.ports.key_store.rotate(key_id, overlap_seconds, actor=act.actor)
    match issued:
        case IssuedKey():
            act.ports.keys.forget([key_id])
            return _shown_once(issued)
        case Unrotatable.UNKNOWN:
            raise _no_key(key_id)
        case Unrotatable.ENDED:
            raise Problem(409, f"{key_id} is revoked or has expired; create a new key", "key_ended")
        case Unrotatable.HAS_SUCCESSOR:
            message = f"{key_id} has a successor already; was its secret lost, revoke it first (`forestay key list`)"
            raise Problem(409, message, "has_successor")


async def delete_key(act: Act) -> Reply:
    """Revoke a key; other gateways feel it within two seconds."""
    key_id = KeyId(act.path("key_id"))
    if key_id == act.who.key_id:
        raise Problem(409, f"{key_id} is the key that you are using; revoke it with another ADMIN key", "own_key")
    reason = plain_text("reason", act.query("reason") or "asked for")
    key = None if "\x00" in key_id else await act.ports.key_store.revoke(key_id, actor=act.actor, reason=reason)
    if key is None:
        raise _no_key(key_id)
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


async def get_tenant(act: Act) -> Reply:
    """Show one tenant with its keys and models."""
    text = act.path("tenant_id")
    tenant_id = TenantId(text)
    tenant = await act.ports.key_store.tenant(tenant_id) if is_tenant_id(text) else None
    if tenant is None:
        raise NotThere(f"no tenant {text[:60]!r}; `forestay tenant list` shows those that exist")
    fleet = await act.ports.fleet.load()
    safety = act.ports.safety
    stricter = (
        {} if safety is None else {item.tenant_id: item.policy_id for item in (await safety.store.state()).tenants}
    )
    return json_reply(
        200,
        {
            **dataclasses.asdict(tenant),
            "policy_id": stricter.get(tenant_id),
            "keys": [view(key) for key in await act.ports.key_store.keys(tenant_id)],
            "models": sorted(name for name, entry in fleet.models.items() if entry.tenant_id == tenant_id),
        },
    )


def view(key: Key) -> dict[str, object]:
    """Return a key as it is shown."""
    return {
        **dataclasses.asdict(key),
        "scopes": sorted(scope.value for scope in key.scopes),
        "grants": [{"models": sorted(grant.models), "verbs": sorted(grant.verbs)} for grant in key.grants],
        "privileges": sorted(key.privileges),
    }


def _shown_once(issued: IssuedKey) -> Reply:
    return json_reply(201, {**view(issued.key), "key": issued.credential}, (b"cache-control", b"no-store"))


def _no_key(key_id: KeyId) -> NotThere:
    return NotThere(f"no key {key_id[:60]!r}; `forestay key list` shows those that exist")


def _need_pepper(act: Act) -> None:
    """Issue no key that would be hashed without a pepper; those that exist go on working."""
    if not act.ports.settings.secrets.key_pepper:
        mend = "set it to the same 32 or more random characters on every gateway"
        raise Problem(409, f"no key is issued while FORESTAY_KEY_PEPPER is not set; {mend}", "no_pepper")
