"""What the judge and its clients say to one another: four bytes of length (big-endian), then MessagePack.

The judge speaks first: `Hello` with its detectors. Then clients send `Ask` and `Forget`, the judge sends `Answer`, in
any order; the number of a question ties them together, and is the client's own. A picture travels as its raw RGB.
Decides how large a frame may be, and that what is no frame ends the connection. Used by `server` and `client`.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from forestay.safety.model import (
    Content,
    DetectorInfo,
    Outcome,
    Picture,
    Scores,
    Sound,
    Text,
    Trouble,
    Unscored,
    checked,
)
from forestay.safety.taxonomy import Category, Modality

VERSION = 1
MAX_FRAME_BYTES = 72 * 1024 * 1024
MAX_CONTENT_BYTES = 64 * 1024 * 1024  # of one question: a picture of 4,700 x 4,700 pixels
MAX_CONTENTS = 256  # of one question
MAX_NOTES = 32
_HEAD = struct.Struct("!I")


class Garbage(Exception):
    """What came is no frame of this protocol; the connection is of no use any more."""


class TextPart(msgspec.Struct, tag="t", array_like=True):
    """A string."""

    where: str
    text: str


class PicturePart(msgspec.Struct, tag="p", array_like=True):
    """A picture, `[height, width, 3] uint8`."""

    where: str
    width: int
    height: int
    rgb: bytes


class Ask(msgspec.Struct, tag="ask", array_like=True):
    """Score these contents by this detector, within this time."""

    number: int
    detector: str
    left_ms: int
    contents: list[TextPart | PicturePart]


class Forget(msgspec.Struct, tag="forget", array_like=True):
    """Nobody waits for this answer any more."""

    number: int


class Info(msgspec.Struct, array_like=True):
    """A detector, as it declares itself."""

    detector: str
    digest: str
    covers: dict[Modality, list[Category]]
    costly: bool


class Hello(msgspec.Struct, tag="hello", array_like=True):
    """The judge's first words."""

    version: int
    detectors: list[Info]


class Scored(msgspec.Struct, tag="s", array_like=True):
    """The scores of one content."""

    scores: dict[Category, float]
    seconds: float
    notes: dict[str, str]


class Failed(msgspec.Struct, tag="f", array_like=True):
    """Why one content has no scores."""

    trouble: Trouble
    seconds: float


class Answer(msgspec.Struct, tag="answer", array_like=True):
    """One result for each content of the question, in its order."""

    number: int
    results: list[Scored | Failed]


_to_judge = msgspec.msgpack.Decoder(Ask | Forget)
_to_client = msgspec.msgpack.Decoder(Hello | Answer)
_encoder = msgspec.msgpack.Encoder()


def frame(message: Ask | Forget | Hello | Answer) -> bytearray:
    """Return a message as it travels."""
    made = bytearray(_HEAD.size)
    _encoder.encode_into(message, made, _HEAD.size)
    _HEAD.pack_into(made, 0, len(made) - _HEAD.size)
    return made


class Frames:
    """Puts frames together from what comes in pieces."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._wanted = -1

    def feed(self, data: bytes) -> Iterator[memoryview]:
        """Yield each whole body, valid until the next step; Garbage where a length is beyond the cap."""
        self._held += data
        while True:
            if self._wanted < 0:
                if len(self._held) < _HEAD.size:
                    return
                (self._wanted,) = _HEAD.unpack_from(self._held)
                if self._wanted > MAX_FRAME_BYTES:
                    raise Garbage(f"a frame of {self._wanted} bytes; at most {MAX_FRAME_BYTES} are taken")
            end = _HEAD.size + self._wanted
            if len(self._held) < end:
                return
            with memoryview(self._held) as whole, whole[_HEAD.size : end] as body:
                yield body
            del self._held[:end]
            self._wanted = -1


def read_question(body: memoryview) -> Ask | Forget:
    """Read what a client says; Garbage otherwise."""
    try:
        return _to_judge.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Garbage(type(error).__name__) from None


def read_answer(body: memoryview) -> Hello | Answer:
    """Read what the judge says; Garbage otherwise."""
    try:
        return _to_client.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Garbage(type(error).__name__) from None


def parts_of(contents: Sequence[Content]) -> list[TextPart | PicturePart]:
    """Return contents as they travel; TypeError for sound, which the judge does not hear."""
    return [_part_of(content) for content in contents]


def _part_of(content: Content) -> TextPart | PicturePart:
    match content:
        case Text():
            return TextPart(content.where, content.text)
        case Picture():
            return PicturePart(content.where, content.width, content.height, content.rgb)
        case Sound():
            raise TypeError("sound is not judged by the judge")


def content_of(part: TextPart | PicturePart) -> Content | None:
    """Return a content as it is inside; None for a picture whose bytes are not what its size says."""
    if isinstance(part, TextPart):
        return Text(part.where, part.text)
    if min(part.width, part.height) < 1 or part.width * part.height * 3 != len(part.rgb):
        return None
    return Picture(part.where, part.width, part.height, part.rgb)


def size_of(content: Content) -> int:
    """Return how many bytes a content takes on the way, a few more or less."""
    match content:
        case Text():
            return len(content.text) * 4
        case Picture():
            return len(content.rgb)
        case Sound():
            return len(content.data)


def result_of(outcome: Outcome) -> Scored | Failed:
    """Return an outcome as it travels."""
    if isinstance(outcome, Unscored):
        return Failed(outcome.trouble, outcome.seconds)
    return Scored(dict(outcome.scores), outcome.seconds, dict(list(outcome.notes.items())[:MAX_NOTES]))


def outcome_of(result: Scored | Failed, detector_id: str, where: str) -> Outcome:
    """Return an outcome as it is inside; scores that are no scores are a crash."""
    if isinstance(result, Failed):
        return Unscored(detector_id, where, result.trouble, result.seconds)
    return checked(Scores(detector_id, where, result.scores, result.seconds, result.notes))


def info_of(detector: DetectorInfo) -> Info:
    """Return a declaration as it travels."""
    covers = {modality: sorted(categories) for modality, categories in detector.covers.items()}
    return Info(detector.detector_id, detector.digest, covers, detector.costly)


def detector_of(info: Info) -> DetectorInfo:
    """Return a declaration as it is inside."""
    covers: Mapping[Modality, frozenset[Category]] = {one: frozenset(many) for one, many in info.covers.items()}
    return DetectorInfo(info.detector, info.digest, covers, info.costly)
