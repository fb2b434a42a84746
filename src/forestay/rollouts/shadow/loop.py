"""The loop that carries the shadow of rollouts out: choose, note, send copies, compare what came back.

It has no rules of its own (`rollouts/shadow/decide` has). Every step is noted before it is done and done again if
nobody knows whether it was: copies carry ids that were noted first, and a copy that the queue knows is not sent again.
So a controller may die anywhere. Copies are requests of nobody: no webhook, no bill, no quota, outputs that stay shut
away and end within the hour. The controller runs it under a leader's lease.
"""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Protocol

from forestay.chance import Chance
from forestay.clock import Clock
from forestay.fleet.model import Fleet
from forestay.fleet.store import FleetStore
from forestay.ids import ModelId, RequestId, new_request_id
from forestay.queue.model import FINAL, Shadow, Snapshot, State, Submission
from forestay.queue.store import QueueStore
from forestay.rollouts.copies import Asked, copy_of
from forestay.rollouts.model import Rollout, Stage
from forestay.rollouts.shadow.compare import Comparison
from forestay.rollouts.shadow.decide import Mirror, asks_again, decide_mirror
from forestay.rollouts.shadow.model import Outcome, Pair
from forestay.rollouts.shadow.store import ShadowStore
from forestay.rollouts.store import RolloutStore
from forestay.storage.objects import ObjectStore
from forestay.telemetry.logs import logger

MOST_OFFERS = 200
PATIENCE_SECONDS = 300.0  # for a pair of copies; idle capacity is all they may use
OFFERS_KEPT = dt.timedelta(hours=1)
PAIRS_KEPT = dt.timedelta(days=30)
_GONE = frozenset({State.EXPIRED, State.CANCELLED})  # says nothing of the revision
_log = logger("rollouts")


