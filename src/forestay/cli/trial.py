"""Requests that a command sends to a model to see what it does: so many at a time, within a budget.

It counts and times; what the numbers mean others say. The requests are real ones, tagged `purpose=profile`: they are
judged, queued and counted like anybody's. Bodies are not kept after they were delivered. Called by `forestay model
onboard` and `profile`.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import cast

from forestay.cli.client import PlatformClient
from forestay.clock import SystemClock
from forestay.errors import ForestayError, Unavailable
from forestay.ids import ModelId

MOST_AT_ONCE = 64
_PAUSE_SECONDS = 0.25  # between looks at a fact
_SHIPPED_SECONDS = 0.6  # by then a worker has sent what was written before the end
_LAST_LINES = 16  # of what a model wrote
_TRACE_LINES = 12  # of a traceback: the error, and where it was raised
_MOST_IN_A_ROW = 5  # failures, then no more is sent
_HEADERS = {"content-type": "application/json", "x-fal-store-io": "0", "x-fal-tags": "purpose=profile"}
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Ask:
    """One request to send."""

    endpoint: str
    body: object


@dataclasses.dataclass(frozen=True, slots=True)
class Answered:
    """What became of it."""

    ask: Ask
    status: int  # 0: nothing answered
    seconds: float  # as the caller saw it
    told: str = ""  # why it failed


@dataclasses.dataclass(frozen=True, slots=True)
class Peak:
    """The most memory that a replica held while it worked on one request; None where nobody can tell."""

    memory_bytes: int | None = None
    device_memory_bytes: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Trial:
    """What became of all that were sent."""

    answers: tuple[Answered, ...]
    wall_seconds: float
    stopped: str = ""  # why not all were sent

    @property
    def failures(self) -> dict[str, int]:
        """Return how often which failure was told."""
        return dict(Counter(item.told for item in self.answers if item.told))


class TrialFailed(ForestayError):
    """The model fails again and again; the message says how."""


class Sender:
    """Sends to one model through one platform."""

    def __init__(self, client: PlatformClient, model_id: ModelId, clock: SystemClock) -> None:
        self._client = client
        self._model_id = model_id
        self._clock = clock

    def one(self, ask: Ask, timeout_seconds: float) -> Answered:
        """Send one request and wait for its answer."""
        path = f"/run/{self._model_id}{'' if ask.endpoint == '/' else ask.endpoint}"
        began = self._clock.monotonic()
        try:
            reply = self._client.send(
                "POST", path, body=json.dumps(ask.body).encode(), headers=_HEADERS, timeout_seconds=timeout_seconds
            )
        except Unavailable as error:
            return Answered(ask, 0, self._clock.monotonic() - began, str(error))
        seconds = self._clock.monotonic() - began
        told = "" if reply.status < 400 else f"HTTP {reply.status}: {reply.body[:300].decode('utf-8', 'replace')}"
        return Answered(ask, reply.status, seconds, told)

    def peak(self, ask: Ask, timeout_seconds: float) -> Peak:
        """Send one request through the queue, whose attempts' facts tell memory, and wait for its fact."""
        shown = self._queued(ask, timeout_seconds, _HEADERS)
        attempts = cast("list[dict[str, object]]", shown["attempts"]) if shown else []
        return _peak(cast("dict[str, float]", attempts[-1].get("work") or {})) if attempts else Peak()

    def words(self, ask: Ask, timeout_seconds: float) -> list[str]:
        """Send one request through the queue, where what models write is kept, and return its last lines.

        Of a direct call they are not kept, so that whoever mends an app would have no traceback.
        """
        shown = self._queued(ask, timeout_seconds, {**_HEADERS, "x-fal-no-retry": "1"})
        if not shown:
            return []
        self._clock.block(_SHIPPED_SECONDS)
        shown = cast("dict[str, object]", self._client.get(f"/admin/requests/{shown['request_id']}"))
        logs = cast("list[dict[str, object]]", shown["logs"])
        return [line for item in logs for line in _lines(str(item["message"]))][-_LAST_LINES:]

    def _queued(self, ask: Ask, timeout_seconds: float, headers: Mapping[str, str]) -> dict[str, object]:
        """Return what is known of one queued request once its attempt's fact is there; empty where it never comes."""
        path = f"/queue/{self._model_id}{'' if ask.endpoint == '/' else ask.endpoint}"
        until = self._clock.monotonic() + timeout_seconds
        try:
            sent = self._client.send(
                "POST", path, body=json.dumps(ask.body).encode(), headers=headers, timeout_seconds=timeout_seconds
            )
            name = str(json.loads(sent.body)["request_id"]) if sent.status < 400 else ""
            while name and self._clock.monotonic() < until:
                shown = cast("dict[str, object]", self._client.get(f"/admin/requests/{name}"))
                if shown["attempts"]:
                    return shown
                self._clock.block(_PAUSE_SECONDS)
        except (Unavailable, ValueError, KeyError):
            return {}
        return {}

    def many(self, asks: Sequence[Ask], at_once: int, budget_seconds: float) -> Trial:
        """Send all, `at_once` at a time, while the budget lasts; stops early when five in a row fail."""
        began = self._clock.monotonic()
        waiting, answers, stopped, row = list(reversed(asks)), list[Answered](), "", 0
        running: set[Future[Answered]] = set()
        with ThreadPoolExecutor(max_workers=min(at_once, MOST_AT_ONCE)) as pool:
            while running or (waiting and not stopped):
                left = budget_seconds - (self._clock.monotonic() - began)
                stopped = stopped or (f"the budget of {budget_seconds:g} s is spent" if left <= 0 else "")
                while waiting and not stopped and len(running) < min(at_once, MOST_AT_ONCE):
                    running.add(pool.submit(self.one, waiting.pop(), max(1.0, left)))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for answer in (future.result() for future in done):
                    answers.append(answer)
                    row = row + 1 if answer.told else 0
                    stopped = stopped or (f"{row} requests in a row failed" if row >= _MOST_IN_A_ROW else "")
        return Trial(tuple(answers), self._clock.monotonic() - began, stopped if waiting else "")


def _lines(message: str) -> list[str]:
    """Return the lines of one message; fal's SDK writes a traceback as one line of JSON, the innermost call first."""
    try:
        told: object = json.loads(message) if message.startswith("{") else None
    except ValueError:
        told = None
    trace = cast("dict[str, object]", told).get("traceback") if isinstance(told, dict) else None
    if isinstance(trace, str):
        return [line for line in trace.splitlines() if line.strip()][:_TRACE_LINES]
    return [line for line in message.splitlines() if line.strip()]


def _peak(work: Mapping[str, float]) -> Peak:
    host, device = work.get("peak_memory_bytes"), work.get("peak_device_memory_bytes")
    return Peak(None if host is None else int(host), None if device is None else int(device))


def checked(trial: Trial) -> Trial:
    """Return the trial; raises TrialFailed when it was stopped by failures, with what was told most often."""
    if trial.failures and trial.stopped:
        told, times = max(trial.failures.items(), key=lambda item: item[1])
        failed = f"{sum(trial.failures.values())} of {len(trial.answers)} requests failed, {times} with {told}"
        raise TrialFailed(f"{failed}; mend the app, or give inputs that it takes by --input")
    return trial
