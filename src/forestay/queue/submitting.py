"""How a batch of submits is stored: the usual ones in one statement, the special ones after a closer look.

It decides what an identical or repeated submit becomes: an earlier request's id, a conflict, a refusal, or a request of
its own. What a lost database means for a batch is decided in `queue/outage.py`. The queue store's group commit calls
`flush` with what arrived together.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

import asyncpg

from forestay.chance import Chance
from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.ids import ModelId, RequestId
from forestay.queue import rows
from forestay.queue.outage import Stored, patiently, store_surely
from forestay.queue.store import Accepted, IdempotencyConflict, QueueFull
from forestay.settings import Queue
from forestay.storage.postgres import Connection, Database, NothingSent, Record

Result = Accepted | IdempotencyConflict | QueueFull
Store = Callable[[Database | Connection, Sequence[rows.Entry]], Awaitable[set[RequestId]]]
_LOOKS = 3  # how often a submit is looked at again when another one changed what stood against it


class Submitter:
    """Stores batches of submissions."""

    def __init__(
        self, database: Database, settings: Queue, sql: Mapping[str, str], clock: Clock, chance: Chance
    ) -> None:
        self._database = database
        self._settings = settings
        self._sql = sql
        self._clock = clock
        self._chance = chance

    async def flush(self, entries: Sequence[rows.Entry]) -> list[Result | Unavailable]:
        """Store a batch; results in order. Acknowledged ones are committed when this returns."""
        special = [
            entry for entry in entries if entry.limit is not None or entry.submission.idempotency_key is not None
        ]
        usual = [entry for entry in entries if entry.limit is None and entry.submission.idempotency_key is None]
        results: dict[RequestId, Result | Unavailable] = {}
        for some, store in ((special, self._store_special), (usual, self.store_usual)):
            results.update(await self._flush_some(some, store))
        return [results[entry.submission.request_id] for entry in entries]

    async def _flush_some(self, entries: Sequence[rows.Entry], store: Store) -> dict[RequestId, Result | Unavailable]:
        if not entries:
            return {}
        stored = await self._store_surely(entries, store)
        results: dict[RequestId, Result | Unavailable] = dict(stored.given_up)
        for entry in entries:
            request_id = entry.submission.request_id
            if request_id in stored.committed:
                results[request_id] = Accepted(request_id)
            elif request_id not in results:
                results[request_id] = await self._look_closer_or_say(entry)
        return results

    async def _look_closer_or_say(self, entry: rows.Entry) -> Result | Unavailable:
        """Keep one entry's failure from being told to the others of its batch, which are committed."""
        try:
            return await self._look_closer(entry)
        except Unavailable as error:
            return error

    async def store_usual(self, database: Database | Connection, entries: Sequence[rows.Entry]) -> set[RequestId]:
        """Store submits without Idempotency-Key and queue limit; returns those that nothing stood against."""
        lines = [(*rows.submit_row(entry, self._settings), entry.submission.fingerprint) for entry in entries]
        records = await database.fetch(
            self._sql["submit_plain"], *rows.columns(lines, 20), self._settings.adoption_seconds
        )
        return {RequestId(record[0]) for record in records}

    async def _store_special(self, database: Database | Connection, entries: Sequence[rows.Entry]) -> set[RequestId]:
        ahead: dict[ModelId, int] = {}
        lines: list[tuple[object, ...]] = []
        for entry in entries:
            item = entry.submission
            room = None if entry.limit is None else entry.limit - ahead.get(item.model_id, 0)
            ahead[item.model_id] = ahead.get(item.model_id, 0) + 1
            lines.append((*rows.submit_row(entry, self._settings), item.idempotency_key, item.fingerprint, room))
        records = await database.fetch(self._sql["submit"], *rows.columns(lines, 22), self._settings.adoption_seconds)
        return {RequestId(record[0]) for record in records}

    async def _look_closer(self, entry: rows.Entry) -> Result:
        """Find out what stood against a submission; when it is gone by now, store it after all."""
        item = entry.submission
        for _ in range(_LOOKS):
            earlier = await self._same_key(entry)
            if earlier is not None:
                return earlier
            adopted = await self._adopt(entry)
            if adopted is not None:
                return adopted
            if entry.limit is not None:
                length = await self._read(entry, "queue_length", item.model_id, entry.limit)
                if length and length[0][0] >= entry.limit:
                    return QueueFull(length[0][0])
            stored = await self._store_surely([entry], self._store_special)
            if stored.given_up:
                raise stored.given_up[item.request_id]
            if stored.committed:
                return Accepted(item.request_id)
        raise Unavailable("submits with the same key or fingerprint are arriving too fast; try again shortly")

    async def _same_key(self, entry: rows.Entry) -> Result | None:
        item = entry.submission
        if item.idempotency_key is None:
            return None
        found = await self._read(entry, "idempotent_owner", item.key_id, item.idempotency_key)
        if not found:
            return None
        owner = RequestId(found[0]["request_id"])
        if found[0]["fingerprint"] != item.fingerprint:
            return IdempotencyConflict(owner)
        return Accepted(owner, replayed=owner != item.request_id)

    async def _adopt(self, entry: rows.Entry) -> Accepted | None:
        """Give the retry the request whose answer was lost, if any, and remember the retry's own key for it.

        Tried again only when nothing was sent: a second adoption would take another request, and leave the first to
        run for nobody.
        """
        item = entry.submission
        adopted = await patiently(
            lambda: self._database.fetchval(
                self._sql["adopt"], item.key_id, item.fingerprint, self._settings.adoption_seconds
            ),
            entry,
            self._clock,
            self._chance,
            retry_on=NothingSent,
        )
        if adopted is None:
            return None
        request_id = RequestId(adopted)  # pyright: ignore[reportArgumentType] - a uuid column
        if item.idempotency_key is not None:
            await self._read(entry, "remember_key", item.key_id, item.idempotency_key, item.fingerprint, request_id)
        return Accepted(request_id, replayed=True)

    async def _read(self, entry: rows.Entry, query: str, *arguments: object) -> list[Record]:
        """Run what may be run twice, for as long as the entry is patient."""
        return await patiently(
            lambda: self._database.fetch(self._sql[query], *arguments), entry, self._clock, self._chance
        )

    async def _store_surely(self, entries: Sequence[rows.Entry], store: Store) -> Stored:
        return await store_surely(entries, Batches(self._database, self._sql, store), self._clock, self._chance)


