"""Receivers of notifications as the operator names them: kind, address, name. Their addresses may be secrets.

Decides nothing. Read by `rules_file`, used by the senders; an address is never shown, logged or stored.
"""

import dataclasses
import enum
import urllib.parse

from forestay.alerts.rules import Rules


class ReceiverKind(enum.StrEnum):
    """How a receiver is spoken to."""

    WEBHOOK = "webhook"  # signed JSON
    APPRISE = "apprise"  # chat, mail, telephones: whatever the package apprise knows
    ALERTMANAGER = "alertmanager"  # Prometheus Alertmanager, API v2


@dataclasses.dataclass(frozen=True, slots=True)
class Receiver:
    """Who is told."""

    name: str
    kind: ReceiverKind
    url: str = dataclasses.field(repr=False)  # chat services put their secret into it
    ends: bool = True  # told of ends too

    @property
    def shown(self) -> str:
        """Return what people may see of the address: scheme and, of HTTP, the host."""
        parts = urllib.parse.urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname or ''}" if parts.scheme in {"http", "https"} else f"{parts.scheme}:"


@dataclasses.dataclass(frozen=True, slots=True)
class Routing:
    """The file of routes, read."""

    rules: Rules = dataclasses.field(default_factory=Rules)
    receivers: tuple[Receiver, ...] = ()

    def receiver(self, name: str) -> Receiver | None:
        """Return the receiver of that name."""
        return next((receiver for receiver in self.receivers if receiver.name == name), None)

    def shown(self) -> dict[str, object]:
        """Return what gateways may show of it: names, kinds and hosts, never an address."""
        return {
            "receivers": [
                {"name": item.name, "kind": item.kind.value, "to": item.shown, "ends": item.ends}
                for item in self.receivers
            ],
            "routes": [
                {
                    "name": route.name,
                    "match": [str(matcher) for matcher in route.matchers],
                    "receivers": list(route.receivers),
                    "escalate": [
                        {"after_seconds": step.after_seconds, "receivers": list(step.receivers)}
                        for step in route.escalate
                    ],
                }
                for route in self.rules.routes
            ],
        }
