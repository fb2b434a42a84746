"""Conditions, rules and a memory for tests of alerting: a clock that is moved by hand, and what receivers were told."""

import collections
import dataclasses
import datetime as dt
from collections.abc import Sequence

from forestay.alerts.actions import Action, Notify, applied
from forestay.alerts.decide import decide_alerts
from forestay.alerts.model import Ack, Alert, AlertState, Condition, Item, Notification, Observed, Severity, State
from forestay.alerts.rules import Matcher, Route, Rules, Silence, Step

START = dt.datetime(2026, 11, 26, 12, 0, tzinfo=dt.UTC)
ON_CALL = Route("default", ("phone",), escalate=(Step(600.0, ("boss",)),))
RULES = Rules(routes=(ON_CALL,))


def condition(
    name: str = "queue_age",
    subject: str = "model:acme/cat",
    *,
    severity: Severity = Severity.PAGE,
    source: str = "platform",
    **more: object,
) -> Condition:
    """A condition; `more` replaces fields."""
    made = Condition(source, subject, name, severity, START, f"{name} of {subject}")
    return dataclasses.replace(made, **more)  # type: ignore[arg-type]


class Scene:
    """Runs decisions one after another and keeps what receivers were told."""

    def __init__(self, rules: Rules = RULES) -> None:
        self.rules = rules
        self.state = State()
        self.now = START
        self.silences: list[Silence] = []
        self.sent: list[Notification] = []

    def look(
        self, *conditions: Condition, after: float = 0.0, silent: Sequence[str] = (), rules: Rules | None = None
    ) -> list[Action]:
        """Let time pass, then decide on what is seen."""
        self.now += dt.timedelta(seconds=after)
        self.rules = rules or self.rules
        observed = Observed(conditions, frozenset(silent))
        actions = decide_alerts(self.state, observed, self.silences, self.rules, self.now)
        self.state = applied(self.state, actions)
        self.sent += [item for action in actions if isinstance(action, Notify) for item in action.notifications]
        return actions

    def run(self, seconds: float, *conditions: Condition, every: float = 5.0) -> None:
        """Look again and again for so long."""
        for _ in range(int(seconds / every)):
            self.look(*conditions, after=every)

    def acknowledge(self, alert: Alert) -> None:
        """Somebody takes it in hand."""
        alerts = {**self.state.alerts, alert.alert_id: dataclasses.replace(alert, ack=Ack("ann", "on it", self.now))}
        self.state = State(alerts, self.state.groups)

    def silence(self, *matchers: Matcher, seconds: float) -> None:
        """Put a silence in force from now on."""
        until = self.now + dt.timedelta(seconds=seconds)
        self.silences.append(Silence(f"si_{len(self.silences)}", matchers, until, "ann", "planned", self.now))

    def told(self, receiver: str = "phone") -> list[tuple[str, str]]:
        """What a receiver was told, in order: subject and transition."""
        return [(item.alert.condition.subject, item.transition) for item in self.items(receiver)]

    def items(self, receiver: str) -> list[Item]:
        """Every item that a receiver was told."""
        return [item for sent in self.sent if sent.receiver == receiver for item in sent.items]

    def firing(self) -> list[Alert]:
        """Alerts that fire."""
        return [alert for alert in self.state.alerts.values() if alert.state is AlertState.FIRING]

    def doubles(self) -> list[str]:
        """Transitions that a receiver was told more than once."""
        counts = collections.Counter((sent.receiver, item.item_id) for sent in self.sent for item in sent.items)
        return [f"{receiver} {item}" for (receiver, item), count in counts.items() if count > 1]
