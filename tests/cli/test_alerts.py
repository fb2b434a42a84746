"""`forestay alert`, through HTTP to a real database and back; the ways to receivers are tried for real."""

import asyncio
import contextlib
import datetime as dt
import json
import pathlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from aiohttp import web
from tests.alerts.scenes import RULES, condition
from tests.cli.conftest import Platform, Ran

from forestay.alerts import notify
from forestay.alerts.decide import decide_alerts
from forestay.alerts.loop import messages_of
from forestay.alerts.model import Condition, Observed
from forestay.alerts.notify import NotifyPorts, senders_of
from forestay.alerts.postgres_outbox import PostgresOutbox
from forestay.alerts.postgres_store import PostgresAlerts
from forestay.alerts.rules_file import read_routing
from forestay.chance import SeededChance
from forestay.clock import SystemClock
from forestay.delivery.signing import load_or_create_keys
from forestay.settings import Alerts
from forestay.telemetry.metrics import Metrics

Forestay = Callable[..., Coroutine[object, object, Ran]]


async def see(platform: Platform, *conditions: Condition, after: float = 0.0) -> None:
    """Decide once, as the alert loop does."""
    store, now = PostgresAlerts(platform.database), SystemClock().now() + dt.timedelta(seconds=after)
    held = await store.load(now)
    actions = decide_alerts(held.state, Observed(conditions), held.silences, RULES, now)
    assert await store.commit(held, actions, messages_of(actions, ""), now)


async def read(forestay: Forestay, *words: str) -> Any:
    """Return what a command prints as JSON."""
    return json.loads((await forestay("alert", *words, "--json")).out)


async def test_an_alert_is_listed_shown_and_taken_in_hand(forestay: Forestay, platform: Platform) -> None:
    """The list says who was told, then who has it; the act is in the timeline and in the audit log."""
    await see(platform, condition())
    [row] = (await read(forestay, "list"))["alerts"]
    assert "told to phone" in (await forestay("alert", "list")).out
    alert_id = row["alert_id"]
    done = await forestay("alert", "ack", alert_id, "--reason", "on it")
    assert done.status == 0, done.err
    assert "in hand: human:" in (await forestay("alert", "list")).out
    shown = await read(forestay, "show", alert_id)
    assert [event["what"] for event in shown["events"]] == ["open", "notify", "ack"]
    assert "runbook: docs/runbooks/queue_age.md" in (await forestay("alert", "show", alert_id)).out
    audit = await platform.database.fetch(
        "SELECT action, reason FROM audit_log WHERE subject = $1", f"alert:{alert_id}"
    )
    assert [(row["action"], row["reason"]) for row in audit] == [("acknowledge_alert", "on it")]


async def test_what_is_over_cannot_be_taken_in_hand(forestay: Forestay, platform: Platform) -> None:
    """And what never was is not there."""
    await see(platform, condition())
    for after in (10.0, 100.0):
        await see(platform, after=after)
    [row] = (await read(forestay, "list", "--state", "resolved"))["alerts"]
    done = await forestay("alert", "ack", row["alert_id"], "--reason", "late")
    assert (done.status, "nothing to take in hand" in done.err) == (1, True)
    gone = await forestay("alert", "ack", "al_0", "--reason", "x")
    assert (gone.status, "no alert 'al_0'" in gone.err) == (1, True)


async def test_a_silence_is_made_listed_and_ended(forestay: Forestay, platform: Platform) -> None:
    """The alert says under which silence it stands; ending it early is an act of its own."""
    words = ["silence", "subject=model:acme/*", "severity!=info", "--for", "90m", "--reason", "moving"]
    made = await read(forestay, *words)
    await see(platform, condition(), after=5.0)
    assert "told to nobody: silenced until" in (await forestay("alert", "list")).out
    assert "subject=model:acme/* severity!=info" in (await forestay("alert", "silences")).out
    ended = await forestay("alert", "unsilence", made["silence_id"], "--reason", "moved")
    assert ended.status == 0, ended.err
    assert await read(forestay, "silences") == []
    [over] = await read(forestay, "silences", "--ended")
    assert over["ended_at"]
    again = await forestay("alert", "unsilence", made["silence_id"], "--reason", "moved")
    assert again.status == 1
    audit = await platform.database.fetch("SELECT action FROM audit_log WHERE subject LIKE 'silence:%' ORDER BY at")
    assert [row["action"] for row in audit] == ["silence_alerts", "end_silence"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("silence subject --reason x", "is none; write field=pattern"),
        ("silence name=* --for 200d --reason x", "every silence ends"),
        ("silence name=* --for soon --reason x", "--for: 'soon' is not a number"),
        ("list --state open", "--state: use one of firing, resolved, all"),
        ("notifications --state lost", "--state: use one of pending, delivered, dead"),
        ("show al_nope", "no alert 'al_nope'"),
        ("resend nt_nope --reason x", "no dead notification 'nt_nope'"),
        ("test", "FORESTAY_ALERT_ROUTES: names no receiver"),
        ("test --receiver nobody", "no receiver 'nobody'"),
        ("check /nowhere.yaml", "/nowhere.yaml cannot be read"),
    ],
)
async def test_wrong_words_are_told_with_field_and_mend(forestay: Forestay, words: str, told: str) -> None:
    """One line, and no traceback."""
    done = await forestay("alert", *words.split())
    assert done.status in {1, 2}
    assert told in done.err
    assert "Traceback" not in done.err


