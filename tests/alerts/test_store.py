"""What every store of alerts does: a decision and its notifications commit together, on the version that was read."""

import dataclasses
import datetime as dt

import asyncpg
import pytest
from tests.alerts.scenes import RULES, START, condition
from tests.conformance.memory_alerts import MemoryAlerts, MemoryOutbox

from forestay.alerts.decide import decide_alerts
from forestay.alerts.loop import messages_of
from forestay.alerts.model import Alert, AlertState, Observed
from forestay.alerts.postgres_outbox import PostgresOutbox
from forestay.alerts.postgres_store import PostgresAlerts
from forestay.alerts.store import AlertStore, ClaimLimits, Due, Held, Outbox
from forestay.delivery.decide import Dead, Delivered, Retry
from forestay.storage.postgres import Database

Stores = tuple[AlertStore, Outbox]
LIMITS = ClaimLimits(count=10, per_receiver=10, lease_seconds=30.0)
CAT = condition()


@pytest.fixture(params=["postgres", "memory"])
def stores(request: pytest.FixtureRequest) -> Stores:
    """The real adapters, and those of simulations."""
    if request.param == "memory":
        outbox = MemoryOutbox()
        return MemoryAlerts(outbox), outbox
    database: Database = request.getfixturevalue("database")
    return PostgresAlerts(database), PostgresOutbox(database)


def after(seconds: float) -> dt.datetime:
    """A moment of the scene."""
    return START + dt.timedelta(seconds=seconds)


async def look(store: AlertStore, *conditions: object, at: float = 0.0, held: Held | None = None) -> bool:
    """Decide once on what is stored (or on what was read before) and write it."""
    now = after(at)
    held = held or await store.load(now)
    actions = decide_alerts(held.state, Observed(conditions), held.silences, RULES, now)  # type: ignore[arg-type]
    return await store.commit(held, actions, messages_of(actions, ""), now)


async def claim(outbox: Outbox, at: float) -> list[Due]:
    """Claim what is due."""
    return await outbox.claim(LIMITS, [], after(at))


async def test_what_was_decided_is_read_back_as_it_was(stores: Stores) -> None:
    """Every field, with labels and numbers."""
    store, _ = stores
    seen = dataclasses.replace(CAT, labels={"pool": "gpu"}, facts={"waiting": 3.0}, magnitude=1.5)
    held = await store.load(after(0))
    actions = decide_alerts(held.state, Observed((seen,)), (), RULES, after(0))
    assert await store.commit(held, actions, messages_of(actions, ""), after(0))
    [alert] = (await store.load(after(1))).state.alerts.values()
    assert alert.condition == seen
    assert alert.told is not None
    assert alert.told.to == ("phone",)


async def test_a_decision_on_stale_ground_is_not_written_and_sends_nothing(stores: Stores) -> None:
    """Two controllers that both believe to lead: the slower one's decision is lost, not doubled."""
    store, outbox = stores
    stale = await store.load(after(0))
    assert await look(store, CAT)
    assert not await look(store, CAT, at=1.0, held=stale)
    assert len(await claim(outbox, 5.0)) == 1


async def test_the_same_fingerprint_is_never_open_twice(database: Database) -> None:
    """The database refuses it, whatever code says."""
    await look(PostgresAlerts(database), CAT)
    insert = (
        "INSERT INTO alerts (alert_id, fingerprint, state, severity, live, opened_at, data) "
        "SELECT 'al_other', fingerprint, state, severity, live, opened_at, data FROM alerts"
    )
    with pytest.raises(asyncpg.UniqueViolationError):
        await database.execute(insert)


async def test_an_alert_that_opens_anew_in_the_look_that_ends_another_is_written(stores: Stores) -> None:
    """Ends are written first; history goes out of what is read for deciding."""
    store, _ = stores
    await look(store, CAT)
    for at in (10.0, 80.0, 400.0):  # gone, over, its end told
        await look(store, at=at)
    await look(store, CAT, at=500.0)
    alerts = list((await store.load(after(500))).state.alerts.values())
    assert sorted(alert.state for alert in alerts) == [AlertState.FIRING, AlertState.RESOLVED]
    for at in (600.0, 1_000.0, 2_000.0, 9_000.0):
        await look(store, at=at)
    assert (await store.load(after(9_000))).state.alerts == {}
    assert (await store.load(after(9_000))).state.groups == {}


async def test_an_end_never_overtakes_its_beginning(stores: Stores) -> None:
    """While a receiver has not taken the first notification of a group, the next one waits."""
    store, outbox = stores
    await look(store, CAT)
    [first] = await claim(outbox, 1.0)
    for at in (2.0, 70.0, 400.0):
        await look(store, at=at)
    await outbox.settle(first, Retry(after(900), "busy"), after(401))
    assert await claim(outbox, 500.0) == []
    [again] = await claim(outbox, 901.0)
    assert again.message == first.message
    await outbox.settle(again, Delivered("ok"), after(902))
    [end] = await claim(outbox, 903.0)
    assert '"transition":"resolved"' in end.message.body


async def test_a_sender_that_died_is_followed_after_its_lease_and_a_late_answer_changes_nothing(
    stores: Stores,
) -> None:
    """The try's number is the fence."""
    store, outbox = stores
    await look(store, CAT)
    [died] = await claim(outbox, 0.0)
    assert await claim(outbox, 29.0) == []
    [second] = await claim(outbox, 31.0)
    assert (second.message, second.tries) == (died.message, 2)
    assert not await outbox.settle(died, Dead("too late"), after(32))
    assert await outbox.settle(second, Delivered("ok"), after(33))


async def test_a_busy_receiver_is_passed_over(stores: Stores) -> None:
    """Others are claimed meanwhile."""
    store, outbox = stores
    await look(store, CAT)
    assert await outbox.claim(LIMITS, ["phone"], after(1)) == []


async def test_alerts_read_from_the_list_carry_their_acknowledgement(database: Database) -> None:
    """An acknowledgement needs no look of the loop, and none of the loop's writing loses it."""
    store = PostgresAlerts(database)
    await look(store, CAT)
    await database.execute(
        "INSERT INTO alert_acks (alert_id, at, by, why) SELECT alert_id, $1, 'ann', 'on it' FROM alerts", after(5)
    )
    await look(store, dataclasses.replace(CAT, summary="other words"), at=100.0)
    [alert] = (await store.load(after(101))).state.alerts.values()
    assert isinstance(alert, Alert)
    assert alert.acknowledged
    assert alert.condition.summary == "other words"
