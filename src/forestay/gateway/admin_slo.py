"""Admin routes of SLOs: how each stands. It decides nothing: the loop that watches them has written it down."""

import dataclasses

import msgspec

from forestay.gateway.admin_reading import Act, NotThere
from forestay.gateway.responses import Reply, json_reply
from forestay.slo.postgres_store import Kept


async def get_slos(act: Act) -> Reply:
    """List how every SLO stands, what wakes somebody first."""
    kept = await act.ports.admin.slos.all()
    order = {"page": 0, "ticket": 1, "held": 2, "kept": 3, "no_data": 4}
    rows = sorted(kept, key=lambda one: (order.get(one.standing.word, 5), one.standing.slo_id))
    files = [dataclasses.asdict(file) for file in await act.ports.admin.slos.files()]
    return json_reply(200, {"slos": [_shown(one) for one in rows], "files": files})


async def get_slo(act: Act) -> Reply:
    """Show one SLO."""
    name = act.path("slo_id")
    found = await act.ports.admin.slos.one(name)
    if found is None:
        raise NotThere(f"no SLO {name[:100]!r}; `forestay slo status` lists those that are watched")
    return json_reply(200, _shown(found))


def _shown(kept: Kept) -> dict[str, object]:
    told = msgspec.to_builtins(kept.standing)
    return {**told, "word": kept.standing.word, "kept_at": kept.kept_at}