@contextlib.asynccontextmanager
async def receivers(platform: Platform, folder: pathlib.Path) -> AsyncIterator[NotifyPorts]:
    """Two receivers on loopback, one of which is broken, known to the platform as the controller would tell."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=200 if request.path == "/good" else 500)

    application = web.Application()
    application.router.add_post("/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    text = (
        f"receivers:\n  - {{name: good, kind: webhook, url: '{base}/good'}}\n"
        f"  - {{name: broken, kind: webhook, url: '{base}/broken'}}\nroutes: [{{name: default, to: [good]}}]\n"
    )
    routing = read_routing(text, "routes.yaml", folder)
    await PostgresAlerts(platform.database).tell_routes(routing.shown())
    clock, settings = SystemClock(), Alerts(tries=2, retry_base_seconds=0.01, retry_cap_seconds=0.02)
    yield NotifyPorts(
        outbox=PostgresOutbox(platform.database),
        routing=lambda: routing,
        senders=senders_of(load_or_create_keys(folder / "k.pem"), settings, clock),
        settings=settings,
        clock=clock,
        chance=SeededChance(1),
        metrics=Metrics(),
    )
    await runner.cleanup()


async def test_every_way_is_tried_and_what_happened_is_said(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """Exit 1 while one of them does not work; nothing is opened by a test."""
    async with receivers(platform, tmp_path) as sending, asyncio.TaskGroup() as group:
        asked = group.create_task(forestay("alert", "test"))
        while not asked.done():
            await notify.run_once(sending)
            await asyncio.sleep(0.05)
        done = asked.result()
        lines = [line.split("\t") for line in done.out.splitlines() if "\t" in line][1:]  # the sender logs beside it
        assert [(line[0], line[1]) for line in lines] == [("broken", "given up"), ("good", "took it")]
        assert "answered 500" in lines[0][3]
        assert done.status == 1
        assert "broken\twebhook\thttp://127.0.0.1" in (await forestay("alert", "routes")).out
        [dead] = await read(forestay, "notifications", "--state", "dead")
        assert dead["body"]["kind"] == "test"
        again = await forestay("alert", "resend", dead["notification_id"], "--reason", "mended")
        assert again.status == 0, again.err
    assert (await read(forestay, "list", "--state", "all"))["alerts"] == []


async def test_a_file_of_routes_is_checked_without_a_platform(forestay: Forestay, tmp_path: pathlib.Path) -> None:
    """Every fault at once, each with its line; a receiver that nobody names is worth a word."""
    file = tmp_path / "routes.yaml"
    file.write_text("receivers: [{name: a, kind: webhook, url: 'http://x.example/'}]\nroutes: [{name: r, to: [b]}]\n")
    done = await forestay("alert", "check", str(file))
    assert (done.status, "routes.yaml:2: routes[0].to[0]: no receiver 'b'; there are a" in done.err) == (2, True)
    file.write_text(file.read_text().replace("[b]", "[a]"))
    assert (await forestay("alert", "check", str(file))).status == 0


async def test_files_for_ones_own_stack_are_written_without_a_platform(
    forestay: Forestay, tmp_path: pathlib.Path
) -> None:
    """A dashboard of every metric; routes that are readable by their owner alone, with what was lost."""
    file = tmp_path / "routes.yaml"
    file.write_text("receivers: [{name: a, kind: webhook, url: 'http://x.example/'}]\nroutes: [{name: r, to: [a]}]\n")
    stack = tmp_path / "stack"
    words = ["--to", "grafana", "--to", "alertmanager", "--routes", file, stack]
    done = await forestay("observe", "export", *words)
    assert done.status == 0, done.err
    assert "no signature of ours" in done.out
    assert json.loads((stack / "forestay-dashboard.json").read_text())["uid"] == "forestay"
    assert (stack / "alertmanager.yml").stat().st_mode & 0o077 == 0
    without = await forestay("observe", "export", "--to", "alertmanager", stack)
    assert (without.status, "--routes: name the file" in without.err) == (2, True)


async def test_a_callers_key_reads_no_alerts(
    platform: Platform, forestay: Forestay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alerts name tenants and models of others."""
    monkeypatch.setenv("FORESTAY_KEY", platform.api_key)
    done = await forestay("alert", "list")
    assert (done.status, "403" in done.err) == (1, True)
