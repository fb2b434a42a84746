"""Whether somebody must be told that an SLO burns, and why: the workbook's rules and the evidence test, joined.

It decides for one SLO and one minute, from sums of windows and from evidence; it keeps nothing. The ladder:
1. Evidence at its goal opens a page (or a ticket), whatever the traffic. It stays open until the SLO has recovered.
2. A pair of windows that burns opens one in a minute with a bad request, if at this traffic its own false-page rate is
   within its share (`burn_rules`). It stays open while it burns.
3. A pair that burns and may not speak is held: noted with the evidence there is, and nobody is woken.
4. Where nothing was seen for an hour there is no data, and nothing else is said.
The stake that evidence may still wager is what the pairs that may speak have left of the false-page rate. Called by the
loop that watches SLOs, by replay, by `composite`, and, for whole fleets at once, followed by `fleet`.
"""

import dataclasses
import enum
from collections.abc import Mapping

from forestay.slo.budget import Budget
from forestay.slo.burn_rules import MOST_BURN_SHARE, Pair, Severity, pairs_for
from forestay.slo.model import Minute, SliKind, Slo, SloId, SubjectKind
from forestay.slo.windows import longest_minutes

ENOUGH = 1.0 - 1e-9
"""Evidence, as a share of its goal, from which it speaks; the last digits are left to rounding."""
RECOVERY_REQUESTS = 20
RECOVERY: Mapping[Severity, tuple[float, tuple[int, ...]]] = {
    Severity.PAGE: (6.0, (30, 60, 360)),
    Severity.TICKET: (1.0, (360, 1440, 4320)),
}
"""What evidence opened is over when the shortest of these windows with enough requests burns below this rate."""
SILENT_MINUTES = 60
MOST_PARTS_TOLD = 3


class Kind(enum.StrEnum):
    """What a finding asks for."""

    PAGE = "page"
    TICKET = "ticket"
    HELD = "held"  # a rule burns, and at this traffic that proves too little
    NO_DATA = "no_data"


@dataclasses.dataclass(frozen=True, slots=True)
class Sums:
    """What one window, ending now, held: organic requests and probes together, and how many were probes.

    Whole numbers; of a composite what its mean is worth (`composite`).
    """

    bad: float
    total: float
    probes: int = 0

    @property
    def share(self) -> float | None:
        """The share of bad ones; None when there was none at all."""
        return self.bad / self.total if self.total else None


@dataclasses.dataclass(frozen=True, slots=True)
class Opened:
    """What was open after the minute before."""

    evidence: bool = False
    ticket_evidence: bool = False
    pairs: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """One part of a composite, and what its windows hold."""

    slo_id: SloId
    weight: float
    windows: Mapping[int, Sums]


@dataclasses.dataclass(frozen=True, slots=True)
class SloState:
    """All that a decision looks at."""

    slo: Slo
    windows: Mapping[int, Sums]
    """By their length in minutes: 5, 30, 60, 360, and every fifth minute 120, 1440, 4320; 1 is the minute itself."""
    evidence: float
    """Of a page, as a share of its goal."""
    ticket_evidence: float = 0.0
    opened: Opened = Opened()
    budget: Budget | None = None
    last_seen: Minute | None = None
    parts: tuple[Piece, ...] = ()
    """Of a composite, for its words."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One thing that somebody should know of an SLO, with its reason in a user's words."""

    slo_id: SloId
    kind: Kind
    rules: tuple[str, ...]
    """Which tests speak: `evidence`, or names of pairs."""
    burn_rate: float
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """What is found, and what is open after it."""

    findings: tuple[Finding, ...]
    opened: Opened


