"""Canaries in Postgres, and the self-test of a held worker by them. Decides nothing; the ports are elsewhere."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

import msgspec

from forestay.clock import Clock
from forestay.ids import ModelId, RevisionId, WorkerId
from forestay.quality.canary_store import Ask, PlayedRound, SelfTested, Spot
from forestay.quality.golden import Baseline, Cause, Taught
from forestay.quality.watch_store import Hold
from forestay.storage.postgres import Database, Record, load_queries

RESULTS_KEPT = dt.timedelta(days=1)
_SQL = load_queries("forestay.quality", "sql/canaries.sql")
_T = TypeVar("_T")


class PostgresCanaries:
    """CanaryStore over the tables `quality_baselines`, `_golden_looks`, `_canary_rounds` and `_canary_asks`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def baselines(self, model_id: ModelId) -> list[Baseline]:
        """Read from which revisions on goldens of a model hold."""
        rows = await self._database.fetch(_SQL["baselines"], model_id)
        return [msgspec.convert(dict(row), Baseline) for row in rows]

    async def begin(self, baseline: Baseline) -> None:
        """Note a model's first baseline; nothing where it has one."""
        await self._database.execute(
            _SQL["begin"], baseline.model_id, baseline.revision_id, baseline.revision_at, baseline.since
        )

    async def approve(self, baseline: Baseline, taught: Sequence[Taught]) -> None:
        """Note a baseline that a person approved, with looks of its revision; what it held before is replaced."""
        model_id, revision_id = baseline.model_id, baseline.revision_id
        async with self._database.transaction() as connection:
            await connection.execute(
                _SQL["approve"], model_id, revision_id, baseline.revision_at, baseline.since, baseline.approved_by,
                baseline.reason,
            )  # fmt: skip
            await connection.execute(_SQL["unlearn"], model_id, revision_id)
            await connection.execute(_SQL["teach"], model_id, revision_id, msgspec.json.encode(list(taught)).decode())

    async def taught(self, model_id: ModelId, revision_id: RevisionId) -> list[Taught]:
        """Read the looks of one baseline."""
        return [
            _parsed(row, "look", Taught) for row in await self._database.fetch(_SQL["taught"], model_id, revision_id)
        ]

    async def teach(self, model_id: ModelId, revision_id: RevisionId, taught: Sequence[Taught]) -> None:
        """Add looks to a baseline that is being learned."""
        if taught:
            text = msgspec.json.encode(list(taught)).decode()
            await self._database.execute(_SQL["teach"], model_id, revision_id, text)

    async def settle(self, look_ids: Sequence[int]) -> None:
        """Note that these looks are a golden; nothing where one of the same canary and environment is settled."""
        await self._database.execute(_SQL["settle"], list(look_ids))

    async def note(self, played: PlayedRound) -> None:
        """Keep a round."""
        await self._database.execute(
            _SQL["note"], played.model_id, played.revision_id, played.replica_id, played.worker_id, played.cause.value,
            played.began_at, played.device_seconds, played.ended.value, played.words,
            msgspec.json.encode(played.canaries).decode(),
        )  # fmt: skip

    async def rounds(self, model_id: ModelId, limit: int) -> list[PlayedRound]:
        """Read the newest rounds of a model."""
        rows = await self._database.fetch(_SQL["rounds"], model_id, limit)
        return [_parsed(row, "canaries", PlayedRound) for row in rows]

    async def ask(self, ask: Ask) -> int:
        """Ask for a round; returns the id. An open ask of the same kind for the same worker is returned instead."""
        found = await self._database.fetchval(
            _SQL["ask"], ask.model_id, ask.revision_id, ask.worker_id, ask.cause.value, ask.asked_at, ask.reason
        )
        return cast("int", found)

    async def asks(self, since: dt.datetime) -> list[Ask]:
        """Read the open asks made at `since` or later."""
        return [msgspec.convert(dict(row), Ask) for row in await self._database.fetch(_SQL["asks"], since)]

    async def answer(self, ask_id: int, tested: SelfTested, words: str) -> None:
        """Note the result of a self-test."""
        await self._database.execute(_SQL["answer"], ask_id, tested.at, tested.passed, tested.differed, words)

    async def results(self, since: dt.datetime) -> Mapping[Spot, SelfTested]:
        """Return the last self-test of each worker and revision."""
        return {
            (WorkerId(str(row["worker_id"])), RevisionId(str(row["revision_id"]))): SelfTested(
                cast("dt.datetime", row["answered_at"]), bool(row["passed"]), bool(row["differed"])
            )
            for row in await self._database.fetch(_SQL["results"], since)
        }

    async def forget(self, before: dt.datetime, most: int) -> list[str]:
        """Remove rounds that began before then, and old asks; returns keys of pictures nobody shows any more."""
        await self._database.execute(_SQL["forget_asks"], before)
        return [str(row["picture_key"]) for row in await self._database.fetch(_SQL["forget"], before, most)]


class CanarySelfTest:
    """The loop's SelfTest: a worker that is held back plays the canaries on a replica that serves nobody."""

    def __init__(self, canaries: PostgresCanaries, clock: Clock) -> None:
        self._canaries = canaries
        self._clock = clock

    async def ask(self, hold: Hold) -> None:
        """Ask for a test; its result is told by `results` later."""
        now = self._clock.now()
        await self._canaries.ask(
            Ask(hold.model_id, hold.revision_id, hold.worker_id, Cause.SELF_TEST, now, hold.reason[:500])
        )

    async def results(self) -> Mapping[Spot, SelfTested]:
        """Return the last self-test of each worker and revision."""
        return await self._canaries.results(self._clock.now() - RESULTS_KEPT)


def _parsed(row: Record, column: str, kind: type[_T]) -> _T:
    """Return a row as a value; one of its columns is JSON."""
    values = {**dict(row), column: msgspec.json.decode(cast("str", row[column]))}
    return msgspec.convert(values, kind, strict=False)
