"""`safety_faults`: ten faults by six roads on a whole platform; nothing that was not judged may be read.

A round is 2,000 requests, spread over 60 cells of fault and road: the default of five makes 10,000, about eight minutes
on two idle cores. A tenth of the outputs is marked as harmful. Half of the calls go to a model whose policy degrades to
cheaper checks: its harmless outputs must get through. The other half's policy withholds: its refusals must come in time
and say why. After each fault both are called until they answer as before. The checker (`release_checker`) shares no
code with the guard. A refusal's time is taken at the client, from its question to a stream's event, a session's frame
or the whole answer of the direct lane; of it, and of recovery, counts what exceeds the usual time. On the queue nobody
waits: its output is withheld, and judged again.
"""

import asyncio
import collections
import dataclasses
import statistics
import sys
import time
from collections.abc import Sequence

import uvloop
from rich.console import Console
from rich.table import Table

from bench.fault_callers import Callers, Told, Waiting
from bench.fault_world import DEADLINE_SECONDS, FAULTS, MODELS, World, running
from bench.table import Row

REQUESTS_A_ROUND = 2_000
AT_A_TIME = 24
SLACK_SECONDS = 0.050
SEALED_SECONDS = 15.0
RECOVERY_SECONDS = 2.0
DIRECT = ("stream", "realtime", "provider", "data")
JUDGE_FAULTS = tuple(name for name in FAULTS if name not in {"restart", "disk"})  # what a policy's stand-ins cover


@dataclasses.dataclass
class Phase:
    """What happened under one fault."""

    fault: str
    told: list[Told] = dataclasses.field(default_factory=list[Told])
    recovery_seconds: dict[str, float] = dataclasses.field(default_factory=dict[str, float])


