"""Canaries in memory: the fake that other tests use."""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence

import msgspec

from forestay.ids import ModelId, RevisionId
from forestay.quality.canary_store import EVERYWHERE, Ask, PlayedRound, SelfTested, Spot
from forestay.quality.golden import Baseline, Cause, Taught


class MemoryCanaries:
    """A CanaryStore that is forgotten when it is dropped."""

    def __init__(self) -> None:
        self.known: dict[tuple[ModelId, RevisionId], Baseline] = {}
        self.looks: dict[tuple[ModelId, RevisionId], list[Taught]] = {}
        self.played: list[PlayedRound] = []
        self.asked: dict[int, Ask] = {}
        self.answered: dict[int, tuple[SelfTested, str]] = {}
        self._numbers = 0

    async def baselines(self, model_id: ModelId) -> list[Baseline]:
        """Read from which revisions on goldens of a model hold."""
        found = [item for (model, _), item in self.known.items() if model == model_id]
        return sorted(found, key=lambda item: item.revision_at)

    async def begin(self, baseline: Baseline) -> None:
        """Note a model's first baseline."""
        if not await self.baselines(baseline.model_id):
            self.known[baseline.model_id, baseline.revision_id] = baseline

    async def approve(self, baseline: Baseline, taught: Sequence[Taught]) -> None:
        """Note a baseline that a person approved."""
        key = baseline.model_id, baseline.revision_id
        self.known[key], self.looks[key] = baseline, []
        await self.teach(*key, taught)

    async def taught(self, model_id: ModelId, revision_id: RevisionId) -> list[Taught]:
        """Read the looks of one baseline."""
        return list(self.looks.get((model_id, revision_id), []))

    async def teach(self, model_id: ModelId, revision_id: RevisionId, taught: Sequence[Taught]) -> None:
        """Add looks."""
        for item in taught:
            numbered = dataclasses.replace(item, look_id=self._number())
            self.looks.setdefault((model_id, revision_id), []).append(numbered)

    async def settle(self, look_ids: Sequence[int]) -> None:
        """Note that these looks are a golden."""
        for looks in self.looks.values():
            settled = {(item.canary, item.environment) for item in looks if item.settled}
            for place, item in enumerate(looks):
                if item.look_id in look_ids and (item.canary, item.environment) not in settled:
                    looks[place] = dataclasses.replace(item, settled=True)

    async def note(self, played: PlayedRound) -> None:
        """Keep a round, if a database could."""
        assert msgspec.json.encode(played.canaries)
        self.played.append(dataclasses.replace(played, round_id=self._number()))

    async def rounds(self, model_id: ModelId, limit: int) -> list[PlayedRound]:
        """Read the newest rounds of a model."""
        return [item for item in reversed(self.played) if item.model_id == model_id][:limit]

    async def ask(self, ask: Ask) -> int:
        """Ask for a round."""
        same = [
            number
            for number, item in self.asked.items()
            if dataclasses.replace(item, asked_at=ask.asked_at, reason=ask.reason, ask_id=0) == ask
            and number not in self.answered
            and ask.worker_id != EVERYWHERE
            and item.asked_at > ask.asked_at - dt.timedelta(minutes=10)
        ]
        if same:
            return same[-1]
        number = self._number()
        self.asked[number] = dataclasses.replace(ask, ask_id=number)
        return number

    async def asks(self, since: dt.datetime) -> list[Ask]:
        """Read the open asks."""
        return [item for number, item in self.asked.items() if number not in self.answered and item.asked_at >= since]

    async def answer(self, ask_id: int, tested: SelfTested, words: str) -> None:
        """Note the result of a self-test."""
        self.answered.setdefault(ask_id, (tested, words))

    async def results(self, since: dt.datetime) -> Mapping[Spot, SelfTested]:
        """Return the last self-test of each worker and revision."""
        found: dict[Spot, SelfTested] = {}
        for number, (tested, _) in sorted(self.answered.items(), key=lambda item: item[1][0].at):
            ask = self.asked[number]
            if tested.at >= since and ask.cause is Cause.SELF_TEST:
                found[ask.worker_id, ask.revision_id] = tested
        return found

    async def forget(self, before: dt.datetime, most: int) -> list[str]:
        """Remove old rounds and asks."""
        self.asked = {number: item for number, item in self.asked.items() if item.asked_at >= before}
        gone = sorted((item for item in self.played if item.began_at < before), key=lambda item: item.began_at)[:most]
        self.played = [item for item in self.played if item not in gone]
        shown = {row.picture_key for item in self.played for row in item.canaries}
        shown |= {look.picture_key for looks in self.looks.values() for look in looks}
        keys = {row.picture_key for item in gone for row in item.canaries}
        return sorted(keys - shown - {""})

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers
