"""A caller of the gallery: asks, waits, fetches, and appeals, with nothing but an API key.

It decides nothing; `screenings` says what must come of each call. Everything has a time-out.
"""

import dataclasses
import json
from typing import cast

import aiohttp

from forestay.clock import Clock
from forestay.demo.gallery import PATH
from forestay.demo.platform import Ready
from forestay.demo.stage import Broken

Values = dict[str, object]
_LOOK_SECONDS = 0.1
_END_SECONDS = 90.0


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What a call was answered."""

    status: int
    body: bytes
    request_id: str = ""

    @property
    def values(self) -> Values:
        """Return the JSON object in it; empty where there is none."""
        try:
            found: object = json.loads(self.body)
        except ValueError:
            return {}
        return cast("Values", found) if isinstance(found, dict) else {}

    @property
    def violation(self) -> tuple[str, str]:
        """Return category and field of a content refusal; empty where it is none."""
        details = self.values.get("detail")
        for detail in cast("list[Values]", details) if isinstance(details, list) else []:
            if detail.get("type") == "content_policy_violation":
                told = cast("Values", detail.get("ctx") or {})
                return str(told.get("category")), ".".join(str(part) for part in cast("list[object]", detail["loc"]))
        return "", ""


class Visitor:
    """One caller."""

    def __init__(self, session: aiohttp.ClientSession, clock: Clock) -> None:
        self._session = session
        self._clock = clock

    async def call(self, method: str, path: str, body: Values | None = None) -> Answer:
        """Make one call."""
        async with self._session.request(method, path, json=body) as answer:
            return Answer(answer.status, await answer.read(), answer.headers.get("x-fal-request-id", ""))

    async def submit(self, **body: object) -> Answer:
        """Submit a request to the queue."""
        return await self.call("POST", PATH, body)

    async def result(self, request_id: str) -> Answer:
        """Wait for the end of a request and return its result; Broken when there is no end."""
        one, deadline = f"{PATH}/requests/{request_id}", self._clock.monotonic() + _END_SECONDS
        while (await self.call("GET", f"{one}/status")).values.get("status") != "COMPLETED":
            if self._clock.monotonic() > deadline:
                raise Broken(f"request {request_id} did not end within {_END_SECONDS:.0f} s")
            await self._clock.sleep(_LOOK_SECONDS)
        return await self.call("GET", one)

    async def picture(self, answer: Answer) -> bytes:
        """Fetch the picture of an answer; Broken when there is none."""
        image = answer.values.get("image")
        if answer.status != 200 or not isinstance(image, dict):
            raise Broken(f"no picture: {answer.status} {answer.body[:200]!r}")
        async with self._session.get(str(cast("Values", image)["url"])) as found:
            if found.status != 200:
                raise Broken(f"the picture's address answered {found.status}")
            return await found.read()


def session_of(ready: Ready, authorization: str, seconds: float = 30.0) -> aiohttp.ClientSession:
    """Return a session for a caller or a person."""
    timeout = aiohttp.ClientTimeout(total=seconds)
    return aiohttp.ClientSession(ready.url, headers={"Authorization": authorization}, timeout=timeout)
