"""One detector's lane in the judge: a bounded queue, and a thread that works on one question after the other.

Decides who is turned away (a full queue, or too many bytes held by all lanes together: overload, at once), what is
dropped unscored (a question past its deadline, or that nobody waits for), and what counts as a crash: whatever a
detector raises, and scores that are no scores. onnxruntime lets go of the interpreter while it computes, so lanes run
side by side. Used by `server`.
"""

import collections
import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from forestay.clock import Clock
from forestay.safety.model import Content, DetectorInfo, Outcome, Scores, Trouble, Unscored, checked
from forestay.telemetry.logs import logger

_LOG = logger("judge")
_QUIET_SECONDS = 5.0


def _nothing() -> None: ...


class Detector(Protocol):
    """Something with weights that scores one piece of content at a time, always from the same thread."""

    @property
    def info(self) -> DetectorInfo:
        """Return what it declares of itself; known before it is loaded."""
        ...

    def load(self) -> None:
        """Make ready to score; whatever it raises makes every answer a crash."""
        ...

    def settle(self) -> None:
        """Load what is seldom needed; called once, when nobody has asked for a while, so that a start is quick."""
        ...

    def score(self, content: Content) -> Outcome:
        """Return the outcome; whatever it raises is a crash."""
        ...


@dataclasses.dataclass(slots=True, eq=False)
class Question:
    """What a lane is asked; `dropped` is set by whoever no longer waits."""

    contents: Sequence[Content | None]  # None: a picture that is not what it says
    places: Sequence[str]
    deadline: float  # on the monotonic clock
    size_bytes: int
    answer: Callable[[Sequence[Outcome]], None]  # called in the lane's thread, once
    dropped: bool = False


class Room:
    """How many bytes of content all lanes hold together."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._held = 0
        self._lock = threading.Lock()

    def take(self, size_bytes: int) -> bool:
        """Hold so many more; False when there is no room. One question alone always finds room."""
        with self._lock:
            if self._held and self._held + size_bytes > self._limit:
                return False
            self._held += size_bytes
            return True

    def leave(self, size_bytes: int) -> None:
        """Hold so many less."""
        with self._lock:
            self._held -= size_bytes

    @property
    def held_bytes(self) -> int:
        """Return how many are held."""
        return self._held


class Lane:
    """The queue and the thread of one detector."""

    def __init__(
        self, detector: Detector, room: Room, clock: Clock, longest: int, on_loaded: Callable[[], None] = _nothing
    ) -> None:
        self._detector = detector
        self._id = detector.info.detector_id
        self._room = room
        self._clock = clock
        self._longest = longest
        self._on_loaded = on_loaded  # called in the lane's thread, once, also when loading failed
        self._waiting: collections.deque[Question] = collections.deque()
        self._changed = threading.Condition()
        self._ended = False
        self._loaded = False
        self._settled = False
        self.busy_since = 0.0  # monotonic; 0 while it waits for work
        self._thread = threading.Thread(target=self._work, name=f"judge-{self._id}", daemon=True)
        self._thread.start()

    @property
    def info(self) -> DetectorInfo:
        """Return what its detector declares."""
        return self._detector.info

    @property
    def waiting(self) -> int:
        """Return how many questions wait."""
        return len(self._waiting)

    def offer(self, question: Question) -> bool:
        """Queue a question; False when the queue is full or there is no room for its content."""
        with self._changed:
            if len(self._waiting) >= self._longest or self._ended or not self._room.take(question.size_bytes):
                return False
            self._waiting.append(question)
            self._changed.notify()
        return True

    def drop(self, question: Question) -> None:
        """Give a question up that nobody waits for: its place in the queue is free at once."""
        question.dropped = True
        with self._changed:
            if question not in self._waiting:
                return  # it is being worked on, or done
            self._waiting.remove(question)
        self._room.leave(question.size_bytes)

    def close(self, within_seconds: float) -> None:
        """End the thread after the question that it works on; those that wait are given up."""
        with self._changed:
            self._ended = True
            self._waiting.clear()
            self._changed.notify()
        self._thread.join(within_seconds)

    def _work(self) -> None:
        self._load()
        while (question := self._next()) is not None:
            self.busy_since = self._clock.monotonic()
            try:
                question.answer(() if question.dropped else self._judge(question))
            finally:
                self.busy_since = 0.0
                self._room.leave(question.size_bytes)

    def _load(self) -> None:
        self.busy_since = self._clock.monotonic()
        try:
            self._detector.load()
            self._loaded = True
        except Exception as error:  # noqa: BLE001 - a detector that cannot be loaded answers "crash", whatever it raised
            _LOG.error("judge.detector_not_loaded", detector=self._id, reason=f"{type(error).__name__}: {error}")
        finally:
            self._on_loaded()
            self.busy_since = 0.0

    def _settle(self) -> None:
        """Let the detector load the rest; who asks meanwhile waits for it. The lock is let go."""
        self._settled = True
        self._changed.release()
        try:
            self._detector.settle()
        except Exception as error:  # noqa: BLE001 - what fails now fails again when it is needed, and is a crash then
            _LOG.warning("judge.detector_not_settled", detector=self._id, reason=type(error).__name__)
        finally:
            self._changed.acquire()

    def _next(self) -> Question | None:
        with self._changed:
            while not self._waiting and not self._ended:
                if not self._changed.wait(None if self._settled else _QUIET_SECONDS) and not self._waiting:
                    self._settle()
            return None if self._ended else self._waiting.popleft()

    def _judge(self, question: Question) -> list[Outcome]:
        return [
            self._one(question, content, where)
            for content, where in zip(question.contents, question.places, strict=True)
        ]

    def _one(self, question: Question, content: Content | None, where: str) -> Outcome:
        started = self._clock.monotonic()
        if started >= question.deadline or question.dropped:
            return Unscored(self._id, where, Trouble.TIMEOUT)
        if not self._loaded:
            return Unscored(self._id, where, Trouble.CRASH)
        if content is None:
            return Unscored(self._id, where, Trouble.UNREADABLE)
        try:
            outcome = self._detector.score(content)
        except Exception as error:  # noqa: BLE001 - whatever a detector does wrong is a crash, and told without content
            _LOG.warning("judge.detector_failed", detector=self._id, reason=type(error).__name__)
            outcome = Unscored(self._id, where, Trouble.CRASH)
        return _timed(outcome, self._clock.monotonic() - started)


def _timed(outcome: Outcome, seconds: float) -> Outcome:
    """Return the outcome with the time that it took, if it is one."""
    timed = dataclasses.replace(outcome, seconds=seconds)
    return checked(timed) if isinstance(timed, Scores) else timed
