"""What becomes of alerts, and who is told: from what is remembered and seen now to actions with reasons. Pure.

One look goes through five steps, each on what the step before came to: notice what is seen and what is gone; hold
back what is silenced, inhibited or has no route; tell groups their news; escalate and repeat what nobody acknowledged;
forget what is over and told. Running it twice at the same moment gives nothing the second time. Called by the alert
loop and the benches.

What holds (tests/alerts/test_decide.py): one open alert a fingerprint; what is seen and not held back is told within
the route's waits; a transition of an alert is told to a receiver once; whoever heard of an alert hears of its end,
whatever silences say; a source that cannot be asked ends nothing.
"""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence

from forestay.alerts.actions import Action, Forget, Notify, Open, Resolve, Suppress, Update, apply_to
from forestay.alerts.model import (
    RANK,
    Alert,
    AlertState,
    Condition,
    Group,
    Item,
    Notification,
    Observed,
    Severity,
    State,
    Told,
    alert_id_of,
    bounded,
)
from forestay.alerts.rules import Route, Rules, Silence, group_of, inhibitor_of, inhibitors_among, silence_over

MAX_ITEMS = 100  # of one notification; more of a group's news go as several
NO_ROUTE = "no route leads anywhere; name receivers in the file of FORESTAY_ALERT_ROUTES"
WORSE_FACTOR = 2.0  # a magnitude this many times what was told is worse


def decide_alerts(
    state: State, observed: Observed, silences: Sequence[Silence], rules: Rules, now: dt.datetime
) -> list[Action]:
    """Decide what follows from one look at every source."""
    look = _Look(state, rules, now)
    _notice(look, observed)
    _hold_back(look, silences)
    for key, alerts in look.by_group().items():
        _tell_news(look, key, alerts)
    for key, alerts in look.by_group().items():
        _escalate(look, key, alerts)
        _repeat(look, key, alerts)
    _forget(look)
    return look.actions


class _Look:
    """What one look has come to so far."""

    def __init__(self, state: State, rules: Rules, now: dt.datetime) -> None:
        self.rules = rules
        self.now = now
        self.actions: list[Action] = []
        self.alerts = dict(state.alerts)
        self.groups = dict(state.groups)

    def act(self, action: Action) -> None:
        """Take an action, and see its effect from here on."""
        self.actions.append(action)
        apply_to(action, self.alerts, self.groups)

    def ordered(self) -> list[Alert]:
        """Return every alert, in an order that depends on nothing but what they are."""
        return [self.alerts[alert_id] for alert_id in sorted(self.alerts)]

    def by_group(self) -> dict[str, list[Alert]]:
        """Return the alerts that are not closed by their groups."""
        found: dict[str, list[Alert]] = {}
        for alert in self.ordered():
            if not alert.closed:
                found.setdefault(alert.group, []).append(alert)
        return dict(sorted(found.items()))

    def ago(self, moment: dt.datetime) -> float:
        """Return the seconds since a moment."""
        return (self.now - moment).total_seconds()


# What is seen and what is gone ------------------------------------------------------------------------------------


def _notice(look: _Look, observed: Observed) -> None:
    _follow_routes(look)
    seen: dict[str, Condition] = {}
    for condition in sorted(observed.conditions, key=_worst_first):
        seen.setdefault(condition.fingerprint, bounded(condition))
    current = {alert.fingerprint: alert for alert in look.ordered() if not alert.closed}
    flaps: dict[str, int] = {}
    for alert in look.alerts.values():
        flaps[alert.fingerprint] = max(flaps.get(alert.fingerprint, 0), alert.flaps + 1)
    for fingerprint in sorted(seen.keys() | current.keys()):
        condition, alert = seen.get(fingerprint), current.get(fingerprint)
        if condition is None and alert is not None:
            _notice_gone(look, alert, observed.silent)
        elif condition is not None and alert is None:
            _open(look, condition, flaps.get(fingerprint, 0))
        elif condition is not None and alert is not None:
            _notice_seen(look, alert, condition)


