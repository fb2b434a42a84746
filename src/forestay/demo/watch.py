"""The course of the scenario of objectives: models are hurt, and it shows who is woken, who is not, and why.

It decides the order and what the platform is started with; what must come of each step is in `burning`.
"""

from forestay.demo import studio
from forestay.demo.budget_picture import render_budgets
from forestay.demo.burning import SLO_FOLDER, STEPS, Desk
from forestay.demo.promises import SLO, all_kept
from forestay.demo.receiver import Receiver
from forestay.demo.scene import Scene
from forestay.demo.stage import Course, Stage, admin_session, clean
from forestay.demo.visitor import session_of

_OBSERVE = {"FORESTAY_ALERT_BEAT": "1", "FORESTAY_JUDGE_PATIENCE": "60"}
CALL_SECONDS = 90.0  # the first call of a model waits for its replica, which takes long on a busy machine


class Watch:
    """One run, with what it has found so far."""

    def __init__(self, course: Course) -> None:
        self.stage = Stage(course)
        self.measured = ""  # budgets and burn rates as a section of HTML
        self._receiver = Receiver(course.clock)

    async def run(self) -> bool:
        """Go through everything; True when every promise was kept. The platform is stopped in any case."""
        await self._receiver.start()
        course = self.stage.course
        routes = course.data / "alerts.yaml"
        routes.write_text(studio.routes(self._receiver.url), encoding="utf-8")
        folder = course.output / SLO_FOLDER
        folder.mkdir(exist_ok=True)
        clean(folder, ("*.yaml",))
        variables = {
            **_OBSERVE,
            "FORESTAY_SLO_FILE": str(folder),  # empty as yet: a file comes into it when there is something to watch
            "FORESTAY_ALERT_ROUTES": str(routes),
            "FORESTAY_OTLP_ENDPOINT": self._receiver.collector_url,
        }
        try:
            ready = await self.stage.start("starting Postgres, Valkey, gateway, controller and two workers", variables)
            if ready is not None:
                key = f"Key {ready.api_key}"
                async with admin_session(ready) as admin, session_of(ready, key, CALL_SECONDS) as calls:
                    desk = Desk(Scene(self.stage, ready, admin), calls, self._receiver)
                    for name, step in STEPS:
                        await self.stage.check(name, lambda step=step: step(desk))
                    self.measured = render_budgets(desk.minutes, desk.shown)
        finally:
            await self.stage.stop()
            await self._receiver.stop()
        return all_kept(self.stage.promises, SLO)
