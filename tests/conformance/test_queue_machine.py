"""Random histories of the queue against a model, for every adapter: nothing lost, nothing twice, no step off the table.

The model knows, for every request, where it stands and who holds it. After each step the store must agree. On Postgres
a trigger records each change of state that really happened to a row, and the record is held against the table.
"""

import asyncio
import contextlib
import dataclasses
import datetime as dt
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test
from tests.conformance.queue_harness import (
    Harness,
    finish,
    memory_harness,
    offer,
    postgres_harness,
    report,
    requeue,
    submission,
)

from forestay.ids import RequestId, WorkerId
from forestay.queue import answers
from forestay.queue.model import FINAL, HELD, Lease, Options, Priority, State, allows, held_sources
from forestay.storage.objects import open_object_store
from forestay.storage.postgres import Database

Value = TypeVar("Value")
Opener = Callable[[], contextlib.AbstractAsyncContextManager[Harness]]
LEASE_SECONDS = 15.0
RECORDER = """
CREATE TABLE IF NOT EXISTS transitions (before text, after text);
CREATE OR REPLACE FUNCTION record_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO transitions VALUES (OLD.state, NEW.state);
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER record_transition BEFORE UPDATE OF state ON requests FOR EACH ROW
WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION record_transition();
TRUNCATE requests, request_inputs, finished_requests, fact_outbox, transitions, webhooks;
"""


@dataclasses.dataclass(slots=True)
class Believed:
    """What the model believes of a request."""

    state: State
    attempt: int = 0
    publications: int = 0


