"""Admin routes of game days: begin, list and stop faults that are put in on purpose.

It decides nothing: the bounds are `drills/model`'s, and whether a worker takes part its operator says. No request of a
caller comes here. Every beginning and every stop is in the audit log.
"""

import datetime as dt
from collections.abc import Sequence

import msgspec

from forestay.drills.model import Drill, Sighting, checked, fault_named, faults_known
from forestay.errors import UsageError
from forestay.fleet.audit import AuditEntry
from forestay.gateway.admin_reading import Act, NotThere, plain_text
from forestay.gateway.responses import Reply, json_reply
from forestay.ids import ModelId, RevisionId, WorkerId
from forestay.quality.catalogue import name_of

RECENT = dt.timedelta(days=1)


class _Start(msgspec.Struct, forbid_unknown_fields=True):
    fault: str
    model_id: str
    reason: str
    seconds: int
    worker_id: str = ""
    revision_id: str = ""


class _Stop(msgspec.Struct, forbid_unknown_fields=True):
    reason: str


async def get_faults(_act: Act) -> Reply:
    """List the faults that a drill may name."""
    rows = [{"fault": name, "row": row, "failure": name_of(row)} for name, row in faults_known().items()]
    return json_reply(200, {"faults": sorted(rows, key=lambda item: str(item["fault"]))})


async def post_drill(act: Act) -> Reply:
    """Begin a drill on one worker or one revision of a model."""
    asked, now = await act.json(_Start), act.ports.clock.now()
    store = act.ports.admin.drills
    model_id = ModelId(plain_text("model_id", asked.model_id, empty=False))
    reason = plain_text("reason", asked.reason, empty=False)
    drill = Drill(
        drill_id=f"drill-{act.ports.chance.bits(48):012x}",
        fault=fault_named(asked.fault),
        model_id=model_id,
        revision_id=RevisionId(plain_text("revision_id", asked.revision_id)),
        worker_id=WorkerId(plain_text("worker_id", asked.worker_id)),
        reason=reason,
        started_by=act.actor,
        started_at=now,
        ends_at=now + dt.timedelta(seconds=min(max(0, asked.seconds), 10**6)),
    )
    await _check_place(act, drill)
    checked(drill, await store.standing(now))
    subject = f"drill:{drill.drill_id}"
    detail: dict[str, object] = {
        "fault": drill.fault, "model": drill.model_id, "worker": drill.worker_id, "revision": drill.revision_id,
        "ends_at": drill.ends_at.isoformat(),
    }  # fmt: skip
    # First the record: a fault that was put in and is not on record would be looked for as a real one.
    await act.ports.fleet.record(AuditEntry(now, act.actor, "start_drill", subject, detail, reason))
    await store.start(drill)
    return json_reply(201, _shown(drill, (), now))


async def get_drills(act: Act) -> Reply:
    """List the drills of the last day, those begun last first, and what became of each in replicas."""
    now = act.ports.clock.now()
    drills = await act.ports.admin.drills.standing(now - RECENT)
    seen = await act.ports.admin.drills.sightings([item.drill_id for item in drills])
    return json_reply(200, {"drills": [_shown(item, seen, now) for item in drills]})


async def post_stop(act: Act) -> Reply:
    """Stop a drill; workers take the fault out within a second or two."""
    drill_id, now = act.path("drill_id"), act.ports.clock.now()
    why = plain_text("reason", (await act.json(_Stop)).reason, empty=False)
    if not await act.ports.admin.drills.stop(drill_id, now):
        raise NotThere(f"no drill {drill_id[:32]!r} is running; `forestay drill list` shows them")
    await act.ports.fleet.record(AuditEntry(now, act.actor, "stop_drill", f"drill:{drill_id}", {}, why))
    return json_reply(200, {"drill_id": drill_id, "stopped_at": now})


async def _check_place(act: Act, drill: Drill) -> None:
    """Tell a name that is not in the fleet from one that is; a drill on nothing would seem to pass."""
    fleet = await act.ports.fleet.load()
    if drill.revision_id and (
        drill.revision_id not in fleet.revisions or fleet.revisions[drill.revision_id].model_id != drill.model_id
    ):
        raise UsageError("revision_id", f"{drill.revision_id[:80]!r} is no revision of {drill.model_id[:80]}")
    if drill.worker_id and drill.worker_id not in fleet.workers:
        raise UsageError("worker_id", f"{drill.worker_id[:80]!r} is no worker; `forestay fleet` lists them")
    if not any(item.model_id == drill.model_id for item in fleet.revisions.values()):
        raise UsageError("model_id", f"{drill.model_id[:80]!r} is no model; `forestay model list` shows them")


def _shown(drill: Drill, seen: Sequence[Sighting], now: dt.datetime) -> dict[str, object]:
    return {
        **msgspec.to_builtins(drill),
        "running": now < drill.ends_at,
        "replicas": {item.replica_id: item.said for item in seen if item.drill_id == drill.drill_id},
    }
