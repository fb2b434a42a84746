"""The parts of the scenario of rollouts that need no platform: revisions, the callers' ledger, the page."""

import asyncio
import contextlib
import dataclasses
import io
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from rich.console import Console

from forestay.clock import SystemClock
from forestay.demo import shipping
from forestay.demo.customers import SIDES, Customers, Ledger, Pace, wishes
from forestay.demo.platform import Ready
from forestay.demo.promises import ROLLOUT
from forestay.demo.revisions import BUFFERS, GOOD, LEAKING, SUBTLE, Edit, write_revision
from forestay.demo.scene import Scene
from forestay.demo.screen import PlainScreen
from forestay.demo.shipping import Yard
from forestay.demo.shipping_page import Shipped, render_rollouts
from forestay.demo.stage import Broken, Course, Stage
from forestay.fleet.spec_file import parse
from forestay.rollouts.options import LEAST_SHADOW

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
JOURNAL = [
    {"version": 1, "at": "2026-11-26T12:00:00Z", "actor": "loop", "stage": "gates", "weight": 0, "reason": "begun"},
    {"version": 2, "at": "2026-11-26T12:00:30Z", "actor": "loop", "stage": "canary", "weight": 20, "reason": "<grows>"},
]


def test_every_promise_has_its_step() -> None:
    """But for the start and the stop, which every scenario has."""
    assert [name for name, _ in shipping.STEPS] == [name for name in ROLLOUT if name not in {"start", "stop"}]


def test_each_revision_differs_from_the_example_in_one_file_and_still_compiles(tmp_path: Path) -> None:
    """And has no canaries; the bad one in one line of its scheduler's configuration."""
    for edit in (GOOD, SUBTLE, LEAKING):
        copy = write_revision(DIGITS, tmp_path, edit).parent
        files = [file.relative_to(copy) for file in copy.rglob("*") if file.is_file()]
        other = {str(file) for file in files if (copy / file).read_bytes() != (DIGITS / file).read_bytes()}
        assert other == {edit.file, "model.yaml"}
        spec, example = (parse((folder / "model.yaml").read_text(), "model.yaml") for folder in (copy, DIGITS))
        assert (spec.quality.canaries.inputs, len(example.quality.canaries.inputs)) == ((), 3)
        assert dataclasses.replace(spec, quality=example.quality) == example
        compile((copy / "app.py").read_text(encoding="utf-8"), "app.py", "exec")
    before, after = (json.loads((folder / SUBTLE.file).read_text()) for folder in (DIGITS, tmp_path / SUBTLE.name))
    assert [key for key in before if before[key] != after[key]] == ["prediction_type"]


def test_the_shadow_asks_for_too_few_large_pictures_to_find_the_leak() -> None:
    """Sizes have equal parts of it."""
    assert LEAST_SHADOW / len(SIDES) < BUFFERS


def test_an_edit_whose_place_is_gone_is_told(tmp_path: Path) -> None:
    """Else the demonstration would ship the example under another name."""
    with pytest.raises(Broken, match="0 places for the edit of 'stale'"):
        write_revision(DIGITS, tmp_path, Edit("stale", "", "app.py", {"no such line": ""}))


def test_callers_ask_for_every_size_with_seeds_of_their_own() -> None:
    """So that the shadow can compare each, and no two requests are one."""
    asked = list(itertools.islice(wishes(), 12))
    assert len({wish["seed"] for wish in asked}) == 12
    assert {json.dumps(wish["image_size"]) for wish in asked} == {
        json.dumps({"width": side, "height": side}) for side in SIDES
    }


def test_a_request_is_lost_until_it_is_answered() -> None:
    """From the moment that it was asked; an error of the model is an answer only where that is said."""
    ledger = Ledger()
    first, second, third = ledger.ask(), ledger.ask(), ledger.ask()
    ledger.note(first, request_id="a", status=200)
    ledger.note(second, request_id="b")
    ledger.note(second, status=500)
    assert [entry.number for entry in ledger.lost()] == [second, third]
    assert [entry.number for entry in ledger.lost(frozenset({500}))] == [third]
    assert ledger.entries[second].request_id == "b"
    assert [entry.number for entry in ledger.since(second)] == [second, third]
    assert ledger.told() == "3 asked, 2 answered: 1 with 200, 1 with 500"


