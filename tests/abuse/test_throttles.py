"""What a policy lets go and counts against its caller: from verdict records to the calls that they belong to."""

import datetime as dt
import uuid
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.memory_fleet import ManualClock
from tests.safety.test_chain import record

from forestay.abuse.calls import CONTENT
from forestay.abuse.facts import call_of
from forestay.abuse.throttles import BATCH, LOOK_BACK, PATIENCE, ThrottleLoop
from forestay.chance import SeededChance
from forestay.clock import SystemClock
from forestay.errors import Unavailable
from forestay.ids import RequestId, new_request_id
from forestay.safety.records import PostgresVerdicts, VerdictRecord
from forestay.storage.postgres import Database
from forestay.telemetry.call_facts import CONTENT_THROTTLED, REFUSED_LATER, CallFact, LateRefusal, PostgresCalls

CHANCE = SeededChance(5)
NOW = SystemClock().now()


def request(at: dt.datetime = NOW) -> RequestId:
    """The id of a request that came at that moment."""
    return new_request_id(at, 0, CHANCE)


def call(request_id: RequestId, at: dt.datetime = NOW, cause: str = "") -> CallFact:
    """What a gateway noted of it."""
    return CallFact(
        at, request_id, "acme", "key-1", "acme/film", "queue", "submit", "203.0.113.0/24", "a1", accepted=not cause,
        cause=cause, status_code=200, predicted_seconds=1.0, prompt=-7, raw=5,
    )  # fmt: skip


def verdict(request_id: RequestId, point: str, action: str = "throttle", *, shadow: bool = False) -> VerdictRecord:
    """A judgement of something of that request."""
    return msgspec.structs.replace(
        record(1), at=SystemClock().now(), verdict_id=uuid.UUID(int=CHANCE.bits(128)), request_id=request_id,
        point=point, action=action, shadow=shadow,
    )  # fmt: skip


@pytest.mark.parametrize("point", ["input_media", "output", "piece"])
async def test_what_is_throttled_after_the_call_was_noted_counts_once_like_a_refusal(
    database: Database, point: str
) -> None:
    """However many pieces touch it, and although the call is noted after them; what is let go otherwise does not."""
    verdicts, calls = PostgresVerdicts(database), PostgresCalls(database)
    loop = ThrottleLoop(verdicts, calls, SystemClock())
    touched, calm = request(), request()
    await verdicts.write([verdict(touched, point), verdict(touched, point), verdict(calm, point, "flag")])
    await verdicts.write([verdict(calm, point, shadow=True)])
    assert await loop.run_once() == 2
    await calls.write([call(touched), call(calm)])
    assert await loop.run_once() == 0
    await verdicts.write([verdict(touched, point)])
    assert await loop.run_once() == 1
    found = [fact for fact in await calls.after(0, NOW - LOOK_BACK, 10) if fact.verb == REFUSED_LATER]
    assert [(fact.call_id, fact.accepted, fact.cause, fact.status_code) for fact in found] == [
        (touched, False, CONTENT_THROTTLED, 200)
    ]
    assert (call_of(found[0]).category, found[0].key_id, found[0].prompt) == (CONTENT, "key-1", -7)


async def test_a_call_whose_text_was_throttled_already_does_not_count_again(database: Database) -> None:
    """Its gateway noted that; the record of its input and what its output touches add nothing."""
    verdicts, calls = PostgresVerdicts(database), PostgresCalls(database)
    item = request()
    await calls.write([call(item, cause=CONTENT_THROTTLED)])
    await verdicts.write([verdict(item, "input"), verdict(item, "output")])
    assert await ThrottleLoop(verdicts, calls, SystemClock()).run_once() == 2
    assert await database.fetchval("SELECT count(*) FROM call_facts") == 1


async def test_a_controller_that_takes_over_counts_what_the_one_before_did_not(database: Database) -> None:
    """And what it did is not counted twice."""
    verdicts, calls = PostgresVerdicts(database), PostgresCalls(database)
    first, second = request(), request()
    await calls.write([call(first), call(second)])
    await verdicts.write([verdict(first, "output")])
    assert await ThrottleLoop(verdicts, calls, SystemClock()).run_once() == 1
    await verdicts.write([verdict(second, "output")])
    assert await ThrottleLoop(verdicts, calls, SystemClock()).run_once() == 2
    found = await calls.after(0, NOW - LOOK_BACK, 10)
    assert sorted(fact.call_id.hex for fact in found if fact.verb == REFUSED_LATER) == sorted([first.hex, second.hex])


class Records:
    """Verdicts in memory, read by position."""

    def __init__(self) -> None:
        self.kept: list[tuple[uuid.UUID, dt.datetime]] = []

    async def throttled(
        self, after: int | None, since: dt.datetime, limit: int
    ) -> tuple[Sequence[tuple[uuid.UUID, dt.datetime]], int | None]:
        """Read the next ones."""
        del since
        found = self.kept[after or 0 :][:limit]
        return found, (after or 0) + len(found)


class Calls:
    """Calls that are there or not; the store may be away."""

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.away = False
        self.noted: list[str] = []

    async def refuse(self, batch: Sequence[LateRefusal]) -> set[str]:
        """Note those that are there, each once."""
        if self.away:
            raise Unavailable("no facts")
        found = {item.request_id for item in batch} & self.there
        self.noted += sorted(found - set(self.noted))
        return found


@given(steps=st.lists(st.tuples(st.sampled_from(["touch", "call", "away", "back"]), st.integers(0, 4)), max_size=30))
async def test_whatever_comes_first_every_touched_call_counts_once(steps: list[tuple[str, int]]) -> None:
    """Records and calls in any order, with a store that goes away between."""
    clock, records, calls = ManualClock(), Records(), Calls()
    loop = ThrottleLoop(records, calls, clock)
    requests = [request(clock.now()) for _ in range(5)]
    for what, number in steps:
        if what == "touch":
            records.kept.append((requests[number], clock.now()))
        elif what == "call":
            calls.there.add(str(requests[number]))
        else:
            calls.away = what == "away"
        try:
            await loop.run_once()
        except Unavailable:
            assert calls.away
        clock.advance(1.0)
    calls.away = False
    await loop.run_once()
    touched = {str(request_id) for request_id, _ in records.kept}
    assert sorted(calls.noted) == sorted(touched & calls.there)


async def test_a_call_that_is_never_noted_is_given_up() -> None:
    """A canary of ours has none: it is looked for a quarter of an hour, not for ever."""
    clock, records, calls = ManualClock(), Records(), Calls()
    loop = ThrottleLoop(records, calls, clock)
    item = request(clock.now())
    records.kept.append((item, clock.now()))
    assert await loop.run_once() == 1 <= BATCH
    clock.advance(PATIENCE.total_seconds() + 1.0)
    await loop.run_once()
    calls.there.add(str(item))
    await loop.run_once()
    assert calls.noted == []
