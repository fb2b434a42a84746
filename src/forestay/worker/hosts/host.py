"""The port to a model: what a worker may ask of it, whatever kind of host runs it.

It decides nothing and knows no queue. Adapters: `fal_app` (a child process), `http_server` (any server at a URL),
`provider` (a platform upstream). Called by `worker/replica.py`, `worker/attempt.py` and `worker/direct.py`.
An outcome that can be expected is a value here, never an exception.
"""

import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from forestay.ids import RequestId


@dataclasses.dataclass(frozen=True, slots=True)
class HealthCheck:
    """How an app wants to be checked (fal's `HealthCheck`, its defaults filled in)."""

    path: str
    start_period_seconds: float = 30.0
    timeout_seconds: float = 5.0
    failure_threshold: int = 3
    call_regularly: bool = True
    method: str = "POST"


@dataclasses.dataclass(frozen=True, slots=True)
class Description:
    """What a model says of itself once it is set up (or, for `describe`, once it is loaded)."""

    openapi: Mapping[str, object] | None
    slots: int
    hints: tuple[str, ...] = ()
    direct_url: str | None = None  # set when a gateway may speak to the model's server itself
    health_check: HealthCheck | None = None
    settings: Mapping[str, object] = dataclasses.field(default_factory=dict[str, object])  # fal's host_kwargs


class StartFailed(Exception):
    """The model could not be started; `reason` is for its owner, the tail of what it said."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Notes(Protocol):
    """What attempts of one request leave to one another; lasts as long as the request."""

    async def read(self) -> str | None:
        """Return what earlier attempts left; None without anything, or when it cannot be read now."""
        ...

    async def write(self, text: str) -> None:
        """Leave this instead; what cannot be written now is logged, for the work goes on."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class CallRequest:
    """One call of one endpoint."""

    request_id: RequestId
    attempt: int
    endpoint: str  # "/", "/edit"
    headers: Mapping[str, str]  # lower-case names
    body: bytes
    timeout_seconds: float
    method: str = "POST"
    notes: Notes | None = None  # queued requests of providers have one; somebody is paid for each of theirs


@dataclasses.dataclass(frozen=True, slots=True)
class Answered:
    """The model answered; a 5xx is an answer too."""

    status_code: int
    headers: Mapping[str, str]  # lower-case names
    body: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Crashed:
    """The process ended while it worked: `memory` when it was over its limit."""

    reason: str
    memory: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class TimedOut:
    """No whole answer within the call's time limit; the model may still be working."""

    timeout_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """Nothing listens there; the call never began."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Broken:
    """The connection broke, or the answer is no whole HTTP answer, while the process lives."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class UpstreamFailed:
    """A provider upstream could not be reached, or failed on its side of the wire."""

    status_code: int
    reason: str


CallResult = Answered | Crashed | TimedOut | Refused | Broken | UpstreamFailed


@dataclasses.dataclass(frozen=True, slots=True)
class Stream:
    """An answer that is still arriving: relay `pieces` as they come. A break raises ConnectionError."""

    status_code: int
    headers: Mapping[str, str]
    pieces: AsyncIterator[bytes]


class ModelSocket(Protocol):
    """A websocket to the model, frame by frame."""

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol the model chose."""
        ...

    async def receive(self) -> str | bytes | None:
        """Wait for the next frame; None when the model closed."""
        ...

    async def send(self, frame: str | bytes) -> None:
        """Send one frame; a gone model raises ConnectionError."""
        ...

    @property
    def close_code(self) -> int:
        """The code the model closed with; 1006 without one."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Exit:
    """How a model's process ended."""

    code: int  # negative: the number of the signal
    memory: bool = False  # the memory watch killed it
    processes: bool = False  # it had more processes than its limit

    def __str__(self) -> str:
        """Say it in words."""
        if self.memory:
            return "was ended because it was over its memory limit"
        if self.processes:
            return "was ended because it had more processes than resources.processes allows"
        return f"was ended by signal {-self.code}" if self.code < 0 else f"ended with exit code {self.code}"


class OnLog(Protocol):
    """Takes one line that the model wrote. Called on the event loop, must not wait."""

    def __call__(self, request_id: str | None, level: str, message: str) -> None:
        """Take a line; `request_id` is what the model process claims, or None."""
        ...


class Host(Protocol):
    """One running model."""

    async def start(self) -> Description:
        """Set the model up; returns when it can answer. StartFailed says why not. The caller bounds the time."""
        ...

    async def call(self, request: CallRequest) -> CallResult:
        """Run one call to its end. Cancelling this coroutine drops the connection to the model."""
        ...

    def stream(self, request: CallRequest) -> AbstractAsyncContextManager[Stream | CallResult]:
        """Run one call, handing on the answer as it arrives; a call that never began yields its result instead."""
        ...

    def websocket(self, path: str, headers: Mapping[str, str]) -> AbstractAsyncContextManager[ModelSocket | None]:
        """Open a websocket to `path` (with its query); None when the model refuses the handshake."""
        ...

    async def cancel(self, request_id: RequestId, endpoint: str) -> None:
        """Tell the model that nobody wants this request any more; it may go on all the same."""
        ...

    async def healthy(self, check: HealthCheck | None) -> bool:
        """Ask the model, by its own check or the plain one of its kind, whether it is fit. Never raises."""
        ...

    async def exited(self) -> Exit:
        """Return once the process has ended; never returns for a model that runs elsewhere."""
        ...

    async def stop(self, grace_seconds: float) -> None:
        """Ask it to end, kill all of it after the grace. Safe to call twice, and on one that never started."""
        ...


@runtime_checkable
class TakesDrills(Protocol):
    """A host that can put faults into its model on purpose, and take them out (`forestay.drills`)."""

    def drill(self, faults: Sequence[str]) -> None:
        """Have these in force and no others; never waits."""
        ...

    def drilled(self) -> Mapping[str, str]:
        """Return what the model's process said last: of each fault "" when it is in force, else why it is not."""
        ...
