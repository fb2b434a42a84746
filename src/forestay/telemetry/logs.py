"""JSON logs: each line is an event with a stable `action` name plus ids; one wide line per request.

Decides the form, and that prompts, bodies, keys and tokens never appear: fields that could carry them are cut here,
whoever put them in. Called by every process at start (`configure`) and by everyone who logs (`logger`).

A wide line costs its caller one append: it is written out with its neighbours, a tenth of a second later at most.
"""

import atexit
import dataclasses
import datetime as dt
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping
from typing import BinaryIO, Protocol, cast

import msgspec
import structlog
from structlog.typing import FilteringBoundLogger

HIDDEN = "[hidden]"
_SECRET_FIELDS = frozenset(
    {"authorization", "key", "secret", "token", "password", "prompt", "negative_prompt", "body", "input", "headers"}
)
_MAX_TEXT = 2_000
_FLUSH_SECONDS = 0.1
_FLUSH_BYTES = 64 * 1024
_FLUSH_LINES = 256
_ERROR_MARK = b'"level":"error"'
_ENCODER = msgspec.json.Encoder(enc_hook=str)


def configure(process: str, *, level: str = "info", stream: BinaryIO | None = None) -> None:
    """Set the form of all logs of this process; `process` (gateway, worker, ...) stands on each line."""
    target = stream or _LineBuffer(sys.stderr.buffer)
    _hot.buffer = target if isinstance(target, _LineBuffer) else None
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            structlog.processors.format_exc_info,
            _name_process(process),
            hide_secrets,
            structlog.processors.JSONRenderer(serializer=_to_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(cast("BinaryIO", target)),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Bridge()], level=max(number, logging.WARNING), force=True)
    lines = target if isinstance(target, _LineBuffer) else _AtOnce(target)
    _hot.process, _hot.target = process, lines if number <= logging.INFO else _Nowhere()


def tap(take: Callable[[bytes], None]) -> None:
    """Have whole lines, as they are written, handed to `take` as well; it must not wait. After `configure`."""
    target = _hot.buffer
    if target is not None:
        target.taps.append(take)


def wide_line(domain: str, action: str, at: dt.datetime, fields: dict[str, object]) -> None:
    """Log one call at info, in the form of every other line but at a fraction of its cost: for the hot path alone.

    `fields` is the caller's to give away. Before `configure` the line goes the ordinary way.
    """
    target = _hot.target
    if target is None:
        logger(domain).info(action, **fields)
        return
    fields.update(domain=domain, level="info", at=at, process=_hot.process, action=action)
    target.take(fields)


def logger(domain: str) -> FilteringBoundLogger:
    """Return a logger whose lines carry `domain` (gateway, queue, fleet, ...)."""
    bound: FilteringBoundLogger = structlog.get_logger(domain=domain)
    return bound


def hide_secrets(_logger: object, _method: str, event: MutableMapping[str, object]) -> MutableMapping[str, object]:
    """Hide fields that may carry secrets or content, and cut texts longer than 2,000 characters."""
    for name, value in event.items():
        if name in _SECRET_FIELDS:
            event[name] = HIDDEN
        elif isinstance(value, str) and len(value) > _MAX_TEXT and name != "exception":
            event[name] = value[:_MAX_TEXT] + "…"
    action = event.pop("event", None)
    if action is not None:
        event["action"] = action
    return event


def _name_process(process: str) -> structlog.typing.Processor:
    def add(_logger: object, _method: str, event: MutableMapping[str, object]) -> Mapping[str, object]:
        event["process"] = process
        return event

    return add


def _to_json(event: object, **_options: object) -> bytes:
    return _ENCODER.encode(event)


def _wide(fields: dict[str, object]) -> bytes:
    """Write a wide line; one that JSON cannot hold is written with its values as Python shows them, not lost."""
    if not _SECRET_FIELDS.isdisjoint(fields):
        hide_secrets(None, "", fields)
    try:
        return _ENCODER.encode(fields) + b"\n"
    except (TypeError, ValueError):  # half a surrogate pair, a key that is no text
        return _ENCODER.encode({ascii(name): ascii(value) for name, value in fields.items()}) + b"\n"


class _Takes(Protocol):
    """Where wide lines go."""

    def take(self, fields: dict[str, object], /) -> None:
        """Take a line, unwritten."""
        ...


class _Nowhere:
    """Takes lines that the level leaves out."""

    def take(self, fields: dict[str, object], /) -> None:
        """Drop it."""


class _AtOnce:
    """Writes each line as it comes: a stream that somebody gave to `configure`."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target

    def take(self, fields: dict[str, object], /) -> None:
        """Write it."""
        self._target.write(_wide(fields))


@dataclasses.dataclass(slots=True)
class _Hot:
    """What `wide_line` needs, set by `configure`."""

    process: str = ""
    target: _Takes | None = None
    buffer: "_LineBuffer | None" = None


_hot = _Hot()


class _LineBuffer:
    """Gathers lines and writes them together: at 64 KB or 256 lines, every 0.1 s, at once for an error, and at exit.

    A write for each line costs a busy gateway a tenth of its time. Wide lines are not even put into JSON before.
    """

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._lock = threading.Lock()  # of who writes
        self._lines: deque[bytes | dict[str, object]] = deque()  # appending is atomic
        self._size = 0  # of lines in bytes, about: two threads may count at once
        self._some = threading.Event()
        self.taps: list[Callable[[bytes], None]] = []
        threading.Thread(target=self._write_often, name="log-writer", daemon=True).start()
        atexit.register(self._write)

    def write(self, line: bytes, /) -> None:
        """Take a line."""
        self._lines.append(line)
        self._size += len(line)
        if self._size >= _FLUSH_BYTES or _ERROR_MARK in line:
            self._write()
        elif not self._some.is_set():
            self._some.set()

    def take(self, fields: dict[str, object], /) -> None:
        """Take a line that is yet to be written in JSON."""
        self._lines.append(fields)
        if len(self._lines) >= _FLUSH_LINES:
            self._write()
        elif not self._some.is_set():
            self._some.set()

    def flush(self) -> None:
        """Leave it to the thread: the logger flushes after each line."""

    def _write(self) -> None:
        with self._lock:
            self._size = 0
            taken = [self._lines.popleft() for _ in range(len(self._lines))]
            data = b"".join([line if isinstance(line, bytes) else _wide(line) for line in taken])
            if data:
                for take in self.taps:
                    take(data)
                self._target.write(data)
                self._target.flush()

    def _write_often(self) -> None:
        pause = threading.Event()
        while True:
            self._some.wait()
            pause.wait(_FLUSH_SECONDS)
            self._some.clear()
            self._write()


class _Bridge(logging.Handler):
    """Carries lines of libraries that use the standard library's logging into the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(domain="library")
        log.log(record.levelno, "library.log", source=record.name, message=record.getMessage())
