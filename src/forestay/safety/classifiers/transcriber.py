"""Whoever writes down what is said in sound, over HTTP: the contract, and what each failure is.

Decides what an answer may be (JSON with a version and a text, at most a megabyte) and what trouble each failure is, as
for providers. Nothing is tried twice. What was said is neither noted nor logged. The adapter of `media/sound`, asked by
`spoken_text` in the process that needs the answer, as providers are: the judge needs no network and no secret.
"""

import asyncio
import pathlib

import aiohttp
import msgspec

from forestay.clock import Clock
from forestay.safety.classifiers.provider import TROUBLES, ProviderDetector, bounded, detectors_of
from forestay.safety.classifiers.provider_file import TranscriberAt, read_providers, read_transcriber
from forestay.safety.classifiers.spoken_text import DETECTOR_ID, SpokenText
from forestay.safety.media.sound import Said
from forestay.safety.model import Detectors, Sound, Trouble
from forestay.telemetry.logs import logger

VERSION = 1
VERSION_HEADER = "x-forestay-transcript"
MAX_IN_FLIGHT = 8  # recordings; beyond, a check is an overload
_LOG = logger("safety")


class _Answer(msgspec.Struct):
    version: int
    text: str


class HttpTranscriber:
    """The contract of our own; see docs/howto/plug-in-a-classifier.md."""

    def __init__(self, at: TranscriberAt) -> None:
        self._at = at
        self._session: aiohttp.ClientSession | None = None
        self._in_flight = 0

    async def transcribe(self, sound: Sound, within_seconds: float) -> Said | Trouble:
        """Return what is said, or why that is not known."""
        if len(sound.data) > self._at.max_bytes:
            return Trouble.UNREADABLE
        if self._in_flight >= MAX_IN_FLIGHT:
            return Trouble.OVERLOAD
        self._in_flight += 1
        try:
            async with asyncio.timeout(max(0.0, min(within_seconds, self._at.timeout_seconds))):
                return await self._post(sound)
        except TimeoutError:
            return Trouble.TIMEOUT
        except (aiohttp.ClientError, OSError, ValueError) as error:
            _LOG.warning("safety.transcriber_failed", reason=type(error).__name__)
            return Trouble.CRASH
        finally:
            self._in_flight -= 1

    async def close(self) -> None:
        """Hang up."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _post(self, sound: Sound) -> Said | Trouble:
        headers = {"content-type": sound.content_type, VERSION_HEADER: str(VERSION)}
        if self._at.secret_file:  # read anew, so that it can be changed
            secret = await asyncio.to_thread(pathlib.Path(self._at.secret_file).read_text, encoding="utf-8")
            headers["authorization"] = f"Bearer {secret.strip()}"
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._at.timeout_seconds), cookie_jar=aiohttp.DummyCookieJar()
            )
        url = self._at.url
        async with self._session.post(url, data=sound.data, headers=headers, allow_redirects=False) as response:
            if response.status != 200:
                return TROUBLES.get(response.status, Trouble.CRASH)
            answer = msgspec.json.decode(await bounded(response), type=_Answer)
        if answer.version != VERSION:
            raise ValueError("another version")
        return Said(answer.text)


def behind_http(path: str, texts: Detectors | None, clock: Clock) -> dict[str, ProviderDetector | SpokenText]:
    """Return by its id every detector that a file names; `texts` scores what is said, without it sound is not heard."""
    found: dict[str, ProviderDetector | SpokenText] = {**detectors_of(read_providers(path), clock)}
    at = read_transcriber(path)
    if at is not None and texts is not None:
        found[DETECTOR_ID] = SpokenText(HttpTranscriber(at), at.url, texts, clock)
    return found
