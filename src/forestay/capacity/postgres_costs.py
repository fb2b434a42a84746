"""Cost models in Postgres: the adapter of `capacity/costs.CostStore`. It decides nothing."""

import datetime as dt

import msgspec

from forestay.capacity.costs import Learned, StoredModel, StoredPredictor
from forestay.capacity.predict import model_from_json, model_to_json, predictor_from_json
from forestay.ids import ModelId, RequestId, RevisionId
from forestay.storage.postgres import Database, load_queries
from forestay.telemetry.cost_facts import Cursor

_SQL = load_queries("forestay.capacity", "sql/costs.sql")
_EVER = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)


class PostgresCostStore:
    """Cost models; those that nothing was learned of for `kept_seconds` go once a newer revision has its own."""

    def __init__(self, database: Database, kept_seconds: float = 90 * 86_400.0) -> None:
        self._database = database
        self._kept_seconds = kept_seconds

    async def learned(self) -> Learned:
        """Read everything; a model of another version is left out, so that learning begins anew."""
        row = await self._database.fetchrow(_SQL["cursor"])
        cursor = None if row is None else Cursor(row["finished_at"], RequestId(row["request_id"]))
        found = [
            StoredModel(ModelId(record["model_id"]), RevisionId(record["revision_id"]), record["endpoint"], model)
            for record in await self._database.fetch(_SQL["models"])
            if (model := model_from_json(record["state"])) is not None
        ]
        return Learned(cursor, {item.key: item for item in found})

    async def save(self, models: list[StoredModel], before: Cursor | None, after: Cursor) -> bool:
        """Store models and move the cursor, both or neither."""
        known = before or after
        async with self._database.transaction() as connection:
            moved = await connection.fetchrow(
                _SQL["move_cursor"], after.finished_at, after.request_id, known.finished_at, known.request_id
            )
            if moved is None:
                return False
            await connection.execute(
                _SQL["save"],
                [item.model_id for item in models],
                [item.revision_id for item in models],
                [item.endpoint for item in models],
                [msgspec.json.encode(model_to_json(item.model)).decode() for item in models],
            )
            await connection.execute(_SQL["forget"], self._kept_seconds)
        return True

    async def predictors(self, since: dt.datetime | None) -> list[StoredPredictor]:
        """Read the predictors changed since then; broken ones are left out."""
        return [
            StoredPredictor(
                model_id=ModelId(record["model_id"]),
                revision_id=RevisionId(record["revision_id"]),
                endpoint=record["endpoint"],
                predictor=predictor,
                learned=record["learned"],
                updated_at=record["updated_at"],
            )
            for record in await self._database.fetch(_SQL["predictors"], since or _EVER)
            if (predictor := predictor_from_json(record["state"])) is not None
        ]
