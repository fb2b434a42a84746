"""The whole way inside one process: sources, decision, store, outbox, receiver; and what goes wrong on it."""

import asyncio
import dataclasses
import datetime as dt
import pathlib
from collections.abc import Sequence

import pytest
from tests.alerts.conftest import Hooks
from tests.alerts.scenes import condition

from forestay.alerts import notify
from forestay.alerts.loop import AlertLoop, AlertPorts, Routes
from forestay.alerts.model import Condition, Severity
from forestay.alerts.notify import NotifyPorts, senders_of
from forestay.alerts.postgres_outbox import PostgresOutbox
from forestay.alerts.postgres_store import PostgresAlerts
from forestay.alerts.sources.own import OwnSource
from forestay.chance import SeededChance
from forestay.delivery.signing import SigningKeys
from forestay.errors import Unavailable, UsageError
from forestay.settings import Alerts
from forestay.storage.postgres import Database
from forestay.storage.valkey import LocalWakeups
from forestay.telemetry.metrics import ALERT_SOURCE_FAILURES, ALERTS_OPEN, Metrics

SETTINGS = Alerts(timeout_seconds=30.0)


class HandClock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.moment = dt.datetime(2026, 11, 26, 12, 0, tzinfo=dt.UTC)

    def now(self) -> dt.datetime:
        """The wall clock."""
        return self.moment

    def monotonic(self) -> float:
        """The same, in seconds."""
        return self.moment.timestamp()

    async def sleep(self, seconds: float) -> None:
        """Never slept on here."""
        await asyncio.sleep(seconds)


@dataclasses.dataclass
class Said:
    """A source that says what it is told to."""

    name: str = "platform"
    says: Sequence[Condition] = ()
    error: Exception | None = None

    async def conditions(self, now: dt.datetime) -> Sequence[Condition]:  # noqa: ARG002 - the port's
        """Say it, or fail."""
        if self.error is not None:
            raise self.error
        return self.says


class Stage:
    """One controller's alerting over the real store and a real receiver."""

    def __init__(self, database: Database, keys: SigningKeys, routes: pathlib.Path) -> None:
        self.clock = HandClock()
        self.source = Said()
        self.metrics = Metrics()
        self.file = routes
        self.store = PostgresAlerts(database)
        self.own = OwnSource(PostgresOutbox(database))
        self.ports = AlertPorts(
            store=self.store,
            sources=(self.source,),
            own=self.own,
            routes=Routes(str(routes), lambda _: None),
            wakeups=LocalWakeups(),
            clock=self.clock,
            metrics=self.metrics,
        )
        self.loop = AlertLoop(self.ports)
        self.sending = NotifyPorts(
            outbox=PostgresOutbox(database),
            routing=self.ports.routes.newest,
            senders=senders_of(keys, SETTINGS, self.clock),
            settings=SETTINGS,
            clock=self.clock,
            chance=SeededChance(1),
            metrics=self.metrics,
        )

    async def look(self, *conditions: Condition, after: float = 5.0) -> None:
        """Let time pass, look, decide, send."""
        self.clock.moment += dt.timedelta(seconds=after)
        self.source.says = conditions
        await self.loop.run_once()
        await notify.run_once(self.sending)


@pytest.fixture
def stage(database: Database, keys: SigningKeys, hooks: Hooks, tmp_path: pathlib.Path) -> Stage:
    """A stage whose one route leads to the receiver."""
    file = tmp_path / "routes.yaml"
    file.write_text(
        f"receivers: [{{name: phone, kind: webhook, url: '{hooks.url()}'}}]\nroutes: [{{name: default, to: [phone]}}]\n"
    )
    return Stage(database, keys, file)


async def test_a_condition_becomes_one_notification_and_its_end_another(stage: Stage, hooks: Hooks) -> None:
    """The body says who is hurt; both are sent once."""
    for _ in range(3):
        await stage.look(condition())
    assert stage.metrics.value(ALERTS_OPEN, "page") == 1
    for _ in range(3):
        await stage.look(after=400.0)
    assert hooks.effects() == ["opened", "resolved"]
    assert [body["status"] for body in hooks.bodies()] == ["firing", "resolved"]
    [item] = hooks.bodies()[0]["items"]  # type: ignore[misc]
    assert (item["subject"], item["runbook"]) == ("model:acme/cat", "docs/runbooks/queue_age.md")  # type: ignore[index]
    assert stage.metrics.value(ALERTS_OPEN, "page") == 0


