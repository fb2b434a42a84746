"""What the pieces of one stream, or the frames of one session, have said so far: a sentence that comes in pieces.

Pure but for what it remembers: the end of what was said at each place, a few places, a thousand letters each. It
decides what is judged beside a piece: the piece put behind what stood there before it. A piece that repeats the last
one and goes on (a preview that grows) takes its place; one that repeats its beginning adds nothing. Judges nothing.
Called by `judging` and `input_judging`.
"""

import dataclasses
from collections.abc import Sequence

from forestay.safety.model import Text

KEPT_CHARS = 1_000
MAX_PLACES = 32
_PART_CHARS = 12  # a piece so short is part of a sentence, as models send them: with spaces of its own
_SURE_CHARS = 4  # fewer letters are no sign that a piece repeats the last one


@dataclasses.dataclass(frozen=True, slots=True)
class _End:
    """What was said at one place: before its last piece, and that piece."""

    before: str
    last: str


class SaidBefore:
    """The memory of one stream or session, one way."""

    def __init__(self) -> None:
        self._ends: dict[str, _End] = {}

    def together(self, texts: Sequence[Text]) -> list[Text]:
        """Return each text with what was said before it at its place, where that was anything."""
        found: list[Text] = []
        for text in texts:
            end = self._after(text)
            if end.before:
                found.append(Text(text.where, _joined(end.before, end.last)))
        return found

    def note(self, texts: Sequence[Text]) -> None:
        """Remember them."""
        for text in texts:
            place = self._place(text.where)
            self._ends[place] = self._after(text)

    def _place(self, where: str) -> str:
        """Return under which name a place is remembered: beyond so many all are one, so that none is forgotten."""
        return where if where in self._ends or len(self._ends) < MAX_PLACES else ""

    def _after(self, text: Text) -> _End:
        end = self._ends.get(self._place(text.where), _End("", ""))
        piece = text.text[-KEPT_CHARS:]
        grows = len(end.last) >= _SURE_CHARS and piece.startswith(end.last)
        shrinks = len(piece) >= _SURE_CHARS and end.last.startswith(piece)
        if shrinks:  # what it repeats is remembered already, and what it leaves out is not forgotten
            return end
        return _End(end.before if grows else _joined(end.before, end.last)[-KEPT_CHARS:], piece)


def _joined(before: str, piece: str) -> str:
    """Put a piece behind what was said: parts of a sentence at once, sentences with a space."""
    apart = before and len(piece) > _PART_CHARS and not before[-1].isspace() and not piece[0].isspace()
    return f"{before} {piece}" if apart else f"{before}{piece}"