def decide_slo(state: SloState, now: Minute) -> Decision:
    """Decide what is to be said of an SLO in the minute `now`."""
    if state.last_seen is None or now - state.last_seen >= silent_minutes(state.slo):
        return Decision((_no_data(state, now),), Opened())
    pairs = [pair for pair in pairs_of(state.slo) if pair.long_minutes in state.windows]
    burning = [pair for pair in pairs if burns(pair, state.windows)]
    speaking = [pair for pair in burning if _speaks(pair, state)]
    evidence, ticket = _stays(state, Severity.PAGE), _stays(state, Severity.TICKET)
    opened = Opened(evidence, ticket, frozenset(pair.name for pair in speaking))
    findings: list[Finding] = []
    for severity, proved in ((Severity.PAGE, evidence), (Severity.TICKET, ticket)):
        wanted = state.slo.alerting.page if severity is Severity.PAGE else state.slo.alerting.ticket
        names = (["evidence"] if proved else []) + [pair.name for pair in speaking if pair.severity is severity]
        if names and wanted:
            findings.append(_finding(state, Kind(severity.value), names))
    held = [pair for pair in burning if pair not in speaking]
    if held and not any(finding.kind is Kind.PAGE for finding in findings):
        findings.append(_held(state, held))
    return Decision(tuple(findings), opened)


def silent_minutes(slo: Slo) -> int:
    """Return after how many minutes without an event nothing is claimed; a slice of time is one only at its end."""
    return max(SILENT_MINUTES, 2 * slo.sli.slice_minutes)


def pairs_of(slo: Slo) -> tuple[Pair, ...]:
    """Return the pairs of an SLO."""
    return pairs_for(slo.budget_ratio, longest_minutes(slo.window), slo.alerting.false_pages_per_30_days)


def burns(pair: Pair, windows: Mapping[int, Sums]) -> bool:
    """Tell whether both windows of a pair hold a share of bad requests above its threshold."""
    long, short = windows[pair.long_minutes].share, windows[pair.short_minutes].share
    return long is not None and short is not None and long > pair.threshold and short > pair.threshold


def stake_left(pairs: tuple[Pair, ...], windows: Mapping[int, Sums], severity: Severity) -> float:
    """Return what evidence may wager in a minute: 1 less the shares of the pairs that may speak at this traffic."""
    known = [pair for pair in pairs if pair.severity is severity and pair.long_minutes in windows]
    return 1.0 - sum(
        pair.taken(windows[pair.long_minutes].total, windows[pair.traffic_minutes].total) for pair in known
    )


def recovered(windows: Mapping[int, Sums], budget_ratio: float, severity: Severity) -> bool:
    """Tell whether the shortest window with enough requests, else the longest, burns below what `severity` is about."""
    burn, lengths = RECOVERY[severity]
    enough = [windows[minutes] for minutes in lengths if windows[minutes].total >= RECOVERY_REQUESTS]
    sums = enough[0] if enough else windows[lengths[-1]]
    return sums.bad < max(1.0, min(burn * budget_ratio, MOST_BURN_SHARE) * sums.total)


def _stays(state: SloState, severity: Severity) -> bool:
    page = severity is Severity.PAGE
    if state.opened.evidence if page else state.opened.ticket_evidence:
        return not recovered(state.windows, state.slo.budget_ratio, severity)
    return (state.evidence if page else state.ticket_evidence) >= ENOUGH


def _speaks(pair: Pair, state: SloState) -> bool:
    if pair.name in state.opened.pairs:
        return True
    fresh = state.windows[1 if pair.severity is Severity.PAGE else 5]
    long, traffic = state.windows[pair.long_minutes], state.windows[pair.traffic_minutes]
    return fresh.bad > 0 and pair.may_speak(long.total, traffic.total)


def _no_data(state: SloState, now: Minute) -> Finding:
    since = "ever" if state.last_seen is None else f"for {_span(now - state.last_seen)}"
    reason = (
        f"{_whom(state.slo)}: nothing was seen {since}. That is neither good nor bad; look whether it is still counted."
    )
    return Finding(state.slo.slo_id, Kind.NO_DATA, ("no_data",), 0.0, reason)


def _finding(state: SloState, kind: Kind, rules: list[str]) -> Finding:
    minutes, sums = _telling(state)
    burn = (sums.share or 0.0) / state.slo.budget_ratio
    harm = f"{_harm(state, minutes, sums)}, {_times(burn)} what {_percent(state.slo.objective)} allows"
    words = [harm, _hurt_by(state, minutes), _budget_words(state.budget), _who_speaks(rules, state)]
    return Finding(state.slo.slo_id, kind, tuple(rules), burn, ". ".join(word for word in words if word) + ".")


