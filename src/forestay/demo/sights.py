"""The steps of the tour that no other scenario has: growth, a model that fails, and whether budget and pages agree.

Each acts as a caller or an operator would and returns the evidence in a line, or raises Broken. The other steps are
those of the scenarios of safety, quality and rollouts. `tour` says in which order they go.
"""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import cast

import aiohttp

from forestay.demo import faulting, shipping, tour_ground, workshop
from forestay.demo.accounts import Account, News, differences, news_of, pages, tickets, told_of, told_twice
from forestay.demo.calling import Calls
from forestay.demo.command import forestay, said
from forestay.demo.faulting import Floor
from forestay.demo.receiver import Receiver, is_genuine, read_jwks
from forestay.demo.scene import Scene
from forestay.demo.shipping import Yard
from forestay.demo.stage import Broken
from forestay.demo.tenants import ask_all
from forestay.demo.visit import Gallery
from forestay.demo.workshop import DIGITS

GROWING = 8  # requests at once, of two pictures each: more than one replica has slots for
FAILING = 24  # calls of the model that fails
READY_SECONDS, PAGED_SECONDS = 120.0, 120.0
MINUTE_SECONDS = 110.0  # a minute must be over, and rolled up, before it counts
AGREE_SECONDS = 20.0  # for facts that come late
_GROWN_SEED = 50_000
_PLATFORM = "platform"  # the subject of its own SLOs
Values = Mapping[str, object]


@dataclasses.dataclass(slots=True)
class Trip:
    """The platform with everybody who calls it, and what was seen."""

    scene: Scene
    calls: Calls
    session: aiohttp.ClientSession  # of a caller who calls a model that fails
    gallery: Gallery
    floor: Floor
    yard: Yard
    phone: Receiver  # whoever is woken
    placed: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)  # the second replica has its device
    closed_minute: int = 0  # in it the callers' ledger was closed
    failed: Counter[str] = dataclasses.field(default_factory=Counter[str])  # by model: answers that were errors
    shown: dict[str, str] = dataclasses.field(default_factory=dict[str, str])  # a command and what it printed


async def grown(trip: Trip) -> str:
    """Ask for more pictures than one replica can draw at once, until a second one is up on the other worker."""
    try:
        asked = await _asked_until_placed(trip)
    finally:
        trip.placed.set()
    return f"{asked} requests; {await _two_up(trip)}"


async def failing(trip: Trip) -> str:
    """Call a model that fails, by its own fault; nobody hides it from its callers."""
    wish = {"text": "hello", "fail": "500"}
    answers: Counter[int] = Counter()
    for _ in range(FAILING):
        async with trip.session.post(f"/run/{tour_ground.ECHO}", json=wish) as answer:
            await answer.read()
            answers[answer.status] += 1
    trip.failed[tour_ground.ECHO] += answers[500]
    if set(answers) != {500}:
        raise Broken(f"it answered {dict(answers)}")
    return f"{answers[500]} calls of {tour_ground.ECHO} were answered 500"


async def overflow(trip: Trip) -> str:
    """Half precision overflows on one worker, once both serve pictures again: one of them was killed."""
    await _two_up(trip)
    return await faulting.overflow(trip.floor)


async def nothing_lost(trip: Trip) -> str:
    """Close the ledger of those who never stopped asking: every request was answered."""
    told = await shipping.nothing_lost(trip.yard)
    trip.closed_minute = _minute(trip)
    return told


async def paged(trip: Trip) -> str:
    """The failing model paged, once and genuinely."""

    async def heard() -> str | None:
        found = [item for item in pages(news(trip)) if item.subject == f"model:{tour_ground.ECHO}"]
        return found[0].summary if found else None

    words = await trip.scene.until(f"a page for {tour_ground.ECHO}", heard, PAGED_SECONDS)
    async with trip.session.get("/rest/.well-known/jwks.json") as answer:
        keys = read_jwks(cast("Values", await answer.json()))
    false = sum(not is_genuine(one, keys) for one in trip.phone.deliveries)
    twice = told_twice(news(trip))
    if false or twice:
        raise Broken(f"{false} signatures do not verify; told twice: {twice}")
    return words


