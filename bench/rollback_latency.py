"""`rollback_latency`: from the verdict to weight 0, on the real processes, with callers that keep a ledger.

A platform of its own (Postgres, Valkey, gateway, controller, two workers) serves a model whose control and candidate
are HTTP servers of this bench. The candidate fails three in ten requests, so its canary at 50 % ends in a rollback.
The verdict is the journal's row, whose time the database gives; weight 0 is what the servers see: the moment at which
the last request of a caller came to the candidate's. Both clocks are this machine's. Each round is one rollback, under
direct and queued calls. A request is lost when its caller got neither an answer of the model nor an error of it.

    python -m bench rollback_latency --rounds 5
"""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import time
from collections.abc import AsyncIterator, Mapping

import aiohttp
from aiohttp import web
from tests.platform.platform import RunningPlatform

from bench.table import Row, median

MODEL = "bench/shipped"
DIRECT_CALLERS, QUEUE_CALLERS = 6, 4
FAILS_EVERY = 10, 3  # of so many requests so many fail
AFTER_SECONDS = 3.0  # for which callers go on after the rollback: whatever still comes to the candidate is seen
READY_SECONDS, ROLLBACK_SECONDS, END_SECONDS = 60.0, 90.0, 30.0
_POLL_SECONDS = 0.05
OPTIONS: Mapping[str, object] = {
    "shadow_requests": 0,
    "steps": [50.0],
    "step_seconds": 0.0,
    "step_requests": 1,
    "allowance": 10_000.0,  # the verdict is to be the evidence's
}


@dataclasses.dataclass(slots=True)
class Ledger:
    """What the callers were answered."""

    asked: int = 0
    statuses: dict[int, int] = dataclasses.field(default_factory=dict[int, int])

    def note(self, status: int) -> None:
        """Note one answer; 0: none came."""
        self.statuses[status] = self.statuses.get(status, 0) + 1

    @property
    def lost(self) -> int:
        """Requests without an answer of a revision: 200, or the candidate's own 500."""
        return self.asked - self.statuses.get(200, 0) - self.statuses.get(500, 0)


@dataclasses.dataclass(frozen=True, slots=True)
class Rollback:
    """One rollback: seconds from the verdict to the last request that came to the candidate, by lane."""

    direct_seconds: float
    queue_seconds: float
    gap_seconds: float  # between requests at the candidate before the verdict: how finely this is seen
    reason: str


