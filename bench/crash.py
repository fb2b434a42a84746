"""The crash drill: kill -9 of every part in turn while a client goes on; its ledger, kept outside, must come out right.

The drill brings its own model (an HTTP server that is never killed) and its own webhook receiver, submits all the time,
and kills at seeded random moments; before the next kill it lets the requests that were hit come to their end, so that
none is hit twice (one that is, runs alone afterwards, and its wait is shown apart). A request is in the ledger from the
moment its submit was answered. At the end each must have exactly one result that never changed, however often it was
read, told or run. `python -m bench crash` makes 200 kills with a lease of 2 s and 10 with 15 s; the tests make fewer.
"""

import asyncio
import collections
import contextlib
import dataclasses
import hashlib
import json
import random
import time
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web
from tests.platform.platform import RunningPlatform

from bench.table import Row
from forestay.cli.client import PlatformClient, Profile

TARGETS = ("gateway-1", "worker-1", "controller", "postgres", "valkey", "worker-2")
LATE_LEASES = 1.5
_CUT_SECONDS = 0.5  # within this long after a kill its connections are seen to break


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """How hard the drill is."""

    kills: int
    lease_seconds: float
    seed: int = 1
    submits_per_second: float = 6.0
    longest_work_seconds: float = 1.5
    longest_pause_seconds: float = 0.7  # between a recovery and the next kill


@dataclasses.dataclass(slots=True)
class Entry:
    """One acknowledged request, as its caller knows it."""

    number: int
    request_id: str
    webhook: bool
    status_code: int = 0
    digest: str = ""  # of the first result read
    reads: int = 0
    changed: bool = False  # a later read gave other bytes
    bodies: list[str] = dataclasses.field(default_factory=list[str])  # the beginning of each, to show what differed
    told: set[str] = dataclasses.field(default_factory=set[str])  # digests of the payloads that its webhook brought


@dataclasses.dataclass(slots=True)
class Kill:
    """One kill, and when the part served again."""

    target: str
    at: float
    back_seconds: float = 0.0


@dataclasses.dataclass(slots=True)
class Outcome:
    """What the ledger says at the end."""

    plan: Plan
    kills: list[Kill]
    entries: list[Entry]
    orphans: list[float]  # seconds from the kill of a worker until each of its requests ran again
    twice_hit: list[float]  # the same for requests that an earlier kill had hit already: they run alone
    unfinished: list[str]  # acknowledged, without a final state at the end
    failed: list[str]  # ended, but not well
    changed: list[str]  # two reads, two results
    twice_told: list[str]  # webhooks with different payloads
    untold: list[str]  # asked for a webhook and never got one

    @property
    def late(self) -> list[float]:
        """Orphans that waited longer than one and a half leases."""
        return [seconds for seconds in self.orphans if seconds > LATE_LEASES * self.plan.lease_seconds]