def _follow_routes(look: _Look) -> None:
    """Give alerts whose route is gone the one that the routes of now give them."""
    for alert in look.ordered():
        if not alert.closed and look.rules.route_named(alert.route) is None:
            moved = _rerouted(look.rules, alert)
            if moved != alert:
                look.act(Update(moved, f"told by route {moved.route or 'none'} now"))


def _worst_first(condition: Condition) -> tuple[str, int, float, str]:
    return condition.fingerprint, -RANK[condition.severity], -condition.magnitude, condition.summary


def _open(look: _Look, condition: Condition, flaps: int) -> None:
    route = look.rules.route_of(condition)
    alert = Alert(
        alert_id=alert_id_of(condition, look.now),
        condition=condition,
        opened_at=look.now,
        noted_at=look.now,
        changed_at=look.now,
        route="" if route is None else route.name,
        group=group_of(route, condition),
        flaps=flaps,
    )
    again = f", for the {flaps + 1}th time in a while" if flaps else ""
    look.act(Open(alert, f"{condition.source} sees {condition.name} of {condition.subject}{again}"))


def _notice_seen(look: _Look, alert: Alert, condition: Condition) -> None:
    """Note what changed. Numbers and words alone are noted once in a while, or every look would write every alert."""
    known = alert.state is AlertState.FIRING and alert.missing_since is None
    if known and condition == alert.condition:
        return
    fresh = dataclasses.replace(alert, condition=condition, noted_at=look.now, missing_since=None)
    fresh = _rerouted(look.rules, fresh)
    before = alert.condition
    if alert.state is AlertState.RESOLVED:
        back = dataclasses.replace(fresh, state=AlertState.FIRING, resolved_at=None, flaps=alert.flaps + 1)
        look.act(Update(back, "came back before anyone was told of its end"))
    elif RANK[condition.severity] != RANK[before.severity]:
        worse = _is_worse(fresh)
        changed = look.now if worse else alert.changed_at
        reason = f"severity went from {before.severity} to {condition.severity}"
        look.act(Update(dataclasses.replace(fresh, changed_at=changed), reason))
    elif _is_worse(fresh) and not _is_worse(alert):
        reason = f"{condition.magnitude:g} is at least twice what was told"
        look.act(Update(dataclasses.replace(fresh, changed_at=look.now), reason))
    elif alert.missing_since is not None:
        look.act(Update(fresh, "seen again"))
    elif (fresh.route, fresh.group, condition.owner) != (alert.route, alert.group, before.owner):
        look.act(Update(fresh, f"is {condition.owner or 'nobody'}'s now, told by route {fresh.route or 'none'}"))
    elif condition != before and look.ago(alert.noted_at) >= look.rules.refresh_seconds:
        look.act(Update(fresh, "new numbers"))


def _rerouted(rules: Rules, alert: Alert) -> Alert:
    """Follow the routes as they are now, but leave whoever was told of an alert with it while their route exists."""
    if alert.told is not None and rules.route_named(alert.route) is not None:
        return alert
    route = rules.route_of(alert.condition)
    return dataclasses.replace(alert, route="" if route is None else route.name, group=group_of(route, alert.condition))


def _notice_gone(look: _Look, alert: Alert, silent: frozenset[str]) -> None:
    if alert.state is AlertState.RESOLVED:
        return
    # A source that could not be asked has not said that all is well.
    if alert.condition.source in silent:
        return
    if alert.missing_since is None:
        look.act(Update(dataclasses.replace(alert, missing_since=look.now), "no longer seen"))
        return
    hold = hold_seconds(look.rules, alert.flaps)
    if look.ago(alert.missing_since) < hold:
        return
    # Nobody was told while it was held back: then nobody needs to hear of its end.
    unheard = alert.told is None and bool(alert.held_back)
    over = dataclasses.replace(
        alert, state=AlertState.RESOLVED, resolved_at=look.now, changed_at=look.now, closed=unheard
    )
    look.act(Resolve(over, f"not seen for {look.ago(alert.missing_since):.0f} s"))