class Servers:
    """The two revisions of the model: what comes to them, by whom, and when."""

    def __init__(self) -> None:
        self.seen: dict[str, list[tuple[float, str]]] = {"control": [], "candidate": []}  # unix seconds, lane
        self.urls: dict[str, str] = {}

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Serve both on free ports."""
        async with contextlib.AsyncExitStack() as stack:
            for name in self.seen:
                application = web.Application()
                application.router.add_get("/health", _health)
                application.router.add_post("/", self._handler(name))
                runner = web.AppRunner(application, shutdown_timeout=0.5)
                await runner.setup()
                stack.push_async_callback(runner.cleanup)
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                self.urls[name] = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield

    def _handler(self, name: str):  # noqa: ANN202 - aiohttp's own type of a handler
        async def answer(request: web.Request) -> web.Response:
            seen = self.seen[name]
            seen.append((time.time(), str((await request.json())["lane"])))
            every, failing = FAILS_EVERY
            fails = name == "candidate" and len(seen) % every < failing
            return web.json_response({"by": name}, status=500 if fails else 200)

        return answer


def run(rounds: int) -> list[Row]:
    """Roll `rounds` candidates back, one after another."""
    ledger = Ledger()
    found = asyncio.run(_measure(rounds, ledger))
    direct, queued = [one.direct_seconds for one in found], [one.queue_seconds for one in found]
    note = (
        f"{len(found)} rollbacks; median {median(direct):.2f} s; seen to {max(one.gap_seconds for one in found):.2f} s"
    )
    answers = ", ".join(f"{count:,} with {status}" for status, count in sorted(ledger.statuses.items()))
    return [
        Row("verdict to the last direct request, worst", max(direct), "s", 1.0, "<=", note),
        Row("verdict to the last queued request, worst", max(queued), "s", 1.0, "<=", f"median {median(queued):.2f} s"),
        Row("rollbacks for errors", sum("errors" in one.reason for one in found), "of them", len(found)),
        Row("requests lost", ledger.lost, "requests", 0, "<=", f"{ledger.asked:,} asked: {answers}"),
    ]


async def _measure(rounds: int, ledger: Ledger) -> list[Rollback]:
    servers = Servers()
    async with servers.serve():
        platform = RunningPlatform("--tls-port", "-1", "--workers", "2", environment={"FORESTAY_DEVICES": "8"})
        await asyncio.to_thread(platform.__enter__)
        try:
            admin = aiohttp.ClientSession(platform.url, headers=_key(platform.admin_key))
            calls = aiohttp.ClientSession(platform.url, headers=_key(platform.api_key))
            async with admin, calls:
                return await _rounds(rounds, Bench(servers, admin, calls, ledger))
        finally:
            await asyncio.to_thread(platform.close)


@dataclasses.dataclass(frozen=True, slots=True)
class Bench:
    """What a round works with."""

    servers: Servers
    admin: aiohttp.ClientSession
    calls: aiohttp.ClientSession
    ledger: Ledger


async def _rounds(rounds: int, bench: Bench) -> list[Rollback]:
    await _deploy(bench, "control", "the control", {})
    await _until_answered(bench)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for number in range(DIRECT_CALLERS + QUEUE_CALLERS):
            tasks.create_task(_caller(bench, "direct" if number < DIRECT_CALLERS else "queue", stop))
        try:
            return [await _one(bench, number) for number in range(rounds)]
        finally:
            stop.set()


async def _one(bench: Bench, number: int) -> Rollback:
    """Ship one bad revision and see it rolled back."""
    more = {"strategy": "canary", "rollout": OPTIONS}
    told = await _deploy(bench, "candidate", f"bad revision {number}", more)
    path = f"/admin/rollouts/{told['rollout']}"
    async with asyncio.timeout(ROLLBACK_SECONDS):
        while (await _get(bench, path))["stage"] != "rolled_back":
            await asyncio.sleep(_POLL_SECONDS)
    await asyncio.sleep(AFTER_SECONDS)
    found = await _get(bench, path)
    verdict = next(line for line in found["journal"] if line["stage"] == "rolled_back")
    at = dt.datetime.fromisoformat(verdict["at"]).timestamp()
    arrivals = bench.servers.seen["candidate"]
    before = [moment for moment, _ in arrivals if at - 1.0 <= moment <= at]
    gap = 1.0 / len(before) if before else 1.0
    seconds = {
        lane: max([0.0, *(moment - at for moment, by in arrivals if by == lane)]) for lane in ("direct", "queue")
    }
    return Rollback(seconds["direct"], seconds["queue"], gap, str(verdict["reason"]))


async def _caller(bench: Bench, lane: str, stop: asyncio.Event) -> None:
    """Ask again and again; every request that was asked is waited for."""
    while not stop.is_set():
        bench.ledger.asked += 1
        status = 0
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, KeyError):
            async with asyncio.timeout(END_SECONDS):
                status = await (_queued(bench) if lane == "queue" else _direct(bench))
        bench.ledger.note(status)


async def _direct(bench: Bench) -> int:
    async with bench.calls.post(f"/run/{MODEL}", json={"lane": "direct"}) as answer:
        await answer.read()
        return answer.status


async def _queued(bench: Bench) -> int:
    async with bench.calls.post(f"/queue/{MODEL}", json={"lane": "queue"}) as answer:
        if answer.status != 200:
            return answer.status
        one = f"/queue/{MODEL}/requests/{(await answer.json())['request_id']}"
    while True:
        async with bench.calls.get(f"{one}/status") as answer:
            if (await answer.json())["status"] == "COMPLETED":
                break
        await asyncio.sleep(_POLL_SECONDS)
    async with bench.calls.get(one) as answer:
        await answer.read()
        return answer.status


async def _until_answered(bench: Bench) -> None:
    async with asyncio.timeout(READY_SECONDS):
        while await _direct(bench) != 200:
            await asyncio.sleep(_POLL_SECONDS)


async def _deploy(bench: Bench, name: str, told: str, more: Mapping[str, object]) -> Mapping[str, object]:
    async with bench.admin.post(
        "/admin/models", json={"spec": _spec(bench.servers.urls[name], told), **more}
    ) as answer:
        if answer.status >= 400:
            raise RuntimeError(f"the deploy of {told} was answered {answer.status}: {await answer.text()}")
        return await answer.json()


async def _get(bench: Bench, path: str):  # noqa: ANN202 - a JSON object
    async with bench.admin.get(path) as answer:
        answer.raise_for_status()
        return await answer.json()


async def _health(_: web.Request) -> web.Response:
    return web.Response(text="ok")


def _key(key: str) -> dict[str, str]:
    return {"Authorization": f"Key {key}"}


def _spec(url: str, told: str) -> dict[str, object]:
    return {
        "version": 0,
        "model": MODEL,
        "description": f"Answers by whom it was answered: {told}.",
        "owner": {"team": "bench", "contact": "bench@forestay.invalid"},
        "licence": "Apache-2.0",
        "visibility": "shared",
        "host": {"kind": "http_server", "url": url, "health_path": "/health"},
        "endpoints": [{"path": "/"}],
        "resources": {"pool": "cpu", "devices": 1, "memory_mb": 64},
        "limits": {"max_multiplexing": 16, "request_timeout_seconds": 30, "startup_timeout_seconds": 30},
    }
