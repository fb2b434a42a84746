"""Callers that never stop asking for pictures while revisions come and go, and the ledger of what they were answered.

The ledger is the caller's own: a request is in it from the moment it is asked, and lost unless an answer came. It
judges nothing; `shipping` does. Everything has a time-out.
"""

import asyncio
import dataclasses
import enum
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import cast

import aiohttp

from forestay.clock import Clock
from forestay.demo.revisions import MODEL

CALLERS = 3
SIDES = (64, 128, 256)  # of a picture, in pixels
GENTLE_PAUSE_SECONDS = 0.6  # leaves replicas idle, which is when copies for a shadow may run
_STEPS = 2
_POLL_SECONDS = 0.1
_END_SECONDS = 90.0
_DIGITS = ("one", "two", "three", "four", "five", "six", "seven")
_COLOURS = ("red", "green", "blue")
Values = dict[str, object]


class Pace(enum.StrEnum):
    """How much is asked for."""

    IDLE = "idle"
    GENTLE = "gentle"  # one caller, by the queue, with a pause
    BUSY = "busy"  # all callers; all but one call directly


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One request as its caller saw it; `status` 0: no answer came."""

    number: int
    request_id: str = ""
    status: int = 0
    trouble: str = ""


class Ledger:
    """Every request that was asked, by its number."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}

    def ask(self) -> int:
        """Note a request before it is sent, and return its number."""
        number = len(self.entries)
        self.entries[number] = Entry(number)
        return number

    def note(self, number: int, request_id: str = "", status: int = 0, trouble: str = "") -> None:
        """Note what its caller has seen of it since."""
        known = self.entries[number]
        self.entries[number] = Entry(number, request_id or known.request_id, status, trouble)

    def since(self, number: int) -> Sequence[Entry]:
        """Return the requests from this number on."""
        return [entry for entry in self.entries.values() if entry.number >= number]

    def lost(self, errors: frozenset[int] = frozenset()) -> Sequence[Entry]:
        """Return the requests that brought neither a picture nor one of these `errors` of the model."""
        return [entry for entry in self.entries.values() if entry.status != 200 and entry.status not in errors]

    def told(self) -> str:
        """Say how many were answered how."""
        counts = Counter(entry.status for entry in self.entries.values())
        answered = ", ".join(f"{count:,} with {status}" for status, count in sorted(counts.items()) if status)
        return f"{len(self.entries):,} asked, {len(self.entries) - counts[0]:,} answered: {answered or 'none'}"


class Customers:
    """The callers. They ask as `pace` says until `stop`."""

    def __init__(self, session: aiohttp.ClientSession, clock: Clock) -> None:
        self.ledger = Ledger()
        self.pace = Pace.IDLE
        self._session = session
        self._clock = clock
        self._stopped = False
        self._wishes = wishes()

    async def run(self) -> None:
        """Ask until stopped; every request that was asked is waited for."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(CALLERS):
                tasks.create_task(self._caller(number))

    def stop(self) -> None:
        """Ask nothing more."""
        self._stopped = True

    async def is_served(self) -> bool:
        """Tell whether the model answers, before the ledger begins; the call waits for a replica."""
        async with self._session.post(f"/run/{MODEL}", json=next(self._wishes)) as answer:
            await answer.read()
            return answer.status == 200

    async def draw(self, *, queued: bool) -> None:
        """Ask for one picture, wait for it, and keep the ledger."""
        number = self.ledger.ask()
        wish = next(self._wishes)
        try:
            async with asyncio.timeout(_END_SECONDS):
                await (self._queued(number, wish) if queued else self._direct(number, wish))
        except (aiohttp.ClientError, TimeoutError, KeyError, ValueError) as error:
            self.ledger.note(number, trouble=f"{type(error).__name__}: {error}"[:200])

    async def _caller(self, number: int) -> None:
        while not self._stopped:
            if self.pace is Pace.IDLE or (self.pace is Pace.GENTLE and number > 0):
                await self._clock.sleep(_POLL_SECONDS)
                continue
            await self.draw(queued=number == 0)
            if self.pace is Pace.GENTLE:
                await self._clock.sleep(GENTLE_PAUSE_SECONDS)

    async def _direct(self, number: int, wish: Values) -> None:
        async with self._session.post(f"/run/{MODEL}", json=wish) as answer:
            request_id = answer.headers.get("x-fal-request-id", "")
            await answer.read()
            self.ledger.note(number, request_id=request_id, status=answer.status)

    async def _queued(self, number: int, wish: Values) -> None:
        path = f"/queue/{MODEL}"
        async with self._session.post(path, json=wish) as answer:
            said = cast("Values", await answer.json())
            if answer.status != 200:
                self.ledger.note(number, status=answer.status, trouble="not accepted")
                return
        request_id = str(said["request_id"])
        self.ledger.note(number, request_id=request_id)
        one = f"{path}/requests/{request_id}"
        while await self._state(one) != "COMPLETED":
            await self._clock.sleep(_POLL_SECONDS)
        async with self._session.get(one) as answer:
            await answer.read()
            self.ledger.note(number, status=answer.status)

    async def _state(self, one: str) -> str:
        async with self._session.get(f"{one}/status") as answer:
            return str(cast("Values", await answer.json())["status"])


def wishes() -> Iterator[Values]:
    """Yield inputs: digits in colours, one size after another, each with a seed of its own."""
    for number in itertools.count(1):
        side = SIDES[number % len(SIDES)]
        yield {
            "prompt": f"a {_COLOURS[number % len(_COLOURS)]} {_DIGITS[number % len(_DIGITS)]}",
            "seed": number,
            "num_inference_steps": _STEPS,
            "image_size": {"width": side, "height": side},
        }