class QueueMachine(RuleBasedStateMachine):
    """Drives one adapter through random operations."""

    opener: Opener
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.stack = contextlib.AsyncExitStack()
        self.harness = self.run(self.stack.enter_async_context(self.opener()))
        self.model: dict[RequestId, Believed] = {}
        self.current: dict[RequestId, Lease] = {}

    def run(self, work: Coroutine[object, object, Value]) -> Value:
        """Run on this machine's own loop."""
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        """Drain the queue: whatever was acknowledged must reach an end."""
        try:
            self.run(self._drain())
            assert all(believed.state in FINAL for believed in self.model.values())
            assert all(believed.publications == 1 for believed in self.model.values())
        finally:
            self.run(self.stack.aclose())
            self.loop.close()

    async def _drain(self) -> None:
        await self.harness.advance(LEASE_SECONDS + 1)
        self._note_rescued(await self.harness.store.rescue(1_000))
        for request_id in await self.harness.store.expire(1_000):
            self._note_end(request_id, State.EXPIRED)
        for number in range(40):
            leases = await self.harness.store.claim(
                WorkerId("last"), [offer(50, replica=f"last-{number}")], LEASE_SECONDS
            )
            self._note_leases(leases)
            for request_id, _ in await self.harness.store.finish([finish(lease) for lease in leases]):
                self._note_end(request_id, State.SUCCEEDED)
            if not any(believed.state is State.QUEUED for believed in self.model.values()):
                return

    def _note_leases(self, leases: list[Lease]) -> None:
        for lease in leases:
            believed = self.model[lease.request_id]
            assert believed.state is State.QUEUED, "claimed what was not waiting"
            assert lease.attempt == believed.attempt + 1
            believed.state, believed.attempt = State.LEASED, lease.attempt
            self.current[lease.request_id] = lease

    def _note_rescued(self, rescued: list[tuple[RequestId, State]]) -> None:
        for request_id, state in rescued:
            assert self.model[request_id].state in HELD
            if state is State.FAILED:
                self._note_end(request_id, state)
            else:
                self.model[request_id].state = state

    def _note_end(self, request_id: RequestId, state: State) -> None:
        believed = self.model[request_id]
        assert believed.state not in FINAL, "ended twice"
        believed.state = state
        believed.publications += 1

    def _is_current(self, lease: Lease) -> bool:
        believed = self.model[lease.request_id]
        return believed.state in HELD and believed.attempt == lease.attempt

    @rule(
        count=st.integers(1, 4),
        priority=st.sampled_from(list(Priority)),
        deadline=st.sampled_from([None, None, None, 20.0]),
    )
    def submit(self, count: int, priority: Priority, deadline: float | None) -> None:
        """Submit a few."""
        start = None if deadline is None else self.harness.now() + dt.timedelta(seconds=deadline)
        options = Options(priority=priority, start_deadline=start)
        items = [submission(self.harness, options=options) for _ in range(count)]
        self.run(self.harness.store.submit(items, {}))
        for item in items:
            self.model[item.request_id] = Believed(State.QUEUED)

    @rule(target=leases, slots=st.integers(1, 3), worker=st.integers(1, 2))
    def claim(self, slots: int, worker: int) -> object:
        """Claim for one of two workers."""
        offers = [offer(slots, replica=f"replica-{worker}")]
        found = self.run(self.harness.store.claim(WorkerId(f"worker-{worker}"), offers, LEASE_SECONDS))
        assert len(found) <= slots
        self._note_leases(found)
        return multiple(*found)

    @rule(lease=leases, state=st.sampled_from([State.RUNNING, State.CHECKING]))
    def step(self, lease: Lease, state: State) -> None:
        """Move on, with a lease that may be stale."""
        move = self.harness.store.start if state is State.RUNNING else self.harness.store.checking
        held = self.run(move([lease]))
        assert held == ({(lease.request_id, lease.attempt)} if self._is_current(lease) else set())
        believed = self.model[lease.request_id]
        if held and believed.state in held_sources(state):
            believed.state = state

    @rule(lease=leases)
    def renew(self, lease: Lease) -> None:
        """Renew, with a lease that may be stale."""
        fences = [(lease.request_id, lease.attempt)]
        held = self.run(self.harness.store.renew(lease.worker_id, fences, LEASE_SECONDS))
        assert bool(held) is self._is_current(lease)

    @rule(lease=leases, state=st.sampled_from([State.SUCCEEDED, State.FAILED, State.BLOCKED]))
    def finish(self, lease: Lease, state: State) -> None:
        """Finish, with a lease that may be stale."""
        done = self.run(self.harness.store.finish([finish(lease, state)]))
        assert bool(done) is self._is_current(lease)
        if done:
            self._note_end(lease.request_id, state)

    @rule(lease=leases, crashed=st.booleans(), condition=st.sampled_from(["", "server_error"]))
    def give_back(self, lease: Lease, crashed: bool, condition: str) -> None:
        """Requeue, with a lease that may be stale; crashing a second replica ends it."""
        done = self.run(self.harness.store.requeue([requeue(lease, condition, crashed=crashed)]))
        assert bool(done) is self._is_current(lease)
        if done:
            poison = crashed and {*lease.crashed_replicas, lease.replica_id} > {lease.replica_id}
            poison = poison or len(lease.crashed_replicas) >= 2
            if poison:
                self._note_end(lease.request_id, State.FAILED)
            else:
                self.model[lease.request_id].state = State.QUEUED

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Cancel any request that was ever submitted."""
        if not self.model:
            return
        request_id = data.draw(st.sampled_from(list(self.model)))
        before = self.run(self.harness.store.cancel(request_id, answers.cancelled()))
        assert before is self.model[request_id].state
        if before not in FINAL:
            self._note_end(request_id, State.CANCELLED)

    @rule(lease=leases)
    def abandon(self, lease: Lease) -> None:
        """A report about an attempt, whatever became of it, changes nothing."""
        self.run(self.harness.store.abandon(lease, report(lease)))

    @rule(seconds=st.sampled_from([1.0, 10.0, 16.0]))
    def time_passes(self, seconds: float) -> None:
        """Let leases and deadlines run out, then run both loops."""
        self.run(self.harness.advance(seconds))
        self._note_rescued(self.run(self.harness.store.rescue(100)))
        for request_id in self.run(self.harness.store.expire(100)):
            assert self.model[request_id].state is State.QUEUED
            self._note_end(request_id, State.EXPIRED)

    @invariant()
    def the_store_agrees(self) -> None:
        """Every acknowledged request is there, in the state that the model believes."""
        if self.model:
            snapshots = self.run(self.harness.store.snapshots(list(self.model)))
            assert {key: snapshots[key].state for key in self.model} == {
                key: believed.state for key, believed in self.model.items()
            }


def _run(opener: Opener, examples: int) -> None:
    machine = type("Machine", (QueueMachine,), {"opener": staticmethod(opener)})
    limits = settings(
        max_examples=examples,
        stateful_step_count=25,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],  # shrinking replays hundreds of histories: by hand, when needed
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    run_state_machine_as_test(machine, settings=limits)


def test_random_histories_of_the_fake_hold_the_promises() -> None:
    """The fake that other tests trust."""

    @contextlib.asynccontextmanager
    async def opener() -> AsyncGenerator[Harness]:
        yield memory_harness()

    _run(opener, 60)


def test_random_histories_of_postgres_hold_the_promises(fresh_database_url: str, tmp_path: Path) -> None:
    """The real store, with each row's steps held against the table of transitions."""

    @contextlib.asynccontextmanager
    async def opener() -> AsyncGenerator[Harness]:
        database = await Database.connect(
            fresh_database_url, pool_size=2, statement_timeout_seconds=10, application_name="machine"
        )
        try:
            await database.execute(RECORDER)
            async with postgres_harness(database, open_object_store(tmp_path.as_uri())) as harness:
                yield harness
            for before, after in await database.fetch("SELECT DISTINCT before, after FROM transitions"):
                steps = State(before), State(after)
                assert allows(*steps) or steps[0] in held_sources(steps[1]), steps
            duplicates = "SELECT count(*) - count(DISTINCT request_id) FROM finished_requests"
            assert await database.fetchval(duplicates) == 0
            both = "SELECT count(*) FROM requests JOIN finished_requests USING (request_id)"
            assert await database.fetchval(both) == 0
        finally:
            await database.close()

    _run(opener, 15)


@pytest.fixture
def fresh_database_url(database_url: str) -> str:
    """A database for a test that brings its own event loops."""
    return database_url
