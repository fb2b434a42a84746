"""The parts of the tour that need no platform: its acts, its fleet, the ledger against budgets and pages, its page."""

import contextlib
import io
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from forestay.clock import SystemClock
from forestay.demo import faulting, screenings, shipping, sights, tour_ground, workshop
from forestay.demo.accounts import (
    Account,
    differences,
    left_of,
    news_of,
    pages,
    tickets,
    told_of,
    told_twice,
)
from forestay.demo.caller import SCENARIOS as CALLER
from forestay.demo.calling import Calls
from forestay.demo.customers import Customers
from forestay.demo.faulting import Floor
from forestay.demo.platform import Ready
from forestay.demo.promises import ACTS, SPINE, TOUR, Kept, Mark, SavedFile
from forestay.demo.receiver import Delivery, Receiver
from forestay.demo.scene import Scene
from forestay.demo.screen import LiveScreen, PlainScreen, open_rows
from forestay.demo.shipping import Yard
from forestay.demo.sights import Trip
from forestay.demo.stage import WORKERS, Broken, Course, Stage
from forestay.demo.tenants import Tenant
from forestay.demo.tour import SHIPS
from forestay.demo.tour_page import Shown, render_acts, render_money, render_shipped
from forestay.demo.visit import Gallery
from forestay.demo.visitor import Visitor
from forestay.errors import ForestayError
from forestay.fleet.spec_file import parse
from forestay.slo.lint import Level, Surroundings, lint_slos
from forestay.slo.slo_file import read_slos

EXAMPLES = Path(__file__).parents[2] / "examples"
DIGITS, ECHO = workshop.DIGITS, tour_ground.ECHO
ALERT = {"alert_id": "a", "name": "slo_burns", "subject": "model:m", "severity": "page", "status": "firing"}


def delivery(*items: dict[str, str]) -> Delivery:
    """A notification, as it arrived."""
    whole = [{**ALERT, "transition": "opened", "summary": "<burns>", **item} for item in items]
    return Delivery("r", "u", "1", "", json.dumps({"items": whole}).encode(), 1.0)


def row(model: str, events: float, bad: float, left: float | None) -> dict[str, object]:
    """A standing, as the admin API tells it."""
    return {"subject": f"model:{model}", "measure": "availability", "events": events, "bad": bad, "left_ratio": left}


def test_the_tour_keeps_every_promise_of_the_spine_and_has_a_step_for_each() -> None:
    """So that `make demo` shows all that it ever did; each promise is in one act, once."""
    names = [name for act in ACTS for name in act.names]
    assert len(names) == len(set(names)) == len(TOUR)
    assert set(SPINE) <= set(TOUR)
    caller = {name for steps in CALLER.values() for name, _ in steps}
    others = dict([*screenings.SCREENINGS, *faulting.STEPS, *shipping.STEPS])
    own = {"start", "stop", "killed", "once", "webhooks", "grown", "failing", "paged", "quiet", "budget"}
    assert set(TOUR) <= caller | set(others) | own
    assert set(ACTS[SHIPS].names) <= {name for name, _ in shipping.STEPS}


def test_the_tour_s_devices_are_full_when_the_pictures_have_two(tmp_path: Path) -> None:
    """So that nothing else is loaded twice; every spec is a good one, and broken media are no success."""
    fleet = tour_ground.build(EXAMPLES, tmp_path / "fleet")
    specs = [parse(path.read_text(), "model.yaml") for path in sorted(fleet.parent.glob("*/model.yaml"))]
    devices = {str(spec.model_id): spec.resources.devices for spec in specs}
    assert devices == {DIGITS: 1, workshop.MOTION: 1, workshop.TONES: 1, ECHO: 0}
    settings = tour_ground.settings(tmp_path, tmp_path)
    assert WORKERS * int(settings["FORESTAY_DEVICES"]) == sum(devices.values()) + devices[DIGITS]
    assert all(spec.quality.mode == "enforce" and not spec.quality.canaries.inputs for spec in specs)
    assert fleet.read_text().count("model.yaml") == len(devices)


def test_its_objectives_are_a_good_file() -> None:
    """Without a fault or an error of sense, one for each model."""
    slos = read_slos(tour_ground.slos(), "tour.yaml")
    assert {slo.subject.name: slo.objective for slo in slos} == dict(tour_ground.OBJECTIVES)
    assert not [found for found in lint_slos(slos, Surroundings()) if found.level is Level.ERROR]