class Outside:
    """What lies outside the platform: the model's server and the webhook receiver."""

    def __init__(self) -> None:
        self.starts: dict[int, list[float]] = collections.defaultdict(list)
        self.cuts: dict[int, list[float]] = collections.defaultdict(list)
        self.ends: dict[int, list[float]] = collections.defaultdict(list)
        self.hooks: dict[str, set[str]] = collections.defaultdict(set)
        self.url = ""

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Serve both on a free port."""
        application = web.Application()
        application.add_routes(
            [web.get("/health", self._health), web.post("/hook", self._hook), web.post("/", self._work)]
        )
        runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.5)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield
        finally:
            await runner.cleanup()

    def orphaned(self, killed_at: float) -> dict[int, float]:
        """Return the numbers whose run was cut by a kill at that moment, with the moment of the cut."""
        window = (killed_at, killed_at + _CUT_SECONDS)
        return {number: cut for number, cuts in self.cuts.items() for cut in cuts if window[0] <= cut <= window[1]}

    def again(self, number: int, cut: float) -> float | None:
        """Return when the run that followed the cut began; None while none has."""
        return min((start for start in self.starts[number] if start > cut), default=None)

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _work(self, request: web.Request) -> web.Response:
        asked = await request.json()
        number = int(asked["number"])
        self.starts[number].append(time.monotonic())
        mark = f"{number}-{len(self.starts[number])}-{random.getrandbits(64):x}"  # differs at every run
        try:
            await asyncio.sleep(float(asked["seconds"]))
        except asyncio.CancelledError:  # the worker that asked is gone
            self.cuts[number].append(time.monotonic())
            raise
        self.ends[number].append(time.monotonic())
        return web.json_response({"number": number, "mark": mark})

    async def _hook(self, request: web.Request) -> web.Response:
        body = await request.read()
        told = json.loads(body)
        self.hooks[str(told["request_id"])].add(_digest(json.dumps(told.get("payload"), sort_keys=True).encode()))
        return web.Response()


class Caller:
    """The client: submits, polls, reads again; believes only what was answered."""

    def __init__(self, platform: RunningPlatform, outside: Outside, plan: Plan, session: aiohttp.ClientSession) -> None:
        self._url = platform.url
        self._headers = {"authorization": f"Key {platform.api_key}"}
        self._outside = outside
        self._plan = plan
        self._session = session
        self._random = random.Random(plan.seed)
        self.entries: list[Entry] = []

    async def submit_until(self, stop: asyncio.Event, tasks: asyncio.TaskGroup) -> None:
        """Submit at the plan's rate until told to stop; each acknowledged request is followed to its end."""
        number = 0
        while not stop.is_set():
            number += 1
            tasks.create_task(self._one(number, self._random.random()))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._random.expovariate(self._plan.submits_per_second))

    async def _one(self, number: int, chance: float) -> None:
        seconds = 0.02 + self._plan.longest_work_seconds * chance**3
        webhook = number % 4 == 0
        request_id = await self._submit(number, seconds, webhook=webhook)
        entry = Entry(number, request_id, webhook)
        self.entries.append(entry)
        await self._follow(entry)

    async def _submit(self, number: int, seconds: float, *, webhook: bool) -> str:
        """Submit until it is acknowledged; the key makes a repeated submit the same one."""
        query = {"fal_webhook": f"{self._outside.url}/hook"} if webhook else {}
        headers = {**self._headers, "idempotency-key": f"drill-{self._plan.seed}-{number}"}
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self._session.post(
                    f"{self._url}/queue/drill/work",
                    json={"number": number, "seconds": seconds},
                    params=query,
                    headers=headers,
                ) as answer:
                    if answer.status == 200:
                        return str((await answer.json())["request_id"])
                    fresh = answer.status == 404 and not self.entries  # just deployed: seen within a second
                    if answer.status < 500 and answer.status not in (408, 429) and not fresh:
                        raise AssertionError(f"submit was refused: {answer.status} {await answer.text()}")
            await asyncio.sleep(0.1)

    async def _follow(self, entry: Entry) -> None:
        while await self._get(f"{entry.request_id}/status") != 200:
            await asyncio.sleep(0.2)
        await self.read(entry)

    async def read(self, entry: Entry) -> None:
        """Read the result, now or again, and compare it with what was read before."""
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self._session.get(
                    f"{self._url}/queue/drill/work/requests/{entry.request_id}", headers=self._headers
                ) as answer:
                    body = await answer.read()
                    if "retry-after" not in answer.headers:  # with it, the platform speaks of itself: no result
                        digest = _digest(body)
                        entry.bodies.append(f"{answer.status} {body[:300].decode(errors='replace')}")
                        entry.changed |= bool(entry.digest) and digest != entry.digest
                        entry.status_code, entry.digest = answer.status, digest
                        entry.reads += 1
                        return
            await asyncio.sleep(0.2)

    async def _get(self, path: str) -> int:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self._session.get(
                f"{self._url}/queue/drill/work/requests/{path}", headers=self._headers
            ) as answer:
                await answer.read()
                return answer.status
        return 0


async def drill(plan: Plan) -> Outcome:
    """Run the whole drill on a platform of its own."""
    outside = Outside()
    async with outside.serve():
        environment = {
            "FORESTAY_LEASE_SECONDS": str(plan.lease_seconds),
            "FORESTAY_ALLOW_PRIVATE_WEBHOOKS": "true",
        }
        platform = RunningPlatform("--workers", "2", environment=environment)
        await asyncio.to_thread(platform.__enter__)
        try:
            client = PlatformClient(Profile(platform.url, platform.admin_key))
            await asyncio.to_thread(client.post, "/admin/models", {"spec": _spec(outside.url)})
            return await _run(platform, outside, plan)
        finally:
            await asyncio.to_thread(platform.close)


def _spec(url: str) -> dict[str, object]:
    return {
        "version": 0,
        "model": "drill/work",
        "description": "Sleeps as told and answers with its own mark, for the crash drill.",
        "owner": {"team": "drill", "contact": "drill@forestay.invalid"},
        "licence": "Apache-2.0",
        "visibility": "shared",
        "host": {"kind": "http_server", "url": url, "health_path": "/health"},
        "endpoints": [{"path": "/"}],
        "resources": {"pool": "cpu", "devices": 1, "memory_mb": 64},
        "limits": {"max_multiplexing": 16, "request_timeout_seconds": 60, "startup_timeout_seconds": 30},
    }


async def _run(platform: RunningPlatform, outside: Outside, plan: Plan) -> Outcome:
    timeout = aiohttp.ClientTimeout(total=10)
    kills: list[Kill] = []
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
        caller = Caller(platform, outside, plan, session)
        stop = asyncio.Event()
        try:
            async with asyncio.timeout(_patience(plan)), asyncio.TaskGroup() as following:
                following.create_task(caller.submit_until(stop, following))
                await _kill_in_turn(platform, outside, plan, kills)
                stop.set()
        except TimeoutError:  # what has not ended by now counts as lost: the ledger shows it
            stop.set()
        async with asyncio.timeout(60), asyncio.TaskGroup() as reading:
            for entry in caller.entries:
                if entry.digest:
                    reading.create_task(caller.read(entry))
        await _webhooks_settled(caller, outside)
    return _judge(plan, kills, caller.entries, outside)


