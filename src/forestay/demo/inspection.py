"""The course of the safety scenario: one model under one policy, tried from every side.

It decides the order and what the platform is started with; what must come of each screening is in `screenings`.
"""

from forestay.demo.promises import SAFETY, all_kept
from forestay.demo.scene import Scene
from forestay.demo.screenings import SCREENINGS, unjudged
from forestay.demo.stage import Course, Stage, admin_session
from forestay.demo.visit import Gallery
from forestay.demo.visitor import Visitor, session_of

PATIENCE_SECONDS = 60.0  # a judge that was killed loads its weights anew, which takes long on a busy machine


class Inspection:
    """One run, with what it has found so far."""

    def __init__(self, course: Course) -> None:
        self.stage = Stage(course)
        self.measured = ""  # this course measures nothing that needs a section of its own

    async def run(self) -> bool:
        """Go through everything; True when every promise was kept. The platform is stopped in any case."""
        try:
            note = "starting Postgres, Valkey, gateway, controller, judge and two workers"
            variables = {"FORESTAY_SAFETY_MARKERS": "true", "FORESTAY_JUDGE_PATIENCE": str(PATIENCE_SECONDS)}
            ready = await self.stage.start(note, variables)
            if ready is not None:
                async with admin_session(ready) as admin, session_of(ready, f"Key {ready.api_key}") as calls:
                    at = Gallery(Scene(self.stage, ready, admin), Visitor(calls, self.stage.course.clock))
                    for name, screening in SCREENINGS:
                        await self.stage.check(name, lambda screening=screening: screening(at))
                    await self.stage.check("unjudged", lambda: unjudged(at))
        finally:
            await self.stage.stop()
        return all_kept(self.stage.promises, SAFETY)
