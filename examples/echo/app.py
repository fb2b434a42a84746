"""Echo: a tiny `fal.App` without a network inside, for tests, demonstrations and fire drills.

It answers with what it was given, can sleep, write log lines, return a small picture, stream, talk realtime, and
fail on request in each of the ways in which real model servers fail. It starts in about a second.
"""

# ruff: noqa: PLC0415 - heavy imports belong in setup() and behind it: the file itself is read by hosts without torch

import asyncio
import json
import os
import secrets
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import fal
from fal.exceptions import AppException, FieldException, RequestCancelledException
from fal.toolkit import Image
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

FailureName = Literal[
    "", "422", "500", "503", "504", "content", "crash", "hang", "triton", "oom", "exit", "garbage"
]  # fmt: skip
# Given as an argument, because the SDK shows `str(exception)`, which is empty for the exception's own default.
CANCELLED = "Request cancelled by the client."
CHUNK_BYTES = 64 * 1024 * 1024
# Without a limit set from outside, a drill on a laptop would take the laptop along.
OOM_LIMIT_BYTES = int(os.environ.get("ECHO_OOM_LIMIT_MB", "4096")) * 1024 * 1024


class EchoInput(BaseModel):
    """What to say, how slowly, and whether to fail."""

    text: str = Field("hello", max_length=100_000, description="Comes back unchanged.", examples=["hello"])
    sleep_seconds: float = Field(0.0, ge=0.0, le=30.0, description="How long to sleep before answering.")
    fail: FailureName = Field("", description="How to fail after the sleep; empty for not at all.")
    log_lines: int = Field(0, ge=0, le=10_000, description="Lines to log, by turns to stdout and stderr.")
    image: bool = Field(default=False, description="Whether to return a small picture as well.")


class EchoOutput(BaseModel):
    """What was said."""

    text: str = Field(description="The text that was given.")
    slept_seconds: float = Field(description="How long the request slept.")
    request_id: str | None = Field(None, description="The platform's id of this request, where there is one.")
    image: Image | None = Field(None, description="A small picture, if asked for.")


class StreamInput(BaseModel):
    """How many events to send."""

    text: str = Field("hello", max_length=10_000, description="Repeated in each event.")
    events: int = Field(5, ge=1, le=1000, description="Events to send.")
    interval_seconds: float = Field(0.0, ge=0.0, le=5.0, description="Pause before each event.")


class RealtimeInput(BaseModel):
    """One message of a realtime session."""

    text: str = Field("hello", description="Comes back unchanged.")


class RealtimeOutput(BaseModel):
    """The answer to one realtime message."""

    text: str = Field(description="The text that was given.")
    messages_so_far: int = Field(description="Realtime messages answered since the app started.")


class CancelOutput(BaseModel):
    """Whether there was anything to cancel."""

    cancelled: bool = Field(description="True when a running request had this id.")


class Echo(fal.App, name="echo", keep_alive=60):
    """Says what you say, or fails the way you ask."""

    machine_type = "XS"
    requirements = ["pillow"]  # noqa: RUF012 - the SDK declares it so
    max_multiplexing = 4
    request_timeout = 60
    startup_timeout = 30
    termination_grace_period_seconds = 5

    def setup(self) -> None:
        """Prepare the register of running requests."""
        self.cancel_events: dict[str, threading.Event] = {}
        self.realtime_messages = 0
        print("echo ready", flush=True)

    def handle_exit(self) -> None:
        """Say that the platform asked for the end."""
        print("echo handle_exit", flush=True)

    def teardown(self) -> None:
        """Say that the end has come."""
        print("echo teardown", flush=True)

    def provide_hints(self) -> list[str]:
        """Tell the router what is warm here."""
        return ["echo"]

    @fal.endpoint("/")
    def echo(self, input: EchoInput) -> EchoOutput:  # noqa: A002 - fal's own convention
        """Echo, after sleeping, logging and failing as asked."""
        with self.request("/") as cancelled:
            write_log_lines(input.log_lines)
            # Waiting on the event instead of sleeping is what makes the sleep cancellable.
            if cancelled.wait(timeout=input.sleep_seconds):
                raise RequestCancelledException(CANCELLED)
            if input.fail:
                FAILURES[input.fail]()
            picture = Image.from_pil(draw_picture(input.text), format="png") if input.image else None
            return EchoOutput(
                text=input.text, slept_seconds=input.sleep_seconds, request_id=self.platform_id(), image=picture
            )

    @fal.endpoint("/stream")
    async def stream(self, input: StreamInput) -> StreamingResponse:  # noqa: A002
        """Send the asked number of events, each a JSON object."""
        events = self.stream_events(input, self.platform_id() or secrets.token_hex(8))
        return StreamingResponse(events, media_type="text/event-stream")

    @fal.realtime("/realtime")
    async def realtime(self, input: RealtimeInput) -> RealtimeOutput:  # noqa: A002
        """Echo one msgpack message."""
        self.realtime_messages += 1
        return RealtimeOutput(text=input.text, messages_so_far=self.realtime_messages)

    @fal.endpoint("/cancel")
    async def cancel_echo(self) -> CancelOutput:
        """Stop the request to `/` whose id this call carries."""
        return self.cancel()

    @fal.endpoint("/stream/cancel")
    async def cancel_stream(self) -> CancelOutput:
        """Stop the request to `/stream` whose id this call carries."""
        return self.cancel()

    def platform_id(self) -> str | None:
        """Return the platform's id of the request being handled."""
        context = self.current_request
        return context.request_id if context else None

    def cancel(self) -> CancelOutput:
        """Wake the request that has the same `x-fal-request-id`."""
        event = self.cancel_events.get(self.platform_id() or "")
        if event is not None:
            event.set()
        return CancelOutput(cancelled=event is not None)

    @contextmanager
    def request(self, path: str, request_id: str | None = None) -> Iterator[threading.Event]:
        """Make a request cancellable while it runs and print one line about it."""
        request_id = request_id or self.platform_id() or secrets.token_hex(8)
        cancelled = self.cancel_events.setdefault(request_id, threading.Event())
        outcome = "failed"
        try:
            yield cancelled
            outcome = "done"
        except RequestCancelledException:
            outcome = "cancelled"
            raise
        finally:
            self.cancel_events.pop(request_id, None)
            print(f"echo path={path} request_id={request_id} outcome={outcome}", flush=True)

    async def stream_events(self, asked: StreamInput, request_id: str) -> AsyncIterator[str]:
        """Yield events, and a last one that says whether the stream is whole."""
        with self.request("/stream", request_id) as cancelled:
            for number in range(1, asked.events + 1):
                await asyncio.sleep(asked.interval_seconds)
                if cancelled.is_set():
                    yield as_event({"error": {"status": 499, "detail": CANCELLED}})
                    return
                last = number == asked.events
                yield as_event({"number": number, "of": asked.events, "text": asked.text, "last": last})