@given(good=st.integers(0, 10_000), bad=st.integers(0, 10_000), objective=st.sampled_from([0.9, 0.99, 0.999]))
def test_a_budget_is_spent_by_bad_answers_alone_and_is_whole_without_them(
    good: int, bad: int, objective: float
) -> None:
    """None bad: all of it is left; as many as the objective allows: none; and each further one costs."""
    account = Account("m", good, bad)
    left = left_of(account, objective)
    assert left <= 1.0
    assert (left == 1.0) == (bad == 0)
    assert left_of(Account("m", good + 1, bad), objective) >= left
    assert left_of(Account("m", good, bad + 1), objective) < left or not good


def test_the_ledger_and_the_budgets_agree_only_to_the_last_request() -> None:
    """The number of answers, the number of bad ones, the share that is left; a model without an SLO is told."""
    ours, objectives = [Account("m", 95, 5)], {"m": 0.9}
    assert not differences(ours, objectives, [row("m", 100, 5, 0.5)])
    assert differences(ours, objectives, [row("m", 101, 5, 0.5)]) == [
        "m: 5 bad of 101 by the platform, 5 of 100 by the ledger"
    ]
    assert "4 bad of 100" in differences(ours, objectives, [row("m", 100, 4, 0.6)])[0]
    assert "0.6 of the budget left by the platform" in differences(ours, objectives, [row("m", 100, 5, 0.6)])[0]
    assert "None of the budget left" in differences(ours, objectives, [row("m", 100, 5, None)])[0]
    assert differences(ours, objectives, [row("other", 100, 5, 0.5)]) == ["m has no SLO"]
    assert told_of(ours[0], 0.9) == "m 5 bad of 100, budget of 90%: 50% left"
    assert told_of(Account("m", 1, 1), 0.9).endswith("spent")


def test_whoever_is_woken_is_counted_once_and_what_waits_apart() -> None:
    """A ticket that becomes a page woke somebody; what is over wakes nobody; a beginning that came twice is told."""
    heard = news_of(
        [
            delivery({"alert_id": "page"}, {"alert_id": "ticket", "severity": "ticket"}),
            delivery({"alert_id": "worse", "severity": "ticket"}),
            delivery({"alert_id": "worse", "transition": "worsened"}),
            delivery({"alert_id": "page", "transition": "resolved", "status": "resolved"}),
        ]
    )
    assert [item.alert_id for item in pages(heard)] == ["page", "worse"]
    assert [item.alert_id for item in tickets(heard)] == ["ticket"]
    assert told_twice(heard) == []
    assert told_twice([*heard, *news_of([delivery({"alert_id": "page"})])]) == ["page"]


def test_the_page_goes_act_by_act_and_nothing_on_it_becomes_markup() -> None:
    """Each with its promises, its files and what was measured, its headings below the act's own."""
    broken = Kept("burst", Mark.BROKEN, "<3 lost>")
    shown = [
        Shown(ACTS[0], [Kept("picture", Mark.KEPT, "seen")], [SavedFile("seven.png", "<seven>")], ""),
        Shown(ACTS[2], [broken], [], "<h2>Rollouts</h2>"),
    ]
    page = render_acts(shown)
    assert '<h2 id="act-1">1. The fleet serves</h2>' in page
    assert '<img src="seven.png"' in page
    assert "<h3>Rollouts</h3>" in page
    assert "0 of 1 promises kept" in page
    assert "<3 lost>" not in page
    assert "<seven>" not in page


def test_budgets_and_pages_are_shown_as_they_came() -> None:
    """Every alert in order, every model with a bar of what is left."""
    page = render_money(
        news_of([delivery({})]), [Account(ECHO, 1, 9), Account(DIGITS, 99, 1)], tour_ground.OBJECTIVES, {"slo": "<x>"}
    )
    assert "&lt;burns&gt;" in page
    assert "&lt;x&gt;" in page
    assert page.count("<svg") == 2
    assert "spent" in page
    assert "90%" in page
    assert render_shipped({}, "3 asked") == "<h2>Rollouts</h2>\n<p>3 asked.</p>\n"


