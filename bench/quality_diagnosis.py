"""`quality_diagnosis`: whether a fault is named and localised by what production keeps of outputs, and mixes are quiet.

Streams are drawn from pictures of the example model `digits` (drawn once and kept) and from films and tones made of
them, as workers note them, of three replicas. After 300 healthy outputs a media fault begins on one replica; what the
watch sees is diagnosed as the loop does. Right: the fault's row of the catalogue is among the first three that are
named. Beside it, whether the replica was. Pictures are clustered by their prompt; in each run of the other kind the mix
of prompts changes at output 300 and nothing else does. Faults of pipelines are not diagnosed here.
"""

import datetime as dt
import uuid
from collections.abc import Sequence

import numpy as np
from PIL import Image

from bench.quality_faults import ENFORCED, POOL, WORDS, Studio, _enlarged, _film, _heard
from bench.table import Row
from forestay.media.measures import Measured
from forestay.media.measuring.pictures import measure
from forestay.quality import faults
from forestay.quality.asked import Asked, Served
from forestay.quality.contracts import File, check_output
from forestay.quality.diagnosis import diagnose
from forestay.quality.noting import cluster_of, digest, note_outputs
from forestay.quality.watching import Broke, Rules, Watch, stratum_of
from forestay.telemetry.output_facts import OutputFact

START = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
RULES = Rules(reference_outputs=200, run_length_outputs=10_000.0)
HEALTHY, AFTER, MIXES = 300, 300, 20
KEY = b"bench" * 6


def run(rounds: int) -> list[Row]:
    """Inject each fault of media once; `rounds` changes nothing, for seeds are fixed."""
    del rounds
    pictures = [_enlarged(picture)[::2, ::2] for picture in Studio().pool()]
    films = [np.stack([np.roll(picture, 3 * step, 1) for step in range(12)]) for picture in pictures[:60]]
    time = np.arange(16_000) / 16_000
    tones = [
        (0.4 * np.sin(2 * np.pi * hertz * time) * (0.6 + 0.4 * np.sin(4 * np.pi * time))).astype(np.float32)
        for hertz in np.random.default_rng(9).uniform(200, 900, 60)
    ]
    missed: list[str] = []
    named = placed = 0
    for kind, kit, pool in (("image", faults.PICTURES, pictures), ("video", faults.FILMS, films),
                            ("audio", faults.SOUNDS, tones)):  # fmt: skip
        healthy = [_measured(kind, item) for item in pool]
        for fault in kit:
            chance = np.random.default_rng(fault.row)
            ill = [_measured(kind, fault.inject(item, chance)) for item in pool[:40]]
            rows, right = _diagnosed(healthy, ill, fault.row)
            named += fault.row in rows[:3]
            placed += right
            missed += [] if fault.row in rows[:3] else [f"{kind} {fault.name} ({fault.row}): {rows[:3]}"]
    count = len(faults.PICTURES) + len(faults.FILMS) + len(faults.SOUNDS)
    quiet = sum(_mix(pictures, seed) for seed in range(MIXES))
    return [
        Row("media faults named in the first three", 100 * named / count, "%", 80.0, ">=", "; ".join(missed)[:400]),
        Row("replica named", 100 * placed / count, "%", note=f"{count} faults"),
        Row("other mix of prompts: quiet", 100 * quiet / MIXES, "% of runs", 95.0, ">="),
    ]


def _measured(kind: str, item: np.ndarray) -> Measured:
    if kind == "image":
        return Measured("image", "image/png", measure(Image.fromarray(item)))
    return _film(item) if kind == "video" else _heard(item)


def _fact(number: int, measured: Measured, cluster: int = 0, prompt: int = 0) -> OutputFact:
    file = File("x", None, measured)
    noted = note_outputs({}, [file], check_output([file], Asked(), Served(), ENFORCED), KEY)[0]
    replica = "abc"[number % 3]
    return OutputFact(
        at=START + dt.timedelta(seconds=number), request_id=uuid.UUID(int=number), attempt=1, place=0, tenant_id="t",
        model_id="m", endpoint="/", revision_id="r", replica_id=replica, worker_id=replica, device=replica,
        kind=noted.kind, parameters=noted.parameters, cluster=cluster, failed=noted.failed,
        features=list(noted.features), prompt=prompt,
    )  # fmt: skip


def _diagnosed(healthy: Sequence[Measured], ill: Sequence[Measured], seed: int) -> tuple[list[int], bool]:
    """Return the rows that are named first to last, and whether the replica is."""
    chance = np.random.default_rng(seed)
    facts = [_fact(number, healthy[chance.integers(len(healthy))]) for number in range(HEALTHY)]
    for number in range(HEALTHY, HEALTHY + AFTER):
        pool = ill if number % 3 == 1 else healthy
        facts.append(_fact(number, pool[chance.integers(len(pool))]))
    watch = Watch(RULES)
    event = next((item for item in watch.take(facts) if item.key.replica_id == "b"), None)
    if event is None:
        return [], False
    since = [fact for fact in facts if fact.at >= event.since]
    reference = watch.references["r", event.key.kind].strata()
    check = event.check if isinstance(event, Broke) else ""
    told = diagnose(since, reference, [stratum_of(fact) for fact in since], check)
    place = told.contrast is not None and told.contrast.value == "b"
    return [item.row for item in told.named], place


def _mix(pictures: Sequence[np.ndarray], seed: int) -> bool:
    """Return whether a change of the mix of prompts from all to those of two colours is passed over."""
    prompts = _prompts()
    clusters = [cluster_of(words, KEY) for words in prompts]
    digests = [digest(" ".join(words), KEY) for words in prompts]
    measured = _CACHE or [_measured("image", picture) for picture in pictures]
    _CACHE[:] = measured
    chance = np.random.default_rng(1_000 + seed)
    later = [place for place, words in enumerate(prompts) if "red" not in words]
    drawn = [*chance.integers(len(measured), size=HEALTHY), *chance.choice(later, size=AFTER)]
    facts = [_fact(n, measured[p], clusters[p], digests[p]) for n, p in enumerate(drawn)]
    return not Watch(RULES).take(facts)


_CACHE: list[Measured] = []


def _prompts() -> list[list[str]]:
    """Return the prompts of the pool: drawn as `Studio.pool` draws them."""
    chance, made = np.random.default_rng(4), list[list[str]]()
    while len(made) < POOL:
        made += [["a", str(chance.choice(("red", "blue", "green"))), str(chance.choice(WORDS))] for _ in range(20)]
        chance.integers(1 << 30)
    return made
