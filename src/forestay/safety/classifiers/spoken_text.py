"""What is said in recordings, scored as text: a transcriber writes it down, the text detector of the judge scores it.

Decides that a recording whose words are not known is trouble, that a long transcript is scored in pieces that overlap,
and that trouble of one piece is trouble of all, unless the others reach the operating point. What was said is neither
noted nor logged. It hears nothing else: no music, no voices, no sounds. Only there where a transcriber is named. Called
by the gateway (what it covers) and the worker (recordings) through `routed`.
"""

import hashlib
from collections.abc import Iterator, Sequence

from forestay.clock import Clock
from forestay.safety.media.sound import Transcriber
from forestay.safety.model import Content, DetectorInfo, Detectors, Outcome, Scores, Sound, Text, Trouble, Unscored
from forestay.safety.taxonomy import Category, Modality
from forestay.safety.text.detector import MEANING, OPERATING_POINT, declared

DETECTOR_ID = "spoken-text@1"
PIECE_CHARS, OVERLAP_CHARS = 8_000, 200


class SpokenText:
    """The one detector, as `Detectors`; `texts` has the text detector."""

    def __init__(self, transcriber: Transcriber, named: str, texts: Detectors, clock: Clock) -> None:
        self._transcriber = transcriber
        self._texts = texts
        self._clock = clock
        text = declared(with_embeddings=True)
        digest = hashlib.sha256(f"{DETECTOR_ID} {named} {MEANING} {text.digest}".encode()).hexdigest()
        covers = {Modality.AUDIO: text.covers[Modality.TEXT]}
        self._info = DetectorInfo(DETECTOR_ID, f"sha256:{digest}", covers, costly=True)

    async def known(self) -> Sequence[DetectorInfo]:
        """Return its declaration; the transcriber is not asked whether it is there."""
        return [self._info]

    async def ask(self, detector_id: str, contents: Sequence[Content], within_seconds: float) -> Sequence[Outcome]:
        """Return one outcome for each recording, one after the other; never raises, and never takes longer."""
        ends = self._clock.monotonic() + within_seconds
        return [await self._one(detector_id, content, ends) for content in contents]

    async def close(self) -> None:
        """Hang up."""
        await self._transcriber.close()

    async def _one(self, detector_id: str, content: Content, ends: float) -> Outcome:
        started = self._clock.monotonic()
        if not isinstance(content, Sound):
            return Unscored(detector_id, content.where, Trouble.UNREADABLE)
        said = await self._transcriber.transcribe(content, ends - started)
        if isinstance(said, Trouble):
            return Unscored(detector_id, content.where, said, self._clock.monotonic() - started)
        pieces = [Text(content.where, piece) for piece in _pieces(said.text)]
        outcomes = await self._texts.ask(MEANING, pieces, ends - self._clock.monotonic())
        return _joined(detector_id, content.where, outcomes, self._clock.monotonic() - started)


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, max(1, len(text) - OVERLAP_CHARS), PIECE_CHARS - OVERLAP_CHARS):
        yield text[start : start + PIECE_CHARS]


def _joined(detector_id: str, where: str, outcomes: Sequence[Outcome], seconds: float) -> Outcome:
    """Put the pieces of one recording together: the highest scores, and the first one's trouble."""
    highest: dict[Category, float] = {}
    troubles = [outcome.trouble for outcome in outcomes if isinstance(outcome, Unscored)]
    for outcome in outcomes:
        if isinstance(outcome, Scores):
            highest |= {name: max(score, highest.get(name, 0.0)) for name, score in outcome.scores.items()}
    if not outcomes or (troubles and max(highest.values(), default=0.0) < OPERATING_POINT):
        return Unscored(detector_id, where, troubles[0] if troubles else Trouble.CRASH, seconds)
    return Scores(detector_id, where, highest, seconds)
