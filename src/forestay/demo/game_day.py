"""The course of the scenario of quality: real faults in a running fleet, and what finds each of them.

It decides the order and what the platform is started with; what must come of each step is in `faulting`.
"""

import contextlib
import dataclasses

from forestay.demo import studio, workshop
from forestay.demo.faulting import STEPS, Floor
from forestay.demo.promises import QUALITY, all_kept
from forestay.demo.receiver import Receiver
from forestay.demo.scene import Scene
from forestay.demo.side_by_side import render_sides
from forestay.demo.stage import Course, Stage, admin_session
from forestay.demo.tenants import Tenant
from forestay.demo.visitor import session_of

CALL_SECONDS = 120.0  # the first call of a model waits for its replica, which takes long on a busy machine
_SETTINGS = {
    "FORESTAY_DRILLS": "true",
    "FORESTAY_DEVICES": "1",  # so that each worker has one replica of the picture model
    "FORESTAY_QUALITY_REFERENCE": str(workshop.REFERENCE),
    "FORESTAY_ALERT_BEAT": "1",
    "FORESTAY_JUDGE_PATIENCE": "60",
}


class GameDay:
    """One run, with what it has found so far."""

    def __init__(self, course: Course) -> None:
        folder = course.data / "fleet"
        fleet = workshop.build(course.fleet.parent, folder)
        self.stage = Stage(dataclasses.replace(course, fleet=fleet))
        self.measured = ""  # each fault beside what is healthy, as a section of HTML
        self._receiver = Receiver(course.clock)

    async def run(self) -> bool:
        """Go through everything; True when every promise was kept. The platform is stopped in any case."""
        await self._receiver.start()
        course = self.stage.course
        routes = course.data / "alerts.yaml"
        routes.write_text(studio.routes(self._receiver.url), encoding="utf-8")
        variables = {**_SETTINGS, "FORESTAY_ALERT_ROUTES": str(routes)}
        try:
            ready = await self.stage.start("starting Postgres, Valkey, gateway, controller and two workers", variables)
            if ready is not None:
                async with contextlib.AsyncExitStack() as stack:
                    admin = await stack.enter_async_context(admin_session(ready))
                    scene = Scene(self.stage, ready, admin)
                    tenants: list[Tenant] = []
                    for name in (workshop.ONE, workshop.OTHER):
                        await scene.ask("POST", "/admin/tenants", {"tenant_id": name})
                        key = await scene.new_key(name, name)
                        session = await stack.enter_async_context(session_of(ready, f"Key {key}", CALL_SECONDS))
                        tenants.append(Tenant(session, course.clock))
                    floor = Floor(scene, tenants[0], tenants[1], self._receiver)
                    for name, step in STEPS:
                        await self.stage.check(name, lambda step=step: step(floor))
                    self.measured = render_sides(floor.sides, floor.shown)
        finally:
            await self.stage.stop()
            await self._receiver.stop()
        return all_kept(self.stage.promises, QUALITY)
