"""`status`: polls of statuses, against a bare Starlette route returning a constant on the same server.

Once on one gateway, for finished and for live requests; and on two gateways with 5,000 live requests polled on both,
where the database reads per poll are counted. Holding is switched off: a poll that brings nothing new would otherwise
be answered a second later, and the rate would be the number of connections.
"""

import asyncio
import dataclasses
import pathlib
import re
import shutil
import tempfile
import urllib.request

import aiohttp
from tests.platform.platform import RunningPlatform

from bench.load import Call, load
from bench.serving import granian
from bench.table import Row, median, ratio

CONNECTIONS = 32
SECONDS = 4
LIVE = 5_000
WARM_UPS = 20
STATEMENTS = {"snapshots": 1, "positions": 1, "logs": 1}  # of one read of each kind
SPEC = """\
version: 0
model: bench/{name}
description: {name}.
owner: {{team: bench, contact: bench@forestay.invalid}}
licence: Apache-2.0
visibility: shared
host: {{kind: http_server, url: "{url}", health_path: /health}}
endpoints: [{{path: /}}]
limits: {{max_multiplexing: 8}}
"""
_NOBODY = "http://127.0.0.1:9"  # a server that does not exist: what is submitted to it stays queued
_READS = re.compile(r'forestay_status_reads_total\{kind="(\w+)"\} ([0-9.e+]+)')
_WATCHED = re.compile(r"^forestay_status_watched ([0-9.e+]+)", re.MULTILINE)
_POLLS = re.compile(r'forestay_status_polls_total\{how="(\w+)"\} ([0-9.e+]+)')


@dataclasses.dataclass(frozen=True, slots=True)
class Counted:
    """What the gateways' own metrics count."""

    reads: float
    polls: float


def run(rounds: int) -> list[Row]:
    """Measure one gateway in `rounds` interleaved rounds, then two gateways once."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fs-bench-"))
    folder.chmod(0o755)
    try:
        with granian("http_backend") as backend, granian("constant_route") as constant:
            fleet = _fleet(folder, backend)
            with _platform(folder / "one", fleet, gateways=1) as platform:
                rows = asyncio.run(_one_gateway(platform, f"{constant}/status", rounds))
            with _platform(folder / "two", fleet, gateways=2) as platform:
                rows += asyncio.run(_two_gateways(platform))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return rows


async def _one_gateway(platform: RunningPlatform, constant: str, rounds: int) -> list[Row]:
    (finished,) = await _submit(platform, "echo", 1)
    (live,) = await _submit(platform, "nobody", 1)
    await _finished(platform, finished)
    call = Call("GET", "", {"Authorization": f"Key {platform.api_key}"})
    urls = {
        "bare Starlette route": constant,
        "status, finished": f"{platform.url}{_status_path('echo', finished)}",
        "status, queued": f"{platform.url}{_status_path('nobody', live)}",
    }
    rates: dict[str, list[float]] = {name: [] for name in urls}
    failed = 0
    for url in urls.values():
        load(url, call, connections=CONNECTIONS, seconds=1)  # warm-up
    for _ in range(rounds):
        for name, url in urls.items():
            seen = load(url, call, connections=CONNECTIONS, seconds=SECONDS)
            rates[name].append(seen.per_second)
            failed += seen.failed
    rows = [Row(name, median(values), "polls/s", note=f"{CONNECTIONS} connections") for name, values in rates.items()]
    bare = rates["bare Starlette route"]
    rows += [Row(f"{name} / bare", ratio(rates[name], bare), "x", 0.4) for name in list(urls)[1:]]
    return [*rows, Row("polls that failed", failed, "requests", 0, "<=")]


async def _two_gateways(platform: RunningPlatform) -> list[Row]:
    ids = await _submit(platform, "nobody", LIVE)
    paths = tuple(_status_path("nobody", request_id) for request_id in ids)
    call = Call("GET", "", {"Authorization": f"Key {platform.api_key}"}, paths)
    for _ in range(WARM_UPS):
        load(platform.url, call, connections=CONNECTIONS * 2, seconds=2)
        if min(_watched(platform)) >= LIVE:
            break  # every request is watched on both gateways
    before = _count(platform)
    seen = load(platform.url, call, connections=CONNECTIONS * 2, seconds=SECONDS * 2)
    after = _count(platform)
    polls = after.polls - before.polls
    note = f"{LIVE} live requests, two gateways"
    return [
        Row("polls of live requests", seen.per_second, "polls/s", note=note),
        Row("database statements per poll", (after.reads - before.reads) / max(polls, 1), "", 0.01, "<=", note),
        Row("polls that failed", seen.failed, "requests", 0, "<=", note),
    ]


async def _submit(platform: RunningPlatform, name: str, count: int) -> list[str]:
    """Submit `count` requests and return their ids."""
    headers = {"Authorization": f"Key {platform.api_key}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        gate = asyncio.Semaphore(CONNECTIONS)

        async def one() -> str:
            async with gate, session.post(f"{platform.url}/queue/bench/{name}", json={"prompt": "a"}) as answer:
                return str((await answer.json())["request_id"])

        return list(await asyncio.gather(*(one() for _ in range(count))))


async def _finished(platform: RunningPlatform, request_id: str) -> None:
    """Wait until a request is finished."""
    url, headers = f"{platform.url}{_status_path('echo', request_id)}", {"Authorization": f"Key {platform.api_key}"}
    async with asyncio.timeout(60), aiohttp.ClientSession(headers=headers) as session:
        while True:
            async with session.get(url) as answer:
                if answer.status == 200:
                    return
            await asyncio.sleep(0.05)


def _count(platform: RunningPlatform) -> Counted:
    """Add up the counters of both gateways."""
    reads = polls = 0.0
    for text in _metrics(platform):
        reads += sum(float(value) * STATEMENTS[kind] for kind, value in _READS.findall(text))
        polls += sum(float(value) for _, value in _POLLS.findall(text))
    return Counted(reads, polls)


def _watched(platform: RunningPlatform) -> list[float]:
    """Return how many requests each gateway watches."""
    return [float(_WATCHED.findall(text)[0]) for text in _metrics(platform)]


def _metrics(platform: RunningPlatform) -> list[str]:
    """Return the metrics page of each gateway."""
    urls: dict[str, str] = platform.ready["metrics_urls"]  # pyright: ignore[reportAssignmentType] - a JSON object
    pages = [url for name, url in urls.items() if name.startswith("gateway")]
    return [urllib.request.urlopen(url, timeout=10).read().decode() for url in pages]  # noqa: S310 - our own


def _status_path(name: str, request_id: str) -> str:
    return f"/queue/bench/{name}/requests/{request_id}/status"


def _platform(folder: pathlib.Path, fleet: pathlib.Path, *, gateways: int) -> RunningPlatform:
    folder.mkdir()
    arguments = ("--tls-port", "-1", "--workers", "1", "--gateways", str(gateways))
    return RunningPlatform(*arguments, data_dir=folder, fleet=fleet, environment={"FORESTAY_STATUS_HOLD": "0"})


def _fleet(folder: pathlib.Path, backend: str) -> pathlib.Path:
    (folder / "echo.yaml").write_text(SPEC.format(name="echo", url=backend))
    (folder / "nobody.yaml").write_text(SPEC.format(name="nobody", url=_NOBODY))
    fleet = folder / "fleet.yaml"
    fleet.write_text("models: [echo.yaml, nobody.yaml]\n")
    return fleet
