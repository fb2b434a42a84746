"""The course of the abuse scenario: a neighbour works, an attacker tries one thing after another, and both are watched.

It decides the order, measures how long the neighbour waits alone and under attack, and compares. What must come of each
attack is in `attacks`; the attacker and the neighbour run as programs of their own.
"""

import asyncio
from typing import cast

from forestay.demo.attacks import ATTACKS, BURST, HEAVY_SECONDS, IN_FLIGHT, PER_SECOND
from forestay.demo.promises import ABUSE, all_kept
from forestay.demo.scene import (
    ACME,
    ECHO_PATH,
    EVERY_SECONDS,
    GALLERY,
    MALLORY,
    SERVICE_SECONDS,
    TRIAL,
    Scene,
    Values,
    moment,
)
from forestay.demo.stage import Broken, Course, Stage, admin_session
from forestay.demo.waits import Comparison, Span, Wait, render_waits

DEVICES = 1  # a worker: one for each of the two models
SOLO_SECONDS = 8.0
_WARM_SECONDS = 150.0  # torch on a machine with other things to do
_FACTS_SECONDS = 30.0
_FINAL = {"succeeded", "failed", "cancelled", "expired"}
# Every model answers once, and the platform sees what requests of different length cost before it predicts any.
_WARM_UP: tuple[tuple[str, Values], ...] = (
    ("/queue/forestay/digits", {"prompt": "1", "seed": 1}),
    *((ECHO_PATH, {"text": "warm", "sleep_seconds": seconds}) for seconds in (0.0, SERVICE_SECONDS, HEAVY_SECONDS) * 2),
)


class Siege:
    """One run, with what it has found so far."""

    def __init__(self, course: Course) -> None:
        self.stage = Stage(course)
        self.measured = ""  # the waits as a section of HTML
        self._solo_count = 0
        self._spans: list[tuple[str, float, float]] = []  # an attack and when it went on, unix seconds

    async def run(self) -> bool:
        """Go through everything; True when every promise was kept. The platform is stopped in any case."""
        try:
            note = "starting Postgres, Valkey, gateway, controller and two workers"
            ready = await self.stage.start(note, {"FORESTAY_DEVICES": str(DEVICES)})
            if ready is not None:
                async with admin_session(ready) as session:
                    await self._besiege(Scene(self.stage, ready, session))
        finally:
            await self.stage.stop()
        return all_kept(self.stage.promises, ABUSE)

    async def _besiege(self, scene: Scene) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                await self.stage.check("solo", lambda: self._solo(scene, tasks))
                for name, attack in ATTACKS:
                    started = self.stage.course.clock.now().timestamp()
                    await self.stage.check(name, lambda attack=attack: attack(scene))
                    self._spans.append((name, started, self.stage.course.clock.now().timestamp()))
                await self.stage.check("neighbour", lambda: self._compare(scene))
        finally:
            await scene.neighbour.stop()
        await self.stage.check("audit", lambda: audit(scene))

    async def _solo(self, scene: Scene, tasks: asyncio.TaskGroup) -> str:
        """Make the tenants, load the models, and let the neighbour work alone for a while."""
        await prepare(scene)
        self.stage.course.screen.note("loading the models")
        await warm_up(scene)
        self.stage.course.screen.note(f"the neighbour works alone for {SOLO_SECONDS:.0f} s")
        plan = {
            **scene.address(),
            "key": scene.keys[GALLERY],
            "path": ECHO_PATH,
            "body": {"text": "a picture, please", "sleep_seconds": SERVICE_SECONDS},
            "every_seconds": EVERY_SECONDS,
        }
        await scene.neighbour.start(self.stage, plan)
        tasks.create_task(scene.neighbour.listen())
        await self.stage.course.clock.sleep(SOLO_SECONDS)
        self._solo_count = len(scene.neighbour.request_ids)
        if not self._solo_count or scene.neighbour.failures:
            raise Broken(f"{self._solo_count} requests acknowledged; failures: {scene.neighbour.failures[:2]}")
        return f"{self._solo_count} requests of {SERVICE_SECONDS:g} s, one every {EVERY_SECONDS:g} s"

    async def _compare(self, scene: Scene) -> str:
        """Compare the neighbour's waits under attack with those alone; all of its requests must have succeeded."""
        await scene.neighbour.stop()
        facts = [await fact_of(scene, request_id) for request_id in list(scene.neighbour.request_ids)]
        first = moment(facts[0]["submitted_at"]).timestamp()
        waits = [wait_of(fact, first) for fact in facts]
        solo, attacked = tuple(waits[: self._solo_count]), tuple(waits[self._solo_count :])
        comparison = Comparison(solo, attacked, SERVICE_SECONDS)
        spans = [Span(ABUSE[name], since - first, until - first) for name, since, until in self._spans]
        self.measured = render_waits(comparison, spans)
        lost = [fact["request_id"] for fact in facts if fact["state"] != "succeeded"]
        if lost or scene.neighbour.failures:
            raise Broken(f"{len(lost)} requests did not succeed; refused: {scene.neighbour.failures[:2]}")
        if not comparison.kept:
            raise Broken(comparison.words())
        return comparison.words()