def _held(state: SloState, pairs: list[Pair]) -> Finding:
    pair = pairs[0]
    sums = state.windows[pair.long_minutes]
    burn = (sums.share or 0.0) / state.slo.budget_ratio
    reason = (
        f"{_harm(state, pair.long_minutes, sums)}. At this traffic the rule `{pair.name}` would often speak falsely, "
        f"so it is held; the evidence stands at {min(state.evidence, 1.0):.1%} of what wakes somebody."
    )
    return Finding(state.slo.slo_id, Kind.HELD, tuple(pair.name for pair in pairs), burn, reason)


def _harm(state: SloState, minutes: int, sums: Sums) -> str:
    if state.slo.subject.kind is SubjectKind.COMPOSITE:
        mean = _percent(round(sums.share or 0.0, 5))
        return f"{_whom(state.slo)}: by the weights of its parts {mean} was bad in the last {_span(minutes)}"
    counted = f"{sums.bad:,} of {sums.total:,} {_events(state.slo)}"
    return f"{_whom(state.slo)}: {counted} were bad in the last {_span(minutes)}{_probes(sums)}"


def _hurt_by(state: SloState, minutes: int) -> str:
    """Name the parts that the harm of a window comes from, the worst first."""
    seen = [(piece, piece.windows[minutes]) for piece in state.parts if minutes in piece.windows]
    harm = [(piece.weight * (sums.share or 0.0), piece, sums) for piece, sums in seen]
    whole = sum(item[0] for item in harm)
    if not whole:
        return ""
    worst = sorted((item for item in harm if item[0] > 0), key=lambda item: (-item[0], item[1].slo_id))
    told = [f"{piece.slo_id} ({part / whole:.0%}: {sums.bad:,} bad of {sums.total:,})" for part, piece, sums in worst]
    more = f" and {len(told) - MOST_PARTS_TOLD} more" if len(told) > MOST_PARTS_TOLD else ""
    return f"It is hurt by {', '.join(told[:MOST_PARTS_TOLD])}{more}"


def _telling(state: SloState) -> tuple[int, Sums]:
    """Return the window that shows the harm best: the highest burn among those with a few requests."""
    shown = [(minutes, state.windows[minutes]) for minutes in (5, 30, 60, 360) if minutes in state.windows]
    enough = [item for item in shown if item[1].total >= RECOVERY_REQUESTS and item[1].bad] or shown[-1:]
    return max(enough, key=lambda item: (item[1].share or 0.0, item[0]))


def _who_speaks(rules: list[str], state: SloState) -> str:
    words = [f"the rule `{name}` burns in both its windows" for name in rules if name != "evidence"]
    if "evidence" in rules:
        rate = state.slo.alerting.false_pages_per_30_days
        words.insert(0, f"the evidence test, wrong at most {rate:g} times in 30 days, is sure")
    return "Why now: " + "; ".join(words)


def _budget_words(budget: Budget | None) -> str:
    if budget is None or budget.events == 0:
        return ""
    if budget.left_ratio <= 0:
        return f"The error budget is overdrawn: {budget.spent_ratio:.0%} of it is spent"
    gone = "" if budget.minutes_to_empty is None else f", gone in {_span(budget.minutes_to_empty)} at this pace"
    return f"{budget.left_ratio:.0%} of the error budget is left{gone}"


def _whom(slo: Slo) -> str:
    platform = slo.subject.kind is SubjectKind.PLATFORM
    whom = "the platform" if platform else f"{slo.subject.kind} {slo.subject.name}".rstrip()
    return f"{slo.slo_id} ({whom})"


def _events(slo: Slo) -> str:
    return f"slices of {slo.sli.slice_minutes} min" if slo.sli.kind is SliKind.TIME_SLICE else "requests"


def _probes(sums: Sums) -> str:
    return f" ({sums.probes:,} of them probes)" if sums.probes else ""


def _percent(share: float) -> str:
    return f"{share * 100:.10g} %"


def _times(burn: float) -> str:
    return f"{burn:,.0f} times" if burn >= 9.95 else f"{burn:.1f} times"


def _span(minutes: float) -> str:
    if minutes < 90:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.1f} h".replace(".0 h", " h") if minutes < 2 * 1440 else f"{minutes / 1440:.1f} days"
