"""What a status says, as a poll and as a stream of events.

A poll that brings nothing new since the last one of the same request is held up to a second: both clients poll faster
than anything changes. A stream sends each change with only the new log lines (the JavaScript client adds them up) and
ends after COMPLETED. Decides no states: `responses` maps them. Called by `queue_routes`.
"""

from collections.abc import AsyncIterator, Mapping, Sequence

import msgspec

from forestay.gateway.board import StatusBoard, Watched
from forestay.gateway.protocol import LogEntry, StatusAnswer, StatusMetrics
from forestay.gateway.responses import Reply, status_code_of, wire_status
from forestay.gateway.routing import Bases, request_url
from forestay.queue.model import FINAL, LINE_WITHHELD, LogLine, Snapshot, State
from forestay.telemetry.metrics import STATUS_POLLS, Metrics

STREAM_CHECK_SECONDS = 0.5  # how often a stream looks for new log lines
KEEP_ALIVE_SECONDS = 15.0
KEEP_ALIVE = b": keep-alive\n\n"
# A model may log what it was asked for or what it made: of what the guard stops no line is told (decision 0008).
UNTOLD = frozenset({State.WITHHELD, State.BLOCKED})
_encode = msgspec.json.Encoder().encode


def wants_logs(query: Mapping[str, str]) -> bool:
    """Read `logs=1|0` (JavaScript) and `logs=true|false` (Python)."""
    return query.get("logs", "0").strip().lower() in {"1", "true", "yes"}


async def poll(board: StatusBoard, watched: Watched, hold_seconds: float, *, logs: bool) -> float:
    """Wait, at most `hold_seconds`, until there is something that the last poll was not told.

    Returns the seconds that it may have waited for that: `hold_seconds`, or 0 where there was news already.
    """
    held_seconds = 0.0
    if logs:
        await board.read_logs(watched)
    if not watched.final and hold_seconds > 0 and watched.told == watched.signature:
        held_seconds = hold_seconds
        await board.wait_news(watched, watched.told, hold_seconds)
        if logs:
            await board.read_logs(watched)
    watched.told = watched.signature
    return held_seconds


def answer(watched: Watched, snapshot: Snapshot, bases: Bases, *, logs: bool, metrics: Metrics) -> Reply:
    """Answer a poll."""
    metrics.add(STATUS_POLLS, "final" if watched.final else "live")
    status_code = status_code_of(snapshot.state)
    if logs:
        return Reply(
            status_code, _encode(status_object(snapshot, watched.position, bases, _tellable(snapshot, watched.logs)))
        )
    made_of = (snapshot, watched.position, bases.queue)
    if watched.encoded is None or watched.encoded[0] != made_of:
        watched.encoded = (made_of, _encode(status_object(snapshot, watched.position, bases, None)))
    return Reply(status_code, watched.encoded[1])


async def events(board: StatusBoard, watched: Watched, bases: Bases, *, logs: bool) -> AsyncIterator[bytes]:
    """Yield server-sent events until the request is final; log lines once each."""
    sent_lines = 0
    told: tuple[object, ...] | None = None
    quiet_seconds = 0.0
    while True:
        if logs:
            await board.read_logs(watched)
        final = watched.final  # as it was when the lines were read: none is missed
        snapshot = watched.snapshot
        if snapshot is None:
            return
        if watched.signature != told or final:
            told, quiet_seconds = watched.signature, 0.0
            fresh = _tellable(snapshot, watched.logs[max(0, sent_lines - watched.logs_dropped) :]) if logs else None
            if snapshot.state not in UNTOLD:  # what is kept back is told once the output is let go
                sent_lines = watched.logs_dropped + len(watched.logs)
            yield b"data: " + _encode(status_object(snapshot, watched.position, bases, fresh)) + b"\n\n"
        if final:
            return
        await board.wait_news(watched, told, STREAM_CHECK_SECONDS if logs else KEEP_ALIVE_SECONDS)
        if watched.signature == told:
            quiet_seconds += STREAM_CHECK_SECONDS if logs else KEEP_ALIVE_SECONDS
            if quiet_seconds >= KEEP_ALIVE_SECONDS:
                quiet_seconds = 0.0
                yield KEEP_ALIVE


def status_object(snapshot: Snapshot, position: int, bases: Bases, lines: Sequence[LogLine] | None) -> StatusAnswer:
    """Build the status object in fal's form."""
    text = str(snapshot.request_id)
    url = request_url(bases, snapshot.model_id, text)
    final = snapshot.state in FINAL
    failed = final and snapshot.state is not State.SUCCEEDED
    error = snapshot.error or (f"The request was {snapshot.state.value}" if failed else None)
    return StatusAnswer(
        status=wire_status(snapshot.state),
        request_id=text,
        response_url=url,
        status_url=f"{url}/status",
        cancel_url=f"{url}/cancel",
        logs=None if lines is None else [_entry(line) for line in lines],
        metrics=StatusMetrics(snapshot.inference_seconds if final else None),
        queue_position=position if snapshot.state is State.QUEUED else msgspec.UNSET,
        error=error if error is not None and final else msgspec.UNSET,
        error_type=snapshot.error_type if snapshot.error_type is not None and final else msgspec.UNSET,
    )


def _tellable(snapshot: Snapshot, lines: Sequence[LogLine]) -> Sequence[LogLine]:
    return () if snapshot.state in UNTOLD else lines


def _entry(line: LogLine) -> LogEntry:
    if line.source == LINE_WITHHELD:
        return LogEntry("withheld by the content policy", line.level, "FORESTAY", line.at.isoformat())
    return LogEntry(line.message, line.level, line.source, line.at.isoformat())
