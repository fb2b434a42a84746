"""The course of the scenario of rollouts: three revisions are shipped while callers never stop asking.

It decides the order and what the platform is started with; what must come of each step is in `shipping`.
"""

import asyncio

from forestay.demo.customers import Customers
from forestay.demo.promises import ROLLOUT, all_kept
from forestay.demo.scene import Scene
from forestay.demo.shipping import STEPS, Yard
from forestay.demo.shipping_page import Shipped, render_rollouts
from forestay.demo.stage import Course, Stage, admin_session, clean
from forestay.demo.visitor import session_of

DEVICES = 1  # a worker: the control on one, the candidate on the other
CALL_SECONDS = 120.0  # the first call waits for a replica, which takes long on a busy machine


class Shipyard:
    """One run, with what it has found so far."""

    def __init__(self, course: Course) -> None:
        self.stage = Stage(course)
        self.measured = ""  # the rollouts as a section of HTML

    async def run(self) -> bool:
        """Go through everything; True when every promise was kept. The platform is stopped in any case."""
        clean(self.stage.course.output, ("rollout-*.html",))
        try:
            note = "starting Postgres, Valkey, gateway, controller and two workers"
            ready = await self.stage.start(note, {"FORESTAY_DEVICES": str(DEVICES)})
            if ready is not None:
                key = f"Key {ready.api_key}"
                async with admin_session(ready) as admin, session_of(ready, key, CALL_SECONDS) as calls:
                    customers = Customers(calls, self.stage.course.clock)
                    await self._ship(Yard(Scene(self.stage, ready, admin), customers))
        finally:
            await self.stage.stop()
        return all_kept(self.stage.promises, ROLLOUT)

    async def _ship(self, yard: Yard) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(yard.customers.run())
                try:
                    for name, step in STEPS:
                        await self.stage.check(name, lambda step=step: step(yard))
                finally:
                    yard.customers.stop()
        finally:
            shipped = [Shipped(name, found) for name, found in yard.ended.items()]
            self.measured = render_rollouts(shipped, yard.customers.ledger.told())
