"""The gate of load: the candidate answers its canaries' inputs at as many at a time as its replicas take.

It decides which copies go next and what their times say: waves of as many copies as the candidate has slots, to the
candidate and then to the control, so that one is measured where the other was. A pair is the same input in the same
wave. It is worse where the candidate fails and the control does not, or takes SLOWER times as long; two bettors watch
whether more than half of the pairs are worse, or fewer (`safety_counts.log_more_worse`), so every tick may look at it.
Inconclusive is no pass.

Nothing is stored: a copy's id follows from the rollout and its number, so the queue itself knows what was sent, and a
controller that dies is followed by one that goes on. None is sent while a caller's request of the model waits. Asked
for by `rollout.load_requests`; without it there is no such gate. Called by the steering loop.
"""

import dataclasses
import datetime as dt
import hashlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Protocol

from forestay.fleet.model import Fleet, ReplicaState, Revision
from forestay.ids import ModelId, RequestId, RevisionId, new_request_id
from forestay.queue.model import FINAL, Shadow, Snapshot, State, Submission
from forestay.rollouts.copies import Asked, copy_of
from forestay.rollouts.model import GateResult, GateVerdict, Rollout
from forestay.rollouts.safety_counts import is_proved, log_more_worse

SLOWER = 1.25
"""How many times as long as the control's a copy may take at the same load."""
SLACK_SECONDS = 0.05  # and this much longer: a short copy says little
MOST_AT_ONCE = 32
PATIENCE = dt.timedelta(seconds=300)  # for a copy to end: idle capacity is all it may use
_GONE = frozenset({State.EXPIRED, State.CANCELLED})  # says nothing of the revision
_ARMS = (Shadow.CANDIDATE, Shadow.CONTROL)


@dataclasses.dataclass(frozen=True, slots=True)
class Copy:
    """A copy that the queue knows. `seconds` it took on a replica; None while it runs, or where it failed."""

    over: bool
    gone: bool = False  # it found no room: nobody's fault
    seconds: float | None = None


Copies = Mapping[tuple[Shadow, int], Copy]


def decide_load(pairs: int, at_once: int, seen: Copies, waiting: int) -> list[tuple[Shadow, int]]:
    """Return the copies to send now: a wave to one revision, once the wave before is over; none while callers wait."""
    for first in range(0, pairs, at_once):
        for arm in _ARMS:
            wave = [(arm, number) for number in range(first, min(pairs, first + at_once))]
            missing = [name for name in wave if name not in seen]
            if missing:
                return missing if waiting == 0 else []
            if not all(seen[name].over for name in wave):
                return []
    return []


def judge_load(pairs: int, at_once: int, seen: Copies) -> GateResult:
    """Return what the copies say so far; it passes only once all of them are over."""
    both = [(seen.get((Shadow.CANDIDATE, number)), seen.get((Shadow.CONTROL, number))) for number in range(pairs)]
    done = [
        (new, old)
        for new, old in both
        if new is not None and old is not None and new.over and old.over and not (new.gone or old.gone)
    ]
    said = [_is_worse(new, old) for new, old in done if new.seconds is not None or old.seconds is not None]
    worse, fine = sum(said), len(said) - sum(said)
    told = f"{worse} of {len(said)} inputs are worse at {at_once} at a time ({_times(done)})"
    if is_proved(log_more_worse(worse, fine)):
        return GateResult("load", GateVerdict.FAIL, told)
    over = all(new is not None and old is not None and new.over and old.over for new, old in both)
    if over and is_proved(log_more_worse(fine, worse)):
        return GateResult("load", GateVerdict.PASS, told)
    left = "begin again with more --load-requests" if over else f"{len(done)} of {pairs} pairs are over"
    return GateResult("load", GateVerdict.INCONCLUSIVE, f"{told}; {left}")


def _is_worse(new: Copy, old: Copy) -> bool:
    if new.seconds is None or old.seconds is None:
        return new.seconds is None
    return new.seconds > SLOWER * old.seconds + SLACK_SECONDS


def _times(done: Sequence[tuple[Copy, Copy]]) -> str:
    parts: list[str] = []
    for name, place in (("candidate", 0), ("control", 1)):
        seconds = [pair[place].seconds for pair in done]
        known = [value for value in seconds if value is not None]
        failed = f", {len(seconds) - len(known)} failed" if len(known) < len(seconds) else ""
        parts.append(f"{name} {statistics.median(known):.3g} s{failed}" if known else f"{name} unknown{failed}")
    return ", ".join(parts)