class Compares(Protocol):
    """Compares three answers (`shadow/compare.Comparer`)."""

    async def compare(self, caption: str, answers: tuple[bytes, bytes | None, bytes | None]) -> Comparison:
        """Compare the control's answer with its second one and the candidate's; None where there was no success."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class ShadowPorts:
    """What the loop may use of the world."""

    rollouts: RolloutStore
    shadow: ShadowStore
    queue: QueueStore
    fleet: FleetStore
    objects: ObjectStore
    comparer: Compares
    clock: Clock
    chance: Chance
    cell: int = 0


class ShadowLoop:
    """One controller's shadow loop. It does nothing while no rollout is in its shadow."""

    def __init__(self, ports: ShadowPorts) -> None:
        self._ports = ports

    async def run_once(self) -> int:
        """Take the shadow of every rollout one step on; returns how many pairs were begun or ended."""
        running = [item for item in await self._ports.rollouts.open() if item.stage is Stage.SHADOW]
        if not running:
            return 0
        fleet = await self._ports.fleet.load()
        return sum([await self._step(rollout, fleet) for rollout in running])

    async def tidy(self) -> int:
        """Forget old offers and pairs, with their pictures; returns how many pictures went."""
        now = self._ports.clock.now()
        keys = await self._ports.shadow.forget(now - OFFERS_KEPT, now - PAIRS_KEPT)
        await self._ports.objects.delete(keys)
        return len(keys)

    async def _step(self, rollout: Rollout, fleet: Fleet) -> int:
        ports = self._ports
        pairs = await ports.shadow.pairs(rollout.rollout_id)
        under_way = [pair for pair in pairs if pair.open]
        ids = [copy for pair in under_way for copy in (pair.again_id, pair.candidate_id)]
        seen = await ports.queue.snapshots(ids) if ids else {}
        ended = await self._collect(rollout, under_way, seen, fleet)
        if rollout.paused_by or ended:
            return ended
        own = sum(copy.state is State.QUEUED for copy in seen.values())
        waiting = (await ports.queue.backlog()).get(rollout.model_id, 0) - own
        offers = await ports.shadow.offers(rollout.model_id, MOST_OFFERS)
        usable = [offer for offer in offers if offer.revision_id == rollout.control]
        chosen = decide_mirror(rollout.policy.shadow, pairs, usable, max(0, waiting))
        for mirror in chosen:
            await self._begin(rollout, mirror, fleet.now)
        return len(chosen)

    async def _begin(self, rollout: Rollout, mirror: Mirror, now: dt.datetime) -> None:
        """Note a pair and send its copies."""
        offered = mirror.offered
        ids = [new_request_id(now, self._ports.cell, self._ports.chance) for _ in range(2)]
        pair = Pair(
            offered.request_id, offered.endpoint, offered.stratum, ids[0], ids[1], mirror.body, offered.answer, now,
            asks_first=mirror.asks_first,
        )  # fmt: skip
        if await self._ports.shadow.begin(rollout.rollout_id, pair):
            _log.info("shadow.mirrored", rollout=rollout.rollout_id, request=str(pair.request_id), why=mirror.reason)
            await self._send(rollout.model_id, pair, ids if pair.asks_first else ids[1:])

    async def _send(self, model_id: ModelId, pair: Pair, ids: Sequence[RequestId]) -> None:
        """Submit the copies with these ids; one of them may have been lost on the way before."""
        at = pair.begun_at
        until = at + dt.timedelta(seconds=_patience(pair))
        copies: list[Submission] = []
        for request_id in ids:
            arm = Shadow.CONTROL if request_id == pair.again_id else Shadow.CANDIDATE
            copies.append(copy_of(Asked(model_id, pair.endpoint, pair.body, arm), request_id, at, until))
        await self._ports.queue.submit(copies, {})

    async def _collect(
        self, rollout: Rollout, pairs: Sequence[Pair], seen: Mapping[RequestId, Snapshot], fleet: Fleet
    ) -> int:
        """Compare the pairs whose copies have ended, and send again what the queue has never heard of."""
        ended = 0
        for pair in pairs:
            asked = _asked(pair, seen)
            late = (fleet.now - pair.begun_at).total_seconds() > _patience(pair) + PATIENCE_SECONDS
            if late:
                await self._give_up(rollout, pair, "its copies found no idle replica in time")
                ended += 1
            elif lost := [name for name in asked if name not in seen]:
                await self._send(rollout.model_id, pair, lost)
            elif all(_over(seen[name]) for name in asked):
                ended += await self._end(rollout, pair, [seen[name] for name in asked], fleet)
        return ended

    async def _end(self, rollout: Rollout, pair: Pair, copies: Sequence[Snapshot], fleet: Fleet) -> int:
        """Compare a pair whose copies are over: 1, or 0 where the control has to be asked before it says anything."""
        if any(copy.state in _GONE for copy in copies):
            await self._give_up(rollout, pair, "its copies found no idle replica in time")
            return 1
        answers = {copy.request_id: await self._answer(copy) for copy in copies}
        of_both = (pair.answer, answers.get(pair.again_id), answers[pair.candidate_id])
        compared = await self._ports.comparer.compare(pair.stratum, of_both)
        knows_noise = pair.again_id in answers
        if not knows_noise and asks_again(rollout.policy.shadow, compared.found):
            await self._send(rollout.model_id, pair, [pair.again_id])
            return 0
        key = ""
        if compared.sheet is not None:
            key = f"shadow/{rollout.rollout_id}/{pair.request_id}.png"
            await self._ports.objects.put(key, compared.sheet)
        floor: Mapping[str, float] = compared.floor if knows_noise else {}
        outcome = Outcome(floor, compared.found, compared.features, compared.kind, key)
        seconds = sum((copy.inference_seconds or 0.0) * _devices(fleet, copy) for copy in copies)
        await self._ports.shadow.end(
            rollout.rollout_id, dataclasses.replace(pair, outcome=outcome, device_seconds=seconds)
        )
        return 1

    async def _give_up(self, rollout: Rollout, pair: Pair, why: str) -> None:
        await self._ports.shadow.end(rollout.rollout_id, dataclasses.replace(pair, skipped=why))

    async def _answer(self, copy: Snapshot) -> bytes | None:
        """Return what a copy gave; None when it did not succeed."""
        if copy.state is not State.SUCCEEDED:
            return None
        stored = await self._ports.queue.result(copy.request_id)
        return None if stored is None else stored.answer.body


def _asked(pair: Pair, seen: Mapping[RequestId, Snapshot]) -> list[RequestId]:
    """Return the copies that a pair waits for: that of the control where it is asked, first or since."""
    with_control = pair.asks_first or pair.again_id in seen
    return [pair.again_id, pair.candidate_id] if with_control else [pair.candidate_id]


def _patience(pair: Pair) -> float:
    """Return for how long copies of a pair may wait, in seconds: twice as long where one follows the other."""
    return PATIENCE_SECONDS if pair.asks_first else 2 * PATIENCE_SECONDS


def _over(copy: Snapshot) -> bool:
    return copy.state in FINAL or copy.state is State.WITHHELD


def _devices(fleet: Fleet, copy: Snapshot) -> int:
    revision = None if copy.revision_id is None else fleet.revisions.get(copy.revision_id)
    return 1 if revision is None else revision.spec.resources.devices
