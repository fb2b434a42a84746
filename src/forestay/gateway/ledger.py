"""What is written of one call in the direct lane, once, however it ends: fact, metrics, the end of its reservation.

Decides the cause (`Outcome`) from how the call ended, not from its code alone. Called by direct and realtime.
"""

import datetime as dt
import re
from collections.abc import Mapping

from forestay.gateway.lanes import DirectParts, Work
from forestay.gateway.limits import Reservation
from forestay.gateway.slots import Pool
from forestay.queue.model import ErrorType, Outcome, State, predicted_work
from forestay.telemetry.causes import cause_of, traffic_of
from forestay.telemetry.facts import RequestFact
from forestay.telemetry.measures import SIGNED, UNSIGNED
from forestay.telemetry.metrics import DIRECT_CALLS, DIRECT_WAIT_SECONDS

_FILES = re.compile(r"([0-9]{1,4}) ([0-9]{1,4})", re.ASCII)


class Ledger:
    """What will be written of one direct call: once, however it ends."""

    def __init__(self, parts: DirectParts, work: Work, reservation: Reservation) -> None:
        self._parts = parts
        self._work = work
        self._reservation = reservation
        self._clock = parts.ports.clock
        self._began = self._clock.monotonic()
        self._started: float | None = None
        self._first_byte: float | None = None
        self._ended = False
        self.pool: Pool | None = None
        self.error_type: ErrorType | None = None
        self.files: Mapping[str, float] = {}  # released ones with and without a manifest, where one was asked for

    def start(self, pool: Pool) -> None:
        """Note the replica and the moment it got the call."""
        self.pool = pool
        self._started = self._clock.monotonic()

    def first_byte(self) -> None:
        """Note that the first piece of a stream is there."""
        if self._first_byte is None:
            self._first_byte = self._clock.monotonic()

    def turned_away(self) -> None:
        """Note that the replica had no free slot after all: the call waits on, and has not started."""
        self.pool = self._started = None

    def end(self, status_code: int, error_type: ErrorType | None) -> None:
        """Write the fact and the metric."""
        if self._ended:
            return
        self._ended = True
        target, now = self._work.target, self._clock.now()
        outcome = _outcome(status_code, error_type, started=self._started is not None)
        ended = self._clock.monotonic()
        seconds = 0.0 if self._started is None else ended - self._started
        devices = 0 if self.pool is None else self.pool.replica.report.devices
        if self._started is not None:
            wait = self._started - self._began
            self._parts.ports.metrics.observe(DIRECT_WAIT_SECONDS, wait, target.model.model_id)
        ran = None if self._started is None else seconds * devices
        self._parts.limits.end(self._reservation, ran, outcome)
        self._parts.ports.metrics.add(DIRECT_CALLS, target.model.model_id, self._work.lane, outcome.value)
        self._parts.facts.add(
            RequestFact(
                finished_at=now,
                request_id=target.request_id,
                lane=self._work.lane,
                tenant_id=target.caller.tenant_id,
                key_id=target.caller.key_id,
                model_id=target.model.model_id,
                endpoint=target.endpoint,
                revision_id=target.revision.revision_id,
                replica_id=None if self.pool is None else self.pool.replica.report.replica_id,
                attempts=0 if self._started is None else 1,
                state=_STATES.get(outcome, State.FAILED).value,
                outcome=outcome,
                status_code=status_code,
                error_type=None if error_type is None else error_type.value,
                submitted_at=target.now,
                started_at=None if self._started is None else _before(now, seconds),
                device_seconds=seconds * devices,
                tags=self._work.choices.options.tags or None,
                traffic=traffic_of(target.caller.tenant_id, self._parts.probe_tenants),
                cause=cause_of(outcome, None if error_type is None else error_type.value),
                worker_id=None if self.pool is None else self.pool.replica.report.worker_id,
                first_byte_at=None if self._first_byte is None else _before(now, ended - self._first_byte),
                answered_at=None if self._started is None else now,
                traceparent=self._work.choices.options.traceparent,
                work={**predicted_work(self._work.predicted_seconds, self._work.features), **self.files},
            )
        )


def files_told(header: str | None) -> dict[str, float]:
    """Return what a worker says of an answer's files, for the fact; nothing where it says nothing that can be read."""
    match = _FILES.fullmatch(header or "")
    return {} if match is None else {SIGNED: float(match[1]), UNSIGNED: float(match[2])}


def _before(now: dt.datetime, seconds: float) -> dt.datetime:
    return now - dt.timedelta(seconds=seconds)


def _outcome(status_code: int, error_type: ErrorType | None, *, started: bool) -> Outcome:
    """Return the cause, not the code."""
    if error_type in _OUTCOMES:
        if error_type is ErrorType.REQUEST_TIMEOUT and not started:
            return Outcome.EXPIRED
        return _OUTCOMES[error_type]
    if status_code < 400:
        return Outcome.SUCCEEDED
    return Outcome.CALLER_ERROR if status_code < 500 else Outcome.MODEL_ERROR


_OUTCOMES: Mapping[ErrorType | None, Outcome] = {
    ErrorType.REQUEST_TIMEOUT: Outcome.MODEL_TIMEOUT,
    ErrorType.STARTUP_TIMEOUT: Outcome.STARTUP,
    ErrorType.RUNNER_SCHEDULING_FAILURE: Outcome.STARTUP,
    ErrorType.RUNNER_CONNECTION_TIMEOUT: Outcome.WORKER_LOST,
    ErrorType.RUNNER_CONNECTION_REFUSED: Outcome.WORKER_LOST,
    ErrorType.RUNNER_CONNECTION_ERROR: Outcome.WORKER_LOST,
    ErrorType.RUNNER_DISCONNECTED: Outcome.MODEL_CRASH,
    ErrorType.RUNNER_INCOMPLETE_RESPONSE: Outcome.MODEL_CRASH,
    ErrorType.CLIENT_DISCONNECTED: Outcome.CANCELLED,
}
_STATES: Mapping[Outcome, State] = {
    Outcome.SUCCEEDED: State.SUCCEEDED,
    Outcome.CANCELLED: State.CANCELLED,
    Outcome.EXPIRED: State.EXPIRED,
}
