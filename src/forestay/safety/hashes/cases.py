"""Opens the case of a match that the law asks to report: in the store before the judgement is told to anybody.

A bank whose hint is `report` says which matches those are. Opening is patient for a moment only: what cannot be written
now is owed, kept in memory, tried again each second and counted, while the guard blocks the content all the same. The
same match has the same case. Decides nothing: what a case needs is `report`'s. Called by the guard; `run` runs beside.
"""

import asyncio
import dataclasses
from typing import Protocol

from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.ids import RequestId, TenantId
from forestay.safety.hashes.banks import Hint
from forestay.safety.hashes.report import NewCase, case_id_of
from forestay.safety.model import HINT, Scores
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import HASH_REPORTS, Metrics

PATIENCE_SECONDS = 1.0
_AGAIN_SECONDS = 1.0
_MOST_OWED = 10_000
_log = logger("safety.reports")


class Cases(Protocol):
    """Where cases are kept; see `postgres_reports`."""

    async def open(self, case: NewCase) -> bool:
        """Open a case; False when this match has one already."""
        ...


@dataclasses.dataclass(slots=True)
class CaseOpener:
    """Opens cases of one process."""

    cases: Cases
    clock: Clock
    metrics: Metrics
    owed: dict[str, NewCase] = dataclasses.field(default_factory=dict[str, NewCase])

    async def note(self, scores: Scores, request_id: RequestId, tenant_id: TenantId) -> None:
        """Open the case of a match that must be reported, if these scores tell of one."""
        if scores.notes.get(HINT) != Hint.REPORT or "entry" not in scores.notes or not scores.scores:
            return
        entry_id = int(scores.notes["entry"])
        category = max(scores.scores, key=lambda name: scores.scores[name])
        case = NewCase(
            case_id=case_id_of(str(request_id), scores.where, entry_id),
            entry_id=entry_id,
            bank_id=scores.notes["bank"],
            category=category.value,
            distance=int(scores.notes["distance"]),
            request_id=str(request_id),
            tenant_id=tenant_id,
            place=scores.where,
            matched_at=self.clock.now(),
        )
        if not await self._opened(case) and len(self.owed) < _MOST_OWED:
            self.owed[case.case_id] = case

    async def run(self) -> None:
        """Open what is owed, for ever."""
        while True:
            await self.settle()
            await self.clock.sleep(_AGAIN_SECONDS)

    async def settle(self) -> None:
        """Open what is owed, as far as the store lets us."""
        for case in list(self.owed.values()):
            if await self._opened(case):
                del self.owed[case.case_id]

    async def _opened(self, case: NewCase) -> bool:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self.cases.open(case)
        except (Unavailable, TimeoutError) as error:
            self.metrics.add(HASH_REPORTS, "owed")
            _log.error("report.not_opened", case_id=case.case_id, reason=str(error) or type(error).__name__)
            return False
        return True
