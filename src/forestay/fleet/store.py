"""The fleet's port: read the state, report what is observed, and (for `fleet/apply` alone) write what is wanted."""

import datetime as dt
from collections.abc import Sequence
from typing import Protocol

from forestay.fleet.actions import Action, Decided, Origin
from forestay.fleet.apply import Brakes, Mode
from forestay.fleet.audit import AuditEntry, AuditFault, AuditRow
from forestay.fleet.model import Fleet, ReplicaReport, WorkerReport
from forestay.ids import ModelId, ReplicaId, WorkerId


class FleetStore(Protocol):
    """Desired and observed state of the fleet."""

    async def version(self) -> int:
        """Return the number that every change of the fleet bumps: cheap enough to poll each second."""
        ...

    async def load(self) -> Fleet:
        """Read everything in one consistent snapshot."""
        ...

    async def report(self, worker: WorkerReport, replicas: Sequence[ReplicaReport]) -> None:
        """Replace what is known of this worker and its replicas; bumps the version only when something changed."""
        ...

    async def touch(self, replica_ids: Sequence[ReplicaId]) -> None:
        """Note that these replicas were just used (for least-recently-used), without bumping the version."""
        ...

    async def want(self, model_id: ModelId) -> None:
        """Note that a direct call found no live replica of this model."""
        ...

    async def retire_worker(self, worker_id: WorkerId) -> None:
        """Forget a stopped worker with its replicas and placements."""
        ...

    async def brakes(self) -> Brakes:
        """Read the freeze switch and the removal cap."""
        ...

    async def set_mode(self, loop: str, model_id: ModelId | None, mode: Mode, *, actor: str) -> None:
        """Say how far a loop may go, for one model or (None) for every model without a word of its own."""
        ...

    async def record(self, entry: AuditEntry) -> None:
        """Append an audit row for a person's act that is no fleet action (a retried webhook, an uploaded bundle)."""
        ...

    async def audit_rows(self, *, subject: str | None, before: dt.datetime | None, limit: int) -> list[AuditRow]:
        """Read audit rows, newest first."""
        ...

    async def audit_faults(self) -> list[AuditFault]:
        """Recompute every audit chain; an empty list means that nothing was altered or removed."""
        ...

    async def apply(self, actions: Sequence[Action], *, origin: Origin, actor: str) -> list[Decided]:
        """Apply what the brakes and modes let through, with an audit row each, in one transaction."""
        ...
