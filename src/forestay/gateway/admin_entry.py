"""What readiness says at the door of a deploy, and how a model that was let in opens. `readiness/entry` decides."""

from forestay.fleet.actions import Origin, RegisterRevision
from forestay.fleet.model import Fleet, Revision
from forestay.gateway.admin_reading import Act, Problem
from forestay.ids import ModelId
from forestay.readiness.entry import IN_REVIEW, Admission, Entry, admission_of, decide_entry, decide_visibility
from forestay.readiness.gather import Sources, review_revision, serving


async def check_entry(act: Act, fleet: Fleet, revision: Revision, *, canary: bool) -> str:
    """Return who may call the model once it is deployed; refuse a revision that readiness keeps from traffic.

    A canary is not refused here: its rollout waits at the gate `readiness`, where a waiver or an admission lets it on.
    """
    model_id = revision.model_id
    admission = admission_of(revision.spec, required=act.ports.settings.artefacts.require_readiness)
    if admission is Admission.ADVISED:
        return revision.spec.visibility
    sources = sources_of(act)
    standing = await sources.store.standing(model_id)
    admitted = standing is not None and standing.admitted_at is not None
    visibility = decide_visibility(revision.spec, fleet.models.get(model_id), admission, admitted=admitted)
    if visibility != IN_REVIEW and serving(fleet, model_id) is not None and not canary:
        card = await review_revision(sources, fleet, revision)
        decided = decide_entry(card, admission, admitted=admitted)
        if decided.entry is Entry.CLOSED:
            raise Problem(409, f"{revision.revision_id} gets no traffic: {decided.reason}", "refused")
    return visibility


async def open_reviewed(act: Act, model_id: ModelId) -> None:
    """Open a model that was in review to whom its spec names."""
    fleet = await act.ports.fleet.load()
    entry, revision = fleet.models.get(model_id), serving(fleet, model_id)
    if entry is None or revision is None or entry.visibility != IN_REVIEW:
        return
    opening = RegisterRevision(revision, entry.tenant_id, revision.spec.visibility, "admitted")
    await act.ports.fleet.apply([opening], origin=Origin.HUMAN, actor=act.actor)


def sources_of(act: Act) -> Sources:
    """Return where the facts of a review come from; 503 where this gateway judges no content."""
    ports = act.ports
    if ports.safety is None:
        raise Problem(503, "this gateway judges no content, so it cannot review models", "unavailable")
    return Sources(ports.fleet, ports.admin.slos, ports.artefacts, ports.safety.store, ports.admin.readiness)
