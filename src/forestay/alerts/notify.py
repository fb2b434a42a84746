"""The loop that sends notifications: claims what is due, sends it by the receiver's kind, writes what followed.

At least once, under an id that follows from what is told: a receiver that honours it sees one effect. What follows from
a try is `delivery/decide`'s. A receiver that hangs holds only its own few places. Called by the controller.
"""

import asyncio
import collections
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Protocol

from forestay.alerts.receivers import Receiver, ReceiverKind, Routing
from forestay.alerts.senders.alertmanager import AlertmanagerSender
from forestay.alerts.senders.apprise_chat import AppriseSender
from forestay.alerts.senders.http import poster
from forestay.alerts.senders.webhook import WebhookSender
from forestay.alerts.store import ClaimLimits, Due, Message, Outbox
from forestay.chance import Chance
from forestay.clock import Clock
from forestay.delivery.decide import Broken, Dead, Delivered, Impossible, Outcome, Policy, Retry, decide_delivery
from forestay.delivery.signing import SigningKeys
from forestay.errors import Unavailable
from forestay.settings import Alerts
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import NOTIFICATION_SECONDS, NOTIFICATION_TRIES, Metrics

CONCURRENCY = 32
PER_RECEIVER = 4
LEASE_MARGIN_SECONDS = 2.0  # a sender that died is followed by another after the time-out and this
LOOK_AGAIN_SECONDS = 0.5  # while receivers are slow, how often newly due ones are looked for
STOP_SECONDS = 3.0  # after `stop`, what is in flight may still end
_WORDS: Mapping[type, str] = {Delivered: "delivered", Retry: "retry", Dead: "dead"}
_log = logger("alerts.notify")


class Sender(Protocol):
    """One way to reach receivers."""

    async def send(self, message: Message, receiver: Receiver) -> Outcome:
        """Send one notification and return what came of it; never raises for what a receiver does."""
        ...


Senders = Mapping[ReceiverKind, Sender]


@dataclasses.dataclass(frozen=True, slots=True)
class NotifyPorts:
    """What the loop may use of the world; `senders` opens the ways out for one run."""

    outbox: Outbox
    routing: Callable[[], Routing]
    senders: Callable[[], contextlib.AbstractAsyncContextManager[Senders]]
    settings: Alerts
    clock: Clock
    chance: Chance
    metrics: Metrics
    stop: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)  # set: claim nothing new, end soon


def senders_of(
    keys: SigningKeys, settings: Alerts, clock: Clock
) -> Callable[[], contextlib.AbstractAsyncContextManager[Senders]]:
    """Return what opens the real ways out."""

    @contextlib.asynccontextmanager
    async def opened() -> AsyncGenerator[Senders]:
        async with poster(clock, settings.timeout_seconds) as posting:
            yield {
                ReceiverKind.WEBHOOK: WebhookSender(posting, keys, clock),
                ReceiverKind.ALERTMANAGER: AlertmanagerSender(posting),
                ReceiverKind.APPRISE: AppriseSender(settings.timeout_seconds),
            }

    return opened


def policy_of(settings: Alerts) -> Policy:
    """Read the policy of tries from the settings."""
    return Policy(settings.tries, settings.retry_base_seconds, settings.retry_cap_seconds)


async def run_once(ports: NotifyPorts) -> int:
    """Send until nothing is due and nothing is in flight; returns how many tries were made."""
    async with ports.senders() as senders:
        return await _Round(ports, senders).run()


class _Round:
    """One run: what is in flight, and to whom."""

    def __init__(self, ports: NotifyPorts, senders: Senders) -> None:
        self._ports = ports
        self._senders = senders
        self._in_flight: collections.Counter[str] = collections.Counter()
        self._ended = asyncio.Event()

    async def run(self) -> int:
        """Claim and send until the outbox is quiet."""
        made = 0
        tasks: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as group:
            while not self._ports.stop.is_set():
                due = await self._claim()
                for item in due:
                    self._in_flight[item.message.receiver] += 1
                    task = group.create_task(self._send(item))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                made += len(due)
                if not due and not tasks:
                    return made
                if not due:
                    await self._one_ended()
            late = (await asyncio.wait(tasks, timeout=STOP_SECONDS))[1] if tasks else set[asyncio.Task[None]]()
            for task in late:
                task.cancel()
        return made

    async def _claim(self) -> list[Due]:
        free = CONCURRENCY - self._in_flight.total()
        if free <= 0:
            return []
        busy = [receiver for receiver, count in self._in_flight.items() if count >= PER_RECEIVER]
        limits = ClaimLimits(free, PER_RECEIVER, self._ports.settings.timeout_seconds + LEASE_MARGIN_SECONDS)
        return await self._ports.outbox.claim(limits, busy, self._ports.clock.now())

    async def _one_ended(self) -> None:
        self._ended.clear()
        with contextlib.suppress(TimeoutError):  # then it is time to look for newly due ones
            async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                await self._ended.wait()

    async def _send(self, due: Due) -> None:
        started = self._ports.clock.monotonic()
        receiver = due.message.receiver
        try:
            outcome = await self._try(due)
            await self._settle(due, outcome, self._ports.clock.monotonic() - started)
        except Unavailable as error:  # the row stays claimed: its lease ends by itself, then it is due again
            self._ports.metrics.add(NOTIFICATION_TRIES, receiver, "unsettled")
            _log.warning("notification.unsettled", notification_id=due.message.notification_id, reason=str(error))
        finally:
            self._in_flight[receiver] -= 1
            if not self._in_flight[receiver]:
                del self._in_flight[receiver]
            self._ended.set()

    async def _try(self, due: Due) -> Outcome:
        receiver = self._ports.routing().receiver(due.message.receiver)
        if receiver is None:
            return Impossible("no receiver of this name is configured any more")
        try:
            return await self._senders[receiver.kind].send(due.message, receiver)
        except ValueError as error:  # a body of another version, say
            return Impossible(f"cannot be sent ({type(error).__name__})")
        except Exception as error:  # noqa: BLE001 - a defect in one way out must not stop the others
            _log.error("notification.failed", notification_id=due.message.notification_id, exc_info=error)
            return Broken(f"a defect of ours ({type(error).__name__}); the controller's log says where")

    async def _settle(self, due: Due, outcome: Outcome, seconds: float) -> None:
        ports, message = self._ports, due.message
        now, jitter = ports.clock.now(), ports.chance.uniform(0.0, 1.0)
        decision = decide_delivery(due.tries, outcome, policy_of(ports.settings), now, jitter)
        written = await ports.outbox.settle(due, decision, now)
        word = _WORDS[type(decision)] if written else "overtaken"
        ports.metrics.add(NOTIFICATION_TRIES, message.receiver, word)
        ports.metrics.observe(NOTIFICATION_SECONDS, seconds, word)
        _log.info(
            "notification.tried",
            notification_id=message.notification_id,
            receiver=message.receiver,
            tries=due.tries,
            outcome=word,
            reason=decision.reason,
        )
