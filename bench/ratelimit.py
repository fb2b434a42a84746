"""`ratelimit`: one rate over four gateway processes, audited from outside.

A tenant may make RATE requests per second, BURST at once; clients on CONNECTIONS connections ask for several times as
much. Every granted call was granted between the moment it was sent and the moment its answer came. So for any two such
moments a < b, the calls sent after a and answered before b were all granted within b - a seconds: no window may hold
more of them than GCRA grants in that time, RATE * (b - a) + BURST. All windows are looked at, over all rounds, pauses
included, in which the burst fills up again.
"""

import asyncio
import dataclasses
import json
import pathlib
import re
import shutil
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence

import numpy as np
from tests.platform.platform import RunningPlatform

from bench.protect_overhead import admin, key_of, small_fleet
from bench.serving import granian
from bench.table import Row, median

GATEWAYS = 4
RATE, BURST = 100, 50
CONNECTIONS = 32
SECONDS = 8.0
PAUSE_SECONDS = 1.0  # twice what the burst takes to fill up
_CALLS = re.compile(r'forestay_http_requests_total\{route="run",status="200"\} ([0-9.e+]+)')
_BODY = b'{"prompt": "a red seven on a dark background"}'


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """One call: when it was sent and answered, in seconds of one clock, and how."""

    sent: float
    answered: float
    status: int


def run(rounds: int) -> list[Row]:
    """Ask for more than the limit in `rounds` rounds."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fs-bench-"))
    folder.chmod(0o755)
    try:
        with granian("http_backend") as backend:
            fleet = small_fleet(folder, backend)
            arguments = ("--tls-port", "-1", "--workers", "1", "--gateways", str(GATEWAYS))
            with RunningPlatform(*arguments, data_dir=folder, fleet=fleet) as platform:
                return asyncio.run(_audit(platform, rounds))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _audit(platform: RunningPlatform, rounds: int) -> list[Row]:
    key = key_of(platform, "rated")
    await _rush(platform, key, 1.0)  # warm-up, and the replica's start
    limit = {"subject": "tenant:rated", "requests_per_second": RATE, "burst": BURST}
    admin(platform, "PUT", "/admin/limits", limit)
    await asyncio.sleep(1.0 + PAUSE_SECONDS)  # every gateway knows it
    before = _granted_by(platform)
    calls: list[Call] = []
    shares: list[float] = []
    for _ in range(rounds):
        some = await _rush(platform, key, SECONDS)
        calls += some
        shares.append(_share(some))
        await asyncio.sleep(PAUSE_SECONDS)
    took_part = sum(after > first for first, after in zip(before, _granted_by(platform), strict=True))
    return _rows(calls, shares, took_part)


def _rows(calls: Sequence[Call], shares: Sequence[float], took_part: int) -> list[Row]:
    granted = [call for call in calls if call.status == 200]
    refused = [call.answered - call.sent for call in calls if call.status == 429]
    others = len(calls) - len(granted) - len(refused)
    note = f"{GATEWAYS} gateways, {RATE}/s, burst {BURST}"
    return [
        Row("worst window: granted beyond limit + burst", worst_excess(granted, RATE, BURST), "calls", 0, "<=", note),
        Row("granted of what the limit allows", median(shares), "share", 0.99, ">=", note),
        Row("gateways that granted", took_part, "processes", GATEWAYS, ">="),
        Row("answers that were neither", others, "calls", 0, "<="),
        Row("calls granted", len(granted), "calls"),
        Row("calls asked for / limit", len(calls) / max(1, len(granted)), "x"),
        Row("p99 of a refusal", float(np.percentile(refused, 99)) * 1000 if refused else 0.0, "ms"),
    ]


def worst_excess(granted: Sequence[Call], rate: float, burst: float) -> float:
    """Return by how many calls the worst window exceeds `rate` times its length plus `burst`."""
    by_sent = sorted(granted, key=lambda call: call.sent)
    sent = np.array([call.sent for call in by_sent])
    answered = np.array([call.answered for call in by_sent])
    worst = -float(burst)
    for start in range(len(by_sent)):
        ends = np.sort(answered[start:])  # of the calls sent at this moment or later
        excess = np.arange(1, len(ends) + 1) - rate * (ends - sent[start]) - burst
        worst = max(worst, float(excess.max()))
    return worst


def _share(calls: Sequence[Call]) -> float:
    """Return how much was granted of what the limit allows between the first call and the last answer."""
    seconds = max(call.answered for call in calls) - min(call.sent for call in calls)
    return sum(call.status == 200 for call in calls) / (RATE * seconds + BURST)


async def _rush(platform: RunningPlatform, key: str, seconds: float) -> list[Call]:
    """Call as fast as answers come, on every connection, for so long."""
    parts = urllib.parse.urlsplit(platform.url)
    head = (
        f"POST /run/bench/echo HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Key {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(_BODY)}\r\n\r\n"
    )
    request = head.encode() + _BODY
    deadline = time.monotonic() + seconds
    lines = await asyncio.gather(
        *(_line(str(parts.hostname), int(parts.port or 0), request, deadline) for _ in range(CONNECTIONS))
    )
    return [call for line in lines for call in line]


async def _line(host: str, port: int, request: bytes, deadline: float) -> list[Call]:
    """One connection's calls, one after another."""
    reader, writer = await asyncio.open_connection(host, port)
    calls: list[Call] = []
    try:
        while (sent := time.monotonic()) < deadline:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            await reader.readexactly(int(length[1]) if length else 0)
            calls.append(Call(sent, time.monotonic(), int(head[9:12])))
    finally:
        writer.close()
    return calls


def _granted_by(platform: RunningPlatform) -> list[float]:
    """Return how many calls each gateway has answered 200."""
    urls = json.loads(json.dumps(platform.ready["metrics_urls"]))
    counts: list[float] = []
    for name, url in urls.items():
        if name.startswith("gateway"):
            page = urllib.request.urlopen(url, timeout=10).read().decode()  # noqa: S310 - our own
            counts.append(sum(float(value) for value in _CALLS.findall(page)))
    return counts