class LoadQueue(Protocol):
    """The part of the queue that the gate uses."""

    async def submit(self, submissions: Sequence[Submission], max_queue_length: Mapping[RequestId, int]) -> object:
        """Take copies."""
        ...

    async def snapshots(self, request_ids: Sequence[RequestId]) -> Mapping[RequestId, Snapshot]:
        """Tell how copies stand."""
        ...

    async def backlog(self) -> Mapping[ModelId, int]:
        """Count what waits, copies included."""
        ...


class LoadAnswers(Protocol):
    """Who answers for a candidate under load."""

    async def about(self, rollout: Rollout, fleet: Fleet) -> GateResult | None:
        """Return the gate's answer; None where nobody has asked for it."""
        ...


class LoadGate:
    """The gate over the queue of one cell."""

    def __init__(self, queue: LoadQueue, cell: int) -> None:
        self._queue = queue
        self._cell = cell

    async def about(self, rollout: Rollout, fleet: Fleet) -> GateResult | None:
        """Send what is due, and judge what is over."""
        pairs = rollout.policy.load_requests
        candidate = fleet.revisions.get(rollout.candidate)
        if pairs == 0 or candidate is None:
            return None
        at_once = slots_of(fleet, rollout.candidate)
        if not candidate.spec.quality.canaries.inputs:
            told = (
                "there is nothing to load it with; declare quality.canaries in its spec, or leave --load-requests out"
            )
            return GateResult("load", GateVerdict.INCONCLUSIVE, told)
        if at_once == 0:
            return GateResult("load", GateVerdict.INCONCLUSIVE, "no replica of the candidate is ready")
        names = {(arm, number): self._id(rollout, arm, number) for arm in _ARMS for number in range(pairs)}
        known = await self._queue.snapshots(list(names.values()))
        seen = {name: _copy(known[request_id]) for name, request_id in names.items() if request_id in known}
        if not rollout.paused_by:
            own = sum(item.state is State.QUEUED for item in known.values())
            waiting = max(0, (await self._queue.backlog()).get(rollout.model_id, 0) - own)
            due = decide_load(pairs, at_once, seen, waiting)
            if due:
                copies = [_submission(candidate, name, names[name], fleet.now) for name in due]
                await self._queue.submit(copies, {})
        return judge_load(pairs, at_once, seen)

    def _id(self, rollout: Rollout, arm: Shadow, number: int) -> RequestId:
        return new_request_id(rollout.started_at, self._cell, _Named(f"{rollout.rollout_id}\0load\0{arm}\0{number}"))


class _Named:
    """Bits that follow from a name: the same copy has the same id, whoever sends it."""

    def __init__(self, name: str) -> None:
        self._digest = int.from_bytes(hashlib.sha256(name.encode()).digest())

    def bits(self, count: int) -> int:
        """Return the lowest bits of the name's digest."""
        return self._digest & ((1 << count) - 1)

    def uniform(self, low: float, high: float) -> float:
        """Return a number in [low, high] that follows from the name."""
        return low + (high - low) * self.bits(53) / (1 << 53)

    def token(self, size_bytes: int) -> str:
        """Return the last bytes of the name's digest in hexadecimal, at most 32."""
        return self._digest.to_bytes(32)[-size_bytes:].hex()


def slots_of(fleet: Fleet, revision_id: RevisionId) -> int:
    """Return how many requests the ready replicas of a revision take at a time, at most 32."""
    ready = [
        item.slots
        for item in fleet.replicas.values()
        if item.revision_id == revision_id and item.state is ReplicaState.READY
    ]
    return min(MOST_AT_ONCE, sum(ready))


def _submission(candidate: Revision, name: tuple[Shadow, int], request_id: RequestId, now: dt.datetime) -> Submission:
    arm, number = name
    inputs = candidate.spec.quality.canaries.inputs
    chosen = inputs[number % len(inputs)]
    asked = Asked(candidate.model_id, chosen.endpoint, chosen.input.encode(), arm)
    return copy_of(asked, request_id, now, now + PATIENCE)


def _copy(item: Snapshot) -> Copy:
    over = item.state in FINAL or item.state is State.WITHHELD
    seconds = item.inference_seconds if item.state is State.SUCCEEDED else None
    return Copy(over, item.state in _GONE, seconds)
