"""JSON logs: each line is an event with a stable `action` name plus ids; one wide line per request.

Decides the form, and that prompts, bodies, keys and tokens never appear: fields that could carry them are cut here,
whoever put them in. Called by every process at start (`configure`) and by everyone who logs (`logger`).
"""

import atexit
import dataclasses
import datetime as dt
import logging
import sys
import threading
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
_ERROR_MARK = b'"level":"error"'


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
    _hot.process, _hot.target = process, target if number <= logging.INFO else _Nowhere()


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
    if not _SECRET_FIELDS.isdisjoint(fields):
        hide_secrets(None, "", fields)
    fields.update(domain=domain, level="info", at=at, process=_hot.process, action=action)
    target.write(_to_json(fields) + b"\n")


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
    return msgspec.json.encode(event, enc_hook=str)


class _Writes(Protocol):
    """Where lines go."""

    def write(self, line: bytes, /) -> object:
        """Take a line."""
        ...


class _Nowhere:
    """Takes lines that the level leaves out."""

    def write(self, line: bytes, /) -> None:
        """Drop it."""


@dataclasses.dataclass(slots=True)
class _Hot:
    """What `wide_line` needs, set by `configure`."""

    process: str = ""
    target: _Writes | None = None
    buffer: "_LineBuffer | None" = None


_hot = _Hot()


class _LineBuffer:
    """Gathers lines and writes them together: at 64 KB, every 0.1 s, at once when a line is an error, and at exit.

    A write for each line costs a busy gateway a tenth of its time.
    """

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._lines: list[bytes] = []
        self._size = 0
        self._some = threading.Event()
        self.taps: list[Callable[[bytes], None]] = []
        threading.Thread(target=self._write_often, name="log-writer", daemon=True).start()
        atexit.register(self._write)

    def write(self, line: bytes, /) -> None:
        """Take a line."""
        with self._lock:
            self._lines.append(line)
            self._size += len(line)
        if self._size >= _FLUSH_BYTES or _ERROR_MARK in line:
            self._write()
        elif not self._some.is_set():
            self._some.set()

    def flush(self) -> None:
        """Leave it to the thread: the logger flushes after each line."""

    def _write(self) -> None:
        with self._lock:
            data, self._lines, self._size = b"".join(self._lines), [], 0
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
