"""Blocks of slots that gateways hold for a while on replicas whose servers they speak to themselves.

It decides how many slots a gateway gets: what is free beside what others hold, and never the last one of several, so
that queued requests are not starved. A block that is not renewed ends by itself. Called by `worker/direct.py`.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Mapping

from forestay.clock import Clock
from forestay.worker.replica import Replica

MAX_SECONDS = 30.0
MAX_GATEWAYS = 1_000


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """Slots that one gateway holds."""

    slots: int
    ends_at: float  # monotonic


def decide_grant(total: int, running: int, others: int, wanted: int) -> int:
    """Return the slots to grant of `total`, `running` of which are taken here and `others` held by other gateways."""
    reserved = 1 if total > 1 else 0
    return max(0, min(wanted, total - running - others - reserved))


class SlotBlocks:
    """All blocks of a worker."""

    def __init__(self, clock: Clock, on_freed: Callable[[], None]) -> None:
        self._clock = clock
        self._on_freed = on_freed
        self._blocks: dict[str, dict[str, Block]] = {}  # replica -> gateway -> block

    def ask(self, replica: Replica, gateway: str, slots: int, seconds: float) -> Block:
        """Replace the gateway's block by what it may have now; asking for none gives it back."""
        held = self._live(replica.replica_id)
        held.pop(gateway, None)
        others = sum(block.slots for block in held.values())
        open_for_more = replica.free_slots > 0 or replica.lent_slots > 0
        total = replica.description.slots if open_for_more and len(held) < MAX_GATEWAYS else 0
        granted = decide_grant(total, len(replica.running), others, slots)
        seconds = min(max(seconds, 0.0), MAX_SECONDS)
        block = Block(granted, self._clock.monotonic() + seconds)
        if granted:
            held[gateway] = block
            asyncio.get_running_loop().call_later(seconds + 0.01, self._settle, replica)
        self._blocks[replica.replica_id] = held
        self._settle(replica)
        return block

    def _settle(self, replica: Replica) -> None:
        held = self._live(replica.replica_id)
        before = replica.lent_slots
        replica.lend(sum(block.slots for block in held.values()))
        if not held:
            self._blocks.pop(replica.replica_id, None)
        if replica.lent_slots < before:
            self._on_freed()

    def _live(self, replica_id: str) -> dict[str, Block]:
        now = self._clock.monotonic()
        blocks: Mapping[str, Block] = self._blocks.get(replica_id, {})
        live = {gateway: block for gateway, block in blocks.items() if block.ends_at > now}
        self._blocks[replica_id] = live
        return live
