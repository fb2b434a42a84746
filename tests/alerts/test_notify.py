"""Sending: signed, once for who honours the id, in spite of receivers that fail, hang, or are gone."""

import asyncio
import base64
import contextlib
import dataclasses
import datetime as dt
import hashlib
from collections.abc import AsyncIterator, Mapping

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from tests.alerts.conftest import Hooks
from tests.alerts.scenes import condition

from forestay.alerts import notify
from forestay.alerts.body import plain_text, read_body
from forestay.alerts.decide import decide_alerts
from forestay.alerts.loop import messages_of
from forestay.alerts.model import Observed, State
from forestay.alerts.notify import NotifyPorts, Sender, Senders, senders_of
from forestay.alerts.postgres_outbox import PostgresOutbox, put
from forestay.alerts.receivers import Receiver, ReceiverKind, Routing
from forestay.alerts.rules import Route, Rules
from forestay.alerts.senders.alertmanager import alerts_of
from forestay.alerts.senders.apprise_chat import AppriseSender, has_apprise
from forestay.alerts.store import Message
from forestay.chance import SeededChance
from forestay.clock import SystemClock
from forestay.delivery.decide import Broken as NoAnswer
from forestay.delivery.decide import Impossible, Outcome, Responded
from forestay.delivery.signing import SigningKeys
from forestay.settings import Alerts
from forestay.storage.postgres import Database
from forestay.telemetry.metrics import NOTIFICATION_TRIES, Metrics

NOW = SystemClock().now()
SETTINGS = Alerts(timeout_seconds=30.0, tries=3, retry_base_seconds=0.01, retry_cap_seconds=0.02)


def messages(
    *receivers: str, subject: str = "model:acme/cat", labels: Mapping[str, str] | None = None
) -> list[Message]:
    """One page for each receiver."""
    rules = Rules(routes=(Route("default", receivers),))
    seen = condition(subject=subject, labels=labels or {})
    actions = decide_alerts(State(), Observed((seen,)), (), rules, NOW)
    return messages_of(actions, "https://docs.example")


async def enqueue(database: Database, made: list[Message]) -> None:
    """Put messages into the outbox."""
    async with database.transaction() as connection:
        await put(connection, made, NOW)


@pytest.fixture
def ports(database: Database, keys: SigningKeys, hooks: Hooks) -> NotifyPorts:
    """The loop over the real outbox, with receivers of every kind on loopback."""
    receivers = (
        Receiver("phone", ReceiverKind.WEBHOOK, hooks.url("/phone")),
        Receiver("slow", ReceiverKind.WEBHOOK, hooks.url("/slow")),
        Receiver("dead", ReceiverKind.WEBHOOK, hooks.url("/dead")),
        Receiver("closed", ReceiverKind.WEBHOOK, "http://127.0.0.1:1/"),
        Receiver("prometheus", ReceiverKind.ALERTMANAGER, hooks.url("/am")),
    )
    clock = SystemClock()
    return NotifyPorts(
        outbox=PostgresOutbox(database),
        routing=lambda: Routing(Rules(), receivers),
        senders=senders_of(keys, SETTINGS, clock),
        settings=SETTINGS,
        clock=clock,
        chance=SeededChance(1),
        metrics=Metrics(),
    )


async def states(database: Database) -> dict[str, str]:
    """How notifications stand, by receiver."""
    rows = await database.fetch("SELECT receiver, state FROM alert_notifications")
    return {row["receiver"]: row["state"] for row in rows}


async def send_until(ports: NotifyPorts, database: Database, receiver: str, state: str) -> None:
    """Run the loop until the receiver's notification stands so."""
    async with asyncio.timeout(20):
        while (await states(database))[receiver] != state:
            await notify.run_once(ports)