async def quiet(trip: Trip) -> str:
    """Nobody was woken for anything else that was done here: what was mended by itself is a ticket at most.

    What the platform says of itself is told and breaks nothing: on a machine with other work its own answers are late.
    """
    woke = [item for item in pages(news(trip)) if item.subject != f"model:{tour_ground.ECHO}"]
    false = [item for item in woke if item.subject != _PLATFORM]
    if false:
        raise Broken("; ".join(f"paged for {item.subject}: {item.name}: {item.summary}" for item in false)[:600])
    waiting = Counter(f"{item.name} ({item.subject})" for item in tickets(news(trip)))
    named = ", ".join(name if count == 1 else f"{count} {name}" for name, count in sorted(waiting.items()))
    if not any(name.startswith("replica_held_back") for name in waiting):
        raise Broken(f"nobody was told of the bad device: {named or 'nothing waits'}")
    own = "".join(f"; of the platform itself: {item.summary}" for item in woke)
    return f"for working hours: {named}{own}"


async def budget(trip: Trip) -> str:
    """Hold the callers' ledger against the error budgets, once the last minute is counted."""
    last = trip.closed_minute or _minute(trip)
    accounts = accounts_of(trip)

    async def counted() -> str | None:
        rows = await _standings(trip)
        mine = {str(row["subject"]): cast("int", row["minute"]) for row in rows if row["measure"] == "availability"}
        over = [mine.get(f"model:{one.model}", 0) >= last for one in accounts]
        return "counted" if all(over) else None

    await trip.scene.until("the last minute's end", counted, MINUTE_SECONDS)

    async def agrees() -> str | None:
        return None if differences(accounts, tour_ground.OBJECTIVES, await _standings(trip)) else "agrees"

    try:
        await trip.scene.until("that both agree", agrees, AGREE_SECONDS)
    except Broken:
        told = differences(accounts, tour_ground.OBJECTIVES, await _standings(trip))
        raise Broken("; ".join(told)) from None
    commands = (("slo", "status"), ("slo", "explain", "echo"), ("alert", "list"))
    printed = await asyncio.gather(*(said(trip.scene, *words) for words in commands))
    trip.shown = {f"forestay {' '.join(words)}": text for words, text in zip(commands, printed, strict=True)}
    return "; ".join(told_of(one, tour_ground.OBJECTIVES[one.model]) for one in accounts)


async def _asked_until_placed(trip: Trip) -> int:
    await forestay(trip.scene, "fleet", "mode", "quality", "act", "--json")
    asked, deadline = 0, trip.scene.clock.monotonic() + READY_SECONDS
    while len(await _workers(trip, ready=False)) < 2:
        if trip.scene.clock.monotonic() > deadline:
            raise Broken(f"{asked} requests were asked, and one replica has them all")
        wanted = workshop.pictures(GROWING, skewed=False, first_seed=_GROWN_SEED + workshop.PAIR * asked)
        asked += len(await ask_all(trip.floor.tenants, DIGITS, wanted))
    return asked


def accounts_of(trip: Trip) -> list[Account]:
    """Return what callers were answered by each model, by nothing but their own ledgers."""
    good, bad = Counter(trip.calls.answered), Counter(trip.failed)
    for tenant in trip.floor.tenants:
        for (model, status), count in tenant.answers.items():
            (good if status == 200 else bad)[model] += count
    for entry in trip.yard.customers.ledger.entries.values():
        (good if entry.status == 200 else bad)[DIGITS] += 1
    return [Account(model, good[model], bad[model]) for model in tour_ground.OBJECTIVES]


def news(trip: Trip) -> Sequence[News]:
    """Return what whoever is woken has heard."""
    return news_of(trip.phone.deliveries)


def _minute(trip: Trip) -> int:
    return int(trip.scene.clock.now().timestamp()) // 60


async def _standings(trip: Trip) -> Sequence[Values]:
    return cast("list[Values]", (await trip.scene.ask("GET", "/admin/slos"))["slos"])


async def _two_up(trip: Trip) -> str:
    async def up() -> str | None:
        workers = await _workers(trip, ready=True)
        return f"{DIGITS} is up on {' and '.join(workers)}" if len(workers) == 2 else None

    return await trip.scene.until("two replicas of the pictures", up, READY_SECONDS)


async def _workers(trip: Trip, *, ready: bool) -> list[str]:
    """Return the workers that have a replica of the pictures: one that serves, or one in whatever state."""
    rows = cast("list[Values]", (await trip.scene.ask("GET", "/admin/fleet"))["replicas"])
    mine = [row for row in rows if row["model_id"] == DIGITS]
    return sorted({str(row["worker_id"]) for row in mine if not ready or row["state"] == "ready"})
