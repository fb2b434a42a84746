"""Two tenants who ask for pictures, films and sounds, with nothing but their keys.

It decides nothing: `faulting` says what must come of what they ask. Everything has a time-out.
"""

import asyncio
import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import cast

import aiohttp

from forestay.clock import Clock
from forestay.demo.stage import Broken

Values = dict[str, object]
LOOK_SECONDS = 0.15
END_SECONDS = 120.0
AT_ONCE = 6


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """How a request ended."""

    request_id: str
    status: int
    headers: Mapping[str, str]  # lower-case names
    values: Values

    @property
    def urls(self) -> list[str]:
        """Return the addresses of its files."""
        named = ("images", "video", "audio", "image")
        found = [self.values[name] for name in named if name in self.values]
        items = [item for one in found for item in (cast("list[Values]", one) if isinstance(one, list) else [one])]
        return [str(cast("Values", item)["url"]) for item in items]


class Tenant:
    """One of them."""

    def __init__(self, session: aiohttp.ClientSession, clock: Clock) -> None:
        self.answers: Counter[tuple[str, int]] = Counter()  # its own ledger: a model and a status, and how often
        self._session = session
        self._clock = clock

    async def ask(self, model: str, body: Mapping[str, object]) -> Ended:
        """Submit a request and wait for its end; Broken when there is none."""
        async with self._session.post(f"/queue/{model}", json=body) as answer:
            said = cast("Values", await answer.json())
            if answer.status != 200:
                raise Broken(f"a request of {model} was answered {answer.status}: {said}"[:300])
        one, deadline = f"/queue/{model}/requests/{said['request_id']}", self._clock.monotonic() + END_SECONDS
        while (await self._get(f"{one}/status")).values.get("status") != "COMPLETED":
            if self._clock.monotonic() > deadline:
                raise Broken(f"request {said['request_id']} of {model} did not end within {END_SECONDS:.0f} s")
            await self._clock.sleep(LOOK_SECONDS)
        ended = dataclasses.replace(await self._get(one), request_id=str(said["request_id"]))
        self.answers[model, ended.status] += 1
        return ended

    async def run(self, model: str, body: Mapping[str, object]) -> Ended:
        """Call a model directly: nothing is tried again."""
        async with self._session.post(f"/run/{model}", json=body) as answer:
            self.answers[model, answer.status] += 1
            return await _ended(answer)

    async def file(self, url: str) -> bytes:
        """Fetch a file."""
        async with self._session.get(url) as answer:
            if answer.status != 200:
                raise Broken(f"a file's address answered {answer.status}")
            return await answer.read()

    async def _get(self, path: str) -> Ended:
        async with self._session.get(path) as answer:
            return await _ended(answer)


async def _ended(answer: aiohttp.ClientResponse) -> Ended:
    body = await answer.read()
    try:
        found: object = json.loads(body)
    except ValueError:
        found = None
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return Ended("", answer.status, headers, cast("Values", found) if isinstance(found, dict) else {})


async def ask_all(tenants: Sequence[Tenant], model: str, bodies: Sequence[Mapping[str, object]]) -> list[Ended]:
    """Ask for everything, the tenants in turn, a few at a time; Broken unless all of it succeeds."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, body: Mapping[str, object]) -> Ended:
        async with gate:
            return await tenants[number % len(tenants)].ask(model, body)

    ended = list(await asyncio.gather(*(one(number, body) for number, body in enumerate(bodies))))
    bad = [item for item in ended if item.status != 200]
    if bad:
        raise Broken(f"{len(bad)} of {len(ended)} requests of {model} failed: {bad[0].values}"[:300])
    return ended
