"""Blocks of slots that gateways hold for a while on replicas whose servers they speak to themselves.

How many slots a gateway gets is decided in `worker/turns.py`; it decides how long it keeps them: a block that is not
renewed ends by itself. Called by `worker/direct.py`.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Mapping

from forestay.clock import Clock
from forestay.fleet.model import ReplicaState
from forestay.worker.replica import Replica
from forestay.worker.turns import Grant, Share, decide_grant

MAX_SECONDS = 30.0
MAX_GATEWAYS = 1_000


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """Slots that one gateway holds."""

    slots: int
    ends_at: float  # monotonic
    recalled: int = 0  # of them, those to be given back as soon as each has served one more call


@dataclasses.dataclass(frozen=True, slots=True)
class Need:
    """What a gateway asks for."""

    slots: int
    seconds: float
    awaited: int = 0  # calls that it runs or has waiting: more than it gets means that it wants more
    returned: int = 0  # slots of its block that it uses no more since it asked last


class SlotBlocks:
    """All blocks of a worker."""

    def __init__(self, clock: Clock, on_freed: Callable[[], None]) -> None:
        self._clock = clock
        self._on_freed = on_freed
        self._blocks: dict[str, dict[str, Block]] = {}  # replica -> gateway -> block

    def ask(self, replica: Replica, gateway: str, need: Need) -> Block:
        """Replace the gateway's block by what it may have now; asking for none gives it back."""
        held = self._live(replica.replica_id)
        former = max(0, held.pop(gateway, Block(0, 0.0)).slots - need.returned)
        granted = Grant(0, 0)
        if len(held) < MAX_GATEWAYS:
            share, others = replica.share(), sum(block.slots for block in held.values())
            share = dataclasses.replace(share, direct=share.direct - replica.lent_slots + others)
            granted = self._decide(replica, share, former, need)
        replica.turns.want_direct(gateway, more=need.awaited > granted.slots)
        seconds = min(max(need.seconds, 0.0), MAX_SECONDS)
        block = Block(granted.slots, self._clock.monotonic() + seconds, granted.recalled)
        if granted.slots:
            held[gateway] = block
            asyncio.get_running_loop().call_later(seconds + 0.01, self._settle, replica)
        self._blocks[replica.replica_id] = held
        self._settle(replica)
        return block

    def _decide(self, replica: Replica, share: Share, former: int, need: Need) -> Grant:
        if replica.state is not ReplicaState.READY:
            left = min(need.slots, former)  # it drains: what is lent comes back as calls end
            return Grant(left, left)
        if replica.free_slots < 1 and not replica.lent_slots:
            return Grant(0, 0)
        return decide_grant(share, former, need.slots, need.awaited)

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
