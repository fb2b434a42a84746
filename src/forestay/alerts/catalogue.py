"""Every alert that Forestay's own sources raise, declared once: its name, source, worst severity, and what it means.

Each has a runbook, `docs/runbooks/<name>.md`; a test compares the two in both directions. A condition of another name
is taken all the same (a source from outside), and its runbook is its own.
"""

import dataclasses

from forestay.alerts.model import Severity

SAFETY = "safety"
PLATFORM = "platform"
ALERTS = "alerts"
SLO = "slo"
QUALITY = "quality"


@dataclasses.dataclass(frozen=True, slots=True)
class Declared:
    """One kind of alert."""

    name: str
    source: str
    worst: Severity
    meaning: str  # for whoever reads the list of alerts


DECLARED: tuple[Declared, ...] = (
    Declared("safety_unjudged", SAFETY, Severity.PAGE, "Content cannot be judged: what nobody judged is withheld."),
    Declared("outputs_withheld", SAFETY, Severity.PAGE, "Finished outputs wait for a verdict for long."),
    Declared("webhook_dead_letters", PLATFORM, Severity.TICKET, "Webhooks of callers were given up."),
    Declared("webhook_backlog", PLATFORM, Severity.PAGE, "Webhooks of callers are overdue."),
    Declared("queue_age", PLATFORM, Severity.PAGE, "Requests of a model wait for long."),
    Declared("worker_lost", PLATFORM, Severity.TICKET, "A worker has fallen silent; others of its pool go on."),
    Declared("pool_lost", PLATFORM, Severity.PAGE, "A pool has no worker left: none of its models can run."),
    Declared("fleet_lost", PLATFORM, Severity.PAGE, "No worker is left at all: nothing can run."),
    Declared("control_loop_stopped", PLATFORM, Severity.PAGE, "A control loop fails, or nobody runs it."),
    Declared("slo_burns", SLO, Severity.PAGE, "An SLO spends its error budget too fast."),
    Declared("outputs_degraded", QUALITY, Severity.PAGE, "Outputs of a model have changed for the worse, or break."),
    Declared("outputs_repeated", QUALITY, Severity.PAGE, "Different requests were given the same output."),
    Declared("replica_held_back", QUALITY, Severity.TICKET, "A bad replica was drained and waits for a self-test."),
    Declared("scorer_silent", QUALITY, Severity.TICKET, "A scorer of outputs gives no scores, or is not what it was."),
    Declared("alert_source_silent", ALERTS, Severity.TICKET, "A source of alerts cannot be asked."),
    Declared("alert_routes_broken", ALERTS, Severity.TICKET, "The changed file of routes cannot be read."),
    Declared("notifications_dead", ALERTS, Severity.TICKET, "Notifications were given up: a receiver is dead."),
)


def declared(name: str) -> Declared | None:
    """Return what is declared of an alert."""
    return next((item for item in DECLARED if item.name == name), None)
