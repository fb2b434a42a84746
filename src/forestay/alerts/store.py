"""The ports of alerting: what is remembered of alerts, and the outbox of notifications.

Deciding and telling meet in the store alone: what a decision leads to, its reasons and the notifications that follow
commit in one transaction, on the version that was read. A decision on an older version is not written.
"""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Protocol

from forestay.alerts.actions import Action
from forestay.alerts.model import Alert, State
from forestay.alerts.rules import Silence
from forestay.delivery.decide import Decision


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """What was read: the state, the silences in force, and the version to write on."""

    version: int
    state: State
    silences: tuple[Silence, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """One notification on its way; `body` is JSON, the same at every try."""

    notification_id: str
    receiver: str
    group: str
    body: str


@dataclasses.dataclass(frozen=True, slots=True)
class Due:
    """A notification to send now; `tries` counts this try and is its fence."""

    message: Message
    tries: int


@dataclasses.dataclass(frozen=True, slots=True)
class ClaimLimits:
    """Bounds of one claim: the lease outlives the time-out of the try that it covers."""

    count: int
    per_receiver: int
    lease_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class NotificationView:
    """One notification as it stands, for people."""

    notification_id: str
    receiver: str
    group_key: str
    body: str
    state: str  # pending | delivered | dead
    tries: int
    next_try_at: dt.datetime
    last_error: str | None
    created_at: dt.datetime
    delivered_at: dt.datetime | None


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """What was decided about an alert."""

    at: dt.datetime
    what: str
    reason: str


class AlertStore(Protocol):
    """What is remembered."""

    async def load(self, now: dt.datetime) -> Held:
        """Read what deciding needs."""
        ...

    async def commit(
        self, held: Held, actions: Sequence[Action], messages: Sequence[Message], now: dt.datetime
    ) -> bool:
        """Write a decision with its messages, all or none; False when somebody else has decided since `held`."""
        ...


class Outbox(Protocol):
    """Notifications that wait, were delivered, or were given up."""

    async def claim(self, limits: ClaimLimits, busy: Sequence[str], now: dt.datetime) -> list[Due]:
        """Claim what is due, in order for each receiver and group, none of the `busy` receivers."""
        ...

    async def settle(self, due: Due, decision: Decision, now: dt.datetime) -> bool:
        """Write what followed from this try; False when a later try has taken over."""
        ...


class AlertDesk(Protocol):
    """What people ask and say; each act that changes something leaves an audit row."""

    async def alerts(self, state: str | None, limit: int) -> list[Alert]:
        """List alerts, newest first."""
        ...

    async def find(self, alert_id: str) -> Alert | None:
        """Read one alert."""
        ...

    async def events(self, alert_id: str, limit: int) -> list[Event]:
        """Read what was decided about it, in order."""
        ...

    async def acknowledge(self, alert_id: str, *, actor: str, why: str) -> bool:
        """Note that somebody has a firing alert in hand; False when it does not fire."""
        ...

    async def silence(self, silence: Silence) -> None:
        """Put a silence in force."""
        ...

    async def end_silence(self, silence_id: str, *, actor: str, why: str) -> bool:
        """End a silence before its time; False when none is in force."""
        ...

    async def silences(self, *, ended: bool, limit: int) -> list[Silence]:
        """List silences, newest first."""
        ...

    async def routes(self) -> tuple[Mapping[str, object], dt.datetime | None]:
        """Read what the controller has read of routes and receivers, and when it last decided."""
        ...

    async def put_tests(self, messages: Sequence[Message], *, actor: str) -> None:
        """Have test notifications sent."""
        ...

    async def notifications(self, state: str | None, limit: int) -> list[NotificationView]:
        """List notifications, newest first."""
        ...

    async def named(self, notification_ids: Sequence[str]) -> list[NotificationView]:
        """Read notifications by id."""
        ...

    async def revive(self, notification_id: str, *, actor: str, why: str) -> bool:
        """Have a dead notification sent anew; False when it is not dead."""
        ...
