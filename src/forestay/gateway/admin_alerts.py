"""Admin routes of alerts: reading them, taking one in hand, silences, notifications, and trying the ways to receivers.

What follows from an acknowledgement or a silence is decided by the alert loop at its next look. Receivers are shown by
name, kind and host; an address may hold a secret and is known to the controller alone. Mounted below `/admin/alerts`.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import cast

import msgspec

from forestay.alerts.model import Alert, AlertState
from forestay.alerts.rules import MAX_MATCHERS, Silence, read_matcher
from forestay.alerts.store import NotificationView
from forestay.alerts.trial import trial_message
from forestay.errors import UsageError
from forestay.gateway.admin_reading import Act, NotThere, Problem, plain_text
from forestay.gateway.responses import Reply, json_reply

MAX_SECONDS = 90 * 86_400.0
_STATES = ("pending", "delivered", "dead")
_MAX_NAMES = 50
_STALE = dt.timedelta(minutes=2)


class _Reason(msgspec.Struct, forbid_unknown_fields=True):
    reason: str


class _NewSilence(msgspec.Struct, forbid_unknown_fields=True):
    matchers: list[str]
    for_seconds: float
    reason: str


class _Trial(msgspec.Struct, forbid_unknown_fields=True):
    receivers: list[str] = []


async def get_alerts(act: Act) -> Reply:
    """List alerts, newest first: those that fire, or with `state=resolved|all` others."""
    state = act.query("state") or AlertState.FIRING.value
    if state not in {*AlertState, "all"}:
        raise UsageError("state", f"use one of {', '.join((*AlertState, 'all'))}")
    found = await act.ports.alerts.alerts(None if state == "all" else state, act.limit(100, 1_000))
    _, decided_at = await act.ports.alerts.routes()
    now = act.ports.clock.now()
    stale = decided_at is None or now - decided_at > _STALE
    return json_reply(200, {"alerts": [_shown(alert) for alert in found], "decided_at": decided_at, "stale": stale})


async def get_alert(act: Act) -> Reply:
    """Show one alert with everything that was decided about it."""
    alert_id = act.path("alert_id")
    alert = await act.ports.alerts.find(alert_id)
    if alert is None:
        raise _no_alert(alert_id)
    return json_reply(200, {"alert": _shown(alert), "events": await act.ports.alerts.events(alert_id, 500)})


async def post_ack(act: Act) -> Reply:
    """Take a firing alert in hand: no repeats and no escalation until it worsens or ends."""
    wanted = await act.json(_Reason)
    alert_id, why = act.path("alert_id"), plain_text("reason", wanted.reason, empty=False)
    if not await act.ports.alerts.acknowledge(alert_id, actor=act.actor, why=why):
        alert = await act.ports.alerts.find(alert_id)
        if alert is None:
            raise _no_alert(alert_id)
        raise Problem(409, f"alert {alert_id} is {alert.state}: there is nothing to take in hand", "not_firing")
    return json_reply(200, {"alert_id": alert_id, "by": act.actor})


async def get_silences(act: Act) -> Reply:
    """List silences, newest first; `ended=1` shows those that are over too."""
    ended = act.query("ended") in {"1", "true"}
    found = await act.ports.alerts.silences(ended=ended, limit=act.limit(100, 1_000))
    return json_reply(200, {"silences": [_silence(item) for item in found]})


async def post_silence(act: Act) -> Reply:
    """Silence what matches, for a while and for a reason."""
    wanted = await act.json(_NewSilence)
    if not 1 <= len(wanted.matchers) <= MAX_MATCHERS:
        raise UsageError("matchers", f"give 1 to {MAX_MATCHERS}, such as subject=model:acme/*; all of them must hold")
    if not 1 <= wanted.for_seconds <= MAX_SECONDS:
        raise UsageError("for_seconds", f"must be 1 to {MAX_SECONDS:g}: every silence ends")
    try:
        matchers = tuple(read_matcher(text) for text in wanted.matchers)
    except UsageError as error:
        raise UsageError("matchers", error.message) from None
    now = act.ports.clock.now()
    silence = Silence(
        silence_id=f"si_{act.ports.chance.bits(64):016x}",
        matchers=matchers,
        until=now + dt.timedelta(seconds=wanted.for_seconds),
        by=act.actor,
        why=plain_text("reason", wanted.reason, empty=False),
        since=now,
    )
    await act.ports.alerts.silence(silence)
    return json_reply(201, _silence(silence))


async def post_silence_end(act: Act) -> Reply:
    """End a silence before its time."""
    wanted = await act.json(_Reason)
    silence_id, why = act.path("silence_id"), plain_text("reason", wanted.reason, empty=False)
    if not await act.ports.alerts.end_silence(silence_id, actor=act.actor, why=why):
        raise NotThere(f"no silence {silence_id[:60]!r} in force; `forestay alert silences` shows those that are")
    return json_reply(200, {"silence_id": silence_id})


async def get_routes(act: Act) -> Reply:
    """Show routes and receivers as the controller has read them, without addresses."""
    known, decided_at = await act.ports.alerts.routes()
    return json_reply(200, {**known, "decided_at": decided_at})


async def get_notifications(act: Act) -> Reply:
    """List notifications, newest first, of one state or with the given ids."""
    state = act.query("state")
    if state is not None and state not in _STATES:
        raise UsageError("state", f"use one of {', '.join(_STATES)}")
    asked = act.query("ids")
    if asked is not None:
        names = asked.split(",")
        if len(names) > _MAX_NAMES:
            raise UsageError("ids", f"at most {_MAX_NAMES} are looked up")
        found: Sequence[NotificationView] = await act.ports.alerts.named(names)
    else:
        found = await act.ports.alerts.notifications(state, act.limit(100, 1_000))
    return json_reply(200, {"notifications": [_notification(item) for item in found]})


async def post_resend(act: Act) -> Reply:
    """Send a dead notification anew, with all its tries, under the id that it had."""
    wanted = await act.json(_Reason)
    name, why = act.path("notification_id"), plain_text("reason", wanted.reason, empty=False)
    if not await act.ports.alerts.revive(name, actor=act.actor, why=why):
        raise NotThere(f"no dead notification {name[:60]!r}; `forestay alert notifications --state dead` lists them")
    await act.ports.wakeups.publish("forestay:alerts", "due")
    return json_reply(200, {"notification_id": name, "state": "pending"})


async def post_test(act: Act) -> Reply:
    """Send a test notification to the named receivers, or to all that are configured."""
    wanted = await act.json(_Trial)
    known, _ = await act.ports.alerts.routes()
    receivers = [str(item["name"]) for item in cast("list[Mapping[str, object]]", known.get("receivers", []))]
    for name in wanted.receivers:
        if name not in receivers:
            said = ", ".join(receivers) or "none; name some in the file of FORESTAY_ALERT_ROUTES"
            raise UsageError("receivers", f"no receiver {name[:60]!r}; there are {said}")
    chosen = wanted.receivers or receivers
    now, nonce = act.ports.clock.now(), f"{act.ports.chance.bits(64):016x}"
    messages = [trial_message(name, act.actor, now, nonce) for name in dict.fromkeys(chosen)]
    if messages:
        await act.ports.alerts.put_tests(messages, actor=act.actor)
        await act.ports.wakeups.publish("forestay:alerts", "due")
    sent = [{"receiver": item.receiver, "notification_id": item.notification_id} for item in messages]
    return json_reply(202, {"sent": sent})


def _shown(alert: Alert) -> dict[str, object]:
    condition = alert.condition
    return {
        "alert_id": alert.alert_id,
        "state": alert.state,
        "severity": condition.severity,
        "name": condition.name,
        "source": condition.source,
        "subject": condition.subject,
        "owner": condition.owner,
        "summary": condition.summary,
        "labels": condition.labels,
        "facts": condition.facts,
        "runbook": condition.runbook_path,
        "since": condition.since,
        "opened_at": alert.opened_at,
        "resolved_at": alert.resolved_at,
        "route": alert.route,
        "held_back": alert.held_back,
        "told": alert.told,
        "acknowledged": alert.acknowledged,
        "ack": alert.ack,
        "flaps": alert.flaps,
    }


def _silence(silence: Silence) -> dict[str, object]:
    return {
        "silence_id": silence.silence_id,
        "matchers": [str(matcher) for matcher in silence.matchers],
        "since": silence.since,
        "until": silence.until,
        "by": silence.by,
        "reason": silence.why,
        "ended_at": silence.ended_at,
    }


def _notification(item: NotificationView) -> dict[str, object]:
    return {**msgspec.to_builtins(item), "body": msgspec.Raw(item.body.encode())}


def _no_alert(alert_id: str) -> NotThere:
    return NotThere(f"no alert {alert_id[:60]!r}; `forestay alert list --state all` shows those that exist")
