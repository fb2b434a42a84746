"""`overload`: three times what can be served, with deadlines to start; and how quickly a real gateway says no.

The first part is simulated (`forestay.simulator`): four tenants, four slots, limits of 20, 40 and 60 seconds, the
platform's own prediction (cold at first), admission, turns, settlement and shedding; beside it, on the same arrivals,
first come, first served with nobody turned away, as it is and with late ones dropped at their turn. The second part
starts a whole platform whose one model serves slowly, fills its queue, and lets wrk send submits that cannot end in
time: every answer is a refusal.
"""

import asyncio
import pathlib
import shutil
import tempfile
import urllib.error
import urllib.request

from tests.platform.platform import RunningPlatform

from bench.load import Call, load
from bench.table import Row, median
from forestay.capacity.predict import cold_model
from forestay.chance import SeededChance
from forestay.simulator.demand import Arrival, Caller, diffusion, merged, steady
from forestay.simulator.policies import FairPolicy, FifoPolicy
from forestay.simulator.report import Overload, overload
from forestay.simulator.world import Policy, World

SLOTS, SECONDS, WARM_UP = 4, 1_200.0, 120.0
RATIO, COST_SECONDS = 3.0, 4.0
USUAL = {"steps": 30.0, "pixels": 2.0**20, "images": 1.0}
ASKED = tuple(
    {"steps": steps, "pixels": pixels, "images": images}
    for steps in (10.0, 30.0, 50.0)
    for pixels in (2.0**18, 2.0**20)
    for images in (1.0, 2.0, 4.0)
)
LIMITS = (20.0, 40.0, 60.0)
REFUSAL_SECONDS, CONNECTIONS, WAITING = 5, 32, 300
SPEC = """\
version: 0
model: bench/slow
description: A model whose server does not exist, so that its queue only grows.
owner: {team: bench, contact: bench@forestay.invalid}
licence: Apache-2.0
visibility: shared
host: {kind: http_server, url: "http://127.0.0.1:9"}
endpoints: [{path: /}]
capacity: {gpu_seconds: 10}
"""


def _arrivals(seed: int) -> list[Arrival]:
    chance = SeededChance(seed)
    cost = diffusion(COST_SECONDS, 0.25)
    mean = sum(cost(features, chance) for _ in range(200) for features in ASKED) / (200 * len(ASKED))
    callers = [Caller(f"tenant-{n}", SLOTS * RATIO / mean / 4, ASKED, LIMITS) for n in range(4)]
    return merged(*(steady(caller, cost, SECONDS, chance) for caller in callers))


def _measure(policy: Policy, seed: int) -> Overload:
    return overload(World(policy, SLOTS).run(_arrivals(seed), SECONDS), SLOTS, SECONDS, WARM_UP)


def run(rounds: int) -> list[Row]:
    """Measure `rounds` seeds, then the gateway once a round."""
    seeds = range(1, rounds + 1)
    ours = [_measure(FairPolicy(cold_model(USUAL, COST_SECONDS, ()), SLOTS), seed) for seed in seeds]
    fifo = [_measure(FifoPolicy(), seed) for seed in seeds]
    dropping = [_measure(FifoPolicy(drops_late=True), seed) for seed in seeds]
    rows = [
        Row("offered", median([seen.offered for seen in ours]), "x capacity"),
        Row("goodput", median([seen.goodput for seen in ours]), "of capacity", 0.95),
        Row("admitted that started in time", median([seen.in_time for seen in ours]), "of admitted", 0.99),
        Row("  worst round", min(seen.in_time for seen in ours), "of admitted"),
        Row("refused at submit", median([seen.refused for seen in ours]), "of asked"),
        Row("FIFO, nobody refused: goodput", median([seen.goodput for seen in fifo]), "of capacity"),
        Row("FIFO, nobody refused: started in time", median([seen.in_time for seen in fifo]), "of admitted"),
        Row("FIFO, late ones dropped: goodput", median([seen.goodput for seen in dropping]), "of capacity"),
        Row("FIFO, late ones dropped: started in time", median([seen.in_time for seen in dropping]), "of admitted"),
    ]
    return rows + _refusals(rounds)


def _refusals(rounds: int) -> list[Row]:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fs-bench-"))
    folder.chmod(0o755)
    try:
        (folder / "model.yaml").write_text(SPEC)
        fleet = folder / "fleet.yaml"
        fleet.write_text("models: [model.yaml]\n")
        with RunningPlatform("--tls-port", "-1", data_dir=folder, fleet=fleet) as platform:
            return _refuse(platform, rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _refuse(platform: RunningPlatform, rounds: int) -> list[Row]:
    url = f"{platform.url}/queue/bench/slow"
    headers = {"Authorization": f"Key {platform.api_key}", "Content-Type": "application/json"}
    body = '{"prompt": "a red seven"}'
    asyncio.run(_fill(url, headers, body))
    late = {**headers, "X-Fal-Request-Timeout": "1"}
    status, answer = _once(url, late, body)
    if status != 503:
        message = f"expected a refusal (503), got {status}: {answer[:200]!r}"
        raise SystemExit(message)
    call = Call("POST", body, late)
    load(url, call, connections=CONNECTIONS, seconds=1)  # warm-up
    seen = [load(url, call, connections=CONNECTIONS, seconds=REFUSAL_SECONDS) for _ in range(rounds)]
    note = f"{CONNECTIONS} connections, every answer a 503"
    return [
        Row("refusal by a real gateway, p99", median([one.p99_milliseconds for one in seen]), "ms", 50.0, "<=", note),
        Row("refusal by a real gateway, p50", median([one.p50_milliseconds for one in seen]), "ms"),
        Row("refusals", median([one.failed / REFUSAL_SECONDS for one in seen]), "a second"),
        Row("answers that were no refusal", median([one.per_second for one in seen]), "a second", 0, "<="),
    ]


async def _fill(url: str, headers: dict[str, str], body: str) -> None:
    """Let requests without a deadline wait."""
    limit = asyncio.Semaphore(CONNECTIONS)

    async def one() -> None:
        async with limit:
            await asyncio.to_thread(_once, url, headers, body)

    await asyncio.gather(*(one() for _ in range(WAITING)))


def _once(url: str, headers: dict[str, str], body: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, data=body.encode(), headers=headers, method="POST")  # noqa: S310 - our own
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
