"""Admin routes of turns: whose turn is next in each pool, and what share each tenant has."""

import dataclasses

import msgspec

from forestay.fleet.keys import is_tenant_id
from forestay.gateway.admin_reading import Act, NotThere
from forestay.gateway.responses import Reply, json_reply
from forestay.ids import TenantId


class _Weight(msgspec.Struct, forbid_unknown_fields=True):
    weight: float


async def get_turns(act: Act) -> Reply:
    """List what tenants have received in each pool, those next in turn first."""
    found = await act.ports.admin.turns.accounts()
    return json_reply(200, {"accounts": [dataclasses.asdict(account) for account in found]})


async def put_weight(act: Act) -> Reply:
    """Give a tenant its share relative to others."""
    text = act.path("tenant_id")
    wanted = await act.json(_Weight)
    known = is_tenant_id(text) and await act.ports.admin.turns.set_weight(TenantId(text), wanted.weight)
    if not known:
        raise NotThere(f"no tenant {text[:60]!r}; `forestay tenant list` shows those that exist")
    await act.record("set_weight", f"tenant:{text}", {"weight": wanted.weight}, "asked for")
    return json_reply(200, {"tenant_id": text, "weight": wanted.weight})