async def test_callers_keep_asking_and_every_answer_is_in_the_ledger() -> None:
    """By both lanes; a connection that breaks is a lost request, and nobody stops for it."""
    answered, enough = 0, asyncio.Event()

    async def run(request: web.Request) -> web.Response:
        nonlocal answered
        answered += 1
        if answered == 3:
            assert request.transport is not None
            request.transport.abort()
        if answered == 20:
            enough.set()
        return web.json_response({}, headers={"x-fal-request-id": f"direct-{answered}"})

    async def submit(_: web.Request) -> web.Response:
        return web.json_response({"request_id": "queued"})

    async def status(_: web.Request) -> web.Response:
        return web.json_response({"status": "COMPLETED"})

    application = web.Application()
    application.router.add_post("/run/forestay/digits", run)
    application.router.add_post("/queue/forestay/digits", submit)
    application.router.add_get("/queue/forestay/digits/requests/queued/status", status)
    application.router.add_get("/queue/forestay/digits/requests/queued", status)
    async with TestServer(application) as server, aiohttp.ClientSession(str(server.make_url("/"))) as session:
        customers = Customers(session, SystemClock())
        assert await customers.is_served()
        customers.pace = Pace.BUSY
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(customers.run())
            await enough.wait()
            customers.stop()
    [lost] = customers.ledger.lost()
    assert (lost.status, lost.trouble.partition(":")[0]) == (0, "ServerDisconnectedError")
    assert {"queued", "direct-2"} <= {entry.request_id for entry in customers.ledger.entries.values()}


def test_the_page_tells_how_each_rollout_ended_and_cannot_become_markup() -> None:
    """With its share of the traffic drawn, and a link to its own page."""
    found = {"stage": "rolled_back", "reason": "a < b", "requests": {"control": 9, "candidate": 4}, "journal": JOURNAL}
    page = render_rollouts([Shipped("leaking", found)], "13 asked")
    assert "leaking: rolled_back" in page
    assert "a &lt; b" in page
    assert "&lt;grows&gt;" in page
    assert 'href="rollout-leaking.html"' in page
    assert page.count("<svg") == 1


@contextlib.asynccontextmanager
async def yard_of(tmp_path: Path, revisions: dict[str, str]) -> AsyncIterator[Yard]:
    """A yard whose platform knows these requests by their facts, each only when it is asked a second time."""
    asked: set[str] = set()

    async def request_of(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in asked:
            asked.add(name)
            return web.json_response({"detail": "not known yet"}, status=404)
        return web.json_response({"fact": {"revision_id": revisions[name]}})

    application = web.Application()
    application.router.add_get("/admin/requests/{name}", request_of)
    course = Course(tmp_path, tmp_path, tmp_path, {}, SystemClock(), PlainScreen(Console(file=io.StringIO())))
    ready = Ready("", "", "", "", "", "", "", "")
    async with TestServer(application) as server, aiohttp.ClientSession(str(server.make_url("/"))) as session:
        yield Yard(Scene(Stage(course), ready, session), Customers(session, course.clock))


async def test_nothing_is_lost_when_every_error_is_that_of_the_bad_revision(tmp_path: Path) -> None:
    """Every request has its answer, and errors came with that revision alone."""
    async with yard_of(tmp_path, {"b": "digits-3"}) as yard:
        yard.ended["leaking"], yard.first["leaking"] = {"candidate": "digits-3"}, 1
        for request_id, status in (("a", 200), ("b", 500)):
            yard.customers.ledger.note(yard.customers.ledger.ask(), request_id=request_id, status=status)
        told = await shipping.nothing_lost(yard)
    assert told == "2 asked, 2 answered: 1 with 200, 1 with 500; each error is one of digits-3, by its fact"


@pytest.mark.parametrize(
    ("status", "revision", "why"),
    [(503, "digits-3", "1 of 1 lost: 503"), (500, "digits-1", "1 of 1 errors are not of digits-3: a")],
)
async def test_a_lost_request_or_an_error_of_another_revision_breaks_the_promise(
    tmp_path: Path, status: int, revision: str, why: str
) -> None:
    """With what was lost in the words."""
    async with yard_of(tmp_path, {"a": revision}) as yard:
        yard.ended["leaking"], yard.first["leaking"] = {"candidate": "digits-3"}, 1
        yard.customers.ledger.note(yard.customers.ledger.ask(), request_id="a", status=status)
        with pytest.raises(Broken, match=why):
            await shipping.nothing_lost(yard)


async def test_a_caller_who_saw_the_revision_that_was_stopped_in_shadow_breaks_the_promise(tmp_path: Path) -> None:
    """By the platform's own facts of the requests of that time, and of no other."""
    async with yard_of(tmp_path, {"a": "digits-2", "b": "digits-1", "c": "digits-2"}) as yard:
        yard.ended["subtle"], yard.first["subtle"] = {"candidate": "digits-2"}, 1
        for request_id in ("a", "b"):
            yard.customers.ledger.note(yard.customers.ledger.ask(), request_id=request_id, status=200)
        assert await shipping.unseen(yard) == "1 requests of that time, all answered by digits-1"
        yard.customers.ledger.note(yard.customers.ledger.ask(), request_id="c", status=200)
        with pytest.raises(Broken, match="1 of 2 saw it"):
            await shipping.unseen(yard)
