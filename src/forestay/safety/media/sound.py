"""What is said in sound, as text for the text policy: the port of whoever writes it down.

No model that writes down speech is bundled. Without a `Transcriber` sound has no text, no detector covers it, and the
policy's `uncovered` says what that means: review or block. The text that a speech model was asked to say is text of its
input, and judged as such. Implemented by `classifiers/transcriber`, called by `classifiers/spoken_text`.
"""

import dataclasses
from typing import Protocol

from forestay.safety.model import Sound, Trouble


@dataclasses.dataclass(frozen=True, slots=True)
class Said:
    """What is said in a recording; empty when nothing is."""

    text: str


class Transcriber(Protocol):
    """Writes down what is said in a recording."""

    async def transcribe(self, sound: Sound, within_seconds: float) -> Said | Trouble:
        """Return what is said, or why that is not known, which is never silence; takes no longer than it may."""
        ...

    async def close(self) -> None:
        """Hang up."""
        ...
