"""The cheap check that stands in for the judge: word lists and marker tokens, in the process that asks.

Needs no weights and no other process, so that nothing which takes the judge down takes it along. It finds far less than
the learned detectors (docs/explanation/judges.md says how much): it is there so that covered traffic goes on while they
are away, where a policy says `degrade`. Decides how a count of words becomes a score (`LEFT`). Called through `routed`.
"""

import asyncio
import hashlib
import importlib.resources
from collections.abc import Sequence
from typing import Final

from forestay.clock import Clock
from forestay.safety.model import Content, DetectorInfo, Outcome, Scores, Text, Trouble, Unscored
from forestay.safety.taxonomy import Category, Modality
from forestay.safety.text.canonical import MAX_CHARS, views
from forestay.safety.text.language import covered, language_of
from forestay.safety.text.lexicon import Markers, default_markers, hints

DETECTOR_ID: Final = "text-lexicon@1"
LEFT = 0.6  # of the way to 1 after each word of a category's list: one scores 0.4, two 0.64, three 0.78
LONGEST_CHARS = MAX_CHARS  # whatever comes after that would not be seen
_INLINE_CHARS = 2_000  # of one question; beyond, it is read in a thread
_FILES = ("lexicon.txt", "markers.txt")


class LexiconDetectors:
    """The one detector, as `Detectors`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._markers = Markers(default_markers())
        folder = importlib.resources.files("forestay.safety.text") / "data"
        digest = hashlib.sha256(b"".join((folder / name).read_bytes() for name in _FILES)).hexdigest()
        covers = {Modality.TEXT: frozenset(name for name in Category if name in _listed()) | {Category.MINORS}}
        self._info = DetectorInfo(DETECTOR_ID, f"sha256:{digest}", covers, costly=False)

    async def known(self) -> Sequence[DetectorInfo]:
        """Return its declaration."""
        return [self._info]

    async def ask(self, detector_id: str, contents: Sequence[Content], within_seconds: float) -> Sequence[Outcome]:
        """Return one outcome for each piece of content."""
        texts = sum(len(content.text) for content in contents if isinstance(content, Text))
        if texts <= _INLINE_CHARS:
            return [self._one(detector_id, content) for content in contents]
        try:
            async with asyncio.timeout(max(0.0, within_seconds)):
                return await asyncio.to_thread(lambda: [self._one(detector_id, content) for content in contents])
        except TimeoutError:
            return [Unscored(detector_id, content.where, Trouble.TIMEOUT) for content in contents]

    def _one(self, detector_id: str, content: Content) -> Outcome:
        started = self._clock.monotonic()
        if not isinstance(content, Text) or len(content.text) > LONGEST_CHARS:
            return Unscored(detector_id, content.where, Trouble.UNREADABLE)
        seen = views(content.text)
        marked = self._markers.found(seen)
        scores = {Category(name): 1.0 - LEFT**count for name, count in hints(seen.folded).items()}
        scores.update(dict.fromkeys(marked, 1.0))
        seconds = self._clock.monotonic() - started
        language = language_of(seen)
        if not covered(language) and not marked:
            return Unscored(detector_id, content.where, Trouble.LANGUAGE, seconds)
        notes = {"language": language} if language else {}
        return Scores(detector_id, content.where, scores, seconds, notes)


def _listed() -> frozenset[str]:
    """Return the categories that have a list of words."""
    text = (importlib.resources.files("forestay.safety.text") / "data" / _FILES[0]).read_text(encoding="utf-8")
    return frozenset(line.partition(":")[0] for line in text.splitlines() if ":" in line)
