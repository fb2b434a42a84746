"""How SLOs stand as gauges: what the exported rules read, and what a dashboard draws. Decides nothing.

Set by the controller whose loop watches SLOs, and taken away where it leads no longer: what is left standing would page
for ever.
"""

from collections.abc import Sequence

from forestay.slo.burn_rules import Severity
from forestay.slo.decide import Kind
from forestay.slo.standing import Standing
from forestay.telemetry.metrics import SLO_BUDGET_LEFT, SLO_BURN_RATE, SLO_EVIDENCE, Metrics

_HOUR = "60"


def set_gauges(metrics: Metrics, standings: Sequence[Standing]) -> None:
    """Set every gauge anew; a window without events has no budget left to show, and silence is no evidence."""
    evidence: dict[tuple[str, ...], float] = {}
    for standing in standings:
        silent = standing.word == Kind.NO_DATA
        evidence[standing.slo_id, Severity.PAGE] = 0.0 if silent else standing.evidence
        evidence[standing.slo_id, Severity.TICKET] = 0.0 if silent else standing.ticket_evidence
    metrics.replace(SLO_EVIDENCE, evidence)
    left = {(one.slo_id,): one.left_ratio for one in standings if one.left_ratio is not None}
    metrics.replace(SLO_BUDGET_LEFT, left)
    metrics.replace(SLO_BURN_RATE, {(one.slo_id,): one.burns[_HOUR] for one in standings if _HOUR in one.burns})


def clear_gauges(metrics: Metrics) -> None:
    """Take every gauge away."""
    set_gauges(metrics, ())
