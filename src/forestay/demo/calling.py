"""The callers' programs of a demonstration: run beside the platform, heard line by line, and looked at from its side.

It decides whether a promise was kept that a caller cannot see (webhooks, attempts, processes). The calls themselves are
in `caller.py`, which runs as a user's program in its own process. Called by `choreography` and `tour`.
"""

import asyncio
import collections
import contextlib
import dataclasses
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from forestay.demo.platform import Ready, kill
from forestay.demo.promises import Kept, Mark, SavedFile
from forestay.demo.receiver import Receiver, is_genuine, read_jwks
from forestay.demo.scene import end
from forestay.demo.stage import LINE_BYTES, Stage, admin_session, events_of, request_of
from forestay.errors import Unavailable
from forestay.tls import client_environment

_CALLER_SECONDS = 240.0
_WEBHOOK_SECONDS = 20.0
_RUNNING_SECONDS = 30.0
_LOOK_SECONDS = 0.1
_AHEAD = frozenset({"queued", "leased", "running"})  # states of a request that runs or has yet to run


class Calls:
    """What the programs of one run have said, and what the platform says of it."""

    def __init__(self, stage: Stage, receiver: Receiver) -> None:
        """`receiver` gets the webhooks of the callers' requests."""
        self._stage = stage
        self._course = stage.course
        self._receiver = receiver
        self._burst: list[str] = []
        self._echoes: list[str] = []  # those of the burst that run for a second each, a few at a time
        self.answered: collections.Counter[str] = collections.Counter()  # by model: requests that ended well

    async def by_hosts(self, ready: Ready, scenarios: str) -> None:
        """Run scenarios of the caller, who knows the platform's hosts; a burst among them is hit by a kill."""
        environment = client_environment(Path(ready.ca_file), ready.tls_url, "")
        async with asyncio.TaskGroup() as tasks:
            await self._run(
                ready,
                scenarios,
                environment,
                lambda: tasks.create_task(self._stage.check("killed", lambda: self._kill_a_worker(ready))),
            )

    async def by_proxy(self, ready: Ready, scenarios: str) -> None:
        """Run scenarios of the caller, who knows nothing but a proxy."""
        environment = client_environment(Path(ready.ca_file), "", ready.proxy_url)
        await self._run(ready, scenarios, environment, None)

    async def counted(self, ready: Ready) -> None:
        """Check what became of the burst: each request ended once, and was told by a genuine webhook."""
        await self._stage.check("once", lambda: self._finished_once(ready))
        await self._stage.check("webhooks", lambda: self._webhooks_verify(ready))

    async def _run(
        self, ready: Ready, scenarios: str, environment: Mapping[str, str], on_burst: Callable[[], object] | None
    ) -> None:
        command = [
            sys.executable,
            "-m",
            "forestay.demo.caller",
            scenarios,
            str(self._course.output),
            self._receiver.url,
        ]
        with (self._course.data / f"caller-{scenarios.replace(',', '-')}.log").open("wb") as log:
            child = await asyncio.create_subprocess_exec(
                *command,
                env={**self._stage.environment(), **environment, "FAL_KEY": ready.api_key},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                limit=LINE_BYTES,
            )
        try:
            async with asyncio.timeout(_CALLER_SECONDS), contextlib.aclosing(events_of(child)) as events:
                async for event in events:
                    self._hear(event)
                    if event["event"] == "burst" and on_burst is not None:
                        on_burst()
        except TimeoutError:
            self._course.screen.note(f"the caller did not end within {_CALLER_SECONDS:.0f} s")
        finally:
            await end(child)

    def _hear(self, event: Mapping[str, object]) -> None:
        kind, name = event["event"], str(event.get("step", ""))
        if kind == "started":
            self._stage.mark(Kept(name, Mark.RUNNING))
        elif kind == "done":
            mark = Mark.KEPT if event["kept"] is True else Mark.BROKEN
            self._stage.mark(Kept(name, mark, str(event["evidence"]), cast("float", event["seconds"])))
        elif kind == "saved":
            self._stage.files.append(SavedFile(str(event["file"]), str(event["caption"])))
        elif kind == "answered":
            self.answered[str(event["model"])] += cast("int", event["count"])
        elif kind == "burst":
            self._burst = cast("list[str]", event["request_ids"])
            self._echoes = self._burst[: cast("int", event["echoes"])]

    async def _kill_a_worker(self, ready: Ready) -> str:
        """Kill the worker that runs the echoes as soon as some of them run."""
        async with admin_session(ready) as session:
            running, left = 0, self._echoes
            deadline = self._course.clock.monotonic() + _RUNNING_SECONDS
            while not running:
                if self._course.clock.monotonic() > deadline:
                    raise Unavailable("no request of the burst was running in time")
                seen = {request_id: await request_of(session, request_id) for request_id in left[:4]}
                running = sum(found["state"] == "running" for found in seen.values())
                # On a slow machine the first ones have ended before the last was submitted: look at those after them.
                left = [one for one in left if one not in seen or seen[one]["state"] in _AHEAD]
                await self._course.clock.sleep(_LOOK_SECONDS)
            worker = self._stage.platform.worker_running("Echo")
        if worker is None:
            raise Unavailable("no worker with a model process of Echo was found among the processes")
        kill(worker)
        self._course.screen.note(f"killed worker process {worker.pid} with at least {running} requests running")
        return f"process {worker.pid}, with at least {running} requests running"

    async def _finished_once(self, ready: Ready) -> str:
        """Every acknowledged request of the burst succeeded; those which the dead worker held took another attempt."""
        if not self._burst:
            raise Unavailable("the burst was never submitted")
        async with admin_session(ready) as session:
            found = [await request_of(session, request_id) for request_id in self._burst]
        states = collections.Counter(str(one["state"]) for one in found)
        if states != {"succeeded": len(self._burst)}:
            raise Unavailable(f"states are {dict(states)}")
        again = sum(cast("int", one["attempt"]) > 1 for one in found)
        if again == 0:
            raise Unavailable("no request needed a second attempt: the kill hit nothing")
        return f"{len(found)} of {len(found)} succeeded; {again} ran again after the kill"

    async def _webhooks_verify(self, ready: Ready) -> str:
        """One genuine notice for each request that asked for one, with the same content if it came twice."""
        wanted = set(self._burst)
        deadline = self._course.clock.monotonic() + _WEBHOOK_SECONDS
        while not wanted <= {one.request_id for one in self._receiver.deliveries}:
            if self._course.clock.monotonic() > deadline:
                missing = len(wanted - {one.request_id for one in self._receiver.deliveries})
                raise Unavailable(f"{missing} of {len(wanted)} webhooks did not arrive")
            await self._course.clock.sleep(_LOOK_SECONDS)
        async with admin_session(ready) as session, session.get("/rest/.well-known/jwks.json") as answer:
            keys = read_jwks(cast("Mapping[str, object]", await answer.json()))
        deliveries = list(self._receiver.deliveries)
        false = [one.request_id for one in deliveries if not is_genuine(one, keys)]
        if false:
            raise Unavailable(f"{len(false)} of {len(deliveries)} signatures do not verify")
        forged = dataclasses.replace(deliveries[0], body=deliveries[0].body + b" ")
        if is_genuine(forged, keys):
            raise Unavailable("a forged delivery verified")
        different = {(one.request_id, one.body) for one in deliveries}
        ids = {one.request_id for one in deliveries}
        if len(different) != len(ids):
            raise Unavailable("two deliveries of one request differ")
        return f"{len(ids)} requests, {len(deliveries)} deliveries, all genuine; a changed one is refused"
