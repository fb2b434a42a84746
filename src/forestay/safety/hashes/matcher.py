"""The detector of known pictures: a score of 1 in the category of a bank whose entry is near, 0 otherwise.

Where a match should only lead to review (the bank says so, or flood control has suspended the entry) the score is 0.5,
and the note `hint` says so: `decide` then withholds it whatever the policy's bands. A policy for hash lists says
review_at 0.5 and block_at 1.

The picture is hashed as it is and in its seven turned and mirrored forms, so that turning it hides nothing. A picture
without structure (PDQ's own quality below 50) shares its bits with every other flat one: it matches only what it
equals. The notes say which bank, entry and distance, and the bank's hint. It decides nothing, and holds no picture. Run
by the judge or the worker; its covers are those of the banks that are on.
"""

import asyncio
import dataclasses
import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.safety.hashes.banks import Hint
from forestay.safety.hashes.flood import FloodLimits, Sightings, Suspend, decide_flood, sighted
from forestay.safety.hashes.follow import Banks, Hit
from forestay.safety.hashes.pdq import LEAST_QUALITY, Hash, hash_of, hashes_of
from forestay.safety.hashes.store import BankStore
from forestay.safety.model import HINT, Content, DetectorInfo, Outcome, Picture, Scores, Trouble, Unscored
from forestay.safety.taxonomy import Category, Modality
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import HASH_MATCHES, HASH_SUSPENDED, Metrics

DETECTOR_ID = "hash-pdq@1"
REVIEW_SCORE = 0.5
_MODALITIES = (Modality.IMAGE, Modality.VIDEO)
_KEEP_SECONDS = 0.5
_MOST_WATCHED = 10_000  # entries whose matches are counted at a time
_log = logger("safety.hashes")


class HashMatcher:
    """Looks pictures up in the banks; in the shape of `safety/model.Detectors`."""

    def __init__(self, banks: Banks, clock: Clock, *, turned: bool = True) -> None:
        self._banks = banks
        self._clock = clock
        self._turned = turned

    def info(self) -> DetectorInfo:
        """Return what it covers now: the categories of the banks that are on."""
        on = [bank for _, bank in sorted(self._banks.banks.items()) if bank.enabled_ratio > 0]
        said = "\n".join(f"{bank.bank_id} {bank.category} {bank.threshold} {bank.enabled_ratio:g}" for bank in on)
        digest = hashlib.sha256(f"{DETECTOR_ID}\n{said}".encode()).hexdigest()
        categories = frozenset(bank.category for bank in on)
        return DetectorInfo(DETECTOR_ID, f"sha256:{digest}", dict.fromkeys(_MODALITIES, categories), costly=False)

    async def known(self) -> Sequence[DetectorInfo]:
        """Return itself."""
        return [self.info()]

    async def ask(self, detector_id: str, contents: Sequence[Content], within_seconds: float) -> Sequence[Outcome]:
        """Return one outcome for each picture; what is no picture, or comes too late, is no score."""
        deadline = self._clock.monotonic() + within_seconds
        return [await self._asked(detector_id, content, deadline) for content in contents]

    async def _asked(self, detector_id: str, content: Content, deadline: float) -> Outcome:
        began = self._clock.monotonic()
        if detector_id != DETECTOR_ID or not self._banks.loaded:
            return Unscored(detector_id, content.where, Trouble.CRASH)  # what was not read yet is not unknown
        if not isinstance(content, Picture) or not 0 < len(content.rgb) == 3 * content.width * content.height:
            return Unscored(detector_id, content.where, Trouble.UNREADABLE)
        try:
            async with asyncio.timeout(max(0.0, deadline - began)):
                hashes = await asyncio.to_thread(self._hashes, content)
        except TimeoutError:
            return Unscored(detector_id, content.where, Trouble.TIMEOUT, self._clock.monotonic() - began)
        return scores_of(content.where, self._looked_up(hashes), self._clock.monotonic() - began)

    def _hashes(self, picture: Picture) -> Sequence[Hash]:
        pixels = np.frombuffer(picture.rgb, np.uint8).reshape(picture.height, picture.width, 3)
        return hashes_of(pixels) if self._turned else [hash_of(pixels)]

    def _looked_up(self, hashes: Sequence[Hash]) -> list[Hit]:
        """Return the nearest hit of each entry over all forms."""
        nearest: dict[int, Hit] = {}
        for one in hashes:
            for hit in self._banks.find(one.value):
                if one.quality < LEAST_QUALITY and hit.distance:
                    continue
                known = nearest.get(hit.entry_id)
                if known is None or hit.distance < known.distance:
                    nearest[hit.entry_id] = hit
        return sorted(nearest.values(), key=lambda hit: (hit.distance, hit.entry_id))


