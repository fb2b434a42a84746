"""A test notification for a receiver: like a real one in all but its kind. Pure.

Asked for by people (`forestay alert test`); it takes the whole way through the outbox and the sender, so that what
arrives has proved the way. It is no alert: nothing opens, and nothing must be ended.
"""

import datetime as dt

from forestay.alerts.body import message_of
from forestay.alerts.model import Alert, Condition, Item, Notification, Severity, alert_id_of
from forestay.alerts.store import Message

NAME = "test_notification"


def trial_message(receiver: str, by: str, now: dt.datetime, nonce: str) -> Message:
    """Return a test notification for a receiver; `nonce` makes its id unlike that of every other test."""
    condition = Condition(
        source="alerts",
        subject=f"receiver:{receiver}",
        name=NAME,
        severity=Severity.INFO,
        since=now,
        summary=f"a test of the way to {receiver}, asked for by {by}: nothing is wrong, nothing is to be done",
        runbook="docs/howto/get-alerted.md",
    )
    alert = Alert(alert_id_of(condition, now), condition, now, now, now, route="", group=f"test/{nonce}")
    item = Item(alert, f"test-{nonce}", "asked for by a person")
    return message_of(Notification(receiver, alert.group, (item,), now), kind="test")
