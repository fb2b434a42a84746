"""Brings the files that a spec declares as inputs to the model, clean, as data: URIs, so that it needs no network.

Every file takes one way, wherever it comes from (a URL through the guarded fetcher, our own media from the store, a
data: URI): into a scratch file under a cap, through the limited child that opens it (weights: through the check of
weights), and from the clean copy into the body. A file that cannot be had or opened is the caller's error, a 422 that
names the field. Called by `worker/attempt.py` and `worker/direct.py`.
"""

import asyncio
import base64
import binascii
import dataclasses
import json
import pathlib
import tempfile
import urllib.parse
from collections.abc import Callable, Sequence
from typing import IO, Protocol, cast

from forestay.clock import Clock
from forestay.errors import ForestayError, UsageError
from forestay.fleet.spec import EndpointSpec
from forestay.media.decode import Clean, MediaRefused, open_scratch
from forestay.media.fetch import TooManyBytes
from forestay.media.formats import OCTET_STREAM
from forestay.media.limits import Kind
from forestay.media.store import MediaStore
from forestay.media.urls import own_media_id
from forestay.queue.model import Answer
from forestay.settings import Ingress
from forestay.telemetry.metrics import INPUT_SECONDS, INPUTS, Metrics
from forestay.worker import input_errors
from forestay.worker.input_errors import Problem
from forestay.worker.input_fields import Slot, find_slots, find_undeclared_url

AT_A_TIME = 4  # files of one request that are on their way
_SMALL_BYTES = 1024 * 1024  # up to this size encoding costs less than handing it to a thread

CheckWeights = Callable[[pathlib.Path], str | None]  # why weights may not be used, None when they may


class Fetcher(Protocol):
    """Fetches a URL that a stranger named; see `media/fetch`."""

    async def fetch_into(self, url: str, write: Callable[[bytes], object], max_bytes: int | None = None) -> int:
        """Pass the body on; a ForestayError says why not."""
        ...


