"""The port to stored rollouts: written whole under a version number, with a journal of every step.

It decides nothing. A write that has seen an older version is refused, so that of two controllers one goes on.
"""

from collections.abc import Sequence
from typing import Protocol

from forestay.fleet.audit import AuditEntry
from forestay.ids import ModelId
from forestay.rollouts.model import Cursor, JournalEntry, Rollout
from forestay.rollouts.observe import FinishedRequest


class RolloutStore(Protocol):
    """Rollouts and their journals."""

    async def begin(self, rollout: Rollout, audit: AuditEntry) -> bool:
        """Store a new one with its audit row; False when the model has one that is not settled."""
        ...

    async def open(self) -> list[Rollout]:
        """Return those that are not settled, oldest first."""
        ...

    async def get(self, rollout_id: str) -> Rollout | None:
        """Return one, None when it is not known."""
        ...

    async def newest(self, model_id: ModelId | None, limit: int) -> list[Rollout]:
        """Return the newest first, of one model or of all."""
        ...

    async def save(self, rollout: Rollout, entry: JournalEntry | None = None, audit: AuditEntry | None = None) -> bool:
        """Store version N if N-1 is stored, with its journal line and audit row; False when it is not."""
        ...

    async def journal(self, rollout_id: str) -> list[JournalEntry]:
        """Return every step, first to last."""
        ...


class RolloutFacts(Protocol):
    """Finished requests of a model."""

    async def after(self, model_id: ModelId, cursor: Cursor, limit: int) -> Sequence[FinishedRequest]:
        """Read what ended after the cursor and at least a moment ago, in order; raises Unavailable."""
        ...
