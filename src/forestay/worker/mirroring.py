"""Offers what this worker has answered to rollouts whose shadow mirrors requests.

It decides what may be copied at all: answers of the control while a candidate of its model is held loaded, that their
callers let us keep, of a size that is cheap to keep. Which of them are mirrored is `rollouts/shadow`'s. It runs after
the answer is stored or sent and never makes anybody wait: what does not fit into a short queue, or meets a database
that is away, is dropped. What a direct call means (its size, the last event of its stream) is read here as well, after
its caller has gone on. Called by `attempt` and `direct`.
"""

import asyncio
import dataclasses
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import cast

from forestay.capacity.features import input_schema, reader_of
from forestay.clock import Clock
from forestay.errors import Unavailable
from forestay.fleet.model import Revision
from forestay.ids import ModelId, RevisionId
from forestay.queue.model import Answer, AttemptReport, Lease, Options
from forestay.rollouts.shadow.model import Offered
from forestay.rollouts.shadow.store import OfferStore
from forestay.rollouts.slices import size_of
from forestay.telemetry.logs import logger
from forestay.worker.answer_files import parsed_or_none
from forestay.worker.events import data_of, whole_events
from forestay.worker.replica import Replica, Running

MOST_BYTES = 256 * 1024  # of input and of answer, each
WAITING = 16
PAUSE_SECONDS = 1.0  # after a database that is away
_EVENTS = "text/event-stream"
log = logger("worker")
Send = Callable[[MutableMapping[str, object]], Awaitable[None]]


class AnswerCopy:
    """Sends an ASGI answer on as it comes, and keeps a copy of it while that is small."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._status, self._kind = 0, ""
        self._kept: bytearray | None = bytearray()
        self._ended = False

    async def send(self, message: MutableMapping[str, object]) -> None:
        """Send it on first."""
        await self._send(message)
        if message["type"] == "http.response.start":
            self._status = cast("int", message["status"])
            headers = cast("list[tuple[bytes, bytes]]", message["headers"])
            self._kind = next((value.decode("latin-1") for name, value in headers if name == b"content-type"), "")
        elif message["type"] == "http.response.body" and self._kept is not None:
            self._kept += cast("bytes", message.get("body") or b"")
            self._ended = not message.get("more_body", False)
            if len(self._kept) > MOST_BYTES:
                self._kept = None

    def answer(self) -> Answer | None:
        """Return the answer; None unless it was a success that went out whole and is small."""
        if self._status != 200 or not self._ended or not self._kept:
            return None
        return Answer(200, {"content-type": self._kind}, bytes(self._kept))


@dataclasses.dataclass(frozen=True, slots=True)
class DirectAnswer:
    """What a direct call was and what it was answered."""

    running: Running
    revision: Revision
    body: bytes
    answer: Answer
    device_seconds: float
    at: dt.datetime


class Mirror:
    """One worker's offers."""

    def __init__(self, offers: OfferStore, held: Callable[[], Mapping[ModelId, RevisionId]], clock: Clock) -> None:
        self._offers = offers
        self._held = held
        self._clock = clock
        self._waiting: asyncio.Queue[Offered | DirectAnswer] = asyncio.Queue(WAITING)

    def wants(self, replica: Replica, running: Running, body: bytes) -> bool:
        """Tell whether the answer of a direct call may be mirrored, before it is there."""
        revision = replica.revision
        candidate = self._held().get(revision.model_id)
        known = candidate is not None and candidate != revision.revision_id
        return known and may_keep(running.options, body) and callable_path(revision, running.endpoint) is not None

    def offer_direct(self, replica: Replica, running: Running, body: bytes, copy: AnswerCopy, seconds: float) -> None:
        """Offer the answer of a direct call that was just sent; `seconds` it took on the replica."""
        answer = copy.answer()
        if answer is not None and not self._waiting.full():
            cost = seconds * replica.revision.spec.resources.devices
            self._waiting.put_nowait(DirectAnswer(running, replica.revision, body, answer, cost, self._clock.now()))

    def offer(self, lease: Lease, answer: Answer, report: AttemptReport) -> None:
        """Offer an answer that was just stored, if it may be mirrored."""
        candidate = self._held().get(lease.model_id)
        if candidate is None or candidate == lease.revision_id or not may_mirror(lease, answer):
            return
        offered = Offered(
            request_id=lease.request_id,
            model_id=lease.model_id,
            revision_id=lease.revision_id,
            endpoint=lease.endpoint,
            stratum=stratum_of(lease),
            body=lease.body,
            answer=answer.body,
            device_seconds=report.device_seconds,
            at=report.finished_at,
        )
        if not self._waiting.full():
            self._waiting.put_nowait(offered)

    async def run(self) -> None:
        """Keep offers until cancelled."""
        while True:
            taken = await self._waiting.get()
            offered = await offered_of(taken) if isinstance(taken, DirectAnswer) else taken
            if offered is None:
                continue
            try:
                await self._offers.offer(offered)
            except Unavailable as error:
                log.warning("mirror.not_offered", request=str(offered.request_id), reason=str(error))
                await self._clock.sleep(PAUSE_SECONDS)