async def matrix(requests: int, faults: Sequence[str] = FAULTS) -> tuple[list[Phase], World, list[str]]:
    """Run all phases; returns them, what they ran on, and seals that do not hold."""
    started = time.perf_counter()
    async with running() as world, asyncio.TaskGroup() as group:
        waiting = Waiting(world)
        looking = group.create_task(waiting.run())
        callers = Callers(world, waiting)
        await _answer_again(callers, {}, 60.0)
        plan = {"none": max(60, requests // 4), **dict.fromkeys(faults, requests)}
        phases: list[Phase] = []
        for fault, count in plan.items():
            phases += [await _phase(callers, world, fault, count)]
            print(f"{fault}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        await _sweep(world)
        broken = await _seals(world)
        _show(phases, list(callers.roads))
        looking.cancel()
    return phases, world, broken


async def _phase(callers: Callers, world: World, fault: str, requests: int) -> Phase:
    phase = Phase(fault)
    gate = asyncio.Semaphore(AT_A_TIME)
    roads = list(callers.roads)

    async def one(number: int) -> None:
        async with gate:
            # By turns to every road of both models; which outputs are marked is spread evenly over them.
            told = Told(roads[number % 6], MODELS[number // 6 % 2], number * 2_654_435_761 >> 8 & 0xFFFF)
            phase.told.append(await callers.call(told))

    async with world.fault(fault):
        await asyncio.gather(*(one(number) for number in range(requests)))
    await _answer_again(callers, phase.recovery_seconds, 30.0)
    return phase


async def _seals(world: World) -> list[str]:
    """Return which seals do not hold, once the controller has closed the last records."""
    ends = time.perf_counter() + SEALED_SECONDS
    while (broken := await world.checker.broken_seals()) and time.perf_counter() < ends:
        await asyncio.sleep(0.5)
    return broken


async def _answer_again(callers: Callers, took: dict[str, float], patience_seconds: float) -> None:
    """Call every road of both models until a harmless output comes through; notes after how long."""
    started = time.perf_counter()

    async def probe(road: str, model: str) -> None:
        while time.perf_counter() - started < patience_seconds:
            told = await callers.call(Told(road, model, 0))
            if told.what == "made":
                break
            await asyncio.sleep(0.05)
        took[f"{road} {model}"] = time.perf_counter() - started

    await asyncio.gather(*(probe(road, model) for road in callers.roads for model in MODELS))


async def _sweep(world: World) -> None:
    """Read every file that the platform gives to whoever knows its name."""
    for media_id, name, request_id in await world.checker.released_files():
        async with world.session.get(f"{world.platform.url}/cdn/files/{media_id}/{name}") as answer:
            if answer.status == 200:
                await world.checker.read(request_id, "sweep", await answer.read())
    await world.checker.read_anywhere("bucket", *world.outside.stored.values())


def _show(phases: Sequence[Phase], roads: Sequence[str]) -> None:
    """Print what callers were told, by fault and road."""
    table = Table(title="made / refused / withheld / failed")
    for column in ("fault", *roads, "mean s", "why not"):
        table.add_column(column)
    for phase in phases:
        cells = [_cell([told for told in phase.told if told.road == road]) for road in roads]
        mean = statistics.fmean(told.seconds for told in phase.told)
        why = collections.Counter(told.reason for told in phase.told if told.what not in {"made", "withheld"})
        table.add_row(phase.fault, *cells, f"{mean:.2f}", ", ".join(f"{n} {kind}" for kind, n in why.most_common(3)))
    Console(width=180).print(table)


def _cell(told: Sequence[Told]) -> str:
    counts = collections.Counter(item.what for item in told)
    return "/".join(str(counts[what]) for what in ("made", "refused", "withheld", "failed"))


def rows_of(phases: Sequence[Phase], world: World, broken: Sequence[str]) -> list[Row]:
    """Put the outcome into the bench's table."""
    base, probes = _usual(phases[0]), max(phases[0].recovery_seconds.values())
    all_told = [told for phase in phases for told in phase.told]
    rows = [
        Row("requests", len(all_told), "", note=f"six roads; {world.checker.count} pieces read"),
    ]
    for phase in phases[1:]:
        rows += _phase_rows(phase, base, probes)
    leaked = [told for told in all_told if told.leaked]
    holes = "; ".join(f"{hole.what} {hole.digest[:20]}" for hole in world.checker.holes[:5])
    untyped = [
        told
        for phase in phases[1:]
        if phase.fault != "restart"
        for told in phase.told
        if told.what in {"failed", "nothing"}
    ]
    return [
        *rows,
        Row("read without a verdict that lets it", len(world.checker.holes), "pieces", 0, "<=", holes),
        Row("marked outputs read", len(leaked), "outputs", 0, "<=", str(leaked[:2]) if leaked else ""),
        Row("failures without a type", len(untyped), "answers", 0, "<=", str(untyped[:3]) if untyped else ""),
        Row("seals that do not hold", len(broken), "", 0, "<=", "; ".join(broken[:3])),
        Row("judge started", world.judge.starts, "times", note=f"{world.reloads} policies set while serving"),
    ]


def _usual(phase: Phase) -> dict[str, float]:
    """Return how long each road takes when nothing is wrong: its 99th percentile."""
    times: dict[str, list[float]] = collections.defaultdict(list)
    for told in phase.told:
        times[told.road].append(told.seconds)
    return {road: statistics.quantiles(values, n=100)[98] for road, values in times.items()}


def _phase_rows(phase: Phase, base: dict[str, float], probes: float) -> list[Row]:
    refused = [told for told in phase.told if told.what == "refused" and told.road in DIRECT and not told.harmful]
    late = [told.seconds - min(base[told.road], told.seconds) for told in refused]
    rows: list[Row] = []
    if phase.fault in JUDGE_FAULTS:
        harmless = [told for told in phase.told if told.model == MODELS[0] and not told.harmful]
        made = sum(told.what == "made" for told in harmless)
        rows.append(Row(f"{phase.fault}: covered, harmless, made", 100 * made / len(harmless), "%", 99.0))
    if late and phase.fault != "restart":
        limit = DEADLINE_SECONDS + SLACK_SECONDS
        note = f"{len(late)} refusals; beyond the usual p99 of the road"
        rows.append(Row(f"{phase.fault}: slowest refusal", max(late), "s", limit, "<=", note))
    slowest = max(phase.recovery_seconds, key=lambda road: phase.recovery_seconds[road])
    recovery = max(0.0, phase.recovery_seconds[slowest] - probes)
    note = f"{slowest}, the slowest; beyond the {probes:.2f} s that twelve calls at once take without a fault"
    return [*rows, Row(f"{phase.fault}: recovery", recovery, "s", RECOVERY_SECONDS, "<=", note)]


def run(rounds: int) -> list[Row]:
    """Run the matrix with 2,000 requests a round."""
    phases, world, broken = uvloop.run(matrix(rounds * REQUESTS_A_ROUND // len(FAULTS)))
    return rows_of(phases, world, broken)
