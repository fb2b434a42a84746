"""What the demonstration promises, and what became of each promise: plain words and values."""

import dataclasses
import enum

PROMISES: dict[str, str] = {
    "start": "one command starts everything, with embedded defaults",
    "early": "submit now, collect later: nothing is lost in between",
    "picture": "the unmodified client submits, polls and fetches a picture",
    "same_seed": "same seed, same pixels",
    "stream": "a stream shows every denoising step",
    "logs": "log lines reach the request that wrote them",
    "bad_input": "bad input is refused by name before it is queued",
    "cancel": "a cancel reaches a running model within a second",
    "sound": "sound from an audio diffusion model",
    "clip": "a film from the slow model",
    "upload": "uploads work with no host configured (CONNECT proxy)",
    "edit": "an uploaded picture is edited",
    "realtime": "realtime over a WebSocket",
    "burst": "every acknowledged request is answered, though a worker dies",
    "killed": "a worker was killed (-9) in the middle of its work",
    "once": "each of them finished exactly once",
    "webhooks": "signed webhooks arrive and verify; a forged one does not",
    "stop": "everything stops cleanly, no process stays behind",
}


class Mark(enum.StrEnum):
    """What became of a promise."""

    WAITING = "waiting"
    RUNNING = "running"
    KEPT = "kept"
    BROKEN = "broken"


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """A promise with its mark and the evidence for it."""

    name: str
    mark: Mark = Mark.WAITING
    evidence: str = ""
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """The promise in words."""
        return PROMISES[self.name]


@dataclasses.dataclass(frozen=True, slots=True)
class SavedFile:
    """A file of the output folder, with what it shows."""

    name: str
    caption: str


def all_kept(promises: dict[str, Kept]) -> bool:
    """Tell whether every promise has been made and kept; one that was never tried counts as broken."""
    return all(promises[name].mark is Mark.KEPT for name in PROMISES)