def hold_seconds(rules: Rules, flaps: int) -> float:
    """Return how long an alert must be gone before it is over: twice as long for each time that it came back."""
    return max(
        rules.resolve_after_seconds, min(rules.flap_cap_seconds, rules.resolve_after_seconds * 2.0 ** min(flaps, 30))
    )


# What is held back ------------------------------------------------------------------------------------------------


def _hold_back(look: _Look, silences: Sequence[Silence]) -> None:
    firing = [alert for alert in look.ordered() if alert.state is AlertState.FIRING]
    inhibitors = inhibitors_among(look.rules, firing)
    for alert in firing:
        why = _why_held(look, alert, silences, inhibitors)
        if why == alert.held_back:
            continue
        # What waited under a silence is news from the moment that it ends.
        changed = look.now if not why and _transition(dataclasses.replace(alert, held_back="")) else alert.changed_at
        held = dataclasses.replace(alert, held_back=why, changed_at=changed)
        look.act(Suppress(held, why or "nothing holds it back any more"))


def _why_held(look: _Look, alert: Alert, silences: Sequence[Silence], inhibitors: Sequence[Alert]) -> str:
    if look.rules.route_named(alert.route) is None:
        return NO_ROUTE
    silence = silence_over(silences, alert, look.now)
    if silence is not None:
        return f"silenced until {silence.until:%Y-%m-%d %H:%M} UTC by {silence.by}: {silence.why}"
    other = inhibitor_of(look.rules, alert, inhibitors)
    if other is not None:
        return f"behind {other.condition.name} of {other.condition.subject} ({other.alert_id})"
    # What is set free while it is gone is no news: it is over soon, or seen again.
    return alert.held_back if alert.missing_since is not None else ""


# What is told -----------------------------------------------------------------------------------------------------


def _is_worse(alert: Alert) -> bool:
    told = alert.told
    if told is None:
        return False
    doubled = told.magnitude > 0 and alert.condition.magnitude >= WORSE_FACTOR * told.magnitude
    return RANK[alert.condition.severity] > RANK[told.severity] or doubled


def _transition(alert: Alert) -> str:
    """Return what is to be told of an alert; empty when receivers know how it stands."""
    if alert.closed:
        return ""
    if alert.state is AlertState.RESOLVED:
        return "resolved"
    if alert.held_back:
        return ""
    if alert.told is None:
        return "opened"
    return f"worsened-{alert.told.count + 1}" if _is_worse(alert) else ""


def _tell_news(look: _Look, key: str, alerts: Sequence[Alert]) -> None:
    news = [(alert, word) for alert in alerts if (word := _transition(alert))]
    if not news:
        return
    route = look.rules.route_named(news[0][0].route) or Route("gone", ())
    urgent = any(alert.condition.severity is Severity.PAGE and alert.state is AlertState.FIRING for alert, _ in news)
    wait = route.page_wait_seconds if urgent else route.group_wait_seconds
    interval = route.page_interval_seconds if urgent else route.group_interval_seconds
    group = look.groups.get(key)
    if look.ago(min(alert.changed_at for alert, _ in news)) < wait:
        return
    if group is not None and look.ago(group.notified_at) < interval:
        return
    items = [Item(alert, word, _news_reason(look, alert, word)) for alert, word in news]
    to = {item.alert.alert_id: _hearers(look.rules, route, item) for item in items}
    _notify(look, key, items, to, f"{len(items)} news of {key}")


def _news_reason(look: _Look, alert: Alert, word: str) -> str:
    if word == "resolved":
        lasted = ((alert.missing_since or look.now) - alert.opened_at).total_seconds()
        untold = "" if alert.told is not None else "; it came and went between two notifications"
        return f"over after {lasted:.0f} s{untold}"
    if word == "opened":
        return "a new alert"
    spent = "; the acknowledgement is spent" if alert.ack is not None else ""
    return f"worse than what was told{spent}"


def _hearers(rules: Rules, route: Route, item: Item) -> tuple[str, ...]:
    told = () if item.alert.told is None else item.alert.told.to
    if item.transition != "resolved":
        return tuple(sorted({*route.receivers, *told}))
    return tuple(sorted({*(told or route.receivers)} - rules.quiet_receivers))


