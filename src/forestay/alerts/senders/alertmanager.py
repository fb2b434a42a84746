"""Prometheus Alertmanager, API v2 (`POST /api/v2/alerts`, Alertmanager's own openapi.yaml): labels name the alert.

Alertmanager knows an alert by its labels alone, so that telling it twice has one effect; those that may become others
while it is open are left out. Severity is one of them, since people route by it; when it changes, the alert of the
former severity is ended there. Alertmanager ends what it has not been told of for a while: what fires is said to last
for a week, and its end is told when it comes.
"""

import datetime as dt

import msgspec

from forestay.alerts.body import Body, ItemBody, read_body
from forestay.alerts.model import VARYING, Severity
from forestay.alerts.receivers import Receiver
from forestay.alerts.senders.http import Poster
from forestay.alerts.store import Message
from forestay.delivery.decide import Outcome

PATH = "/api/v2/alerts"
LASTS = dt.timedelta(days=7)
TEST_LASTS = dt.timedelta(minutes=5)


class AlertmanagerSender:
    """Hands alerts on to an Alertmanager."""

    def __init__(self, poster: Poster) -> None:
        self._poster = poster

    async def send(self, message: Message, receiver: Receiver) -> Outcome:
        """Send one notification's alerts."""
        body = msgspec.json.encode(alerts_of(read_body(message.body)))
        url = receiver.url.rstrip("/")
        return await self._poster.post(url if url.endswith(PATH) else f"{url}{PATH}", body, {})


def alerts_of(body: Body) -> list[dict[str, object]]:
    """Return the alerts of a notification as Alertmanager takes them."""
    lasts = LASTS if body.kind == "alert" else TEST_LASTS
    found: list[dict[str, object]] = []
    for item in body.items:
        found.append(_alert(item, item.severity, item.resolved_at or body.created_at + lasts, body.id))
        if item.transition == "resolved" or item.transition.startswith("worsened"):
            others = (severity.value for severity in Severity if severity.value != item.severity)
            found += [_alert(item, other, item.resolved_at or body.created_at, body.id) for other in others]
    return found


def _alert(item: ItemBody, severity: str, ends_at: dt.datetime, notification_id: str) -> dict[str, object]:
    own = {
        "alertname": item.name,
        "source": item.source,
        "subject": item.subject,
        "owner": item.owner or "platform",
        "severity": severity,
    }
    return {
        "labels": {key: value for key, value in item.labels.items() if value and key not in VARYING} | own,
        "annotations": {
            "summary": item.summary,
            "runbook": item.runbook,
            "reason": item.reason,
            "notification_id": notification_id,
        },
        "startsAt": item.opened_at,
        "endsAt": ends_at,
    }
