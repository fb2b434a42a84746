"""`ingress`: tricks that lead fetchers astray, files that explode, and whether honest ones still come through.

The corpora are those of the tests (`tests/ingress`), played on the real fetcher, the real limited child and the
worker's own preparation of inputs. The tricks run with the canary named as everyone's proxy in the environment; sockets
to public addresses lead to a scripted server, all others to the canary, which counts. Memory of the parent is its
resident size before and after each file (files of a corpus are built beforehand); that of a child is what the kernel
says it held at most. Every round plays everything; counts are of the worst round, times the slowest of all.
"""

import asyncio
import dataclasses
import io
import os
import pathlib
import statistics
import tempfile
import time

from PIL import Image
from tests.ingress import bombs, good
from tests.ingress.opening import defused, fault_of, opened, resident_bytes
from tests.ingress.playing import PROXIES
from tests.ingress.playing import fault_of as guard_fault
from tests.ingress.ssrf import corpus
from tests.ingress.way_in import WayIn
from tests.ingress.way_in import fault_of as way_fault
from tests.ingress.web import Canary, filled, filled_page, listening_canary, scripted_web, tls_contexts

from bench.table import Row
from forestay.media.decode import Decoder, MediaRefused
from forestay.media.fetch import FetchLimits

MB = 1024 * 1024
WARM = 40  # pictures by which the added latency is told
GENEROUS = FetchLimits(max_bytes=8 * MB, total_seconds=20.0)


@dataclasses.dataclass(slots=True)
class Tally:
    """What came of all rounds."""

    tricks: int = 0
    tricks_refused: int = 10**9
    trick_seconds: float = 0.0
    packets: int = 0
    bombs: int = 0
    bombs_refused: int = 10**9
    bomb_seconds: float = 0.0
    child_bytes: int = 0
    growth_bytes: int = 0
    honest: int = 0
    honest_passed: int = 10**9
    warm_seconds: list[float] = dataclasses.field(default_factory=list[float])
    faults: list[str] = dataclasses.field(default_factory=list[str])


def run(rounds: int) -> list[Row]:
    """Play everything `rounds` times."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="fs-bench-") as name:
        for _ in range(rounds):
            asyncio.run(_round(tally, pathlib.Path(name)))
    for fault in tally.faults[:20]:
        print(f"  {fault}")
    return _rows(tally)


async def _round(tally: Tally, folder: pathlib.Path) -> None:
    decoder = Decoder()
    try:
        with listening_canary() as canary:
            before = {variable: os.environ.get(variable) for variable in PROXIES}
            os.environ.update(dict.fromkeys(PROXIES, f"http://127.0.0.1:{canary.port}"))
            try:
                await _tricks(tally, canary)
                honest = await _ways(tally, canary, WayIn(decoder, folder, limits=GENEROUS))
            finally:
                for variable, value in before.items():
                    os.environ.pop(variable) if value is None else os.environ.update({variable: value})
            tally.packets += canary.packets()
        await _bombs(tally, decoder, folder)
        honest += await _files(tally, decoder, folder)
        tally.honest_passed = min(tally.honest_passed, honest)
        await _warm(tally, decoder, folder)
    finally:
        await decoder.close()


async def _tricks(tally: Tally, canary: Canary) -> None:
    refused = 0
    cases = corpus()
    for case in cases:
        size, started = resident_bytes(), time.perf_counter()
        fault = await guard_fault(case, canary)
        tally.trick_seconds = max(tally.trick_seconds, time.perf_counter() - started)
        tally.growth_bytes = max(tally.growth_bytes, resident_bytes() - size)
        refused += fault is None
        tally.faults += [f"{case.name}: {fault}"] if fault else []
    tally.tricks, tally.tricks_refused = len(cases), min(tally.tricks_refused, refused)


async def _ways(tally: Tally, canary: Canary, way_in: WayIn) -> int:
    passed = 0
    server, client = tls_contexts(way_in.folder / "tls")
    way_in = dataclasses.replace(way_in, tls=client)
    for way in good.ways():
        async with scripted_web(canary, server) as web:
            web.pages = {path: filled_page(wanted, web) for path, wanted in way.pages.items()}
            made = await way_in.prepare(filled(way.url, web), web, way.answers)
        fault = way_fault(made, "image/png")
        passed += fault is None
        tally.faults += [f"{way.name}: {fault}"] if fault else []
    return passed


async def _bombs(tally: Tally, decoder: Decoder, folder: pathlib.Path) -> None:
    files = bombs.corpus()
    seen = await defused(decoder, folder, files)
    tally.bombs, tally.bombs_refused = seen.tried, min(tally.bombs_refused, seen.tried - len(seen.failures))
    tally.bomb_seconds = max(tally.bomb_seconds, seen.slowest_seconds)
    tally.child_bytes = max(tally.child_bytes, seen.child_memory_bytes)
    tally.growth_bytes = max(tally.growth_bytes, seen.parent_growth_bytes)
    tally.faults += [f"{name}: {fault}" for name, fault in seen.failures.items()]


async def _files(tally: Tally, decoder: Decoder, folder: pathlib.Path) -> int:
    passed, files = 0, good.files()
    for file in files:
        try:
            clean, copy = await opened(decoder, folder, file.build(), file.kind)
        except MediaRefused as error:
            tally.faults.append(f"{file.name}: {error.message}")
            continue
        fault = fault_of(file, clean, copy)
        tally.child_bytes = max(tally.child_bytes, clean.child_memory_bytes)
        passed += fault is None
        tally.faults += [f"{file.name}: {fault}"] if fault else []
    tally.honest = len(files) + len(good.ways())
    return passed


async def _warm(tally: Tally, decoder: Decoder, folder: pathlib.Path) -> None:
    target = io.BytesIO()
    Image.effect_noise((1_000, 1_000), 50).convert("RGB").save(target, format="JPEG", quality=90)
    for _ in range(WARM):
        started = time.perf_counter()
        await opened(decoder, folder, target.getvalue(), "image")
        tally.warm_seconds.append(time.perf_counter() - started)


def _rows(tally: Tally) -> list[Row]:
    warm = statistics.median(tally.warm_seconds) * 1000
    return [
        Row("tricks in the corpus", tally.tricks, "cases", 300),
        Row("tricks refused", 100 * tally.tricks_refused / tally.tricks, "%", 100),
        Row("packets at the canary", tally.packets, "packets", 0, "<="),
        Row("slowest trick", tally.trick_seconds, "s", 2, "<="),
        Row("bombs in the corpus", tally.bombs, "files", 60),
        Row("bombs refused, with the right reason", 100 * tally.bombs_refused / tally.bombs, "%", 100),
        Row("slowest bomb", tally.bomb_seconds, "s", 2, "<=", "two at a time"),
        Row("largest child", tally.child_bytes / MB, "MB", 512, "<=", "resident, bombs and honest files"),
        Row("largest growth of the parent", tally.growth_bytes / MB, "MB", 32, "<=", "over one trick or bomb"),
        Row("honest cases", tally.honest, "cases", 50, note="files of every format, and ways to name one"),
        Row("honest cases passed", 100 * tally.honest_passed / tally.honest, "%", 100),
        Row("a JPEG of a megapixel, opened and cleaned", warm, "ms", 60, "<=", "median, program warm"),
    ]
