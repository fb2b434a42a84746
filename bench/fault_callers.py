"""The callers of the fault matrix: six roads by which an output reaches a client, and what each client was told.

A caller believes what it reads: every byte goes to the checker the moment it is there. Decides what counts as an
answer: something that was made, a refusal with a type, or neither. Called by `safety_faults`.
"""

import asyncio
import base64
import contextlib
import dataclasses
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import msgpack

from bench.fault_model.marks import MARK, is_harmful
from bench.fault_world import World, bucket_policy, key_in
from bench.release_checker import as_stored

MADE = "made-"
END_SECONDS = 30.0


@dataclasses.dataclass
class Told:
    """What became of one request, as its caller sees it."""

    road: str
    model: str
    number: int
    what: str = "nothing"  # made | refused | withheld | failed | nothing
    reason: str = ""
    seconds: float = 0.0
    leaked: bool = False  # something marked was read

    @property
    def harmful(self) -> bool:
        """Tell whether its output is a marked one."""
        return is_harmful(self.number)


class Waiting:
    """Looks at all queued requests together: which are withheld, which are over."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._asked: dict[str, asyncio.Future[str]] = {}

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(0.03)
            asked = list(self._asked)
            if not asked:
                continue
            rows = await self._world.requests.fetch(
                "SELECT request_id::text, state FROM requests WHERE request_id = ANY ($1::uuid[])", asked
            )
            states = {row["request_id"]: row["state"] for row in rows}
            for request_id in asked:
                state = states.get(request_id, "over")
                if state in {"withheld", "over"}:
                    waiting = self._asked.pop(request_id)
                    if not waiting.done():  # nobody waits for ever
                        waiting.set_result(state)

    async def end_of(self, request_id: str) -> str:
        """Wait until a request is withheld or over."""
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._asked[request_id] = future
        return await future


class Callers:
    """Calls by every road."""

    def __init__(self, world: World, waiting: Waiting) -> None:
        self._world = world
        self._waiting = waiting
        self._url = world.platform.url
        self._headers = {"authorization": f"Key {world.platform.api_key}"}

    @property
    def roads(self) -> Mapping[str, Callable[[Told], Awaitable[None]]]:
        """Return the roads by name."""
        return {
            "result": self._result,
            "stream": self._stream,
            "realtime": self._realtime,
            "provider": self._provider,
            "data": self._data,
            "bucket": self._bucket,
        }

    async def call(self, told: Told) -> Told:
        """Make one call and see what comes of it."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(END_SECONDS):
                await self.roads[told.road](told)
        except (aiohttp.ClientError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            told.what, told.reason = "failed", type(error).__name__
        told.seconds = told.seconds or time.perf_counter() - started
        return told

    async def _result(self, told: Told) -> None:
        await self._queued(told, {})

    async def _bucket(self, told: Told) -> None:
        await self._queued(told, {"x-app-fal-upload-policy": bucket_policy(self._world.outside.url)})

    async def _queued(self, told: Told, extra: dict[str, str]) -> None:
        headers = {**self._headers, **extra}
        base = f"{self._url}/queue/faults/{told.model}"
        async with self._world.session.post(base, json={"number": told.number}, headers=headers) as answer:
            if answer.status != 200:
                _refused(told, answer.status, await answer.read())
                return
            request_id = str((await answer.json())["request_id"])
        if await self._waiting.end_of(request_id) == "withheld":
            told.what, told.reason = "withheld", "withheld"
        async with self._world.session.get(f"{base}/requests/{request_id}", headers=self._headers) as answer:
            body = await answer.read()
        if answer.status == 400 and told.what == "withheld":
            return
        await self._whole(told, request_id, answer.status, body)

    async def _provider(self, told: Told) -> None:
        await self._direct(told, "/link")

    async def _data(self, told: Told) -> None:
        await self._direct(told, "/data")

    async def _direct(self, told: Told, path: str) -> None:
        url = f"{self._url}/run/faults/{told.model}{path}"
        async with self._world.session.post(url, json={"number": told.number}, headers=self._headers) as answer:
            body = await answer.read()
            await self._whole(told, answer.headers.get("x-fal-request-id", ""), answer.status, body)

    async def _whole(self, told: Told, request_id: str, status: int, body: bytes) -> None:
        """Take a whole answer and every file that it names."""
        if MADE.encode() not in body:
            _refused(told, status, body)
            return
        told.what = "made"
        told.leaked = MARK.encode() in body
        pieces = [as_stored(body)]
        url = str(json.loads(body)["file"]["url"])
        if url.startswith("data:"):
            pieces.append(base64.b64decode(url.partition(",")[2]))
        elif "/bucket/" in url:
            pieces.append(self._world.outside.stored[key_in(url)])
        else:
            async with self._world.session.get(url) as file:
                pieces.append(await file.read())
                if file.status != 200:
                    raise OSError(f"the file of an answer was not there: {file.status}")
        await self._world.checker.read(request_id, told.road, *pieces)

    async def _stream(self, told: Told) -> None:
        url = f"{self._url}/run/faults/{told.model}/stream"
        async with self._world.session.post(url, json={"number": told.number}, headers=self._headers) as answer:
            request_id = answer.headers.get("x-fal-request-id", "")
            if not answer.content_type.startswith("text/event-stream"):
                _refused(told, answer.status, await answer.read())
                return
            asked = time.perf_counter()
            async for line in answer.content:
                if not line.startswith(b"data: "):
                    continue
                data = line.removeprefix(b"data: ").rstrip(b"\n")
                now = time.perf_counter()
                told.seconds, asked = now - asked, now
                if MADE.encode() not in data:
                    _refused(told, 422, data)
                    return
                told.what = "made"
                told.leaked |= MARK.encode() in data
                await self._world.checker.read(request_id, told.road, data)
            if told.what != "made":
                told.what, told.reason = "failed", "ended without an event"

    async def _realtime(self, told: Told) -> None:
        url = f"{self._url.replace('http', 'ws', 1)}/run/faults/{told.model}/realtime"
        async with self._world.session.ws_connect(url, headers=self._headers) as socket:
            asked = time.perf_counter()
            await socket.send_bytes(msgpack.packb({"number": told.number}) or b"")
            frame = await socket.receive()
            told.seconds = time.perf_counter() - asked
            if frame.type is aiohttp.WSMsgType.BINARY and MADE.encode() in frame.data:
                told.what = "made"
                told.leaked = MARK.encode() in frame.data
                await self._world.checker.read("", told.road, frame.data)  # a session tells no id
            else:
                data = frame.data if isinstance(frame.data, str) else ""
                _refused(told, 422 if data else 0, data.encode())


def _refused(told: Told, status: int, body: bytes) -> None:
    """Read why there is nothing: a type, or a detail in words."""
    value: Any = None
    with contextlib.suppress(ValueError):
        value = json.loads(body)
    said = value if isinstance(value, dict) else {}
    detail = said.get("detail")
    first = detail[0] if isinstance(detail, list) and detail and isinstance(detail[0], dict) else {}
    kind = first.get("type") or said.get("error_type") or said.get("error") or ""
    trouble = (first.get("ctx") or {}).get("trouble", "")
    told.what = "refused" if kind else "failed"
    told.reason = f"{kind} {trouble}".strip() or f"{status}"