class Batches:
    """The ledger of `queue/outage.py` over Postgres."""

    def __init__(self, database: Database, sql: Mapping[str, str], store: Store) -> None:
        self._database = database
        self._sql = sql
        self._store = store

    async def store(self, entries: Sequence[rows.Entry]) -> set[RequestId]:
        """Store a batch for the first time."""
        return await self._store(self._database, entries)

    async def store_missing(self, entries: Sequence[rows.Entry]) -> set[RequestId]:
        """Store those of a batch that no earlier try has committed.

        An earlier try may still be running in a server that we no longer hear. While it has a row that is not
        committed, our insert waits for it and then fails by its key; once its row has been committed, worked off and
        moved out, our insert succeeds, and the look at the finished ones after it takes everything back.
        """
        ids = [entry.submission.request_id for entry in entries]
        found = {RequestId(record[0]) for record in await self._among("known_among", ids, self._database)}
        missing = [entry for entry in entries if entry.submission.request_id not in found]
        if not missing:
            return found
        try:
            async with self._database.transaction() as connection:
                stored = await self._store(connection, missing)
                if stored and await self._among("finished_among", sorted(stored), connection):
                    raise Unavailable("an earlier try of this batch has been committed and finished meanwhile")
        except (asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError) as error:
            raise Unavailable("an earlier try of this batch was committed or is being so; look again") from error
        return found | stored

    async def _among(self, query: str, ids: Sequence[RequestId], database: Database | Connection) -> list[Record]:
        return await database.fetch(self._sql[query], ids, *rows.time_bounds(ids))