async def prepare(scene: Scene) -> None:
    """Make the tenants, a key for each, and the limits that hold for every tenant."""
    for tenant_id in (GALLERY, MALLORY, ACME, TRIAL):
        await scene.ask("POST", "/admin/tenants", {"tenant_id": tenant_id})
        scene.keys[tenant_id] = await scene.new_key(tenant_id, tenant_id)
    every: Values = {"subject": "tenant:*", "requests_per_second": PER_SECOND, "burst": BURST}
    trial: Values = {"subject": f"tenant:{TRIAL}", "in_flight": IN_FLIGHT}
    for limits, reason in ((every, "every tenant's share"), (trial, "a trial plan")):
        await scene.ask("PUT", "/admin/limits", {**limits, "reason": reason})
        scene.acts[str(limits["subject"])] = reason


async def warm_up(scene: Scene) -> None:
    """Have each model answer once, so that nobody's wait counts its loading."""
    requests = [{"path": path, "key": scene.keys[ACME], "body": body} for path, body in _WARM_UP]
    answers = cast("list[Values]", (await scene.attack("calls", {"requests": requests}))["answers"])
    if any(answer["status"] != 200 for answer in answers):
        raise Broken(f"a request was not accepted: {answers}")

    async def done() -> str | None:
        found = cast("list[Values]", (await scene.ask("GET", "/admin/requests"))["requests"])
        return "warm" if found and all(one["state"] in _FINAL for one in found) else None

    await scene.until("loading the models", done, _WARM_SECONDS)


async def fact_of(scene: Scene, request_id: str) -> Values:
    """Return the fact of a finished request; facts are shipped a moment after the end."""
    found: Values = {}

    async def look() -> str | None:
        nonlocal found
        found = cast("Values", (await scene.ask("GET", f"/admin/requests/{request_id}"))["fact"] or {})
        return "there" if found else None

    await scene.until(f"the fact of {request_id}", look, _FACTS_SECONDS)
    return found


def wait_of(fact: Values, first: float) -> Wait:
    """Return how long the request of a fact waited; one that never started waited until its end."""
    submitted = moment(fact["submitted_at"])
    started = moment(fact["started_at"] or fact["finished_at"])
    return Wait(submitted.timestamp() - first, (started - submitted).total_seconds())


async def audit(scene: Scene) -> str:
    """Verify the audit log, and find every act of this run in it with its reason."""
    found = await scene.ask("GET", "/admin/audit/verify")
    if found["intact"] is not True:
        raise Broken(f"faults: {found['faults']}")
    rows = cast("list[Values]", (await scene.ask("GET", "/admin/audit?limit=1000"))["rows"])
    told = {(str(row["subject"]).removeprefix("standing:"), str(row["reason"])) for row in rows}
    missing = [
        subject for subject, reason in scene.acts.items() if not any(subject in s and reason in r for s, r in told)
    ]
    if missing:
        raise Broken(f"no row with the reason for {', '.join(missing)}")
    silent = [row for row in rows if str(row["actor"]).startswith("loop:") and not row["reason"]]
    if silent:
        raise Broken(f"{len(silent)} automatic acts have no reason: {silent[0]}")
    automatic = sum(str(row["actor"]).startswith("loop:") for row in rows)
    return f"{len(rows)} acts ({automatic} automatic), every chain whole; {len(scene.acts)} reasons found as given"