def _notify(look: _Look, key: str, items: Sequence[Item], to: Mapping[str, tuple[str, ...]], reason: str) -> None:
    """Tell items to whoever shall hear of each, and note on each alert what is now known of it."""
    notifications: list[Notification] = []
    for receiver in sorted({name for names in to.values() for name in names}):
        theirs = [item for item in items if receiver in to[item.alert.alert_id]]
        notifications += [
            Notification(receiver, key, tuple(theirs[start : start + MAX_ITEMS]), look.now)
            for start in range(0, len(theirs), MAX_ITEMS)
        ]
    told = tuple(_told(item, to[item.alert.alert_id], look.now) for item in items)
    look.act(Notify(Group(key, look.now), told, tuple(notifications), reason))


def _told(item: Item, to: Sequence[str], now: dt.datetime) -> Alert:
    alert, before, condition = item.alert, item.alert.told, item.alert.condition
    paged = now if condition.severity is Severity.PAGE else None
    if before is None:
        told = Told(now, now, condition.severity, condition.magnitude, 1, tuple(to), paged)
    else:
        worst = max(before.severity, condition.severity, key=lambda severity: RANK[severity])
        largest = max(before.magnitude, condition.magnitude)
        names = tuple(sorted({*before.to, *to}))
        told = Told(before.first_at, now, worst, largest, before.count + 1, names, before.paged_at or paged)
    worsened = alert.changed_at if item.transition.startswith("worsened") else alert.worsened_at
    steps = alert.escalated + item.transition.startswith("escalated")
    return dataclasses.replace(
        alert, told=told, worsened_at=worsened, escalated=steps, closed=alert.state is AlertState.RESOLVED
    )


# What nobody has acknowledged -------------------------------------------------------------------------------------


def _waiting(alert: Alert) -> bool:
    """Tell whether an alert was told, still fires, and nobody has it in hand."""
    firing = alert.state is AlertState.FIRING and alert.missing_since is None
    return firing and alert.told is not None and not alert.held_back and not alert.acknowledged


def _escalate(look: _Look, key: str, alerts: Sequence[Alert]) -> None:
    items: list[Item] = []
    to: dict[str, tuple[str, ...]] = {}
    for alert in (look.alerts[item.alert_id] for item in alerts):
        route = look.rules.route_named(alert.route)
        if route is None or alert.told is None or not _waiting(alert) or alert.escalated >= len(route.escalate):
            continue
        step, paged_at = route.escalate[alert.escalated], alert.told.paged_at
        if alert.condition.severity is not Severity.PAGE or paged_at is None:
            continue
        if look.ago(paged_at) < step.after_seconds:
            continue
        reason = f"nobody acknowledged it in {look.ago(paged_at) / 60:.0f} min"
        items.append(Item(alert, f"escalated-{alert.escalated + 1}", reason))
        to[alert.alert_id] = step.receivers
    if items:
        _notify(look, key, items, to, f"{len(items)} of {key} wait unacknowledged")


def _repeat(look: _Look, key: str, alerts: Sequence[Alert]) -> None:
    items: list[Item] = []
    to: dict[str, tuple[str, ...]] = {}
    for alert in (look.alerts[item.alert_id] for item in alerts):
        route, told = look.rules.route_named(alert.route), alert.told
        if route is None or told is None or not _waiting(alert) or _transition(alert):
            continue
        if look.ago(told.last_at) < route.repeat_seconds:
            continue
        items.append(Item(alert, f"repeated-{told.count + 1}", "nobody acknowledged it"))
        to[alert.alert_id] = tuple(sorted({*route.receivers, *told.to}))
    if items:
        _notify(look, key, items, to, f"{len(items)} of {key} are told again")


def _forget(look: _Look) -> None:
    for alert in look.ordered():
        over = alert.closed and alert.resolved_at is not None
        if over and look.ago(alert.resolved_at or look.now) >= look.rules.flap_window_seconds:
            look.act(Forget(alert, "over and told"))
