"""Texts under a policy on this machine, as a gateway judges an input: detectors, fallbacks, other words, judged again.

It decides nothing (`decide` does). A detector that does not run here makes a text unknown rather than allowed. Called
by `forestay rollout replay-safety`.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import cast

from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.safety.classifiers.lexicon import DETECTOR_ID as LEXICON
from forestay.safety.classifiers.lexicon import LexiconDetectors
from forestay.safety.classifiers.text import detectors
from forestay.safety.decide import NOTHING_TO_JUDGE, Place, decide, fallbacks, wanted
from forestay.safety.judge.lanes import Detector
from forestay.safety.model import Outcome, Text
from forestay.safety.policy import Action, Policy
from forestay.safety.taxonomy import Modality
from forestay.safety.text.rewriting import rewrite, rules_of

PLACE = Place("prompt", Modality.TEXT)
_SECONDS = 60.0  # for one text of the lexicon


class TextReplay:
    """Judges texts by the detectors of this machine."""

    def __init__(self, clock: Clock, detectors: Mapping[str, Detector]) -> None:
        """`detectors` are loaded; the lexicon comes along."""
        self._lexicon = LexiconDetectors(clock)
        self._detectors = detectors

    async def action(self, policy: Policy, text: str) -> Action | None:
        """Return what becomes of a text; None where a detector that the policy names does not run here."""
        return await self._action(policy, text, rewritten=False)

    async def _action(self, policy: Policy, text: str, *, rewritten: bool) -> Action | None:
        outcomes: list[Outcome] = []
        asked: set[str] = set()
        todo = list(wanted(policy, [PLACE]))
        while todo:
            for name in todo:
                outcome = await self._outcome(name, text)
                if outcome is None:
                    return None
                outcomes.append(outcome)
            asked |= set(todo)
            todo = [name for name in fallbacks(policy, [PLACE], outcomes) if name not in asked]
        able = frozenset[Action]() if rewritten else frozenset({Action.REWRITE})
        judged = decide(policy, [PLACE], outcomes, able=able) if outcomes else NOTHING_TO_JUDGE
        if judged.action is not Action.REWRITE:
            return judged.action
        other, _ = rewrite({PLACE.where: text}, frozenset({PLACE.where}), rules_of([policy]))
        return await self._action(policy, str(cast("dict[str, object]", other)[PLACE.where]), rewritten=True)

    async def _outcome(self, detector_id: str, text: str) -> Outcome | None:
        content = Text(PLACE.where, text)
        if detector_id == LEXICON:
            [outcome] = await self._lexicon.ask(LEXICON, [content], _SECONDS)
            return outcome
        detector = self._detectors.get(detector_id)
        return None if detector is None else detector.score(content)


def local_detectors(policies: Sequence[Policy]) -> dict[str, Detector]:
    """Load the text detectors that these policies may ask; one is left out where its packages are missing."""
    named = {name for policy in policies for name in policy.detectors()} - {LEXICON}
    found: dict[str, Detector] = {}
    if not named:
        return found
    with contextlib.suppress(Unavailable):
        for detector in detectors():
            if detector.info.detector_id in named:
                detector.load()
                found[detector.info.detector_id] = detector
    return found
