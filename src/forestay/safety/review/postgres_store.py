"""Review items in Postgres: every vote and appeal is decided inside its transaction, under the item's row lock.

It decides nothing itself: `decide` says what follows, and this writes it with its audit row, its label and what is to
be told, all or none. The id of the request that a successful appeal makes is chosen with the decision, so that
whoever carries it out, and however often, makes the same one. Called by `opening`, the gateway's routes, `carrying`
and the loop.
"""

# The driver's pooled connection is partly untyped: this adapter is where types begin.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import dataclasses
import datetime as dt
import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import cast

from forestay.chance import Chance
from forestay.clock import Clock
from forestay.errors import Refused
from forestay.fleet import postgres_audit
from forestay.fleet.audit import AuditEntry
from forestay.ids import RequestId, new_request_id
from forestay.safety.review import rows
from forestay.safety.review.decide import Decide, Escalate, Free, Wait, decide_review, needed, why_refused
from forestay.safety.review.model import (
    Appeal,
    Ballot,
    Claim,
    Decided,
    Item,
    ItemState,
    NewItem,
    Outcome,
    Vote,
)
from forestay.storage.postgres import Connection, Database, load_queries

_SQL = load_queries("forestay.safety.review", "sql/reviews.sql")
_MAX_PROBLEM = 500


@dataclasses.dataclass(frozen=True, slots=True)
class Rules:
    """What the settings say of reviews."""

    cell: int = 0
    refused_kept: int = 1_000  # inputs of one key that wait without an appeal
    told: bool = False  # FORESTAY_REVIEW_URL is set


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """An item with its votes of this round, and how many people it still needs."""

    item: Item
    votes: tuple[Vote, ...]
    has: int
    needs: int


@dataclasses.dataclass(frozen=True, slots=True)
class Listed:
    """An item with its place in the list."""

    item: Item
    position: int
    problem: str


@dataclasses.dataclass(frozen=True, slots=True)
class Filter:
    """Which items are listed; None: whatever."""

    state: str | None = None  # of ItemState, or `waiting`: all that are not decided
    point: str | None = None
    model_id: str | None = None
    tenant_id: str | None = None
    category: str | None = None
    appealed: bool | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Stats:
    """How the queue stands, and how it was decided since a moment."""

    waiting: int
    waiting_appeals: int
    oldest_at: dt.datetime | None
    released: int
    upheld: int
    lapsed: int
    median_seconds: float | None  # from opened, or from the appeal, to decided


@dataclasses.dataclass(frozen=True, slots=True)
class FoundLabel:
    """What people found of one side of a request."""

    request_id: uuid.UUID
    point: str
    category: str | None
    label: str  # safe | unsafe
    set_by: str
    set_at: dt.datetime
    position: int


class PostgresReviews:
    """Items, votes, appeals and labels; `writer` names this process's audit chain."""

    def __init__(
        self, database: Database, clock: Clock, chance: Chance, rules: Rules | None = None, writer: str = "reviews"
    ) -> None:
        self._database = database
        self._clock = clock
        self._chance = chance
        self._rules = rules or Rules()
        self._writer = writer

    async def open(self, item: NewItem) -> bool:
        """Open an item; False when it is there already."""
        async with self._database.transaction() as connection:
            values = rows.new_row(item, self._clock.now())
            if await connection.fetchrow(_SQL["open"], *values) is None:
                return False
            await self._tell(connection, item, "opened", str(item.attempt), {})
        return True

    async def has_room(self, key_id: str) -> bool:
        """Tell whether another refused input of this key may wait."""
        waiting = await self._database.fetchval(_SQL["waiting_of"], key_id, self._rules.refused_kept)
        return cast("int", waiting) < self._rules.refused_kept

    async def find(self, name: str) -> Standing | None:
        """Find an item by its id, its request's id or that of the request its appeal made."""
        row = await self._database.fetchrow(_SQL["find"], name, _uuid_of(name))
        if row is None:
            return None
        item = rows.item_of(row)
        return self._standing(item, await self.votes(item.opened.item_id))

    async def votes(self, item_id: str) -> Sequence[tuple[int, Vote]]:
        """Read every vote of an item with its round, in order."""
        return [rows.vote_of(row) for row in await self._database.fetch(_SQL["votes"], item_id)]

    async def listed(self, wanted: Filter, after: int, limit: int) -> Sequence[Listed]:
        """List items, the oldest first, after a position."""
        values = (wanted.state, wanted.point, wanted.model_id, wanted.tenant_id, wanted.category, wanted.appealed)
        found = await self._database.fetch(_SQL["list"], *values, after, limit)
        return [Listed(rows.item_of(row), int(row["position"]), str(row["problem"])) for row in found]

    async def appeals_of(self, tenant_id: str, key_id: str | None, limit: int) -> Sequence[Item]:
        """List the appeals of a tenant, or of one key of it, newest first."""
        return [rows.item_of(row) for row in await self._database.fetch(_SQL["appeals_of"], tenant_id, key_id, limit)]

    async def claim(self, name: str, by: str, seconds: float) -> Standing | None:
        """Keep an item for one person for a while; None without one, Refused when another has it."""
        async with self._database.transaction() as connection:
            item = await self._locked(connection, name)
            if item is None:
                return None
            now = self._clock.now()
            refused = why_refused(item, Vote(by, is_person=True, ballot=Ballot.ESCALATE, reason="", at=now), now)
            if refused:
                raise Refused(f"{item.opened.item_id}: {refused}")
            after = dataclasses.replace(
                item, state=ItemState.CLAIMED, claim=Claim(by, now + dt.timedelta(seconds=seconds))
            )
            await self._write(connection, after)
            await self._audit(connection, by, "claim_review", after, {}, f"for {seconds:g} s")
        return self._standing(after, await self.votes(item.opened.item_id))

    async def vote(self, name: str, vote: Vote) -> Standing | None:
        """Take a vote and write what follows; None without such an item, Refused when the vote is not taken."""
        async with self._database.transaction() as connection:
            item = await self._locked(connection, name)
            if item is None:
                return None
            now, item_id = self._clock.now(), item.opened.item_id
            refused = why_refused(item, vote, now)
            if refused:
                raise Refused(f"{item_id}: {refused}")
            before = [rows.vote_of(row) for row in await connection.fetch(_SQL["votes"], item_id)]
            votes = [one for number, one in before if number == item.round]
            await connection.execute(
                _SQL["add_vote"], item_id, item.round, vote.voter, vote.is_person, vote.ballot, vote.reason, vote.at
            )
            await self._audit(connection, vote.voter, "vote_review", item, {"vote": vote.ballot}, vote.reason)
            # Whoever has voted looks at it no longer: the next person may.
            item = dataclasses.replace(item, claim=None, state=_resting(item))
            after = await self._follow(connection, item, [*votes, vote], now)
        return self._standing(after, [(after.round, one) for one in [*votes, vote]])

    async def appeal(self, name: str, by: str, words: str) -> Item | None:
        """Take a caller's appeal; None without such an item, Refused when it has one or nothing is left to look at."""
        async with self._database.transaction() as connection:
            item = await self._locked(connection, name)
            if item is None:
                return None
            if item.appeal is not None:
                raise Refused("this request has been appealed already; GET the same path to see how it stands")
            if item.decided is not None and item.decided.outcome is Outcome.LAPSED:
                raise Refused("its content is kept no more, so nobody can look at it again")
            now = self._clock.now()
            after = _appealed(item, Appeal(now, by, words), self._new_id(now))
            await self._write(connection, after)
            await self._audit(connection, by, "appeal", after, {}, "")
            await self._tell(connection, after.opened, "appealed", str(after.round), {})
        return after

    async def lapse(self, name: str, reason: str) -> bool:
        """Close an item about which nothing is left to decide; False when it is decided."""
        async with self._database.transaction() as connection:
            item = await self._locked(connection, name)
            if item is None or item.state is ItemState.DECIDED:
                return False
            await self._decided(connection, item, Decide(Outcome.LAPSED, (), reason), self._clock.now())
        return True

    async def stale(self, older_than_seconds: float, limit: int) -> Sequence[str]:
        """Find undecided items opened longer ago than that which nobody has appealed; words of old appeals go too."""
        await self._database.fetch(_SQL["forget_words"], older_than_seconds)
        return [str(row["item_id"]) for row in await self._database.fetch(_SQL["stale"], older_than_seconds, limit)]

    async def without_item(self, request_ids: Sequence[RequestId]) -> Sequence[RequestId]:
        """Tell which of these requests have no item for their output."""
        rows_ = await self._database.fetch(_SQL["without_item"], list(request_ids)) if request_ids else []
        return [RequestId(row["request_id"]) for row in rows_]

    async def due(self, count: int, lease_seconds: float) -> Sequence[Item]:
        """Take decided items that were not carried out; each is hidden from others for the lease."""
        return [rows.item_of(row) for row in await self._database.fetch(_SQL["due"], count, lease_seconds)]

    async def done(self, item: Item, problem: str = "") -> None:
        """Note that a decision has been carried out, or why it never can be."""
        values = (item.opened.item_id, self._clock.now(), problem[:_MAX_PROBLEM], item.linked_id)
        await self._database.execute(_SQL["done"], *values)

    async def not_done(self, item: Item, problem: str) -> None:
        """Note why a decision could not be carried out now."""
        await self._database.execute(_SQL["not_done"], item.opened.item_id, problem[:_MAX_PROBLEM])

    async def free(self) -> int:
        """Let others at items whose claims have run out; returns how many."""
        return len(await self._database.fetch(_SQL["free"], self._clock.now()))

    async def labels(self, after: int, limit: int) -> Sequence[FoundLabel]:
        """Read labels after a position, in order."""
        return [FoundLabel(**dict(row)) for row in await self._database.fetch(_SQL["labels"], after, limit)]

    async def stats(self, since: dt.datetime) -> Stats:
        """Tell how the queue stands, and how it was decided since then."""
        row = await self._database.fetchrow(_SQL["stats"], since)
        return Stats(**dict(row or {}))

    async def _locked(self, connection: Connection, name: str) -> Item | None:
        row = await connection.fetchrow(_SQL["lock"], name, _uuid_of(name))
        return None if row is None else rows.item_of(row)

    async def _follow(self, connection: Connection, item: Item, votes: Sequence[Vote], now: dt.datetime) -> Item:
        """Write what follows from the votes."""
        for action in decide_review(item, votes, item.opened.rules, now):
            match action:
                case Decide():
                    return await self._decided(connection, item, action, now)
                case Escalate():
                    item = dataclasses.replace(item, escalated=True, state=ItemState.ESCALATED)
                    await self._audit(connection, votes[-1].voter, "escalate_review", item, {}, action.reason)
                case Free() | Wait():
                    continue
        await self._write(connection, item)
        return item

    async def _decided(self, connection: Connection, item: Item, action: Decide, now: dt.datetime) -> Item:
        owed = action.outcome is Outcome.RELEASED and item.appeal is not None and bool(item.opened.sealed_id)
        linked = self._new_id(now) if owed else None  # without a copy the finding alone stands
        decided = Decided(action.outcome, now, action.by, action.reason)
        after = dataclasses.replace(item, state=ItemState.DECIDED, claim=None, decided=decided, linked_id=linked)
        if action.outcome is Outcome.LAPSED:  # there is nothing to carry out
            after = dataclasses.replace(after, done_at=now)
        opened = item.opened
        await self._write(connection, after)
        if action.outcome is not Outcome.LAPSED:
            label = "safe" if action.outcome is Outcome.RELEASED else "unsafe"
            who = ", ".join(action.by)
            await connection.execute(_SQL["label"], opened.request_id, opened.point, opened.category, label, who, now)
        actor = action.by[-1] if action.by else "loop:review"
        await self._audit(connection, actor, "decide_review", after, {"outcome": action.outcome}, action.reason)
        said: dict[str, object] = {
            "outcome": action.outcome,
            "by": list(action.by),
            "linked_id": linked and str(linked),
        }
        await self._tell(connection, opened, "decided", str(item.round), said)
        return after

    async def _write(self, connection: Connection, item: Item) -> None:
        await connection.execute(_SQL["write"], *rows.state_row(item, self._clock.now()))

    async def _tell(
        self, connection: Connection, item: NewItem, what: str, which: str, more: Mapping[str, object]
    ) -> None:
        """Note what is to be told outside, under an id that is the same however often it is told."""
        if not self._rules.told:
            return
        event_id = "evt_" + hashlib.sha256(f"{item.item_id}\n{what}\n{which}".encode()).hexdigest()[:32]
        body = {
            "event_id": event_id,
            "event": what,
            "at": self._clock.now().isoformat(),
            **rows.shown_new(item),
            **more,
        }
        await connection.execute(_SQL["event"], event_id, item.item_id, json.dumps(body, default=str))

    async def _audit(
        self, connection: Connection, actor: str, action: str, item: Item, detail: Mapping[str, object], reason: str
    ) -> None:
        said = {**detail, "request_id": str(item.opened.request_id), "round": item.round}
        subject = f"review:{item.opened.item_id}"
        entry = AuditEntry(self._clock.now(), actor, action, subject, said, reason)
        await postgres_audit.append(connection, self._writer, [entry])

    def _standing(self, item: Item, votes: Sequence[tuple[int, Vote]]) -> Standing:
        mine = tuple(vote for number, vote in votes if number == item.round)
        waits = [
            one for one in decide_review(item, mine, item.opened.rules, self._clock.now()) if isinstance(one, Wait)
        ]
        needs = needed(item, item.opened.rules)
        if waits:
            return Standing(item, mine, waits[0].has, waits[0].needs)
        released = item.decided is not None and item.decided.outcome is Outcome.RELEASED
        return Standing(item, mine, needs if released else 0, needs)

    def _new_id(self, now: dt.datetime) -> RequestId:
        return new_request_id(now, self._rules.cell, self._chance)


def _resting(item: Item) -> ItemState:
    return ItemState.ESCALATED if item.escalated else ItemState.OPEN


def _appealed(item: Item, appeal: Appeal, linked_id: RequestId) -> Item:
    """Return the item with the appeal: what was released already is owed at once, what was upheld is looked at anew."""
    if item.decided is None:
        return dataclasses.replace(item, appeal=appeal)
    if item.decided.outcome is Outcome.RELEASED:
        linked = linked_id if item.opened.sealed_id else None
        return dataclasses.replace(item, appeal=appeal, linked_id=linked, done_at=None)
    anew = dataclasses.replace(item, appeal=appeal, decided=None, done_at=None, round=item.round + 1)
    return dataclasses.replace(anew, state=ItemState.OPEN, escalated=False)


def _uuid_of(name: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(name)
    except ValueError:
        return None
