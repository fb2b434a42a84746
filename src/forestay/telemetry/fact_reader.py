"""Reads the facts of one request for a person. Facts are shipped in batches: a few seconds may pass before they show.

It decides nothing. Called by the gateway's admin API.
"""

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Protocol

import msgspec

from forestay.ids import RequestId
from forestay.storage.postgres import Database, load_queries

_SQL = load_queries("forestay.telemetry", "sql/fact_reader.sql")
Fact = Mapping[str, object]


@dataclasses.dataclass(frozen=True, slots=True)
class RequestFacts:
    """The request's own fact (None until it is shipped), those of its attempts, and of its webhook and judgements."""

    request: Fact | None
    attempts: tuple[Fact, ...]
    deliveries: tuple[Fact, ...] = ()
    verdicts: tuple[Fact, ...] = ()


class FactReader(Protocol):
    """Facts by request."""

    async def of_request(self, request_id: RequestId, since: dt.datetime, until: dt.datetime) -> RequestFacts:
        """Read the facts recorded between two moments: the request's submit and a little after its end."""
        ...


class PostgresFactReader:
    """FactReader over the facts database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of_request(self, request_id: RequestId, since: dt.datetime, until: dt.datetime) -> RequestFacts:
        """Read the facts recorded between two moments."""
        requests = await self._database.fetch(_SQL["of_request"], request_id, since, until)
        attempts = await self._database.fetch(_SQL["of_attempts"], request_id, since, until)
        return RequestFacts(
            request=_fact(requests[0]["fact"]) if requests else None,
            attempts=tuple(_fact(row["fact"]) for row in attempts),
            deliveries=await self._others("of_deliveries", request_id, since, until),
            verdicts=await self._others("of_verdicts", request_id, since, until),
        )

    async def _others(
        self, query: str, request_id: RequestId, since: dt.datetime, until: dt.datetime
    ) -> tuple[Fact, ...]:
        rows = await self._database.fetch(_SQL[query], request_id, since, until)
        return tuple(_fact(row["fact"]) for row in rows)


def _fact(text: str) -> Fact:
    return msgspec.json.decode(text, type=dict[str, object])
