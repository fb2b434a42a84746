"""Counts of status polls and result reads: what is good, bad or neither, in which minute, what a refused write does."""

import collections
import dataclasses
import datetime as dt
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import ASGIApp
from tests.gateway.world import Facts, World, a_world

from forestay.chance import SystemChance
from forestay.errors import Unavailable
from forestay.gateway import poll_counts
from forestay.gateway.exchange import Exchange
from forestay.gateway.poll_counts import CALLERS_PACE_BYTES, SLOW_SECONDS, StatusPolls, decide_poll
from forestay.gateway.ports import GatewayPorts
from forestay.gateway.routing import Bases, Surface
from forestay.ids import RequestId
from forestay.queue.model import Answer, State
from forestay.settings import Settings
from forestay.storage.objects import ObjectStore
from forestay.telemetry.metrics import FACTS_LOST, Metrics
from forestay.telemetry.poll_facts import PollMinute

BEGUN = dt.datetime(2026, 11, 26, 12, 0, 30, tzinfo=dt.UTC)
JSON = {"content-type": "application/json"}


class HandClock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> dt.datetime:
        """The wall clock."""
        return BEGUN + dt.timedelta(seconds=self.seconds)

    async def sleep(self, seconds: float) -> None:
        """Move on at once; after two minutes the test ends."""
        if self.seconds > 120.0:
            raise Unavailable("the test is over")
        self.seconds += seconds


@dataclasses.dataclass
class Ports:
    """As much of a gateway's ports as counting needs."""

    facts: Facts = dataclasses.field(default_factory=Facts)
    clock: HandClock = dataclasses.field(default_factory=HandClock)
    chance: SystemChance = dataclasses.field(default_factory=SystemChance)
    metrics: Metrics = dataclasses.field(default_factory=Metrics)
    settings: Settings = dataclasses.field(default_factory=Settings)


def answered(status: int = 200, **fields: object) -> Exchange:
    """A poll that was answered so."""
    call = Exchange(
        app=cast("ASGIApp", None),
        request_id="",
        started=0.0,
        surface=Surface.QUEUE,
        path="",
        headers={},
        header_bytes=0,
        bases=cast("Bases", None),
        status_code=status,
    )
    return dataclasses.replace(call, **fields)  # type: ignore[arg-type]


def counting(ports: Ports) -> StatusPolls:
    """Polls over these ports."""
    return StatusPolls(cast("GatewayPorts", ports), "gateway-1")


@given(st.integers(200, 599), st.floats(0, 30), st.floats(0, 5))
def test_an_answer_is_good_in_time_bad_late_and_only_errors_of_ours_are_bad_at_once(
    status: int, seconds: float, held: float
) -> None:
    """The time that a poll was held is not lateness; a caller's own error is neither, however long it took."""
    found = decide_poll(answered(status, held_seconds=held), seconds, SLOW_SECONDS)
    if status >= 400:
        assert found is (False if status >= 500 else None)
    else:
        assert found is (seconds <= SLOW_SECONDS + held)
    assert decide_poll(answered(499), seconds, SLOW_SECONDS) is None


@given(st.integers(200, 599), st.floats(0, 30))
def test_a_stored_answer_that_was_read_counts_by_its_time_alone(status: int, seconds: float) -> None:
    """A model's own error is what was asked for; how fast a caller reads or sends is its own."""
    late = seconds > SLOW_SECONDS
    assert decide_poll(answered(status, told=True), seconds, SLOW_SECONDS) is not late
    slow_reader = answered(status, told=True, sent_bytes=CALLERS_PACE_BYTES + 1)
    assert decide_poll(slow_reader, seconds, SLOW_SECONDS) is (None if late else True)
    slow_sender = answered(status, told=True, headers={b"content-length": b"9"})
    assert decide_poll(slow_sender, seconds, SLOW_SECONDS) is (None if late else True)


@given(st.lists(st.tuples(st.floats(0, 90), st.sampled_from([200, 202, 404, 503]), st.booleans()), max_size=30))
async def test_every_poll_is_counted_once_and_an_idle_minute_has_no_row(
    calls: list[tuple[float, int, bool]],
) -> None:
    """Whatever the turns of minutes between, and whichever writes are refused."""
    ports = Ports()
    polls = counting(ports)
    wanted: collections.Counter[bool] = collections.Counter()
    for pause, status, away in calls:
        ports.clock.seconds += pause
        ports.facts.silent = away
        try:
            await polls.flush()
        except Unavailable:
            assert away
        polls.count(answered(status), 0.01)
        if status != 404:
            wanted[status < 400] += 1
    ports.facts.silent = False
    await polls.flush(last=True)
    rows = ports.facts.polls
    assert (sum(row.good for row in rows), sum(row.bad for row in rows)) == (wanted[True], wanted[False])
    assert all(row.good + row.bad for row in rows)
    minutes = [row.finished_at for row in rows]
    assert minutes == sorted(set(minutes))
    assert all(minute.second == minute.microsecond == 0 for minute in minutes)
    assert len({row.count_id for row in rows}) == len(rows)