def as_event(content: dict[str, Any]) -> str:
    """Return one server-sent event."""
    return f"data: {json.dumps(content)}\n\n"


def write_log_lines(count: int) -> None:
    """Write numbered lines, odd ones to stdout and even ones to stderr."""
    for number in range(1, count + 1):
        print(f"echo line {number}/{count}", file=sys.stdout if number % 2 else sys.stderr, flush=True)


def draw_picture(text: str) -> Any:
    """Return a 64x64 picture of bars whose heights come from the text."""
    from PIL import Image as PILImage
    from PIL import ImageDraw

    picture = PILImage.new("RGB", (64, 64), (24, 26, 36))
    pen = ImageDraw.Draw(picture)
    for index, byte in enumerate((text or "-").encode()[:16]):
        pen.rectangle((index * 4, 63 - byte // 4, index * 4 + 2, 63), fill=(62, 164, 236))
    return picture


def fail_with_field() -> None:
    """Refuse the input as a real app refuses a bad value."""
    raise FieldException("text", "refused on request")


def fail_with_content() -> None:
    """Refuse the input for what it says, in fal's own words for that."""
    raise FieldException("text", "refused for its content, on request", type="content_policy_violation")


def fail_with_bug() -> None:
    """Raise what a programming mistake raises."""
    message = "failing on request"
    raise RuntimeError(message)


def fail_with_triton() -> None:
    """Raise an ordinary mistake whose words make the SDK take it for a broken GPU."""
    message = "cannot draw Triton, the moon of Neptune"
    raise ValueError(message)


def fail_with_503() -> None:
    """Answer that this runner is unfit."""
    raise AppException("unavailable on request", 503)


def fail_with_504() -> None:
    """Answer that something behind this runner was too slow."""
    raise AppException("timed out on request", 504)


def fail_by_crash() -> None:
    """Die the way native code dies."""
    os.kill(os.getpid(), signal.SIGSEGV)


def fail_by_exit() -> None:
    """End the process politely in the middle of a request."""
    os._exit(0)


def fail_by_hang() -> None:
    """Never answer, and do not hear cancellation either."""
    threading.Event().wait()


def fail_by_memory() -> None:
    """Fill memory, page by page, until killed or refused, or until `ECHO_OOM_LIMIT_MB` is full."""
    held: list[bytes] = []
    while len(held) * CHUNK_BYTES < OOM_LIMIT_BYTES:
        held.append(b"\x01" * (CHUNK_BYTES - len(held)))
    raise MemoryError


def fail_with_garbage() -> None:
    """Write bytes that are no text to stdout, as some native libraries do, and then answer as usual."""
    sys.stdout.flush()
    sys.stdout.buffer.write(bytes(range(128, 256)) * 8 + b"\x00\xff\xfe\n")
    sys.stdout.buffer.flush()


FAILURES: dict[str, Callable[[], None]] = {
    "422": fail_with_field,
    "500": fail_with_bug,
    "503": fail_with_503,
    "504": fail_with_504,
    "content": fail_with_content,
    "crash": fail_by_crash,
    "hang": fail_by_hang,
    "triton": fail_with_triton,
    "oom": fail_by_memory,
    "exit": fail_by_exit,
    "garbage": fail_with_garbage,
}