async def test_a_notification_is_signed_as_webhooks_are(ports: NotifyPorts, database: Database, hooks: Hooks) -> None:
    """The receiver verifies it with the published key alone, and finds the id twice."""
    await enqueue(database, messages("phone"))
    assert await notify.run_once(ports) == 1
    assert await notify.run_once(ports) == 0
    ((headers, body),) = hooks.calls["/phone"]
    lines = [headers[f"X-Fal-Webhook-{name}"] for name in ("Request-Id", "User-Id", "Timestamp")]
    message = "\n".join([*lines, hashlib.sha256(body).hexdigest()]).encode()
    [sent] = hooks.bodies()
    assert lines[:2] == [sent["id"], "phone"]
    assert headers["Idempotency-Key"] == sent["id"]
    assert await verified(message, headers["X-Fal-Webhook-Signature"], ports)


async def verified(message: bytes, signature: str, ports: NotifyPorts) -> bool:
    """Check a signature with the public key alone."""
    async with ports.senders() as senders:
        public = senders[ReceiverKind.WEBHOOK]._keys.jwks()["keys"][0]["x"]  # type: ignore[attr-defined]
    key = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(public + "="))
    key.verify(bytes.fromhex(signature), message)
    return True


async def test_a_failing_receiver_is_sent_the_same_bytes_until_it_takes_them(
    ports: NotifyPorts, database: Database, hooks: Hooks
) -> None:
    """Honouring the id it sees one effect."""
    hooks.answers["/phone"] = [500, 503, 200]
    await enqueue(database, messages("phone"))
    await send_until(ports, database, "phone", "delivered")
    assert len({body for _, body in hooks.calls["/phone"]}) == 1
    assert hooks.effects() == ["opened"]


async def test_a_dead_receiver_is_given_up_after_its_tries_and_stops_nobody(
    ports: NotifyPorts, database: Database, hooks: Hooks
) -> None:
    """The other receiver of the same alert has it in the first round."""
    hooks.answers["/dead"] = [500]
    await enqueue(database, messages("dead", "closed", "phone"))
    await send_until(ports, database, "dead", "dead")
    await send_until(ports, database, "closed", "dead")
    assert (await states(database))["phone"] == "delivered"
    assert len(hooks.calls["/dead"]) == 3
    assert ports.metrics.value(NOTIFICATION_TRIES, "closed", "dead") == 1


async def test_a_hanging_receiver_holds_only_its_own_places(
    ports: NotifyPorts, database: Database, hooks: Hooks
) -> None:
    """While it hangs, the others are told."""
    hooks.hanging["/slow"] = asyncio.Event()
    for number in range(notify.PER_RECEIVER + 2):
        made = messages("slow", subject=f"model:acme/m{number}")
        await enqueue(database, [dataclasses.replace(item, group=f"g{number}") for item in made])
    await enqueue(database, messages("phone"))

    async def told() -> int:
        return len(hooks.calls["/slow"]) + ((await states(database))["phone"] == "delivered")

    async with asyncio.TaskGroup() as group:
        running = group.create_task(notify.run_once(ports))
        async with asyncio.timeout(10):
            while await told() < notify.PER_RECEIVER + 1:  # noqa: ASYNC110 - the outbox is looked at from outside
                await asyncio.sleep(0.01)
        assert len(hooks.calls["/slow"]) == notify.PER_RECEIVER
        hooks.hanging["/slow"].set()
        await running
    assert len(hooks.calls["/slow"]) == notify.PER_RECEIVER + 2


async def test_a_receiver_that_is_no_longer_configured_is_said_in_words(ports: NotifyPorts, database: Database) -> None:
    """It is a dead letter at once: waiting would not bring it back."""
    await enqueue(database, messages("gone"))
    await notify.run_once(ports)
    row = await database.fetchrow("SELECT state, last_error FROM alert_notifications")
    assert row is not None
    assert (row["state"], row["last_error"]) == ("dead", "no receiver of this name is configured any more")


async def test_an_alertmanager_is_told_in_its_own_form(ports: NotifyPorts, database: Database, hooks: Hooks) -> None:
    """POST /api/v2/alerts, labels that name the alert, an end a week away."""
    await enqueue(database, messages("prometheus"))
    await notify.run_once(ports)
    ((_, body),) = hooks.calls["/am/api/v2/alerts"]
    assert b'"alertname":"queue_age"' in body
    [told] = messages("prometheus")
    [alert] = alerts_of(read_body(told.body))
    assert alert["labels"] == {
        "alertname": "queue_age", "source": "platform", "subject": "model:acme/cat", "owner": "platform",
        "severity": "page",
    }  # fmt: skip
    assert alert["endsAt"] == NOW + dt.timedelta(days=7)


