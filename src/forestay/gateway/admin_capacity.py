"""Admin routes of capacity: what is predicted of a request, and what has been learned."""

import msgspec

from forestay.capacity.view import CostView
from forestay.fleet.model import Fleet, Revision
from forestay.gateway.admin_reading import Act, NotThere, plain_text
from forestay.gateway.responses import Reply, json_reply
from forestay.ids import ModelId

_MAX_ENDPOINT = 200


class _Question(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    input: object = None
    endpoint: str = "/"


async def post_prediction(act: Act) -> Reply:
    """Predict what an input would cost on the revision that most of the model's traffic goes to."""
    asked = await act.json(_Question)
    model_id = ModelId(plain_text("model", asked.model, empty=False))
    endpoint = plain_text("endpoint", asked.endpoint, _MAX_ENDPOINT, empty=False)
    revision = _routed(await act.ports.fleet.load(), model_id)
    if revision is None:
        raise NotThere(f"no routed model {asked.model[:200]!r}; `forestay model list` shows those that exist")
    view = CostView()
    view.update(await act.ports.costs.predictors(None))
    features, told = view.explain(revision, endpoint, asked.input)
    price = revision.spec.capacity.price_per_gpu_second
    return json_reply(
        200,
        {
            "model_id": model_id,
            "revision_id": revision.revision_id,
            "endpoint": endpoint,
            "features": features,
            "predicted_seconds": told.seconds,
            "low_seconds": told.low,
            "high_seconds": told.high,
            "source": told.source,
            "price": told.seconds * price if price else None,
            "max_gpu_seconds": revision.spec.capacity.max_gpu_seconds,
        },
    )


async def get_cost_models(act: Act) -> Reply:
    """List what has been learned, newest first."""
    stored = await act.ports.costs.predictors(None)
    rows = [
        {
            "model_id": item.model_id,
            "revision_id": item.revision_id,
            "endpoint": item.endpoint,
            "learned_from": item.learned,
            "usual_seconds": told.seconds,
            "low_seconds": told.low,
            "high_seconds": told.high,
            "features": item.predictor.names,
            "updated_at": item.updated_at,
        }
        for item in reversed(stored)
        for told in [item.predictor.predict(dict(zip(item.predictor.names, item.predictor.usual, strict=True)))]
    ]
    return json_reply(200, {"models": rows})


def _routed(fleet: Fleet, model_id: ModelId) -> Revision | None:
    routes = [route for route in fleet.routes if route.model_id == model_id]
    if not routes:
        return None
    return fleet.revisions.get(max(routes, key=lambda route: route.bucket_to - route.bucket_from).revision_id)