async def test_a_new_controller_goes_on_where_the_last_one_was(
    stage: Stage, hooks: Hooks, database: Database, keys: SigningKeys
) -> None:
    """Memory is in the store: nothing is told again, and the end is told by the successor."""
    await stage.look(condition())
    successor = Stage(database, keys, stage.file)
    await successor.look(condition(), after=10.0)
    for _ in range(3):
        await successor.look(after=400.0)
    assert hooks.effects() == ["opened", "resolved"]


async def test_a_source_that_fails_ends_nothing_and_becomes_an_alert(stage: Stage, hooks: Hooks) -> None:
    """An unknown is not an all-clear."""
    await stage.look(condition())
    stage.source.error = Unavailable("the facts do not answer")
    for _ in range(5):
        await stage.look(after=100.0)
    words = [(item["name"], item["transition"]) for body in hooks.bodies() for item in body["items"]]  # type: ignore[attr-defined]
    assert ("queue_age", "resolved") not in words
    assert ("alert_source_silent", "opened") in words
    assert stage.metrics.value(ALERT_SOURCE_FAILURES, "platform") == 5


async def test_a_changed_file_of_routes_is_followed_and_a_broken_one_is_an_alert(stage: Stage, hooks: Hooks) -> None:
    """The former routes stay in force, and the alert names the line."""
    stage.file.write_text("receivers: []\nroutes: []\nspeed: 3\n")
    for _ in range(3):
        await stage.look(after=20.0)
    [body] = hooks.bodies()
    assert "unknown field `speed`" in str(body["title"])
    stage.file.write_text(
        f"receivers: [{{name: other, kind: webhook, url: '{hooks.url('/other')}'}}]\n"
        "routes: [{name: default, to: [other]}]\n"
    )
    await stage.look(condition(), after=400.0)
    await stage.look(condition(), after=400.0)
    assert "opened" in hooks.effects("/other")
    known, _ = await known_routes(stage)
    assert [item["name"] for item in known["receivers"]] == ["other"]  # type: ignore[attr-defined]


async def known_routes(stage: Stage) -> tuple[dict[str, object], object]:
    """What gateways can read of the routing."""
    row = await stage.store._database.fetchrow("SELECT routes, decided_at FROM alert_head")
    assert row is not None
    return row["routes"], row["decided_at"]


def test_a_controller_does_not_start_on_a_broken_file(tmp_path: pathlib.Path) -> None:
    """At start a person looks."""
    (tmp_path / "routes.yaml").write_text("routes: 3")
    with pytest.raises(UsageError, match=r"routes\.yaml: 1: "):
        Routes(str(tmp_path / "routes.yaml"), lambda _: None)


async def test_addresses_of_receivers_are_kept_nowhere(stage: Stage, database: Database, hooks: Hooks) -> None:
    """A chat's secret stands in its address: neither the outbox nor what gateways read holds it."""
    await stage.look(condition(severity=Severity.PAGE))
    kept = str(await known_routes(stage)) + str(await database.fetch("SELECT * FROM alert_notifications"))
    assert str(hooks.port) not in kept


async def test_a_controller_that_dies_while_it_sends_is_followed_and_the_receiver_sees_one_effect(
    stage: Stage, hooks: Hooks
) -> None:
    """The message was taken and nobody wrote that down: after its lease it is sent again, under the same id."""
    hooks.hanging["/phone"] = asyncio.Event()
    stage.source.says = [condition()]
    await stage.loop.run_once()
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(notify.run_once(stage.sending))
        await hooks.called.wait()
        sending.cancel()
    hooks.hanging.pop("/phone").set()
    await stage.look(condition(), after=5.0)
    assert len(hooks.calls["/phone"]) == 1, "its lease still lasts"
    await stage.look(condition(), after=60.0)
    assert len(hooks.calls["/phone"]) == 2
    assert hooks.effects() == ["opened"]