class Opener(Protocol):
    """Opens media; see `media/decode`."""

    async def clean(self, source: IO[bytes], out: IO[bytes], kind: Kind | None) -> Clean:
        """Write a clean copy; MediaRefused says why not."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class InputPorts:
    """What inputs may use of the world."""

    media: MediaStore
    fetcher: Fetcher
    opener: Opener
    check_weights: CheckWeights
    folder: pathlib.Path  # for scratch files
    settings: Ingress
    clock: Clock
    metrics: Metrics


class _Unfit(Exception):
    """Ends the way of one file."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class _Room:
    """What is left of the bytes of one request."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.left = max_bytes

    def take(self, size: int) -> None:
        """Use some."""
        self.left -= size
        if self.left < 0:
            raise _Unfit(input_errors.too_many_bytes(self._max_bytes))


class Inputs:
    """Prepares bodies."""

    def __init__(self, ports: InputPorts) -> None:
        self._ports = ports
        self._settings = ports.settings

    async def prepare(self, body: bytes, endpoint: EndpointSpec) -> bytes | Answer:
        """Return the body for the model, or the 422 that the caller gets. Untouched when nothing is to be fetched."""
        strict = self._settings.refuse_undeclared_urls
        parsed = _object(body) if endpoint.media_inputs or strict else None
        if parsed is None:
            return body
        if strict and (location := find_undeclared_url(parsed, endpoint)) is not None:
            return input_errors.undeclared_url(location)
        slots = find_slots(parsed, endpoint)
        if not slots:
            # Of a field that stands there twice, the model might read the other one.
            return await asyncio.to_thread(_written, parsed) if _says_twice(body) else body
        if len(slots) > self._settings.max_files:
            slot = slots[self._settings.max_files]
            why = f"more than {self._settings.max_files} files in one request"
            return input_errors.refusal(slot.location, slot.text, input_errors.not_downloaded(why))
        return await self._fill(slots) or await asyncio.to_thread(_written, parsed)

    async def _fill(self, slots: Sequence[Slot]) -> Answer | None:
        room, gate = _Room(self._settings.max_bytes), asyncio.Semaphore(AT_A_TIME)

        async def one(slot: Slot) -> Problem | None:
            async with gate:
                return await self._replace(slot, room)

        try:
            async with asyncio.timeout(self._settings.total_seconds), asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(slot)) for slot in slots]
        except TimeoutError:
            late = input_errors.not_downloaded(f"not all files came within {self._settings.total_seconds:g} s")
            return input_errors.refusal(slots[0].location, slots[0].text, late)
        for slot, task in zip(slots, tasks, strict=True):
            if (problem := task.result()) is not None:
                return input_errors.refusal(slot.location, slot.text, problem)
        return None

    async def _replace(self, slot: Slot, room: _Room) -> Problem | None:
        """Put the clean file where its name stood; returns what is wrong with it otherwise."""
        started = self._ports.clock.monotonic()
        try:
            slot.put(await self._uri(slot, room))
        except _Unfit as error:
            self._count(slot, error.problem.type, started)
            return error.problem
        self._count(slot, "taken", started)
        return None

    def _count(self, slot: Slot, outcome: str, started: float) -> None:
        self._ports.metrics.add(INPUTS, slot.kind, outcome)
        self._ports.metrics.observe(INPUT_SECONDS, self._ports.clock.monotonic() - started, slot.kind)

    async def _uri(self, slot: Slot, room: _Room) -> str:
        if not slot.readable:
            raise _Unfit(input_errors.not_downloaded("it must be an http(s) URL or a data: URI"))
        if slot.kind == "weights":
            return await self._weights(slot, room)
        with open_scratch(self._ports.folder) as source:
            await self._bring(slot.text, source, room)
            if slot.kind == "file":
                return await _data_uri(source, OCTET_STREAM)
            with open_scratch(self._ports.folder) as out:
                try:
                    kind = None if slot.kind == "any" else slot.kind
                    clean = await self._ports.opener.clean(source, out, kind)
                except MediaRefused as error:
                    raise _Unfit(input_errors.not_opened(error, slot.kind)) from None
                return await _data_uri(out, clean.content_type)

    async def _weights(self, slot: Slot, room: _Room) -> str:
        with tempfile.NamedTemporaryFile(dir=self._ports.folder) as file:
            await self._bring(slot.text, cast("IO[bytes]", file), room)
            why = await asyncio.to_thread(self._ports.check_weights, pathlib.Path(file.name))
            if why is not None:
                raise _Unfit(input_errors.not_weights(why))
            return await _data_uri(cast("IO[bytes]", file), OCTET_STREAM)

    async def _bring(self, text: str, target: IO[bytes], room: _Room) -> None:
        """Write the bytes that `text` names to `target`."""

        def write(piece: bytes) -> None:
            room.take(len(piece))
            target.write(piece)

        try:
            await self._read(text.strip(), write, room)
            target.flush()
        except TooManyBytes as error:
            raise _Unfit(input_errors.too_many_bytes(error.max_bytes)) from None
        except UsageError as error:
            raise _Unfit(input_errors.not_downloaded(error.message)) from None
        except (ForestayError, OSError) as error:
            raise _Unfit(input_errors.not_downloaded(str(error))) from None

    async def _read(self, text: str, write: Callable[[bytes], None], room: _Room) -> None:
        if text[:5].lower() == "data:":
            if len(text) > 4 * room.left // 3 + 1_000:
                room.take(len(text))
            write(await asyncio.to_thread(_unpacked, text))
            return
        media_id = own_media_id(text)
        item = await self._ports.media.find(media_id) if media_id is not None else None
        if item is None:
            await self._ports.fetcher.fetch_into(text, write, room.left)
            return
        if item.state != "released":
            raise UsageError("url", "the file is not available")
        async for piece in self._ports.media.open(item, 0, item.size_bytes):
            write(piece)


def _object(body: bytes) -> dict[str, object] | None:
    """Parse; what is no object is refused by the model, in its own words."""
    try:
        parsed: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, object]", parsed) if isinstance(parsed, dict) else None


def _says_twice(body: bytes) -> bool:
    """Tell whether any object of the body names a field twice."""
    twice: list[bool] = []

    def look(pairs: list[tuple[str, object]]) -> None:
        twice.append(len({name for name, _ in pairs}) != len(pairs))

    json.loads(body, object_pairs_hook=look)
    return any(twice)


def _written(parsed: dict[str, object]) -> bytes:
    return json.dumps(parsed, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _unpacked(uri: str) -> bytes:
    """Return the bytes of a data: URI (RFC 2397); missing padding is forgiven, as browsers do."""
    head, comma, payload = uri[5:].partition(",")
    if not comma:
        raise UsageError("url", "the data: URI holds no comma")
    raw = urllib.parse.unquote_to_bytes(payload)
    if not head.rstrip().lower().endswith(";base64"):
        return raw
    packed = b"".join(raw.split()).rstrip(b"=")
    try:
        return binascii.a2b_base64(packed + b"=" * (-len(packed) % 4), strict_mode=True)
    except binascii.Error as error:
        raise UsageError("url", f"the data: URI is not valid base64: {error}") from None


async def _data_uri(file: IO[bytes], content_type: str) -> str:
    file.seek(0, 2)
    if file.tell() <= _SMALL_BYTES:
        return _encoded(file, content_type)
    return await asyncio.to_thread(_encoded, file, content_type)


def _encoded(file: IO[bytes], content_type: str) -> str:
    file.seek(0)
    return f"data:{content_type};base64,{base64.b64encode(file.read()).decode('ascii')}"