def may_mirror(lease: Lease, answer: Answer) -> bool:
    """Tell whether a copy may be kept: not of what its caller wants forgotten, or keeps in a bucket of their own."""
    return may_keep(lease.options, lease.body) and len(answer.body) <= MOST_BYTES and bool(answer.body)


def may_keep(options: Options, body: bytes) -> bool:
    """Tell whether a request may be kept for a while, by what its caller wants and how large it is."""
    fenced = options.shadow or not options.store_io or options.upload_policy is not None
    return not fenced and len(body) <= MOST_BYTES


def stratum_of(lease: Lease) -> str:
    """Return the request's endpoint and, where its input says so, the order of its size."""
    return _stratum(lease.endpoint, lease.options.features.get("pixels"))


def callable_path(revision: Revision, path: str) -> str | None:
    """Return the endpoint that a copy of a direct call is sent to through the queue; None where there is none.

    That of a stream is the call of the same input, as fal's apps have it: `/stream` beside `/`.
    """
    kinds = {item.path: item.kind for item in revision.spec.endpoints}
    if kinds.get(path, "call") == "call" and not path.endswith("/stream"):
        return path
    base = path.removesuffix("/stream") or "/"
    return base if base != path and kinds.get(base) == "call" else None


async def offered_of(made: DirectAnswer) -> Offered | None:
    """Return a direct call as an offer; None where its input or its answer is nothing that can be asked again."""
    endpoint = callable_path(made.revision, made.running.endpoint)
    asked = parsed_or_none(made.body)
    answer = made.answer.body
    if made.answer.headers.get("content-type", "").startswith(_EVENTS):
        answer = await last_event(answer)
    if endpoint is None or not isinstance(asked, dict) or not isinstance(parsed_or_none(answer), dict):
        return None
    revision, document = made.revision, made.revision.openapi or {}
    reader = reader_of(input_schema(document, endpoint), document, revision.spec.capacity.scales_with)
    pixels = reader.read(cast("dict[str, object]", asked)).get("pixels")
    return Offered(
        request_id=made.running.request_id,
        model_id=revision.model_id,
        revision_id=revision.revision_id,
        endpoint=endpoint,
        stratum=_stratum(endpoint, pixels),
        body=made.body,
        answer=answer,
        device_seconds=made.device_seconds,
        at=made.at,
    )


async def last_event(stream: bytes) -> bytes:
    """Return the data of the last event of a stream that has any: what the model made in the end."""

    async def pieces() -> AsyncIterator[bytes]:
        yield stream

    found = [data for data in [data_of(event) async for event in whole_events(pieces())] if data is not None]
    return found[-1] if found else b""


def _stratum(endpoint: str, pixels: float | None) -> str:
    size = size_of(pixels)
    return f"{endpoint} {size}" if size else endpoint
