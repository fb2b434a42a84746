"""The SLOs that hold where nobody has written others: one for each model, and those of Forestay itself. Pure.

It decides the objectives that come along; `docs/howto/slos.md` says how to have others. Called by the loop that watches
SLOs.
"""

from collections.abc import Mapping

from forestay.fleet.model import ModelEntry
from forestay.fleet.spec import UNGUARDED
from forestay.ids import ModelId
from forestay.slo.model import Measure, Sli, SliKind, Slo, SloId, Subject, SubjectKind

MODEL_OBJECTIVE = 0.99
PLATFORM: tuple[tuple[Measure, float, str], ...] = (
    (Measure.SUBMIT, 0.999, "submits that were not answered by an error of ours"),
    (Measure.STATUS, 0.999, "status polls and result reads that were answered in time, and by no error of ours"),
    (Measure.GUARD, 0.999, "judgements that came to a verdict"),
    (Measure.SAFETY, 0.9999, "released outputs that were judged"),
    (Measure.DELIVERY, 0.99, "webhooks that arrived"),
)
WHERE_ASKED: tuple[tuple[Measure, float, str], ...] = (
    (Measure.PROVENANCE, 0.999, "released files that bear a signed manifest, where their policy asks for one"),
)
_TEAM = "platform"


def default_slos(models: Mapping[ModelId, ModelEntry], *, signs: bool = False) -> tuple[Slo, ...]:
    """Return the SLOs of a fleet, in order of their ids; `signs`: some policy asks for signed manifests.

    Nobody judges what a model without a policy gives out. Where there is such a model, releases are therefore counted
    of each of the others apart, not of the whole platform: else the first picture that needs no verdict would page.
    """
    guarded = {key: entry for key, entry in models.items() if entry.spec.safety.policy != UNGUARDED}
    whole = len(guarded) == len(models)
    found = [
        Slo(
            slo_id=SloId(f"forestay-{measure}"),
            subject=Subject(SubjectKind.PLATFORM),
            objective=objective,
            sli=Sli(SliKind.RATIO, measure),
            owner_team=_TEAM,
            description=description,
        )
        for measure, objective, description in (*PLATFORM, *(WHERE_ASKED if signs else ()))
        if measure is not Measure.SAFETY or whole
    ]
    found += [_of_model(model_id, entry) for model_id, entry in models.items()]
    found += [] if whole else [_of_releases(model_id) for model_id in guarded]
    return tuple(sorted(found, key=_id_of))


def id_of_model(model_id: ModelId) -> SloId:
    """Return the id of a model's default SLO."""
    return SloId(f"{short_name(model_id)}-availability")


def short_name(model_id: ModelId) -> str:
    """Return how a model is called in the ids of its SLOs."""
    return model_id.replace("/", "-")


def _of_model(model_id: ModelId, entry: ModelEntry) -> Slo:
    return Slo(
        slo_id=id_of_model(model_id),
        subject=Subject(SubjectKind.MODEL, model_id),
        objective=MODEL_OBJECTIVE,
        sli=Sli(SliKind.RATIO, Measure.AVAILABILITY),
        owner_team=entry.spec.owner_team,
        owner_contact=entry.spec.owner_contact,
        description="requests that ended without a fault of ours; callers' own errors count as neither",
    )


def _of_releases(model_id: ModelId) -> Slo:
    objective, description = next((one[1], one[2]) for one in PLATFORM if one[0] is Measure.SAFETY)
    return Slo(
        slo_id=SloId(f"{short_name(model_id)}-safety"),
        subject=Subject(SubjectKind.MODEL, model_id),
        objective=objective,
        sli=Sli(SliKind.RATIO, Measure.SAFETY),
        owner_team=_TEAM,
        description=description,
    )


def _id_of(slo: Slo) -> str:
    return slo.slo_id
