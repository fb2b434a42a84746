"""Rollouts in memory: an adapter of `rollouts/store`, with the fleet's notion of the last recorded step."""

import dataclasses
from collections.abc import Sequence

from tests.conformance.memory_fleet import MemoryFleetStore

from forestay.fleet.audit import AuditEntry
from forestay.ids import ModelId
from forestay.rollouts.model import Cursor, JournalEntry, Rollout
from forestay.rollouts.observe import FinishedRequest


class MemoryRolloutStore:
    """RolloutStore in memory."""

    def __init__(self, fleet: MemoryFleetStore) -> None:
        self._fleet = fleet
        self._rollouts: dict[str, Rollout] = {}
        self._journals: dict[str, list[JournalEntry]] = {}

    async def begin(self, rollout: Rollout, audit: AuditEntry) -> bool:
        """Store a new one with its audit row; False when the model has one that is not settled."""
        taken = any(item.model_id == rollout.model_id and not item.settled for item in self._rollouts.values())
        if taken or rollout.rollout_id in self._rollouts:
            return False
        self._rollouts[rollout.rollout_id] = rollout
        entry = JournalEntry(
            rollout.version, rollout.started_at, rollout.started_by, rollout.stage, rollout.weight, rollout.reason
        )
        self._journals[rollout.rollout_id] = [entry]
        self._fleet.steps[rollout.model_id] = (rollout.rollout_id, rollout.version)
        await self._fleet.record(audit)
        return True

    async def open(self) -> list[Rollout]:
        """Return those that are not settled, oldest first."""
        return [item for item in self._rollouts.values() if not item.settled]

    async def get(self, rollout_id: str) -> Rollout | None:
        """Return one, None when it is not known."""
        return self._rollouts.get(rollout_id)

    async def newest(self, model_id: ModelId | None, limit: int) -> list[Rollout]:
        """Return the newest first, of one model or of all."""
        found = [item for item in self._rollouts.values() if model_id is None or item.model_id == model_id]
        return found[::-1][:limit]

    async def save(self, rollout: Rollout, entry: JournalEntry | None = None, audit: AuditEntry | None = None) -> bool:
        """Store version N if N-1 is stored, with its journal line and audit row; False when it is not."""
        stored = self._rollouts.get(rollout.rollout_id)
        if stored is None or stored.version != rollout.version - 1:
            return False
        self._rollouts[rollout.rollout_id] = rollout
        self._fleet.steps[rollout.model_id] = (rollout.rollout_id, rollout.version)
        if entry is not None:
            self._journals[rollout.rollout_id].append(entry)
        if audit is not None:
            await self._fleet.record(audit)
        return True

    async def journal(self, rollout_id: str) -> list[JournalEntry]:
        """Return every step, first to last."""
        return list(self._journals.get(rollout_id, []))


@dataclasses.dataclass
class MemoryRolloutFacts:
    """RolloutFacts in memory: what a test has let finish."""

    finished: list[FinishedRequest] = dataclasses.field(default_factory=list[FinishedRequest])

    async def after(self, model_id: ModelId, cursor: Cursor, limit: int) -> Sequence[FinishedRequest]:
        """Read what ended after the cursor, in order."""
        assert model_id
        seen = (cursor.finished_at, cursor.request_id)
        later = [item for item in self.finished if (item.finished_at, item.request_id) > seen]
        return sorted(later, key=lambda item: (item.finished_at, item.request_id))[:limit]
