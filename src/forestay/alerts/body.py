"""What a notification says: JSON for machines, and the same as plain words for people. Pure.

The JSON is made once, when it is decided to tell, and every try sends the same bytes; `docs/reference/alerts.md` says
what each field means. No prompt, no address and no secret is ever in it: summaries come from sources, which have none.
"""

import datetime as dt
from collections.abc import Mapping, Sequence

import msgspec

from forestay.alerts.model import RANK, Alert, AlertState, Item, Notification, Severity
from forestay.alerts.store import Message

VERSION = 1
_MAX_LINES = 10


class ItemBody(msgspec.Struct, frozen=True):
    """One transition of one alert."""

    id: str  # the transition's own, for ever: <alert_id>:<transition>
    alert_id: str
    transition: str
    status: str  # firing | resolved
    name: str
    source: str
    subject: str
    severity: str
    owner: str
    labels: Mapping[str, str]
    summary: str
    facts: Mapping[str, float]
    since: dt.datetime  # since when the source has seen it
    opened_at: dt.datetime
    resolved_at: dt.datetime | None
    runbook: str
    reason: str  # why this is told now


class Body(msgspec.Struct, frozen=True):
    """What a receiver is sent. A receiver that honours `id` sees one effect, however often it is sent."""

    version: int
    id: str
    kind: str  # alert | test
    receiver: str
    group: str
    created_at: dt.datetime
    status: str  # firing while anything in it fires
    severity: str  # the worst in it
    title: str
    items: tuple[ItemBody, ...]


def message_of(notification: Notification, *, runbook_base: str = "", kind: str = "alert") -> Message:
    """Return the notification as it is kept and sent."""
    alerts = [item.alert for item in notification.items]
    firing = [alert for alert in alerts if alert.state is AlertState.FIRING]
    severity = max((alert.condition.severity for alert in firing or alerts), key=RANK.__getitem__)
    body = Body(
        version=VERSION,
        id=notification.notification_id,
        kind=kind,
        receiver=notification.receiver,
        group=notification.group,
        created_at=notification.created_at,
        status="firing" if firing else "resolved",
        severity=severity.value,
        title=_title(firing, alerts, severity),
        items=tuple(_item(item, runbook_base) for item in notification.items),
    )
    encoded = msgspec.json.encode(body).decode()
    return Message(body.id, notification.receiver, notification.group, encoded)


def _title(firing: Sequence[Alert], alerts: Sequence[Alert], severity: Severity) -> str:
    shown = firing or alerts
    word = severity.value if firing else "over"
    more = f" (and {len(shown) - 1} more)" if len(shown) > 1 else ""
    first = max(shown, key=lambda alert: RANK[alert.condition.severity])
    return f"[{word}] {first.condition.summary}{more}"


def _item(item: Item, runbook_base: str) -> ItemBody:
    alert, condition = item.alert, item.alert.condition
    path = condition.runbook_path
    return ItemBody(
        id=item.item_id,
        alert_id=alert.alert_id,
        transition=item.transition,
        status=alert.state.value,
        name=condition.name,
        source=condition.source,
        subject=condition.subject,
        severity=condition.severity.value,
        owner=condition.owner,
        labels=condition.labels,
        summary=condition.summary,
        facts=condition.facts,
        since=condition.since,
        opened_at=alert.opened_at,
        resolved_at=alert.resolved_at,
        runbook=f"{runbook_base.rstrip('/')}/{path}" if runbook_base else path,
        reason=item.reason,
    )


def read_body(text: str) -> Body:
    """Read what `message_of` made; raises ValueError for anything else."""
    return msgspec.json.decode(text, type=Body)


def plain_text(body: Body) -> str:
    """Return it for people: a line an alert, the id at the end, so that a doubled message is seen as one."""
    lines = [_line(item) for item in body.items[:_MAX_LINES]]
    if len(body.items) > _MAX_LINES:
        lines.append(f"... and {len(body.items) - _MAX_LINES} more: forestay alert list")
    return "\n".join((*lines, f"({body.id})"))


def _line(item: ItemBody) -> str:
    whose = f" [{item.owner}]" if item.owner else ""
    hint = f" Runbook: {item.runbook}." if item.status == "firing" else ""
    return f"{item.severity}{whose} {item.subject}: {item.summary} ({item.transition}: {item.reason}).{hint}"