def test_a_label_that_may_change_while_an_alert_is_open_makes_no_second_alert_of_it() -> None:
    """Alertmanager knows an alert by its labels: which part hurts a composite is none of them there."""
    [one], [other] = (messages("prometheus", labels={"slo": "all", "hurting": name}) for name in ("cat", "dog"))
    first, second = ([alert["labels"] for alert in alerts_of(read_body(told.body))] for told in (one, other))
    assert first == second
    assert first[0]["slo"] == "all"  # type: ignore[index]


async def test_words_for_people_carry_the_id_and_the_runbook() -> None:
    """A chat that shows a message twice shows that it is the same one."""
    [told] = messages("chat")
    text = plain_text(read_body(told.body))
    assert told.notification_id in text
    assert "https://docs.example/docs/runbooks/queue_age.md" in text


async def test_without_its_package_apprise_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead letter that says what to install, never a crash."""
    monkeypatch.setattr("forestay.alerts.senders.apprise_chat.has_apprise", lambda: False)
    [told] = messages("chat")
    outcome = await AppriseSender(1.0).send(told, Receiver("chat", ReceiverKind.APPRISE, "json://127.0.0.1"))
    assert isinstance(outcome, Impossible)
    assert "forestay[notify]" in outcome.reason


@pytest.mark.skipif(not has_apprise(), reason="the extra `notify` is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what apprise imports
async def test_a_real_apprise_says_it_in_words(hooks: Hooks) -> None:
    """Title and words arrive; an address that it does not know, and a service that is not there, are told apart."""
    [told] = messages("chat")
    sender = AppriseSender(10.0)

    async def send(url: str) -> Outcome:
        return await sender.send(told, Receiver("chat", ReceiverKind.APPRISE, url))

    assert await send(f"json://127.0.0.1:{hooks.port}/chat") == Responded(200)
    [heard] = hooks.bodies("/chat")
    assert str(heard["title"]).startswith("[page] ")
    assert told.notification_id in str(heard["message"])
    assert isinstance(await send("json://127.0.0.1:1/chat"), NoAnswer)
    assert isinstance(await send("pigeon://loft"), Impossible)


class Broken:
    """A way out with a defect."""

    async def send(self, message: Message, receiver: Receiver) -> Outcome:  # noqa: ARG002 - the port's
        """Fail in a way that nobody foresaw."""
        raise RuntimeError("a defect")


class Working:
    """A way out that takes everything."""

    async def send(self, message: Message, receiver: Receiver) -> Outcome:  # noqa: ARG002 - the port's
        """Take it."""
        return Responded(200)


async def test_a_defect_in_one_way_out_stops_no_other(ports: NotifyPorts, database: Database) -> None:
    """It is retried like a receiver that does not answer."""

    @contextlib.asynccontextmanager
    async def broken() -> AsyncIterator[Senders]:
        ways: dict[ReceiverKind, Sender] = {
            ReceiverKind.WEBHOOK: Broken(),
            ReceiverKind.ALERTMANAGER: Working(),
        }
        yield ways

    await enqueue(database, messages("phone", "prometheus"))
    await send_until(dataclasses.replace(ports, senders=broken), database, "phone", "dead")
    assert (await states(database))["prometheus"] == "delivered"


def test_a_notification_said_again_has_the_same_id_and_another_one_has_another() -> None:
    """The id follows from what is told and to whom."""
    rules = Rules(routes=(Route("default", ("a", "b")),))
    made = [messages_of(decide_alerts(State(), Observed((condition(),)), (), rules, NOW), "") for _ in range(2)]
    assert made[0] == made[1]
    assert made[0][0].notification_id != made[0][1].notification_id
