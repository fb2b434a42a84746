"""Real controllers over a real database: a condition is told once to who honours the id, whatever dies meanwhile."""

import asyncio
import collections
import contextlib
import datetime as dt
import json
import os
import pathlib
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from aiohttp import web

from forestay.alerts.postgres_desk import PostgresAlertDesk
from forestay.clock import SystemClock
from forestay.settings import process_environment
from forestay.storage.postgres import Database

WAIT_SECONDS = 60.0


class Receiver:
    """An HTTP receiver that keeps what it hears; while `hold` is clear it answers nobody."""

    def __init__(self) -> None:
        self.heard: dict[str, list[dict[str, object]]] = collections.defaultdict(list)
        self.hold = asyncio.Event()
        self.news = asyncio.Condition()
        self.port = 0

    async def handle(self, request: web.Request) -> web.Response:
        """Hear, then answer when allowed."""
        body = json.loads(await request.read())
        async with self.news:
            self.heard[request.path].append(body)
            self.news.notify_all()
        if request.path == "/phone":
            await self.hold.wait()
        return web.Response()

    def effects(self) -> list[str]:
        """Transitions, each notification once."""
        known: dict[str, list[str]] = {}
        for body in self.heard["/phone"]:
            known.setdefault(str(body["id"]), [item["transition"] for item in body["items"]])  # type: ignore[attr-defined]
        return [word for words in known.values() for word in words]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for something to be heard."""
        async with asyncio.timeout(WAIT_SECONDS), self.news:
            await self.news.wait_for(holds)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver on loopback."""
    one = Receiver()
    application = web.Application()
    application.router.add_post("/{path:.*}", one.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    one.port = runner.addresses[0][1]
    yield one
    one.hold.set()
    await runner.cleanup()


@contextlib.contextmanager
def controller(database_url: str, receiver: Receiver, folder: pathlib.Path) -> Iterator[subprocess.Popen[bytes]]:
    """One real controller; killed at the end if it still runs."""
    base = f"http://127.0.0.1:{receiver.port}"
    (folder / "routes.yaml").write_text(
        f"receivers: [{{name: phone, kind: webhook, url: '{base}/phone'}}]\n"
        "routes: [{name: default, to: [phone], group_wait: 0s, group_interval: 100ms, repeat: 1s}]\n"
        "resolve_after: 1s\n"
    )
    inherited = {name: value for name, value in process_environment().items() if not name.startswith("FORESTAY_")}
    own = {
        "FORESTAY_DATABASE_URL": database_url,
        "FORESTAY_OBJECT_STORE": (folder / "objects").as_uri(),
        "FORESTAY_INTERNAL_KEY": "a long random text of the tests",
        "FORESTAY_SIGNING_KEY_FILE": str(folder / "signing.pem"),
        "FORESTAY_ALERT_ROUTES": str(folder / "routes.yaml"),
        "FORESTAY_ALERT_BEAT": "0.2",
        "FORESTAY_ALERT_TIMEOUT": "1",
        "FORESTAY_DEADMAN_URL": f"{base}/watcher",
        "FORESTAY_DEADMAN_BEAT": "0.5",
    }
    with (folder / "controller.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "forestay", "controller"],
            env={**inherited, **own},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=10)


async def looks_after(database: Database, moment: dt.datetime) -> None:
    """Wait until alerts were decided after a moment."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            row = await database.fetchrow("SELECT decided_at FROM alert_head")
            if row is not None and row["decided_at"] is not None and row["decided_at"] > moment:
                return
            await asyncio.sleep(0.05)


@pytest.mark.slow  # two real controllers, started and killed: 15 s and more
async def test_a_condition_is_told_once_through_a_kill_and_ends_once(
    database: Database, database_url: str, receiver: Receiver, tmp_path: pathlib.Path
) -> None:
    """Killed while it sends; its successor sends the same id; taken in hand it is quiet; its end is told once."""
    clock, gone = SystemClock(), uuid.UUID(int=7)
    await database.execute(
        "INSERT INTO webhooks (request_id, tenant_id, url, state) VALUES ($1, 't', 'https://x.example', 'dead')", gone
    )
    with controller(database_url, receiver, tmp_path) as first:
        await receiver.until(lambda: bool(receiver.heard["/phone"]))
        os.kill(first.pid, signal.SIGKILL)
    receiver.hold.set()
    with controller(database_url, receiver, tmp_path):
        await receiver.until(lambda: len(receiver.effects()) >= 2)
        assert receiver.effects()[:2] == ["opened", "repeated-2"]
        ids = [body["id"] for body in receiver.heard["/phone"]]
        assert ids.count(ids[0]) == 2, "the successor sends what its predecessor was sending, under the same id"
        desk = PostgresAlertDesk(database, clock)
        [alert] = await desk.alerts("firing", 10)
        assert await desk.acknowledge(alert.alert_id, actor="human:test", why="on it")
        await looks_after(database, clock.now())  # what was decided before the acknowledgement is on its way
        told = len(receiver.effects())
        await looks_after(database, clock.now() + dt.timedelta(seconds=2.5))
        assert len(receiver.effects()) <= told + 1, "taken in hand, it is repeated no more"
        quiet = receiver.effects()
        await database.execute("DELETE FROM webhooks WHERE request_id = $1", gone)
        await receiver.until(lambda: "resolved" in receiver.effects())
        await looks_after(database, clock.now() + dt.timedelta(seconds=1.5))
        assert receiver.effects() == [*quiet, "resolved"]
        assert receiver.effects().count("opened") == 1
        assert receiver.heard["/watcher"], "the watcher outside hears that alerting works"
