"""What is said in sound, as text for the text policy: a port, and nothing behind it yet.

No model that writes down speech is bundled. Without a `Transcriber` sound has no text, no detector covers it, and the
policy's `uncovered` says what that means: review or block. The text that a speech model was asked to say is text of its
input, and judged as such. Called by the worker.
"""

from collections.abc import Sequence
from typing import IO, Protocol

from forestay.safety.model import Text


class Transcriber(Protocol):
    """Writes down what is said in a recording."""

    async def transcribe(self, file: IO[bytes], where: str, within_seconds: float) -> Sequence[Text]:
        """Return what is said, in pieces whose `where` says which field and second; empty when nothing is.

        Unavailable, TimeoutError: it is not known what is said, which is trouble and never silence.
        """
        ...
