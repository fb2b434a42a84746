"""Game days: which fault is put on purpose into which replicas, until when. Pure.

It decides what a replica has now, and what may be asked for. A drill names a model and one worker or one revision of
it, so that a slip of the hand never reaches a whole fleet, and it ends by itself. Whether a worker takes drills at all
its operator says (FORESTAY_DRILLS); no request can. Called by the admin API and by `worker/drilling`.
"""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence

from forestay.drills.faults import FAULTS
from forestay.drills.files import FILE_FAULTS
from forestay.errors import UsageError
from forestay.ids import ModelId, ReplicaId, RevisionId, WorkerId

LONGEST = dt.timedelta(hours=1)
SHORTEST = dt.timedelta(seconds=10)
MAX_DRILLS = 20  # at a time
_ROWS: Mapping[str, int] = {fault.name: fault.row for fault in (*FAULTS, *FILE_FAULTS)}
IN_FORCE = "in force"


@dataclasses.dataclass(frozen=True, slots=True)
class Drill:
    """One fault for a while. Empty `revision_id` or `worker_id`: whichever; never both."""

    drill_id: str
    fault: str  # a name of `drills/faults` or `drills/files`
    model_id: ModelId
    revision_id: RevisionId
    worker_id: WorkerId
    reason: str
    started_by: str
    started_at: dt.datetime
    ends_at: dt.datetime  # planned, or when somebody stopped it


@dataclasses.dataclass(frozen=True, slots=True)
class Sighting:
    """What became of a drill in one replica. `said`: IN_FORCE, "ended", or why the fault could not be put in."""

    drill_id: str
    replica_id: ReplicaId
    worker_id: WorkerId
    said: str
    at: dt.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Spot:
    """A replica as a drill looks at it."""

    replica_id: ReplicaId
    worker_id: WorkerId
    revision_id: RevisionId
    model_id: ModelId


def faults_known() -> Mapping[str, int]:
    """Return the faults that a drill may name, each with its row of the catalogue of failures."""
    return _ROWS


def fault_named(said: str) -> str:
    """Return the fault of that name, words joined by spaces or dashes; UsageError where there is none."""
    wanted = _joined(said)
    found = next((name for name in _ROWS if _joined(name) == wanted), None)
    if found is None:
        raise UsageError("fault", f"{said[:60]!r} is none that is known; `forestay drill faults` lists them")
    return found


def decide_faults(drills: Sequence[Drill], spot: Spot, now: dt.datetime) -> tuple[Drill, ...]:
    """Return the drills that a replica takes part in now, each fault once."""
    found: dict[str, Drill] = {}
    for drill in sorted(drills, key=lambda item: (item.started_at, item.drill_id)):
        here = (
            drill.model_id == spot.model_id
            and drill.worker_id in {"", spot.worker_id}
            and drill.revision_id in {"", spot.revision_id}
            and bool(drill.worker_id or drill.revision_id)
        )
        if here and drill.started_at <= now < drill.ends_at:
            found.setdefault(drill.fault, drill)
    return tuple(found.values())


def checked(drill: Drill, standing: Sequence[Drill]) -> Drill:
    """Return it when it may begin; UsageError names the field that stands against it."""
    if not drill.worker_id and not drill.revision_id:
        raise UsageError("worker_id", "name one worker or one revision; a drill is never for a whole model")
    if not SHORTEST <= drill.ends_at - drill.started_at <= LONGEST:
        raise UsageError("seconds", f"must be {SHORTEST.seconds} to {LONGEST.seconds}; a drill ends by itself")
    if len(standing) >= MAX_DRILLS:
        raise UsageError("fault", f"{MAX_DRILLS} drills run already; stop one by `forestay drill stop`")
    return drill


def _joined(name: str) -> str:
    return "-".join(name.lower().replace("-", " ").split())
