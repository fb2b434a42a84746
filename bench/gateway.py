"""`gateway`: a synchronous call in the direct lane, one hop to an `http_server` model, beside three other proxies.

Ours checks the key, leases the slot, writes a fact and a log line; the bare granian and aiohttp proxy does nothing of
the kind, LiteLLM's pass-through and Ray Serve do what they do by default. All lead to the same constant backend; one
process each, 32 connections. The peers' results may be cached per machine: kept as ratios to the bare proxy of their
own round, so that a machine that is slower today does not flatter us.
"""

import contextlib
import dataclasses
import json
import pathlib
import shutil
import tempfile
from collections.abc import Generator, Mapping

from tests.platform.platform import RunningPlatform

from bench.load import Call, Load, load
from bench.peers.environment import CACHE, peer_python
from bench.peers.gateway_litellm import KEY as LITELLM_KEY
from bench.serving import PEERS, free_port, granian, running
from bench.table import Row, median, ratio

CONNECTIONS = 32
SECONDS = 4
WARM_SECONDS = 2
CACHED = CACHE / "gateway-peers.json"
LITELLM = ("litellm[proxy]==1.106.2",)
RAY = ("ray[serve]==2.60.0", "aiohttp==3.14.5")
SPEC = """\
version: 0
model: bench/echo
description: A constant answer.
owner: {{team: bench, contact: bench@forestay.invalid}}
licence: Apache-2.0
visibility: shared
host: {{kind: http_server, url: "{backend}", health_path: /health}}
endpoints: [{{path: /}}]
limits: {{max_multiplexing: 64}}
quality: {{mode: off}}
"""
_BODY = '{"prompt": "a red seven on a dark background", "num_inference_steps": 20}'


@dataclasses.dataclass(slots=True)
class Rounds:
    """What the rounds gave, by name of the server."""

    rates: dict[str, list[float]] = dataclasses.field(default_factory=dict[str, list[float]])
    p50: dict[str, list[float]] = dataclasses.field(default_factory=dict[str, list[float]])
    p99: dict[str, list[float]] = dataclasses.field(default_factory=dict[str, list[float]])
    failed: dict[str, int] = dataclasses.field(default_factory=dict[str, int])

    def add(self, name: str, seen: Load) -> None:
        """Keep one run."""
        self.rates.setdefault(name, []).append(seen.per_second)
        self.p50.setdefault(name, []).append(seen.p50_milliseconds)
        self.p99.setdefault(name, []).append(seen.p99_milliseconds)
        self.failed[name] = self.failed.get(name, 0) + seen.failed

    def added(self, which: Mapping[str, list[float]], name: str) -> float:
        """Return the median latency that a proxy adds to the backend's own, in milliseconds."""
        return median([max(a - b, 0.001) for a, b in zip(which[name], which["backend"], strict=True)])


