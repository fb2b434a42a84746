"""The loop that watches SLOs: reads roll-ups minute by minute, and keeps how every SLO stands. Run by the controller.

It decides when to start anew: at its first run, and when the SLOs are others. Where a minute that it has taken was
rolled up again because facts came late (looked at once a minute), it goes back to before that minute; where that is
longer ago than is saved, it starts anew. What burns, `decide` says; who is told is alerting's.
"""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence

from forestay.clock import Clock
from forestay.slo.budget import Adjustment
from forestay.slo.budget_policy import decide_policies
from forestay.slo.decide import SILENT_MINUTES
from forestay.slo.gauges import clear_gauges, set_gauges
from forestay.slo.model import TIMED, BudgetAction, Counts, Measure, Minute, Slo, SloId, SubjectKind
from forestay.slo.policy_store import BudgetPolicies
from forestay.slo.postgres_store import SloStandings
from forestay.slo.standing import Standing, subject_of
from forestay.slo.watching import Watching, history_minutes
from forestay.telemetry import measures
from forestay.telemetry.metrics import Metrics
from forestay.telemetry.rollup_reader import By, MinuteCounts, Question, RollupReader

EVIDENCE_MINUTES = 4320 + SILENT_MINUTES  # the longest window of the rules: what lies before changes nothing today
ANEW_SECONDS = 60.0
Slos = Callable[[], Awaitable[Sequence[Slo]]]
_COUNTED = frozenset(item.value for item in measures.Measure)
_BY: Mapping[SubjectKind, By] = {
    SubjectKind.PLATFORM: By.PLATFORM,
    SubjectKind.MODEL: By.MODEL,
    SubjectKind.TENANT: By.TENANT,
}
_Seen = dict[Minute, dict[SloId, Counts]]


@dataclasses.dataclass(frozen=True, slots=True)
class SloPorts:
    """What the loop may use of the world."""

    reader: RollupReader
    slos: Slos
    store: SloStandings
    clock: Clock
    metrics: Metrics
    policy: BudgetPolicies | None = None  # None: budgets are told, and demand nothing
    kept_minutes: int | None = None  # how far back roll-ups are kept; None: as far as any window reaches


class SloLoop:
    """One controller's watch."""

    def __init__(self, ports: SloPorts) -> None:
        self._ports = ports
        self._reader = ports.reader
        self._clock = ports.clock
        self._watching: Watching | None = None
        self._position = 0
        self._anew_at = 0.0

    async def run_once(self) -> int:
        """Take the minutes that are complete by now; returns how many."""
        complete = await self._reader.complete_until()
        if complete is None:
            return 0
        slos = tuple(await self._ports.slos())
        watching = self._watching
        if watching is None or watching.slos != slos or not await self._goes_on(watching):
            watching = await self._begin(slos, Minute(complete))
        if watching.until >= complete:
            return 0
        count = complete - watching.until
        seen = await self._seen(slos, watching.until, complete)
        policy = self._ports.policy
        adjusted = await policy.in_force(Minute(complete - history_minutes(slos))) if policy is not None else ()
        standings = await asyncio.to_thread(_carried, watching, seen, Minute(complete), adjusted)
        self._watching = watching
        await self._ports.store.keep(standings, self._clock.now())
        set_gauges(self._ports.metrics, standings)
        if policy is not None:
            await self._decide(policy, watching)
        return count

    async def _decide(self, policy: BudgetPolicies, watching: Watching) -> None:
        """Keep what budgets demand from now on; what was decided and not written is decided again a minute later."""
        before = await policy.standing()
        subjects = {slo.slo_id: subject_of(slo) for slo in watching.slos}
        made = decide_policies(watching.slos, watching.budgets, before, Minute(watching.until - 1))
        decided = [(one, subjects.get(one.slo_id, ""), before.get(one.slo_id, BudgetAction.NONE)) for one in made]
        await policy.decide(decided, self._clock.now())

    def lost(self) -> None:
        """Forget what was seen: another controller watches, and its gauges hold."""
        if self._watching is not None:
            self._watching = None
            clear_gauges(self._ports.metrics)

    async def _begin(self, slos: Sequence[Slo], complete: Minute) -> Watching:
        """Start anew, as far back as the longest window and as what is kept: a budget says where that is less.

        Where the roll-ups stand is noted before they are read.
        """
        self._watching = None
        while True:
            changed = await self._reader.changed(self._position)
            self._position = changed.position
            if not changed.more:
                break
        self._anew_at = self._clock.monotonic()
        wanted, kept = history_minutes(slos), self._ports.kept_minutes
        start = Minute(complete - (wanted if kept is None else min(wanted, kept)))
        return Watching(slos, start, Minute(max(start, complete - EVIDENCE_MINUTES)))

    async def _goes_on(self, watching: Watching) -> bool:
        """Go back to before the first minute that was taken and is another now; False where that cannot be done.

        Where the roll-ups stand is noted before they are read again.
        """
        if self._clock.monotonic() - self._anew_at < ANEW_SECONDS:
            return True
        changed = await self._reader.changed(self._position)
        if changed.more:
            return False
        self._position = changed.position
        taken = [minute for minute in changed.minutes if watching.start <= minute < watching.until]
        if not taken:
            return True
        self._anew_at = self._clock.monotonic()
        return watching.back_to(Minute(min(taken)))

    async def _seen(self, slos: Sequence[Slo], since: int, until: int) -> _Seen:
        """Read the counts of all SLOs, one statement for each kind of question."""
        asked: dict[Question, dict[str, list[SloId]]] = {}
        for slo in slos:
            question = question_of(slo)
            if question is not None:
                asked.setdefault(question, {}).setdefault(slo.subject.name, []).append(slo.slo_id)
        seen: _Seen = {}
        for question, names in asked.items():
            for row in await self._reader.counts(question, since, until):
                for slo_id in names.get(row.subject, ()):
                    seen.setdefault(Minute(row.minute), {})[slo_id] = _counts(row)
        return seen


def question_of(slo: Slo) -> Question | None:
    """Return what to ask the roll-ups for an SLO; None where nothing there is counted for it."""
    if slo.subject.kind not in _BY or slo.sli.measure not in _COUNTED:
        return None
    if slo.sli.measure is Measure.STATUS and slo.subject.kind is not SubjectKind.PLATFORM:
        return None
    threshold = slo.sli.threshold_seconds if slo.sli.measure in TIMED else None
    return Question(measures.Measure(slo.sli.measure.value), _BY[slo.subject.kind], None, threshold)


def uncounted() -> frozenset[Measure]:
    """Return the measures that no roll-up counts: an SLO on them has no data."""
    return frozenset(measure for measure in Measure if measure.value not in _COUNTED)


def _carried(
    watching: Watching,
    seen: Mapping[Minute, Mapping[SloId, Counts]],
    until: Minute,
    adjusted: Sequence[Adjustment],
) -> list[Standing]:
    while watching.until < until:
        watching.take(seen.get(watching.until, {}))
    return watching.standings(adjusted)


def _counts(row: MinuteCounts) -> Counts:
    return Counts(row.good, row.bad, row.probes_good, row.probes_bad, asked=row.asked)