def scores_of(where: str, hits: Sequence[Hit], seconds: float = 0.0) -> Scores:
    """Return the scores that hits amount to; the notes are of the nearest."""
    scores: dict[Category, float] = {}
    for hit in hits:
        score = REVIEW_SCORE if hit.hint is Hint.REVIEW else 1.0
        scores[hit.bank.category] = max(score, scores.get(hit.bank.category, 0.0))
    notes: Mapping[str, str] = {}
    if hits:
        first = next((hit for hit in hits if hit.hint is Hint.REPORT), hits[0])  # what the law asks for is not lost
        notes = {
            "bank": first.bank.bank_id,
            "entry": str(first.entry_id),
            "distance": str(first.distance),
            HINT: first.hint,
            "entries": str(len(hits)),
        }
    return Scores(DETECTOR_ID, where, scores, seconds, notes)


@dataclasses.dataclass(slots=True)
class FloodWatch:
    """Counts what each entry matches in this process, and has one that matches everywhere suspended."""

    banks: Banks
    store: BankStore
    clock: Clock
    metrics: Metrics
    limits: FloodLimits = dataclasses.field(default_factory=FloodLimits)
    seen: dict[int, Sightings] = dataclasses.field(default_factory=dict[int, Sightings])
    owed: dict[int, Suspend] = dataclasses.field(default_factory=dict[int, Suspend])  # not in the store yet

    def note(self, scores: Scores, tenant_id: str) -> list[Suspend]:
        """Count the match that these scores tell of, for a tenant; returns what was suspended for it, here at once."""
        if scores.detector_id != DETECTOR_ID or "entry" not in scores.notes:
            return []
        entry_id = int(scores.notes["entry"])
        self.metrics.add(HASH_MATCHES, scores.notes["bank"], scores.notes[HINT])
        now = self.clock.now()
        state = sighted(self.seen.get(entry_id, Sightings(entry_id, now)), tenant_id, self.limits, now)
        actions = decide_flood(state, self.limits, now)
        self.seen[entry_id] = dataclasses.replace(state, suspended=state.suspended or bool(actions))
        self._forget(now)
        for action in actions:
            self.banks.suspend(action.entry_id)  # at once here; the others follow the store
            self.owed[action.entry_id] = action
            self.metrics.add(HASH_SUSPENDED)
            _log.warning("hashes.entry_suspended", entry_id=action.entry_id, reason=action.reason)
        return actions

    async def run(self) -> None:
        """Tell the store of suspensions for ever, so that they hold on the whole platform; what fails is told again."""
        while True:
            await self.keep()
            await self.clock.sleep(_KEEP_SECONDS)

    async def keep(self) -> None:
        """Tell the store of the suspensions that it does not know yet."""
        for action in list(self.owed.values()):
            try:
                await self.store.suspend(action.entry_id, actor="loop:hashes", reason=action.reason)
            except Unavailable as error:
                _log.warning("hashes.suspension_not_kept", entry_id=action.entry_id, reason=str(error))
                return
            del self.owed[action.entry_id]

    def _forget(self, now: dt.datetime) -> None:
        """Keep the count of entries bounded: those whose window is over go first, then the oldest."""
        if len(self.seen) <= _MOST_WATCHED:
            return
        over = [entry_id for entry_id, state in self.seen.items()
                if (now - state.since).total_seconds() >= self.limits.window_seconds]  # fmt: skip
        for entry_id in over or sorted(self.seen, key=lambda name: self.seen[name].since)[: _MOST_WATCHED // 10]:
            del self.seen[entry_id]