def _patience(plan: Plan) -> float:
    return 60.0 + plan.kills * (plan.longest_pause_seconds + 3 * plan.lease_seconds + 8.0)


async def _kill_in_turn(platform: RunningPlatform, outside: Outside, plan: Plan, kills: list[Kill]) -> None:
    chance = random.Random(plan.seed + 1)
    for number in range(plan.kills):
        await asyncio.sleep(chance.uniform(0.1, plan.longest_pause_seconds))
        target = TARGETS[number % len(TARGETS)]
        kill = Kill(target, time.monotonic())
        kills.append(kill)
        old = platform.kill(target)
        await asyncio.to_thread(platform.wait_replaced, target, old, 60.0)
        kill.back_seconds = time.monotonic() - kill.at
        await _hit_ended(outside, plan)


async def _hit_ended(outside: Outside, plan: Plan) -> None:
    """Wait until every request that was hit by a kill has run to its end: the measure is of one kill at a time."""
    await asyncio.sleep(_CUT_SECONDS)
    deadline = time.monotonic() + 4 * plan.lease_seconds + 5.0
    while time.monotonic() < deadline and any(not outside.ends[number] for number in outside.cuts):
        await asyncio.sleep(0.05)


async def _webhooks_settled(caller: Caller, outside: Outside) -> None:
    wanted = {entry.request_id for entry in caller.entries if entry.webhook and entry.digest}
    deadline = time.monotonic() + 30.0
    while wanted - set(outside.hooks) and time.monotonic() < deadline:
        await asyncio.sleep(0.2)


def _judge(plan: Plan, kills: list[Kill], entries: list[Entry], outside: Outside) -> Outcome:
    orphans: list[float] = []
    twice_hit: list[float] = []
    for kill in kills:
        if not kill.target.startswith("worker"):
            continue
        for number, cut in outside.orphaned(kill.at).items():
            again = outside.again(number, cut)
            first = outside.cuts[number][0] == cut
            if again is not None:
                (orphans if first else twice_hit).append(again - kill.at)
    for entry in entries:
        entry.told = outside.hooks.get(entry.request_id, set())
    return Outcome(
        plan=plan,
        kills=kills,
        entries=entries,
        orphans=orphans,
        twice_hit=twice_hit,
        unfinished=[entry.request_id for entry in entries if not entry.digest],
        failed=[f"{entry.request_id}: {entry.status_code}" for entry in entries if entry.status_code not in (0, 200)],
        changed=[entry.request_id for entry in entries if entry.changed],
        twice_told=[entry.request_id for entry in entries if len(entry.told) > 1],
        untold=[entry.request_id for entry in entries if entry.webhook and entry.digest and not entry.told],
    )


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def rows_of(outcome: Outcome) -> list[Row]:
    """Put the outcome into the bench's table."""
    lease = f"{outcome.plan.lease_seconds:g} s lease"
    worst = max(outcome.orphans, default=0.0) / outcome.plan.lease_seconds
    twice = max(outcome.twice_hit, default=0.0) / outcome.plan.lease_seconds
    acknowledged = len(outcome.entries)
    back = max((kill.back_seconds for kill in outcome.kills), default=0.0)
    twice_seen = [f"{entry.request_id} read {entry.bodies}" for entry in outcome.entries if entry.changed]
    twice_seen += [f"{request_id} told twice" for request_id in outcome.twice_told]
    return [
        Row(f"kills, {lease}", len(outcome.kills), "", outcome.plan.kills),
        Row(f"acknowledged, {lease}", acknowledged, "requests"),
        Row(f"lost, {lease}", len(outcome.unfinished), "requests", 0, "<="),
        Row(f"published twice, {lease}", len(twice_seen), "results", 0, "<=", "; ".join(twice_seen)[:2_000]),
        Row(f"failed for a kill's sake, {lease}", len(outcome.failed), "requests", 0, "<="),
        Row(f"webhooks missing, {lease}", len(outcome.untold), "webhooks", 0, "<="),
        Row(f"slowest orphan, {lease}", worst, "leases", LATE_LEASES, "<=", f"{len(outcome.orphans)} orphans"),
        Row(f"slowest hit twice, {lease}", twice, "leases", note=f"{len(outcome.twice_hit)}, which run alone"),
        Row(f"slowest recovery, {lease}", back, "s", note="from kill to ready"),
    ]


def run(rounds: int) -> list[Row]:
    """Make 40 kills a round with a lease of 2 s and 2 with 15 s: the default five rounds make 200 and 10."""
    quick = asyncio.run(drill(Plan(kills=40 * rounds, lease_seconds=2.0)))
    slow = asyncio.run(drill(Plan(kills=2 * rounds, lease_seconds=15.0, seed=2)))
    return rows_of(quick) + rows_of(slow)