@contextlib.asynccontextmanager
async def trip_of(tmp_path: Path) -> AsyncIterator[Trip]:
    """A trip whose callers have asked nothing yet, and whose platform nobody asks."""
    clock = SystemClock()
    stage = Stage(Course(tmp_path, tmp_path, tmp_path, {}, clock, PlainScreen(Console(file=io.StringIO()))))
    async with aiohttp.ClientSession("http://127.0.0.1:1") as session:
        scene = Scene(stage, Ready("", "", "", "", "", "", "", ""), session)
        phone, tenants = Receiver(clock), [Tenant(session, clock), Tenant(session, clock)]
        yield Trip(
            scene=scene,
            calls=Calls(stage, Receiver(clock)),
            session=session,
            gallery=Gallery(scene, Visitor(session, clock)),
            floor=Floor(scene, tenants[0], tenants[1], phone),
            yard=Yard(scene, Customers(session, clock)),
            phone=phone,
        )


async def test_an_account_is_what_every_caller_was_answered(tmp_path: Path) -> None:
    """The client's program, both tenants, those who never stop asking, and who called a failing model."""
    async with trip_of(tmp_path) as trip:
        trip.calls.answered.update({DIGITS: 4, ECHO: 18})
        trip.floor.one.answers[DIGITS, 200] = 8
        trip.floor.other.answers[DIGITS, 502] = 1
        for status in (200, 500, 0):  # an answer that never came is a bad one
            ledger = trip.yard.customers.ledger
            ledger.note(ledger.ask(), status=status)
        trip.failed[ECHO] = 24
        found = {one.model: (one.good, one.bad) for one in sights.accounts_of(trip)}
    assert found == {DIGITS: (13, 3), ECHO: (18, 24), workshop.MOTION: (0, 0), workshop.TONES: (0, 0)}


async def test_who_waits_for_the_second_replica_goes_on_though_it_never_comes(tmp_path: Path) -> None:
    """The promise is broken then, and the story still has its end."""
    async with trip_of(tmp_path) as trip:
        with pytest.raises(ForestayError):
            await sights.grown(trip)  # there is no platform
        assert trip.placed.is_set()


HELD_BACK = {"alert_id": "h", "name": "replica_held_back", "subject": "worker:w1", "severity": "ticket"}
ECHO_BURNS = {"alert_id": "e", "subject": f"model:{ECHO}"}


async def test_nobody_but_the_failing_model_s_owner_is_woken(tmp_path: Path) -> None:
    """The bad device is a ticket; it breaks the promise too when nobody is told of that at all."""
    async with trip_of(tmp_path) as trip:
        trip.phone.deliveries.append(delivery(ECHO_BURNS))
        with pytest.raises(Broken, match="nobody was told of the bad device: nothing waits"):
            await sights.quiet(trip)
        trip.phone.deliveries.append(delivery(HELD_BACK))
        assert await sights.quiet(trip) == "for working hours: replica_held_back (worker:w1)"
        trip.phone.deliveries.append(delivery({"alert_id": "p", "subject": "platform"}))
        assert (await sights.quiet(trip)).endswith("of the platform itself: <burns>")
        trip.phone.deliveries.append(delivery({"alert_id": "d", "subject": f"model:{DIGITS}"}))
        with pytest.raises(Broken, match="paged for model:forestay/digits: slo_burns"):
            await sights.quiet(trip)


def marked(*marks: Mark) -> Sequence[Kept]:
    """Promises of an act, by their marks."""
    return [Kept(name, mark) for name, mark in zip(TOUR, marks, strict=False)]


def test_an_act_takes_little_room_on_a_terminal() -> None:
    """One line when it is over or to come; while it goes on, what runs, what is broken, and the last that were kept."""
    kept, running, broken, waiting = Mark.KEPT, Mark.RUNNING, Mark.BROKEN, Mark.WAITING
    assert open_rows(marked(kept, kept)) == []
    assert open_rows(marked(waiting, waiting)) == []
    seen = open_rows(marked(kept, kept, kept, broken, running, waiting))
    assert Counter(one.mark for one in seen) == {kept: 2, broken: 1, running: 1}


def test_a_terminal_shows_the_acts_and_at_the_end_every_promise() -> None:
    """With their titles, whatever became of them."""
    out = io.StringIO()
    screen = LiveScreen(Console(file=out, width=160, height=24, force_terminal=True), TOUR, ACTS)
    screen.show(Kept("start", Mark.RUNNING))
    screen.close([Kept(name, Mark.KEPT, "seen") for name in TOUR], "the end")
    assert all(act.title in out.getvalue() for act in ACTS)
    assert out.getvalue().count("seen") >= len(TOUR)


@pytest.mark.parametrize("name", ["overflow", "drained", "record"])
def test_the_device_s_steps_are_those_of_the_game_day(name: str) -> None:
    """So that the story and the scenario cannot come apart."""
    assert name in dict(faulting.STEPS)
