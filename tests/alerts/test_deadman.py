"""The dead-man's switch speaks only while alerting works; what is over is forgotten in time."""

import datetime as dt

import pytest
from tests.alerts.conftest import Hooks
from tests.alerts.scenes import START, condition
from tests.alerts.test_loop import HandClock
from tests.alerts.test_store import look

from forestay.alerts import retention
from forestay.alerts.deadman import Deadman, Keep, Signs, Speak, decide_heartbeat
from forestay.alerts.postgres_outbox import PostgresOutbox
from forestay.alerts.postgres_store import PostgresAlerts
from forestay.settings import Alerts
from forestay.storage.postgres import Database
from forestay.telemetry.metrics import DEADMAN, Metrics


@pytest.mark.parametrize(
    ("age", "unsent", "speaks"),
    [(0.0, 0, True), (20.0, 0, True), (20.1, 0, False), (1.0, 1, False), (None, 0, False), (-3.0, 0, True)],
)
def test_silence_follows_what_does_not_work(age: float | None, unsent: int, speaks: bool) -> None:
    """Four missed beats, one notification that nobody tried to send, or no decision ever."""
    decided = None if age is None else START - dt.timedelta(seconds=age)
    found = decide_heartbeat(Signs(decided, unsent), 5.0, START)
    assert isinstance(found, Speak if speaks else Keep)
    assert found.reason


async def test_the_watcher_hears_while_alerts_are_decided_and_sent(database: Database, hooks: Hooks) -> None:
    """A notification that nobody sends for a minute is silence; so is a loop that stopped."""
    store, outbox, clock, metrics = PostgresAlerts(database), PostgresOutbox(database), HandClock(), Metrics()
    deadman = Deadman(store, outbox, Alerts(deadman_url=hooks.url("/watcher")), clock, metrics)
    clock.moment = START
    assert await deadman.run_once() == 0
    await look(store, condition())
    assert await deadman.run_once() == 1
    clock.moment = START + dt.timedelta(seconds=70)
    await look(store, condition(), at=70.0)
    assert await deadman.run_once() == 0, "its page is due for more than a minute"
    assert len(hooks.calls["/watcher"]) == 1
    assert (metrics.value(DEADMAN, "heard"), metrics.value(DEADMAN, "kept")) == (1, 2)


async def test_a_watcher_that_does_not_answer_is_counted_and_breaks_nothing(database: Database, hooks: Hooks) -> None:
    """The next beat tries again."""
    hooks.answers["/watcher"] = [500]
    store, clock, metrics = PostgresAlerts(database), HandClock(), Metrics()
    clock.moment = START
    await look(store)
    settings = Alerts(deadman_url=hooks.url("/watcher"))
    assert await Deadman(store, PostgresOutbox(database), settings, clock, metrics).run_once() == 0
    assert metrics.value(DEADMAN, "unheard") == 1


async def test_what_is_over_is_forgotten_after_its_time_and_what_lives_is_kept(database: Database) -> None:
    """Alerts, their events and their notifications; never one that still matters for deciding."""
    store, outbox, clock = PostgresAlerts(database), PostgresOutbox(database), HandClock()
    await look(store, condition(), condition("worker_lost", "worker:w1"))
    for at in (10.0, 80.0, 400.0, 9_000.0):
        await look(store, condition(), at=at)
    await database.execute("UPDATE alert_notifications SET state = 'delivered'")
    clock.moment = START + dt.timedelta(days=100)
    await retention.run_once(store, outbox, clock, 90 * 86_400.0)
    kept = await database.fetch("SELECT data->'condition'->>'name' AS name FROM alerts")
    assert [row["name"] for row in kept] == ["queue_age"]
    assert await database.fetchval("SELECT count(*) FROM alert_notifications") == 0
