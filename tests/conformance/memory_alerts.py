"""Alerts and their outbox in memory: adapters of the ports of `alerts/store`, for decisions without a database."""

import datetime as dt
import itertools
from collections.abc import Sequence

from forestay.alerts.actions import Action, applied
from forestay.alerts.model import State
from forestay.alerts.rules import Silence
from forestay.alerts.store import ClaimLimits, Due, Held, Message
from forestay.delivery.decide import Dead, Decision, Delivered, Retry


class _Row:
    """One notification."""

    def __init__(self, message: Message, position: int, at: dt.datetime) -> None:
        self.message = message
        self.position = position
        self.state = "pending"
        self.tries = 0
        self.next_try_at = at


class MemoryOutbox:
    """Outbox."""

    def __init__(self) -> None:
        self.rows: dict[str, _Row] = {}
        self._positions = itertools.count()

    def put(self, messages: Sequence[Message], now: dt.datetime) -> None:
        """Keep messages; one that is there already stays as it is."""
        for message in messages:
            if message.notification_id not in self.rows:
                self.rows[message.notification_id] = _Row(message, next(self._positions), now)

    async def claim(self, limits: ClaimLimits, busy: Sequence[str], now: dt.datetime) -> list[Due]:
        """Claim what is due, in order for each receiver and group, none of the `busy` receivers."""
        first: dict[tuple[str, str], _Row] = {}
        for row in self.rows.values():  # in the order of their positions
            if row.state == "pending" and row.message.receiver not in busy:
                first.setdefault((row.message.receiver, row.message.group), row)
        due = sorted((row for row in first.values() if row.next_try_at <= now), key=lambda row: row.next_try_at)
        taken: list[Due] = []
        held: dict[str, int] = {}
        for row in due:
            receiver = row.message.receiver
            if len(taken) >= limits.count or held.get(receiver, 0) >= limits.per_receiver:
                continue
            held[receiver] = held.get(receiver, 0) + 1
            row.tries += 1
            row.next_try_at = now + dt.timedelta(seconds=limits.lease_seconds)
            taken.append(Due(row.message, row.tries))
        return taken

    async def settle(self, due: Due, decision: Decision, now: dt.datetime) -> bool:  # noqa: ARG002 - the port's
        """Write what followed from this try; False when a later try has taken over."""
        row = self.rows.get(due.message.notification_id)
        if row is None or row.tries != due.tries or row.state != "pending":
            return False
        match decision:
            case Delivered():
                row.state = "delivered"
            case Retry():
                row.next_try_at = decision.at
            case Dead():
                row.state = "dead"
        return True


class MemoryAlerts:
    """AlertStore: a decision and its messages are written together, on the version that was read."""

    def __init__(self, outbox: MemoryOutbox) -> None:
        self._outbox = outbox
        self._version = 0
        self._state = State()
        self.silences: list[Silence] = []

    async def load(self, now: dt.datetime) -> Held:
        """Read what deciding needs."""
        return Held(self._version, self._state, tuple(item for item in self.silences if item.in_force(now)))

    async def commit(
        self, held: Held, actions: Sequence[Action], messages: Sequence[Message], now: dt.datetime
    ) -> bool:
        """Write a decision with its messages, all or none; False when somebody else has decided since `held`."""
        if held.version != self._version:
            return False
        if actions:
            self._version += 1
            self._state = applied(held.state, actions)
            self._outbox.put(messages, now)
        return True
