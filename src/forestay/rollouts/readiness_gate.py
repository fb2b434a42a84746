"""The gate of readiness: whether a candidate's card lets it have traffic.

It decides nothing (`readiness/entry` does): it reviews the candidate and gives the answer a gate's form. What is only
advised passes and is told. Called by the steering loop while a rollout is at its gates.
"""

from typing import Protocol

from forestay.fleet.model import Fleet
from forestay.readiness.entry import Decided, Entry, admission_of, decide_entry
from forestay.readiness.gather import Sources, review_revision
from forestay.rollouts.model import GateResult, GateVerdict, Rollout

_MOST_DETAIL = 600


class Readiness(Protocol):
    """Who answers for a candidate's readiness."""

    async def about(self, rollout: Rollout, fleet: Fleet) -> GateResult | None:
        """Return the gate's answer; None where the candidate is not known."""
        ...


class ReadinessGate:
    """Readiness by the stores of one process."""

    def __init__(self, sources: Sources, *, required: bool) -> None:
        self._sources = sources
        self._required = required

    async def about(self, rollout: Rollout, fleet: Fleet) -> GateResult | None:
        """Review the candidate now."""
        revision = fleet.revisions.get(rollout.candidate)
        if revision is None:
            return None
        standing = await self._sources.store.standing(rollout.model_id)
        admitted = standing is not None and standing.admitted_at is not None
        card = await review_revision(self._sources, fleet, revision)
        admission = admission_of(revision.spec, required=self._required)
        return gate_of(decide_entry(card, admission, admitted=admitted))


def gate_of(decided: Decided) -> GateResult:
    """Return a decision about readiness as a gate's answer.

    What keeps a candidate out is inconclusive rather than a failure: a waiver or an admission may come while it waits.
    """
    verdict = GateVerdict.INCONCLUSIVE if decided.entry is Entry.CLOSED else GateVerdict.PASS
    return GateResult("readiness", verdict, decided.reason[:_MOST_DETAIL])
