"""`telemetry_overhead`: what lines, metrics, facts, roll-ups and traces cost on the synchronous route.

Two platforms side by side call the same constant backend: one tells everything, traces to a collector included; the
other was started with FORESTAY_TELEMETRY=false and tells nothing. They take turns, a second each, so a machine that
changes its speed changes both; whichever has just been called does the rest of its work in the other's turn, which
flatters neither over many turns.
"""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Generator

from tests.platform.platform import RunningPlatform

from bench.load import Call, Load, load
from bench.protect_overhead import key_of, small_fleet
from bench.serving import granian
from bench.table import Row, median, ratio

CONNECTIONS = 32
SLICES = 4
SECONDS = 1
WARM_SECONDS = 2
LEAST = 0.9  # at most 10 % fewer calls a second
ON, OFF = "telemetry on", "telemetry off"
_BODY = '{"prompt": "a red seven on a dark background", "num_inference_steps": 20}'


def run(rounds: int) -> list[Row]:
    """Measure `rounds` interleaved rounds."""
    with granian("http_backend") as backend, granian("http_backend") as collector:
        told = {"FORESTAY_OTLP_ENDPOINT": collector}
        with _platform(backend, told) as speaking, _platform(backend, {"FORESTAY_TELEMETRY": "false"}) as silent:
            return _rows(*_measure({ON: speaking, OFF: silent}, rounds))


@contextlib.contextmanager
def _platform(backend: str, environment: dict[str, str]) -> Generator[RunningPlatform]:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fs-bench-"))
    folder.chmod(0o755)
    try:
        fleet = small_fleet(folder, backend)
        arguments = ("--tls-port", "-1", "--workers", "1")
        with RunningPlatform(*arguments, data_dir=folder, fleet=fleet, environment=environment) as platform:
            yield platform
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measure(
    platforms: dict[str, RunningPlatform], rounds: int
) -> tuple[dict[str, list[Load]], dict[str, list[float]]]:
    """Return what each load saw, and the microseconds of processor time that its gateway took for one call."""
    calls: dict[str, tuple[str, Call]] = {}
    for name, platform in platforms.items():
        headers = {"Content-Type": "application/json", "Authorization": f"Key {key_of(platform, 'bench')}"}
        calls[name] = (f"{platform.url}/run/bench/echo", Call("POST", _BODY, headers))
    for url, call in calls.values():
        load(url, call, connections=CONNECTIONS, seconds=WARM_SECONDS)
    seen: dict[str, list[Load]] = {name: [] for name in calls}
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds * SLICES):
        for name in (ON, OFF) if turn % 2 else (OFF, ON):
            (url, call), gateway = calls[name], platforms[name].pids["gateway-1"]
            before = _processor_seconds(gateway)
            found = load(url, call, connections=CONNECTIONS, seconds=SECONDS)
            spent[name].append((_processor_seconds(gateway) - before) / max(1.0, found.per_second * SECONDS) * 1e6)
            seen[name].append(found)
    return seen, spent


def _processor_seconds(pid: int) -> float:
    """Return the processor time of a process so far: what another process takes from the machine does not count."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rows(seen: dict[str, list[Load]], spent: dict[str, list[float]]) -> list[Row]:
    rates = {name: [item.per_second for item in items] for name, items in seen.items()}
    rows = [
        Row(name, median(values), "requests/s", note=f"{CONNECTIONS} connections") for name, values in rates.items()
    ]
    rows.append(Row(f"{ON} / {OFF}", ratio(rates[ON], rates[OFF]), "x", LEAST))
    rows += [
        Row(f"p99, {name}", median([item.p99_milliseconds for item in items]), "ms") for name, items in seen.items()
    ]
    rows += [Row(f"gateway's processor, {name}", median(values), "us/call") for name, values in spent.items()]
    rows.append(Row("calls that a processor answers, on / off", ratio(spent[OFF], spent[ON]), "x"))
    failed = sum(item.failed for items in seen.values() for item in items)
    return [*rows, Row("calls that failed", failed, "requests", 0, "<=")]
