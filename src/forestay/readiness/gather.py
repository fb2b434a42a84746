"""Gathers what a readiness review looks at: from the fleet, objectives, files, policies and facts. Decides nothing."""

import dataclasses
import datetime as dt
import re

from forestay.artefacts.admission import Admission
from forestay.artefacts.decide import Admit
from forestay.artefacts.formats import PICKLES, WEIGHTS
from forestay.fleet.model import Fleet, ReplicaState, Revision
from forestay.fleet.routes import HEARD_SECONDS, routes_of
from forestay.fleet.store import FleetStore
from forestay.ids import ModelId
from forestay.readiness.model import Card, Facts
from forestay.readiness.postgres_store import PostgresReadiness
from forestay.readiness.review import review
from forestay.safety.policy_file import STANDARD
from forestay.safety.store import SafetyStore
from forestay.slo.postgres_store import SloReader

LOOKED_BACK = dt.timedelta(days=7)
_DIGEST = re.compile(r"bundles/([0-9a-f]{64})\.tar")
_BURNING = frozenset({"page", "ticket"})


@dataclasses.dataclass(frozen=True, slots=True)
class Sources:
    """Where facts come from."""

    fleet: FleetStore
    slos: SloReader
    artefacts: Admission
    safety: SafetyStore
    store: PostgresReadiness


async def review_model(sources: Sources, fleet: Fleet, model_id: ModelId) -> Card | None:
    """Review a model now, without keeping the card; None when nothing of it serves."""
    revision = serving(fleet, model_id)
    if revision is None:
        return None
    return await review_revision(sources, fleet, revision)


async def review_revision(sources: Sources, fleet: Fleet, revision: Revision) -> Card:
    """Review one revision now, whether it serves or not, without keeping the card."""
    return review(await gather(sources, fleet, revision), await sources.store.waivers(revision.model_id))


def serving(fleet: Fleet, model_id: ModelId) -> Revision | None:
    """Return the revision that has most of the traffic."""
    routes = sorted(routes_of(fleet, model_id), key=lambda route: route.bucket_from - route.bucket_to)
    return fleet.revisions.get(routes[0].revision_id) if routes else None


async def gather(sources: Sources, fleet: Fleet, revision: Revision) -> Facts:
    """Return the facts of a revision."""
    oldest = fleet.now - dt.timedelta(seconds=HEARD_SECONDS)
    pool = revision.spec.resources.pool
    workers = [item for item in fleet.workers.values() if item.pool == pool and item.seen_at >= oldest]
    ready = [
        item
        for item in fleet.replicas.values()
        if item.revision_id == revision.revision_id and item.state is ReplicaState.READY
    ]
    own = [item.standing for item in await sources.slos.all() if item.standing.subject == f"model:{revision.model_id}"]
    files = await _files(sources, revision)
    known = {STANDARD, *(stage.policy_id for stage in (await sources.safety.state()).stages if stage.live)}
    return Facts(
        model_id=revision.model_id,
        revision=revision,
        now=fleet.now,
        replicas_ready=len(ready),
        workers_of_pool=len(workers),
        memory_of_pool_mb=max([item.memory_mb for item in workers], default=0),
        slos=tuple(item.slo_id for item in own),
        slos_broken=tuple(item.slo_id for item in own if item.word in _BURNING),
        signed_by=files.signed_by,
        unsafe_files=files.unsafe,
        weights=files.weights,
        policy_known=revision.spec.safety.policy in known,
        measured=await sources.store.measured(revision.model_id, revision.revision_id, fleet.now - LOOKED_BACK),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Examined:
    """What is known of a bundle's files; nothing while it was never examined."""

    unsafe: tuple[str, ...] = ()
    signed_by: tuple[str, ...] | None = None
    weights: int | None = None


async def _files(sources: Sources, revision: Revision) -> _Examined:
    """Return what the last examination of a revision's bundle says."""
    match = _DIGEST.fullmatch(revision.bundle_key or "")
    report = await sources.artefacts.store.report(match[1]) if match else None
    if report is None:
        return _Examined()
    weights = sum(file.format in WEIGHTS | PICKLES for file in report.files)
    said = await sources.artefacts.decide(report, revision.spec.artefacts)
    if isinstance(said, Admit):
        return _Examined((), said.signed_by, weights)
    return _Examined(tuple(str(item) for item in said.findings), (), weights)
