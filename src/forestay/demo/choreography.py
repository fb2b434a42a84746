"""The demonstration of the spine: start, call, break, count, stop; and what each promise came to.

It decides in which order things happen. The calls are made by `calling`, which looks from the platform's side too.
"""

from forestay.demo.calling import Calls
from forestay.demo.platform import Ready
from forestay.demo.promises import SPINE, all_kept
from forestay.demo.receiver import Receiver
from forestay.demo.stage import Course, Stage

DEVICES = 2


class Demonstration:
    """One run, with what it has found so far."""

    def __init__(self, course: Course) -> None:
        self.stage = Stage(course)
        self.measured = ""  # this course measures nothing that needs a section of its own
        self._receiver = Receiver(course.clock)
        self._calls = Calls(self.stage, self._receiver)

    async def run(self) -> bool:
        """Go through everything; True when every promise was kept. The platform is stopped in any case."""
        await self._receiver.start()
        try:
            ready = await self._start()
            if ready is not None:
                await self._calls.by_hosts(ready, "serve,burst")
                await self._calls.counted(ready)
                await self._calls.by_proxy(ready, "proxy")
        finally:
            await self.stage.stop()
            await self._receiver.stop()
        return all_kept(self.stage.promises, SPINE)

    async def _start(self) -> Ready | None:
        variables = {
            "FORESTAY_ALLOW_PRIVATE_WEBHOOKS": "true",  # our receiver listens on loopback
            "FORESTAY_DEVICES": str(DEVICES),
        }
        return await self.stage.start("starting Postgres, Valkey, gateway, controller and two workers", variables)
