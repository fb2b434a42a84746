"""Offers and pairs in Postgres: the adapter of `rollouts/shadow/store`. It decides nothing."""

import dataclasses
import datetime as dt
from collections.abc import Sequence

import asyncpg
import msgspec

from forestay.ids import ModelId, RequestId, RevisionId
from forestay.rollouts.shadow.model import Offered, Pair
from forestay.storage.postgres import Database, load_queries

MOST_OFFERS = 40  # of one revision and stratum
_SQL = load_queries("forestay.rollouts", "sql/shadow.sql")


class PostgresShadowStore:
    """ShadowStore over the main database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def offer(self, offered: Offered) -> None:
        """Keep it for a while; a second time changes nothing."""
        await self._database.execute(
            _SQL["offer"],
            offered.request_id,
            offered.model_id,
            offered.revision_id,
            offered.endpoint,
            offered.stratum,
            offered.body,
            offered.answer,
            offered.device_seconds,
            offered.at,
            MOST_OFFERS,
        )

    async def offers(self, model_id: ModelId, limit: int) -> Sequence[Offered]:
        """Return the newest offers of a model."""
        return [_offered(row) for row in await self._database.fetch(_SQL["offers"], model_id, limit)]

    async def begin(self, rollout_id: str, pair: Pair) -> bool:
        """Note a pair before its copies are sent; False when the request is noted already."""
        row = await self._database.fetchrow(_SQL["begin_pair"], rollout_id, pair.request_id, pair.begun_at, _text(pair))
        return row is not None

    async def end(self, rollout_id: str, pair: Pair) -> None:
        """Note what came of a pair, its outcome or why it was given up; the first word stands."""
        ended = dataclasses.replace(pair, body=b"", answer=b"")  # a caller's input is not kept with the verdict
        await self._database.execute(_SQL["end_pair"], rollout_id, pair.request_id, _text(ended))

    async def pairs(self, rollout_id: str) -> Sequence[Pair]:
        """Return the pairs of a rollout in the order in which they were begun."""
        rows = await self._database.fetch(_SQL["pairs"], rollout_id)
        return [msgspec.json.decode(row["state"], type=Pair) for row in rows]

    async def forget(self, offers_before: dt.datetime, pairs_before: dt.datetime) -> Sequence[str]:
        """Drop old offers, and pairs with their inputs; returns object keys that may be deleted."""
        await self._database.execute(_SQL["forget_offers"], offers_before)
        rows = await self._database.fetch(_SQL["forget_pairs"], pairs_before)
        return [row["sheet_key"] for row in rows if row["sheet_key"]]


def _text(pair: Pair) -> str:
    return msgspec.json.encode(pair).decode()


def _offered(row: asyncpg.Record) -> Offered:
    return Offered(
        RequestId(row["request_id"]),
        ModelId(row["model_id"]),
        RevisionId(row["revision_id"]),
        row["endpoint"],
        row["stratum"],
        bytes(row["body"]),
        bytes(row["answer"]),
        float(row["device_seconds"]),
        row["at"],
    )
