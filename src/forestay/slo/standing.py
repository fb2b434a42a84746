"""How an SLO stands at one minute: its budget, how fast it burns, what was found, since when. Values only.

Made by `watching`, kept by `postgres_store`, read by people and by alerting.
"""

import msgspec

from forestay.slo.budget import Budget
from forestay.slo.decide import Finding, Kind
from forestay.slo.model import CreditBand, Measure, Minute, Sli, SliKind, Slo, SloId, Subject, SubjectKind

URGENT = frozenset({Kind.PAGE, Kind.TICKET})


class Said(msgspec.Struct, frozen=True):
    """One finding, as it is kept."""

    kind: str  # page | ticket | held | no_data
    rules: list[str]
    burn_rate: float
    reason: str


class PartStanding(msgspec.Struct, frozen=True):
    """One part of a composite, over the part's own window."""

    slo_id: str
    weight: float
    harm_ratio: float  # of the composite's harm: these of all parts add up to 1, or to 0 where nothing was bad
    events: float
    bad: float


class Standing(msgspec.Struct, frozen=True):
    """One SLO at one minute. Shares are of 1; times are minutes."""

    slo_id: str
    subject: str  # a kind and a name, `model:acme/cat`, or `platform`
    measure: str
    objective: float
    owner: str
    description: str
    window_minutes: int
    minute: int  # the last one that is counted, since 1970-01-01T00:00Z
    state: str  # no_data | partial | whole
    events: float = 0.0
    bad: float = 0.0
    left_ratio: float | None = None  # None: nothing happened, so nothing is known
    burn_rate: float = 0.0  # over the whole window
    minutes_to_empty: float | None = None  # at the pace of the last hour
    burns: dict[str, float] = {}  # window in minutes -> burn rate in it
    evidence: float = 0.0  # of what opens a page, 1 is sure
    ticket_evidence: float = 0.0  # of what opens a ticket
    findings: list[Said] = []
    since: int | None = None  # the first minute of what wakes somebody now
    says: list[str] = []  # what is missing, what was adjusted
    origin: str = ""  # a file, a model's spec, or `default`
    sli_kind: str = ""  # ratio | threshold | time_slice; empty: kept by a version that did not say
    threshold_seconds: float | None = None
    slice_minutes: int = 0
    slice_objective: float = 0.0
    per_second: float | None = None  # of throughput: the rate that is promised
    credits: list[CreditBand] | None = None  # of a tenant's availability, where its file says them
    parts: list[PartStanding] = []  # of a composite, the most hurtful first

    @property
    def urgent(self) -> Said | None:
        """Return what somebody must know of: a page before a ticket; None where there is neither."""
        found = [item for item in self.findings if item.kind in URGENT]
        return min(found, key=lambda item: item.kind != Kind.PAGE, default=None)

    @property
    def word(self) -> str:
        """Return the standing in one word: page, ticket, held, no_data or kept."""
        return self.urgent.kind if self.urgent else (self.findings[0].kind if self.findings else "kept")


def subject_of(slo: Slo) -> str:
    """Return whom an SLO is about as alerting names it."""
    return f"{slo.subject.kind}:{slo.subject.name}" if slo.subject.name else slo.subject.kind.value


def standing_of(
    slo: Slo,
    minute: Minute,
    budget: Budget,
    found: tuple[Finding, ...],
    more: tuple[dict[str, float], tuple[float, float], Minute | None] = ({}, (0.0, 0.0), None),
) -> Standing:
    """Put together what is known of an SLO; `more` is its burn rates by window, its evidence, and since when.

    Evidence is that of a page and that of a ticket.
    """
    burns, (evidence, ticket_evidence), since = more
    known = budget.events > 0
    return Standing(
        slo_id=slo.slo_id,
        subject=subject_of(slo),
        measure=slo.sli.measure,
        objective=slo.objective,
        owner=slo.owner_team,
        description=slo.description,
        window_minutes=slo.window.minutes,
        minute=minute,
        state=budget.state,
        events=budget.events,
        bad=budget.bad,
        left_ratio=budget.left_ratio if known else None,
        burn_rate=budget.burn_rate,
        minutes_to_empty=budget.minutes_to_empty,
        burns=burns,
        evidence=evidence,
        ticket_evidence=ticket_evidence,
        findings=[Said(item.kind, list(item.rules), item.burn_rate, item.reason) for item in found],
        since=since,
        says=list(budget.says),
        origin=slo.origin,
        sli_kind=slo.sli.kind.value,
        threshold_seconds=slo.sli.threshold_seconds,
        slice_minutes=slo.sli.slice_minutes,
        slice_objective=slo.sli.slice_objective,
        per_second=slo.sli.per_second,
        credits=None if slo.credits is None else list(slo.credits),
    )


def slo_of(standing: Standing) -> Slo | None:
    """Return the SLO that a standing is of, without what only alerts need; None where an older version kept it."""
    if not standing.sli_kind:
        return None
    kind, _, name = standing.subject.partition(":")
    return Slo(
        slo_id=SloId(standing.slo_id),
        subject=Subject(SubjectKind(kind), name),
        objective=standing.objective,
        sli=Sli(
            SliKind(standing.sli_kind),
            Measure(standing.measure),
            standing.threshold_seconds,
            standing.slice_minutes,
            standing.slice_objective,
            per_second=standing.per_second,
        ),
        owner_team=standing.owner,
        description=standing.description,
        credits=None if standing.credits is None else tuple(standing.credits),
        origin=standing.origin,
    )