async def test_a_minute_is_written_once_it_is_over_under_its_own_time() -> None:
    """Not before; what comes then is the next minute's."""
    ports = Ports()
    polls = counting(ports)
    polls.count(answered(), 0.01)
    await polls.flush()
    assert not ports.facts.polls
    ports.clock.seconds = 30.0
    await polls.flush()
    polls.count(answered(500), 0.01)
    await polls.flush(last=True)
    first = BEGUN.replace(second=0)
    assert [(row.finished_at, row.good, row.bad) for row in ports.facts.polls] == [
        (first, 1, 0),
        (first + dt.timedelta(minutes=1), 0, 1),
    ]


async def test_the_loop_wakes_at_the_turn_of_each_minute() -> None:
    """So that a call is counted in its own minute without a look at the clock."""
    ports = Ports()
    polls = counting(ports)
    polls.count(answered(), 0.01)
    with pytest.raises(Unavailable):
        await polls.run()
    assert ports.clock.seconds == 150.0
    assert [row.finished_at for row in ports.facts.polls] == [BEGUN.replace(second=0)]


async def test_of_minutes_that_cannot_be_written_the_oldest_are_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Memory has an end; the loss is told."""
    monkeypatch.setattr(poll_counts, "MAX_KEPT", 2)
    ports = Ports()
    polls = counting(ports)
    ports.facts.silent = True
    for _ in range(3):
        polls.count(answered(), 0.01)
        ports.clock.seconds += 60.0
        with pytest.raises(Unavailable):
            await polls.flush()
    ports.facts.silent = False
    await polls.flush()
    assert [row.finished_at.minute for row in ports.facts.polls] == [1, 2]
    assert ports.metrics.value(FACTS_LOST) == 1


def total(rows: list[PollMinute]) -> tuple[int, int]:
    """Good and bad of all rows."""
    return sum(row.good for row in rows), sum(row.bad for row in rows)


async def test_polls_and_results_are_counted_and_callers_errors_are_neither(world: World) -> None:
    """A read of a model's own error is a good read; a wrong key, an unknown id, an early read are the caller's."""
    request_id = await world.submit()
    path = f"/queue/acme/echo/requests/{request_id}"
    assert (await world.call("GET", f"{path}/status")).status == 202
    assert (await world.call("GET", path)).status == 400
    assert (await world.call("GET", f"{path}/status", key="wrong:key")).status == 401
    assert (await world.call("GET", f"{path[:-6]}ffffff/status")).status == 404
    await world.finish(await world.claim(request_id), Answer(500, JSON, b'{"detail":"broken"}'), State.FAILED)
    assert (await world.call("GET", path)).status == 500
    await world.gateway.polls.flush(last=True)
    assert total(world.facts.polls) == (2, 0)


async def test_what_we_cannot_answer_is_bad(world: World) -> None:
    """A status while the database is away, and a defect."""
    request_id = await world.submit()

    async def away(_request_id: RequestId) -> None:
        raise Unavailable("away, as the test asked")

    async def broken(_request_id: RequestId) -> None:
        raise ValueError("a defect, as the test asked")

    for find, status in ((away, 503), (broken, 500)):
        world.gateway.board.find = find  # type: ignore[method-assign,assignment]
        assert (await world.call("GET", f"/queue/acme/echo/requests/{request_id}/status")).status == status
    await world.gateway.polls.flush(last=True)
    assert total(world.facts.polls) == (0, 2)


async def test_a_held_poll_is_not_late_and_the_last_minute_is_written_at_shutdown(objects: ObjectStore) -> None:
    """The second poll has no news and is held for as long as the setting says, which is more than is slow."""
    async with a_world(objects, status_hold_seconds=0.4) as world:
        path = f"/queue/acme/echo/requests/{await world.submit()}/status"
        for _ in range(2):
            assert (await world.call("GET", path)).status == 202
    assert total(world.facts.polls) == (2, 0)
    assert all(row.gateway_id.startswith("gateway-") for row in world.facts.polls)
