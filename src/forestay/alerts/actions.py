"""What deciding about alerts comes to: actions with reasons, each with the values that it leads to. Pure.

Whoever stores them decides nothing: `applied` is the one reading of what they mean. Made by `decide`, stored by
`postgres_store`, replayed by tests and benches.
"""

import dataclasses
from collections.abc import Iterable
from typing import assert_never

from forestay.alerts.model import Alert, Group, Notification, State


@dataclasses.dataclass(frozen=True, slots=True)
class Open:
    """A condition is seen that no open alert stands for."""

    alert: Alert
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Update:
    """An open alert changed: its severity, its words, whether it is still seen."""

    alert: Alert
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Resolve:
    """An alert is over."""

    alert: Alert
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Suppress:
    """Whether and why nobody is told of an alert has changed; an empty `held_back` sets it free."""

    alert: Alert
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Notify:
    """A group's news go to receivers: committed together with the note that they were told."""

    group: Group
    alerts: tuple[Alert, ...]  # with what is now told of them
    notifications: tuple[Notification, ...]
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Forget:
    """An alert is over, told and past its flap window; its group goes with its last alert."""

    alert: Alert
    reason: str


Action = Open | Update | Resolve | Suppress | Notify | Forget


def applied(state: State, actions: Iterable[Action]) -> State:
    """Return the state that actions lead to."""
    alerts, groups = dict(state.alerts), dict(state.groups)
    for action in actions:
        apply_to(action, alerts, groups)
    return State(alerts, groups)


def apply_to(action: Action, alerts: dict[str, Alert], groups: dict[str, Group]) -> None:
    """Apply one action in place."""
    match action:
        case Open() | Update() | Resolve() | Suppress():
            alerts[action.alert.alert_id] = action.alert
        case Notify():
            alerts.update({alert.alert_id: alert for alert in action.alerts})
            groups[action.group.key] = action.group
        case Forget():
            del alerts[action.alert.alert_id]
            if all(alert.group != action.alert.group for alert in alerts.values()):
                groups.pop(action.alert.group, None)
        case _:
            assert_never(action)
