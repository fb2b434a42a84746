"""The text detectors in the judge: canonical form, lexicon and learned weights (`safety/text`), one text at a time.

Decides what is too long to be judged in time (unreadable, so that no text stops the judge), that a text in a language
which the detector does not cover is trouble, unless its scores alone reach the operating point, and that a text which
was scored lately need not be scored again: callers send one prompt many times, with another seed. Only digests of such
texts are held, and what they scored; the weights are those of one process. Loaded by the judge.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Iterator

from forestay.errors import Unavailable
from forestay.safety.judge.folder import missing
from forestay.safety.judge.lanes import Detector
from forestay.safety.model import Content, DetectorInfo, Outcome, Scores, Text, Trouble, Unscored
from forestay.safety.text.detector import MEANING, TextGuard, TextScores
from forestay.safety.text.language import covered

OPERATING_POINT = 0.5  # of a score of `safety/text`
LINEAR_CHARS = 200_000
MOST_REMEMBERED = 4_096  # texts; some kilobytes each
MEANING_CHARS = 16_000  # each 2,000 of which take up to a quarter of a second
_ANOTHER_LANGUAGE = "ein kleiner Fuchs sitzt im tiefen Schnee und schaut den Kindern beim Spielen zu"


class TextDetector:
    """One of the two; `cheap` holds the weights that both share."""

    def __init__(self, cheap: TextGuard, *, meaning: bool) -> None:
        self._guard: TextGuard | None = None if meaning else cheap
        self._info = dataclasses.replace(cheap.info, detector_id=MEANING, costly=True) if meaning else cheap.info
        self._longest = MEANING_CHARS if meaning else LINEAR_CHARS
        self._remembered: collections.OrderedDict[bytes, TextScores] = collections.OrderedDict()  # the latest last

    @property
    def info(self) -> DetectorInfo:
        """Return what it declares."""
        return self._info

    def load(self) -> None:
        """Load what the costly one needs beside the weights, and score once, so that the first text does not wait."""
        if self._guard is None:
            self._guard = TextGuard.load(with_embeddings=True)
        self._guard.score(["a harbour at dawn"])

    def settle(self) -> None:
        """Score a text in another language once: the one that tells languages is loaded then."""
        if self._guard is not None:
            self._guard.score([_ANOTHER_LANGUAGE])

    def score(self, content: Content) -> Outcome:
        """Return the scores of a text, with what was seen on the way."""
        if self._guard is None:
            raise RuntimeError("the model is not loaded")
        name = self._info.detector_id
        if not isinstance(content, Text) or len(content.text) > self._longest:
            return Unscored(name, content.where, Trouble.UNREADABLE)
        found = self._scored(self._guard, content.text)
        if not covered(found.language) and found.overall < OPERATING_POINT:
            return Unscored(name, content.where, Trouble.LANGUAGE)
        notes = {"language": found.language, "disguises": ",".join(sorted(found.disguises)), **found.matched}
        return Scores(name, content.where, found.scores, notes={key: value for key, value in notes.items() if value})

    def _scored(self, guard: TextGuard, text: str) -> TextScores:
        key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        found = self._remembered.pop(key, None)
        if found is None:
            [found] = guard.score([text])
        self._remembered[key] = found
        if len(self._remembered) > MOST_REMEMBERED:
            self._remembered.popitem(last=False)
        return found


def detectors() -> Iterator[Detector]:
    """Bring the cheap one always, then the costly one; Unavailable where its packages are missing."""
    cheap = TextGuard.load(with_embeddings=False)
    yield TextDetector(cheap, meaning=False)
    if missing():
        raise Unavailable(f"{missing()} is not installed; install forestay[safety]")
    yield TextDetector(cheap, meaning=True)
