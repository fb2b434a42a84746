"""The tour: one story through a platform of its own, from a first picture to who was woken and what all of it has cost.

It decides the order, what overlaps, and what the platform is started with. What must come of each step is in `calling`
(the client's side), `screenings` (refusals), `faulting` (the bad device), `shipping` (the bad revisions) and `sights`
(what is the tour's own). Callers ask for pictures by the queue from the second replica on until the last revision is
gone, whatever is killed, drained or rolled back meanwhile; their ledger is what everything is held against at the end.

The budget of time, on two cores that do nothing else (the whole: under four minutes), and why it cannot be less. A
model with torch takes 14 s of one core to load.

    start      10 s   Postgres, Valkey, gateway, controller, judge, two workers
    acts 1, 2  40 s   four models with torch are loaded, the last three of them at once; refusals are shown meanwhile
    act 3      20 s   a lease of 15 s must end before what the dead worker held runs again; its models load meanwhile
    act 4      10 s   the probe names the replica at once; the loop that drains looks every second
    act 5      88 s   each revision is loaded, passes its gates, and is compared a dozen times in its shadow: 32 s, and
                      36 s with 17 s under traffic for the second
    act 6      40 s   a minute must be over before it counts; the model that pages began to fail in act 1
    stop        5 s
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable

from forestay.demo import faulting, screenings, shipping, sights, studio, tour_ground, workshop
from forestay.demo.calling import Calls
from forestay.demo.customers import Customers, Pace
from forestay.demo.faulting import Floor
from forestay.demo.platform import Ready
from forestay.demo.promises import ACTS, TOUR, Kept, SavedFile, all_kept
from forestay.demo.receiver import Receiver
from forestay.demo.scene import Scene
from forestay.demo.shipping import Yard
from forestay.demo.sights import Trip
from forestay.demo.stage import Course, Stage, admin_session, clean
from forestay.demo.tenants import Tenant
from forestay.demo.tour_page import Shown, render_acts, render_device, render_money, render_shipped
from forestay.demo.visit import Gallery
from forestay.demo.visitor import Visitor, session_of

CALL_SECONDS = 120.0  # the first call of a model waits for its replica, which takes long on a busy machine
SERVES, REFUSES, DIES, DRAINS, SHIPS, AGREES = range(len(ACTS))
_HARMLESS = SavedFile("harmless.png", "harmless, so it was drawn, judged on both sides, and says who made it")
_SEVEN = "seven.png"  # what the caller drew first: a healthy picture
Step = Callable[[], Awaitable[str]]


class Tour:
    """One run, with what it has found so far."""

    def __init__(self, course: Course) -> None:
        fleet = tour_ground.build(course.fleet.parent, course.data / "fleet")
        self.stage = Stage(dataclasses.replace(course, fleet=fleet))
        self.measured = ""  # the acts as sections of HTML
        self._files: dict[int, list[SavedFile]] = {}
        self._hook, self._phone = Receiver(course.clock), Receiver(course.clock)

    async def run(self) -> bool:
        """Go through everything; True when every promise was kept. The platform is stopped in any case."""
        course = self.stage.course
        clean(course.output, ("rollout-*.html",))
        await self._hook.start()
        await self._phone.start()
        slos, routes = course.data / "slos.yaml", course.data / "alerts.yaml"
        slos.write_text(tour_ground.slos(), encoding="utf-8")
        routes.write_text(studio.routes(self._phone.url), encoding="utf-8")
        sections: dict[int, str] = {}
        try:
            note = "starting Postgres, Valkey, gateway, controller, judge and two workers"
            ready = await self.stage.start(note, tour_ground.settings(slos, routes))
            if ready is not None:
                async with contextlib.AsyncExitStack() as stack:
                    trip = await self._board(ready, stack)
                    try:
                        await self._travel(ready, trip)
                    finally:
                        sections = _sections(trip)
        finally:
            await self.stage.stop()
            await self._hook.stop()
            await self._phone.stop()
            self.measured = render_acts([self._shown(number, sections) for number in range(len(ACTS))])
        return all_kept(self.stage.promises, TOUR)

    async def _board(self, ready: Ready, stack: contextlib.AsyncExitStack) -> Trip:
        """Gather everybody who calls the platform."""
        clock = self.stage.course.clock
        scene = Scene(self.stage, ready, await stack.enter_async_context(admin_session(ready)))
        session = await stack.enter_async_context(session_of(ready, f"Key {ready.api_key}", CALL_SECONDS))
        tenants: list[Tenant] = []
        for name in (workshop.ONE, workshop.OTHER):
            await scene.ask("POST", "/admin/tenants", {"tenant_id": name})
            key = await scene.new_key(name, name)
            calls = await stack.enter_async_context(session_of(ready, f"Key {key}", CALL_SECONDS))
            tenants.append(Tenant(calls, clock))
        return Trip(
            scene=scene,
            calls=Calls(self.stage, self._hook),
            session=session,
            gallery=Gallery(scene, Visitor(session, clock)),
            floor=Floor(scene, tenants[0], tenants[1], self._phone),
            yard=Yard(scene, Customers(session, clock)),
            phone=self._phone,
        )

    async def _travel(self, ready: Ready, trip: Trip) -> None:
        """Go through the acts, while callers come."""
        customers = trip.yard.customers
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(customers.run())
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._act(REFUSES, lambda: self._refuse(trip)))
                    await self._act(SERVES, lambda: self._serve(ready, trip))
                customers.pace = Pace.GENTLE
                await self._act(DIES, lambda: self._die(ready, trip))
                await self._act(DRAINS, lambda: self._drain(trip))
                await self._act(SHIPS, lambda: self._ship(trip))
                await self._act(AGREES, lambda: self._agree(trip))
            finally:
                customers.stop()

    async def _act(self, number: int, play: Callable[[], Awaitable[None]]) -> None:
        """Play an act, tell how long it took, and keep its files for its place on the page."""
        clock, screen, title = self.stage.course.clock, self.stage.course.screen, ACTS[number].title
        started = clock.monotonic()
        screen.note(f"Act {number + 1}: {title}. {ACTS[number].about}")
        await play()
        screen.note(f"Act {number + 1}: {title}: over after {clock.monotonic() - started:.0f} s")
        if number != REFUSES:  # it runs beside the first, whose files these would be
            self._files[number] = list(self.stage.files)
            self.stage.files.clear()

    async def _serve(self, ready: Ready, trip: Trip) -> None:
        async with asyncio.TaskGroup() as both:
            both.create_task(self.stage.check("grown", lambda: sights.grown(trip)))
            await trip.placed.wait()  # film and sound come then: they would take its device
            await trip.calls.by_hosts(ready, "serve")
            await trip.calls.by_proxy(ready, "proxy")
            await self.stage.check("failing", lambda: sights.failing(trip))

    async def _refuse(self, trip: Trip) -> None:
        at = trip.gallery
        for name, screening in (
            ("policy", screenings.policy),
            ("harmless", screenings.harmless),
            ("refused", screenings.refused),
            ("disguised", screenings.disguised),
        ):
            await self.stage.check(name, lambda screening=screening: screening(at))
        for picture in at.pictures.values():
            (self.stage.course.output / _HARMLESS.name).write_bytes(picture)
            self._files[REFUSES] = [_HARMLESS]

    async def _die(self, ready: Ready, trip: Trip) -> None:
        await trip.calls.by_hosts(ready, "burst")
        await trip.calls.counted(ready)

    async def _drain(self, trip: Trip) -> None:
        trip.floor.healthy[_SEVEN] = SavedFile(_SEVEN, "seven, healthy")
        await self.stage.check("overflow", lambda: sights.overflow(trip))
        await self.stage.check("drained", lambda: faulting.drained(trip.floor))
        await self.stage.check("record", lambda: faulting.record(trip.floor))

    async def _ship(self, trip: Trip) -> None:
        steps = dict(shipping.STEPS)
        for name in ("subtle", "unseen", "passes", "rolled_back"):
            await self.stage.check(name, lambda step=steps[name]: step(trip.yard))
        await self.stage.check("nothing_lost", lambda: sights.nothing_lost(trip))
        for name in ("same_verdicts", "reports"):
            await self.stage.check(name, lambda step=steps[name]: step(trip.yard))

    async def _agree(self, trip: Trip) -> None:
        await self.stage.check("paged", lambda: sights.paged(trip))
        await self.stage.check("budget", lambda: sights.budget(trip))
        await self.stage.check("quiet", lambda: sights.quiet(trip))

    def _shown(self, number: int, sections: dict[int, str]) -> Shown:
        act = ACTS[number]
        promises = tuple(self.stage.promises.get(name, Kept(name)) for name in act.names)
        return Shown(act, promises, tuple(self._files.get(number, ())), sections.get(number, ""))


def _sections(trip: Trip) -> dict[int, str]:
    """Return what was measured, by act."""
    return {
        DRAINS: render_device(trip.floor.sides, trip.floor.shown),
        SHIPS: render_shipped(trip.yard.ended, trip.yard.customers.ledger.told()),
        AGREES: render_money(sights.news(trip), sights.accounts_of(trip), tour_ground.OBJECTIVES, trip.shown),
    }