def run(rounds: int) -> list[Row]:
    """Measure `rounds` interleaved rounds."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fs-bench-"))
    folder.chmod(0o755)
    try:
        with granian("http_backend") as backend, granian("bare_proxy", {"BACKEND": backend}) as bare:
            fleet = _fleet(folder, backend)
            with RunningPlatform("--tls-port", "-1", "--workers", "1", data_dir=folder, fleet=fleet) as platform:
                ours = _measure(platform, backend, bare, rounds)
            peers = _cached() or _measure_peers(folder, backend, bare, rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _rows(ours, peers)


def _measure(platform: RunningPlatform, backend: str, bare: str, rounds: int) -> Rounds:
    headers = {"Authorization": f"Key {platform.api_key}", "Content-Type": "application/json"}
    urls = {"backend": backend, "bare": bare, "forestay": f"{platform.url}/run/bench/echo"}
    return _interleave(urls, Call("POST", _BODY, headers), rounds)


def _measure_peers(folder: pathlib.Path, backend: str, bare: str, rounds: int) -> dict[str, float]:
    """Run LiteLLM and Ray Serve beside the bare proxy, and keep what they reached of it."""
    key = {"Authorization": f"Bearer {LITELLM_KEY}"}  # LiteLLM checks it; the others do not look
    call = Call("POST", _BODY, {"Content-Type": "application/json", **key})
    found: dict[str, float] = {}
    for name, peer in (("litellm", _litellm(folder, backend)), ("ray", _ray(backend))):
        with peer as url:
            seen = _interleave({"backend": backend, "bare": bare, name: f"{url}/run/bench/echo"}, call, rounds)
        if seen.failed[name]:
            raise RuntimeError(f"{name} failed {seen.failed[name]} calls; its numbers would mean nothing")
        found[f"{name} of bare"] = ratio(seen.rates[name], seen.rates["bare"])
        found[f"{name} added p50 of bare"] = seen.added(seen.p50, name) / seen.added(seen.p50, "bare")
        found[f"{name} added p99 of bare"] = seen.added(seen.p99, name) / seen.added(seen.p99, "bare")
    CACHED.parent.mkdir(parents=True, exist_ok=True)
    CACHED.write_text(json.dumps(found, indent=1))
    return found


def _interleave(urls: Mapping[str, str], call: Call, rounds: int) -> Rounds:
    seen = Rounds()
    for url in urls.values():
        load(url, call, connections=CONNECTIONS, seconds=WARM_SECONDS)
    for _ in range(rounds):
        for name, url in urls.items():
            seen.add(name, load(url, call, connections=CONNECTIONS, seconds=SECONDS))
    return seen


def _rows(ours: Rounds, peers: Mapping[str, float]) -> list[Row]:
    of_bare = ratio(ours.rates["forestay"], ours.rates["bare"])
    p50 = ours.added(ours.p50, "forestay") / ours.added(ours.p50, "bare")
    p99 = ours.added(ours.p99, "forestay") / ours.added(ours.p99, "bare")
    note = f"{CONNECTIONS} connections"
    rows = [Row(name, median(values), "requests/s", note=note) for name, values in ours.rates.items()]
    rows += [
        Row("Forestay / bare granian + aiohttp", of_bare, "x", 0.35),
        Row("Forestay / LiteLLM pass-through", of_bare / peers["litellm of bare"], "x", 20.0),
        Row("Forestay / Ray Serve", of_bare / peers["ray of bare"], "x", 12.0),
        Row("added p50 / LiteLLM's", p50 / peers["litellm added p50 of bare"], "x", 1 / 8, "<="),
        Row("added p99 / LiteLLM's", p99 / peers["litellm added p99 of bare"], "x", 1 / 10, "<="),
        Row("added p50", ours.added(ours.p50, "forestay"), "ms"),
        Row("added p99", ours.added(ours.p99, "forestay"), "ms"),
        Row("calls that failed", ours.failed["forestay"], "requests", 0, "<="),
    ]
    return rows


def _cached() -> dict[str, float] | None:
    """Return the peers' results of this machine, None when they were never measured here."""
    return json.loads(CACHED.read_text()) if CACHED.exists() else None


def _fleet(folder: pathlib.Path, backend: str) -> pathlib.Path:
    (folder / "model.yaml").write_text(SPEC.format(backend=backend))
    fleet = folder / "fleet.yaml"
    fleet.write_text("models: [model.yaml]\n")
    return fleet


@contextlib.contextmanager
def _litellm(folder: pathlib.Path, backend: str) -> Generator[str]:
    python, port = peer_python("litellm", LITELLM), free_port()
    command = [str(python), str(PEERS / "gateway_litellm.py"), backend, str(port), str(folder)]
    with running(command, f"http://127.0.0.1:{port}/health/liveliness", {}):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def _ray(backend: str) -> Generator[str]:
    python, port = peer_python("ray", RAY), free_port()
    command = [str(python), str(PEERS / "gateway_ray.py"), backend, str(port)]
    with running(command, f"http://127.0.0.1:{port}/run/bench/echo", {"RAY_DEDUP_LOGS": "0"}):
        yield f"http://127.0.0.1:{port}"
