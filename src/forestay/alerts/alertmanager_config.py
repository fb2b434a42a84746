"""The same routes for an Alertmanager of one's own: its configuration out of the file of routes. Pure.

What is lost is said: receivers that Alertmanager cannot reach are named, escalation has no counterpart there. Written
for Alertmanager 0.25 and newer (its documentation, "Configuration"). Called by `forestay observe export`.
"""

import fnmatch
import re
from collections.abc import Sequence

from forestay.alerts.receivers import Receiver, ReceiverKind, Routing
from forestay.alerts.rules import Inhibition, Matcher, Route
from forestay.slo.prometheus import PAGE_ALERT, TICKET_ALERT

_NAMES = {"name": "alertname"}  # what a field of ours is called there
NOBODY = "nobody"
SLO_ALERT = "slo_burns"
EXPORTED_ALERTS = (PAGE_ALERT, TICKET_ALERT)  # what the same is called by the rules of `forestay slo export`
Values = dict[str, object]


def alertmanager_config(routing: Routing) -> tuple[Values, list[str]]:
    """Return the configuration and a line for each thing that it cannot say."""
    lost: list[str] = []
    receivers = [{"name": NOBODY}, *(_receiver(receiver, lost) for receiver in routing.receivers)]
    routes: list[Values] = []
    for route in routing.rules.routes:
        routes += _routes(route, lost)
    config: Values = {
        "route": {"receiver": NOBODY, "routes": routes},
        "receivers": receivers,
        "inhibit_rules": [_inhibition(rule) for rule in routing.rules.inhibitions],
    }
    return config, lost


def _receiver(receiver: Receiver, lost: list[str]) -> Values:
    if receiver.kind is ReceiverKind.WEBHOOK:
        said = {"url": receiver.url, "send_resolved": receiver.ends}
        lost.append(f"receiver {receiver.name}: Alertmanager's own body, and no signature of ours")
        return {"name": receiver.name, "webhook_configs": [said]}
    why = "it is the Alertmanager" if receiver.kind is ReceiverKind.ALERTMANAGER else "apprise is not known there"
    lost.append(f"receiver {receiver.name} reaches nobody: {why}; fill it in")
    return {"name": receiver.name}


def _routes(route: Route, lost: list[str]) -> list[Values]:
    """Return a route for each receiver: all but the last go on to the next."""
    if route.escalate:
        lost.append(f"route {route.name}: escalation has no counterpart")
    common: Values = {
        "matchers": [_matcher(matcher) for matcher in route.matchers],
        "group_by": [_NAMES.get(name, name) for name in route.group_by],
        "group_wait": _time(route.group_wait_seconds),
        "group_interval": _time(max(1.0, route.group_interval_seconds)),
        "repeat_interval": _time(max(1.0, route.repeat_seconds)),
    }
    last = len(route.receivers) - 1
    return [{"receiver": name, **common, "continue": number < last} for number, name in enumerate(route.receivers)]


def _inhibition(rule: Inhibition) -> Values:
    return {
        "source_matchers": [_matcher(matcher) for matcher in rule.by],
        "target_matchers": [_matcher(matcher) for matcher in rule.over],
        "equal": [_NAMES.get(name, name) for name in rule.equal],
    }


def _matcher(matcher: Matcher) -> str:
    name = _NAMES.get(matcher.field, matcher.field).replace("-", "_")
    if matcher.field == "name" and fnmatch.fnmatchcase(SLO_ALERT, matcher.pattern):
        texts = (".*".join(re.escape(part) for part in matcher.pattern.split("*")), *EXPORTED_ALERTS)
        return f"{name} {'!~' if matcher.negated else '=~'} {_quoted('|'.join(texts))}"
    if "*" not in matcher.pattern:
        return f"{name} {'!=' if matcher.negated else '='} {_quoted(matcher.pattern)}"
    pattern = ".*".join(re.escape(part) for part in matcher.pattern.split("*"))
    return f"{name} {'!~' if matcher.negated else '=~'} {_quoted(pattern)}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _time(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms" if seconds % 1 else f"{round(seconds)}s"


def losses(lines: Sequence[str]) -> str:
    """Return what was lost as comments for the head of the file."""
    return "".join(f"# lost: {line}\n" for line in lines)
