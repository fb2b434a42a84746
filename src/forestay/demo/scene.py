"""What a step of the siege works with: the platform's admin API, an attacker to send, and the neighbour's record.

It decides nothing; `attacks` decides what must come of each attack, `siege` in which order they go.
"""

import asyncio
import contextlib
import datetime as dt
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import cast
from urllib.parse import urlsplit

import aiohttp

from forestay.demo.platform import Ready
from forestay.demo.stage import LINE_BYTES, Broken, Stage, events_of
from forestay.errors import Unavailable

Values = Mapping[str, object]
ATTACK_SECONDS = 60.0
END_SECONDS = 5.0
GALLERY, MALLORY, ACME, TRIAL = "gallery", "mallory", "acme", "trial"  # the neighbour, two attackers, a victim
ECHO_PATH = "/queue/forestay/echo"
SERVICE_SECONDS = 0.15  # what one of the neighbour's requests takes to run
EVERY_SECONDS = 0.25  # between the neighbour's requests


class Neighbour:
    """The well-behaved tenant's program, and what it has said."""

    def __init__(self) -> None:
        self.request_ids: list[str] = []
        self.failures: list[str] = []
        self._child: asyncio.subprocess.Process | None = None

    async def start(self, stage: Stage, plan: Values) -> None:
        """Start it; it goes on until `stop`."""
        self._child = await start_program(stage, "neighbour", (), plan)

    async def listen(self) -> None:
        """Take in what it says until it ends."""
        if self._child is None:
            return
        async with contextlib.aclosing(events_of(self._child)) as events:
            async for event in events:
                if event["event"] == "submitted":
                    self.request_ids.append(str(event["request_id"]))
                else:
                    self.failures.append(str(event["why"]))

    async def stop(self) -> None:
        """Let it end, and end it when it does not."""
        if self._child is None or self._child.returncode is not None:
            return
        if self._child.stdin is not None:
            self._child.stdin.close()
        await end(self._child)


class Scene:
    """The platform under siege, from its operator's side."""

    def __init__(self, stage: Stage, ready: Ready, admin: aiohttp.ClientSession) -> None:
        self.stage = stage
        self.ready = ready
        self.clock = stage.course.clock
        self.keys: dict[str, str] = {}
        self.neighbour = Neighbour()
        self.acts: dict[str, str] = {}  # subject of an act that the audit log must show -> the reason that was given
        self._admin = admin

    async def ask(self, method: str, path: str, body: object = None, data: bytes | None = None) -> Values:
        """Call the admin API; Unavailable when it says no."""
        status, text = await self.try_to(method, path, body, data)
        if status >= 400:
            raise Unavailable(f"{method} {path} answered {status}: {text[:300]}")
        return cast("Values", json.loads(text)) if text else {}

    async def try_to(self, method: str, path: str, body: object = None, data: bytes | None = None) -> tuple[int, str]:
        """Call the admin API and return the status and body, whatever they are."""
        async with self._admin.request(method, path, json=body, data=data) as answer:
            return answer.status, await answer.text()

    async def fetch(self, path: str) -> bytes:
        """Return what the admin API gives as a file; Unavailable when it says no."""
        async with self._admin.get(path) as answer:
            if answer.status != 200:
                raise Unavailable(f"GET {path} answered {answer.status}")
            return await answer.read()

    async def new_key(self, tenant_id: str, name: str, **more: object) -> str:
        """Issue a key and return its credential."""
        wanted = {"tenant_id": tenant_id, "name": name, "scopes": ["API"], **more}
        return str((await self.ask("POST", "/admin/keys", wanted))["key"])

    async def attack(
        self, name: str, plan: Values, heard: Callable[[], Awaitable[None]] | None = None
    ) -> Mapping[str, object]:
        """Send the attacker and return its report; `heard` is awaited when it says that it is in."""
        child = await start_program(self.stage, "attacker", (name,), {**self.address(), **plan})
        report: Mapping[str, object] = {}
        try:
            async with asyncio.timeout(ATTACK_SECONDS), contextlib.aclosing(events_of(child)) as events:
                async for event in events:
                    if event["event"] == "in" and heard is not None:
                        await heard()
                    elif event["event"] == "report":
                        report = cast("Mapping[str, object]", event["report"])
        finally:
            await end(child)
        if not report:
            raise Broken(f"the attacker's program said nothing; see attacker-{name}.log")
        return report

    def address(self) -> Values:
        """Return where a program of a caller finds the platform."""
        found = urlsplit(self.ready.url)
        return {"host": found.hostname, "port": found.port}

    async def until(self, what: str, look: Callable[[], Awaitable[str | None]], seconds: float) -> str:
        """Look again and again until there is something to tell; Broken when there is nothing in time."""
        deadline = self.clock.monotonic() + seconds
        while True:
            found = await look()
            if found is not None:
                return found
            if self.clock.monotonic() > deadline:
                raise Broken(f"{what} did not happen within {seconds:.0f} s")
            await self.clock.sleep(0.1)

    async def refused(self, cause: str) -> int:
        """Return how many calls the gateway has refused for `cause`."""
        async with self._admin.get(self.ready.metrics_url) as answer:
            text = await answer.text()
        return read_counter(text, "forestay_refused_total", cause)


async def end(child: asyncio.subprocess.Process) -> None:
    """Wait for a program that has nothing more to do, and kill it when it does not end."""
    try:
        await asyncio.wait_for(child.wait(), END_SECONDS)
    except TimeoutError:
        child.kill()
        await child.wait()


async def start_program(
    stage: Stage, module: str, arguments: tuple[str, ...], plan: Values
) -> asyncio.subprocess.Process:
    """Start one of the callers' programs and hand it its plan on standard input."""
    name = "-".join((module, *arguments))
    with (stage.course.data / f"{name}.log").open("ab") as log:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            f"forestay.demo.{module}",
            *arguments,
            env=stage.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            limit=LINE_BYTES,
        )
    if child.stdin is not None:
        child.stdin.write(json.dumps(plan).encode() + b"\n")
        await child.stdin.drain()
    return child


def read_counter(text: str, name: str, label: str) -> int:
    """Read one series of a counter from the Prometheus text format; 0 where it has not been counted yet."""
    for line in text.splitlines():
        if line.startswith(f"{name}{{") and f'"{label}"' in line:
            return int(float(line.rpartition(" ")[2]))
    return 0


def moment(text: object) -> dt.datetime:
    """Read a time as the admin API writes it."""
    return dt.datetime.fromisoformat(str(text))
