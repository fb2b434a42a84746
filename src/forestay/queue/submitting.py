"""How a batch of submits is stored: the usual ones in one statement, the special ones after a closer look.

It decides what an identical or repeated submit becomes: an earlier request's id, a conflict, a refusal, or a request of
its own. The queue store's group commit calls `flush` with what arrived together.
"""

from collections.abc import Mapping, Sequence

from forestay.errors import Unavailable
from forestay.ids import ModelId, RequestId
from forestay.queue import rows
from forestay.queue.store import Accepted, IdempotencyConflict, QueueFull
from forestay.settings import Queue
from forestay.storage.postgres import Database

Result = Accepted | IdempotencyConflict | QueueFull
_LOOKS = 3  # how often a submit is looked at again when another one changed what stood against it


class Submitter:
    """Stores batches of submissions."""

    def __init__(self, database: Database, settings: Queue, sql: Mapping[str, str]) -> None:
        self._database = database
        self._settings = settings
        self._sql = sql

    async def flush(self, entries: Sequence[rows.Entry]) -> list[Result]:
        """Store a batch; results in order. Acknowledged ones are committed when this returns."""
        special = [
            entry for entry in entries if entry.limit is not None or entry.submission.idempotency_key is not None
        ]
        usual = [entry for entry in entries if entry.limit is None and entry.submission.idempotency_key is None]
        results: dict[RequestId, Result] = {}
        for some, store in ((special, self._store_special), (usual, self._store_usual)):
            stored = await store(some) if some else set[RequestId]()
            for entry in some:
                request_id = entry.submission.request_id
                results[request_id] = Accepted(request_id) if request_id in stored else await self._look_closer(entry)
        return [results[entry.submission.request_id] for entry in entries]

    async def _store_usual(self, entries: Sequence[rows.Entry]) -> set[RequestId]:
        lines = [(*rows.submit_row(entry, self._settings), entry.submission.fingerprint) for entry in entries]
        records = await self._database.fetch(
            self._sql["submit_plain"], *rows.columns(lines, 20), self._settings.adoption_seconds
        )
        return {RequestId(record[0]) for record in records}

    async def _store_special(self, entries: Sequence[rows.Entry]) -> set[RequestId]:
        ahead: dict[ModelId, int] = {}
        lines: list[tuple[object, ...]] = []
        for entry in entries:
            item = entry.submission
            room = None if entry.limit is None else entry.limit - ahead.get(item.model_id, 0)
            ahead[item.model_id] = ahead.get(item.model_id, 0) + 1
            lines.append((*rows.submit_row(entry, self._settings), item.idempotency_key, item.fingerprint, room))
        records = await self._database.fetch(
            self._sql["submit"], *rows.columns(lines, 22), self._settings.adoption_seconds
        )
        return {RequestId(record[0]) for record in records}

    async def _look_closer(self, entry: rows.Entry) -> Result:
        """Find out what stood against a submission; when it is gone by now, store it after all."""
        item = entry.submission
        for _ in range(_LOOKS):
            earlier = await self._same_key(entry)
            if earlier is not None:
                return earlier
            adopted = await self._database.fetchval(
                self._sql["adopt"], item.key_id, item.fingerprint, self._settings.adoption_seconds
            )
            if adopted is not None:
                return await self._adopted(entry, adopted)
            if entry.limit is not None:
                length = await self._database.fetchval(self._sql["queue_length"], item.model_id, entry.limit)
                if isinstance(length, int) and length >= entry.limit:
                    return QueueFull(length)
            if await self._store_special([entry]):
                return Accepted(item.request_id)
        raise Unavailable("submits with the same key or fingerprint are arriving too fast; try again shortly")

    async def _same_key(self, entry: rows.Entry) -> Result | None:
        item = entry.submission
        if item.idempotency_key is None:
            return None
        row = await self._database.fetchrow(self._sql["idempotent_owner"], item.key_id, item.idempotency_key)
        if row is None:
            return None
        if row["fingerprint"] != item.fingerprint:
            return IdempotencyConflict(RequestId(row["request_id"]))
        return Accepted(RequestId(row["request_id"]), replayed=True)

    async def _adopted(self, entry: rows.Entry, request_id: object) -> Accepted:
        """Give the retry the request whose answer was lost, and remember the retry's own key for it."""
        item = entry.submission
        adopted = RequestId(request_id)  # pyright: ignore[reportArgumentType] - a uuid column
        if item.idempotency_key is not None:
            await self._database.execute(
                self._sql["remember_key"], item.key_id, item.idempotency_key, item.fingerprint, adopted
            )
        return Accepted(adopted, replayed=True)
