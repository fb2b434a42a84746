"""Detectors that others run: the provider contract over HTTP, and whoever speaks it in another form.

Decides what a provider's answer may be (one result for each content, numbers in [0, 1], at most a megabyte) and what
trouble each failure is: refused or broken is a crash, slow is a time-out, 429 and 503 are overload, 413 is unreadable.
A provider is asked from the process that needs its answer, not from the judge: see docs/explanation/judges.md. Called
by the gateway and the worker through `routed`.
"""

import asyncio
import base64
import hashlib
import io
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import aiohttp
import msgspec

from forestay.clock import Clock
from forestay.safety.classifiers.provider_file import Provider
from forestay.safety.model import (
    Content,
    DetectorInfo,
    Outcome,
    Picture,
    Scores,
    Sound,
    Text,
    Trouble,
    Unscored,
    checked,
)
from forestay.safety.taxonomy import Category, Modality
from forestay.telemetry.logs import logger

VERSION = 1
MAX_ANSWER_BYTES = 1024 * 1024
MAX_IN_FLIGHT = 32  # batches; beyond, a check is an overload
_JPEG_QUALITY = 92
TROUBLES: Mapping[int, Trouble] = {
    413: Trouble.UNREADABLE,
    429: Trouble.OVERLOAD,
    503: Trouble.OVERLOAD,
    504: Trouble.TIMEOUT,
}
_LOG = logger("safety")


class Wire(Protocol):
    """How a provider is spoken to."""

    def batches(self, provider: Provider, contents: Sequence[Content]) -> Iterator[Sequence[Content]]:
        """Yield contents, in their order, as requests hold them."""
        ...

    def request(self, provider: Provider, contents: Sequence[Content], images: Sequence[str]) -> dict[str, object]:
        """Return the body of a request; `images` holds a data: URI for each picture, empty texts for texts."""
        ...

    def results(self, provider: Provider, contents: Sequence[Content], body: bytes) -> list[dict[Category, float]]:
        """Return scores for each content; ValueError for anything that is not an answer to it."""
        ...


class _Result(msgspec.Struct):
    scores: dict[Category, float]


class _Answer(msgspec.Struct):
    version: int
    results: list[_Result]


class ForestayWire:
    """The contract of our own; see docs/howto/plug-in-a-classifier.md."""

    def batches(self, provider: Provider, contents: Sequence[Content]) -> Iterator[Sequence[Content]]:
        """Yield as many at a time as the provider takes."""
        for start in range(0, len(contents), provider.batch):
            yield contents[start : start + provider.batch]

    def request(self, provider: Provider, contents: Sequence[Content], images: Sequence[str]) -> dict[str, object]:
        """Return version, detector and contents."""
        parts: list[dict[str, str]] = [
            {"where": content.where, "kind": "text", "text": content.text}
            if isinstance(content, Text)
            else {"where": content.where, "kind": "image", "image": image}
            for content, image in zip(contents, images, strict=True)
        ]
        return {"version": VERSION, "detector": provider.detector_id, "contents": parts}

    def results(self, provider: Provider, contents: Sequence[Content], body: bytes) -> list[dict[Category, float]]:
        """Read the results."""
        del provider
        answer = msgspec.json.decode(body, type=_Answer)
        if answer.version != VERSION or len(answer.results) != len(contents):
            raise ValueError("another version, or not one result for each content")
        return [result.scores for result in answer.results]


