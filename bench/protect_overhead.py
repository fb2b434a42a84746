"""`protect_overhead`: what key check and limits cost on the synchronous route, on and off on the same gateway.

Callers take turns, a second each: nobody at a public model (no key, no limit), a key of a tenant without limits, one
whose tenant has a rate, and one whose tenant has every kind of limit; none of them refuses anything. All call the same
constant backend through the same gateway, so a machine that changes its speed changes them all.
"""

import json
import pathlib
import shutil
import tempfile
import urllib.request

from tests.platform.platform import RunningPlatform

from bench.load import Call, Load, load
from bench.serving import granian
from bench.table import Row, median, ratio

CONNECTIONS = 32
SLICES = 5  # of a round: callers take turns often, so that what else the machine does meets them all alike
SECONDS = 1
WARM_SECONDS = 2
SPEC = """\
version: 0
model: bench/{name}
description: A constant answer.
owner: {{team: bench, contact: bench@forestay.invalid}}
licence: Apache-2.0
visibility: {visibility}
host: {{kind: http_server, url: "{backend}", health_path: /health}}
endpoints: [{{path: /}}]
limits: {{max_multiplexing: 64}}
quality: {{mode: off}}
"""
WIDE = {  # every kind of limit, far above what any load reaches
    "requests_per_second": 1e6,
    "burst": 1e6,
    "in_flight": 1e6,
    "gpu_seconds_per_minute": 1e9,
    "gpu_seconds_per_month": 1e11,
    "money_per_month": 1e9,
}
_BODY = '{"prompt": "a red seven on a dark background", "num_inference_steps": 20}'


def run(rounds: int) -> list[Row]:
    """Measure `rounds` interleaved rounds."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fs-bench-"))
    folder.chmod(0o755)
    try:
        with granian("http_backend") as backend:
            fleet = small_fleet(folder, backend)
            with RunningPlatform("--tls-port", "-1", "--workers", "1", data_dir=folder, fleet=fleet) as platform:
                return _rows(_measure(platform, rounds))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measure(platform: RunningPlatform, rounds: int) -> dict[str, list[Load]]:
    callers = {
        "no key, no limits": ("open", {}),
        "key, no limits": ("echo", {"Authorization": f"Key {key_of(platform, 'free')}"}),
        "key and rate limit": ("echo", {"Authorization": f"Key {key_of(platform, 'rated')}"}),
        "key and every limit": ("echo", {"Authorization": f"Key {key_of(platform, 'limited')}"}),
    }
    rate = {name: WIDE[name] for name in ("requests_per_second", "burst")}
    admin(platform, "PUT", "/admin/limits", {"subject": "tenant:rated", **rate})
    admin(platform, "PUT", "/admin/limits", {"subject": "tenant:limited", **WIDE})
    calls = {
        name: (f"{platform.url}/run/bench/{model}", Call("POST", _BODY, {"Content-Type": "application/json", **key}))
        for name, (model, key) in callers.items()
    }
    for url, call in calls.values():
        load(url, call, connections=CONNECTIONS, seconds=WARM_SECONDS)
    seen: dict[str, list[Load]] = {name: [] for name in calls}
    for _ in range(rounds * SLICES):
        for name, (url, call) in calls.items():
            seen[name].append(load(url, call, connections=CONNECTIONS, seconds=SECONDS))
    return seen


def _rows(seen: dict[str, list[Load]]) -> list[Row]:
    rates = {name: [item.per_second for item in items] for name, items in seen.items()}
    note = f"{CONNECTIONS} connections"
    rows = [Row(name, median(values), "requests/s", note=note) for name, values in rates.items()]
    rows += [
        Row(f"{name} / no key, no limits", ratio(rates[name], rates["no key, no limits"]), "x", target)
        for name, target in (("key, no limits", None), ("key and rate limit", None), ("key and every limit", 0.85))
    ]
    for name, items in seen.items():
        rows.append(Row(f"p99, {name}", median([item.p99_milliseconds for item in items]), "ms"))
    failed = sum(item.failed for items in seen.values() for item in items)
    return [*rows, Row("calls that failed", failed, "requests", 0, "<=")]


def key_of(platform: RunningPlatform, tenant: str) -> str:
    """Make a tenant and return a key of it."""
    admin(platform, "POST", "/admin/tenants", {"tenant_id": tenant})
    return str(admin(platform, "POST", "/admin/keys", {"tenant_id": tenant, "scopes": ["API"]})["key"])


def admin(platform: RunningPlatform, method: str, path: str, body: object) -> dict[str, object]:
    """Ask the admin API."""
    request = urllib.request.Request(  # noqa: S310 - our own loopback URL
        f"{platform.url}{path}",
        data=json.dumps(body).encode(),
        method=method,
        headers={"Authorization": f"Key {platform.admin_key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
        return json.loads(answer.read())


def small_fleet(folder: pathlib.Path, backend: str) -> pathlib.Path:
    """Write a fleet of two models on the same backend, one of them public."""
    for name, visibility in (("echo", "shared"), ("open", "public")):
        spec = SPEC.format(name=name, visibility=visibility, backend=backend)
        (folder / f"{name}.yaml").write_text(spec)
    fleet = folder / "fleet.yaml"
    fleet.write_text("models: [echo.yaml, open.yaml]\n")
    return fleet
