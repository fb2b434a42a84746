"""The loop that reviews every model again, so that readiness which has rotted is seen. It has no rules of its own."""

from forestay.ids import ModelId
from forestay.readiness.gather import Sources, review_model
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import MODELS_UNREADY, Metrics

EVERY_SECONDS = 600.0
_log = logger("readiness")


class ReadinessLoop:
    """One controller's reviews."""

    def __init__(self, sources: Sources, metrics: Metrics) -> None:
        self._sources = sources
        self._metrics = metrics

    async def run_once(self) -> int:
        """Review every model and keep the cards; returns how many were reviewed."""
        fleet = await self._sources.fleet.load()
        unready: list[ModelId] = []
        reviewed = 0
        for model_id in sorted(fleet.models):
            card = await review_model(self._sources, fleet, model_id)
            if card is None:
                continue
            await self._sources.store.keep(card)
            reviewed += 1
            standing = await self._sources.store.standing(model_id)
            if not card.ready and standing is not None and standing.admitted_at is not None:
                unready.append(model_id)
                items = [row.finding.item for row in card.rows if row.holds_up]
                _log.warning("readiness.rotted", model=model_id, items=items)
        self._metrics.set(MODELS_UNREADY, len(unready))
        return reviewed