class ProviderDetector:
    """One detector behind HTTP, as `Detectors`; `run` its session by `open` and `close`."""

    def __init__(self, provider: Provider, wire: Wire, clock: Clock) -> None:
        self._provider = provider
        self._wire = wire
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._in_flight = 0

    @property
    def info(self) -> DetectorInfo:
        """Return what its owner declares of it; the digest is of the declaration, since weights are out of sight."""
        provider = self._provider
        said = f"{provider.detector_id} {provider.url} {provider.model} {sorted(provider.covers)}"
        digest = hashlib.sha256(said.encode()).hexdigest()
        return DetectorInfo(provider.detector_id, f"sha256:{digest}", provider.covers, costly=True)

    async def known(self) -> Sequence[DetectorInfo]:
        """Return its declaration; it is not asked whether it is there."""
        return [self.info]

    async def ask(self, detector_id: str, contents: Sequence[Content], within_seconds: float) -> Sequence[Outcome]:
        """Return one outcome for each piece of content; never raises for trouble, and never takes longer."""
        started = self._clock.monotonic()
        found: list[Outcome] = []
        for batch in self._wire.batches(self._provider, contents):
            left = within_seconds - (self._clock.monotonic() - started)
            found += await self._batch(detector_id, batch, min(left, self._provider.timeout_seconds))
        return found

    async def close(self) -> None:
        """Hang up."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _batch(self, detector_id: str, contents: Sequence[Content], within_seconds: float) -> list[Outcome]:
        started = self._clock.monotonic()
        scores: list[dict[Category, float]] = []
        trouble: Trouble | None = None
        if not all(modality_of(content) & set(self._provider.covers) for content in contents):
            trouble = Trouble.UNREADABLE  # a picture to one who reads texts, or the other way round
        elif self._in_flight >= MAX_IN_FLIGHT:
            trouble = Trouble.OVERLOAD
        else:
            self._in_flight += 1
            try:
                async with asyncio.timeout(max(0.0, within_seconds)):
                    scores, trouble = await self._post(contents)
            except TimeoutError:
                trouble = Trouble.TIMEOUT
            except (aiohttp.ClientError, OSError, ValueError) as error:
                _LOG.warning("safety.provider_failed", detector=detector_id, reason=type(error).__name__)
                trouble = Trouble.CRASH
            finally:
                self._in_flight -= 1
        seconds = self._clock.monotonic() - started
        if trouble is not None:
            return [Unscored(detector_id, content.where, trouble, seconds) for content in contents]
        return [
            checked(Scores(detector_id, content.where, found, seconds))
            for content, found in zip(contents, scores, strict=True)
        ]

    async def _post(self, contents: Sequence[Content]) -> tuple[list[dict[Category, float]], Trouble | None]:
        """Return scores, or the trouble that the status stands for."""
        provider = self._provider
        body, headers = await asyncio.to_thread(self._prepared, contents)
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=provider.timeout_seconds), cookie_jar=aiohttp.DummyCookieJar()
            )
        async with self._session.post(provider.url, data=body, headers=headers, allow_redirects=False) as response:
            if response.status != 200:
                return [], TROUBLES.get(response.status, Trouble.CRASH)
            answer = await bounded(response)
        return self._wire.results(provider, contents, answer), None

    def _prepared(self, contents: Sequence[Content]) -> tuple[bytes, dict[str, str]]:
        """Write the request, in a thread: pictures are coded, the secret is read anew, so that it can be changed."""
        images = [data_uri(content) if isinstance(content, Picture) else "" for content in contents]
        body = json.dumps(self._wire.request(self._provider, contents, images)).encode()
        headers = {"content-type": "application/json"}
        if self._provider.secret_file:
            secret = pathlib.Path(self._provider.secret_file).read_text(encoding="utf-8").strip()
            headers["authorization"] = f"Bearer {secret}"
        return body, headers


def modality_of(content: Content) -> frozenset[Modality]:
    """Return what a piece of content may be part of: sound is judged by its text, films by their frames."""
    match content:
        case Text():
            return frozenset({Modality.TEXT, Modality.AUDIO})
        case Picture():
            return frozenset({Modality.IMAGE, Modality.VIDEO})
        case Sound():
            return frozenset()  # a transcriber hears it, no provider does


def data_uri(picture: Picture) -> str:
    """Return a picture as a data: URI of JPEG."""
    from PIL import Image  # noqa: PLC0415 - only where a provider looks at pictures

    made = io.BytesIO()
    image = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
    image.save(made, "JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(made.getvalue()).decode()}"


async def bounded(response: aiohttp.ClientResponse) -> bytes:
    """Return an answer's body; ValueError beyond a megabyte."""
    body = await response.content.read(MAX_ANSWER_BYTES + 1)
    while not response.content.at_eof() and len(body) <= MAX_ANSWER_BYTES:
        body += await response.content.read(MAX_ANSWER_BYTES + 1 - len(body))
    if len(body) > MAX_ANSWER_BYTES:
        raise ValueError("the answer is larger than a megabyte")
    return body


def detectors_of(providers: Sequence[Provider], clock: Clock) -> dict[str, ProviderDetector]:
    """Return a detector for each provider, by its id."""
    from forestay.safety.classifiers.openai_moderation import OpenAiModeration  # noqa: PLC0415 - imports us in turn

    wires: Mapping[str, Wire] = {"forestay": ForestayWire(), "openai": OpenAiModeration()}
    return {one.detector_id: ProviderDetector(one, wires[one.wire], clock) for one in providers}
