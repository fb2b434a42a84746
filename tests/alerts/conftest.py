"""A real receiver on loopback, and the real store under the real loops."""

import asyncio
import collections
import json
import pathlib
from collections.abc import AsyncIterator, Mapping

import pytest
from aiohttp import web

from forestay.delivery.signing import SigningKeys, load_or_create_keys


class Hooks:
    """Receivers behind paths of one server; each keeps what it was sent and applies an id once."""

    def __init__(self) -> None:
        self.answers: dict[str, list[int]] = {}  # path -> what is answered in turn, the last one for ever
        self.hanging: dict[str, asyncio.Event] = {}
        self.calls: dict[str, list[tuple[Mapping[str, str], bytes]]] = collections.defaultdict(list)
        self.called = asyncio.Event()
        self.port = 0

    def url(self, path: str = "/phone") -> str:
        """Where a receiver is."""
        return f"http://127.0.0.1:{self.port}{path}"

    def bodies(self, path: str = "/phone") -> list[dict[str, object]]:
        """What a receiver was sent."""
        return [json.loads(body) for _, body in self.calls[path]]

    def effects(self, path: str = "/phone") -> list[str]:
        """What a receiver that honours the id has seen: transitions in order, each notification once."""
        seen: dict[str, list[str]] = {}
        for body in self.bodies(path):
            seen.setdefault(str(body["id"]), [item["transition"] for item in body["items"]])  # type: ignore[attr-defined]
        return [word for words in seen.values() for word in words]

    async def handle(self, request: web.Request) -> web.Response:
        """Keep, then answer."""
        self.calls[request.path].append((dict(request.headers), await request.read()))
        self.called.set()
        if request.path in self.hanging:
            await self.hanging[request.path].wait()
        answers = self.answers.setdefault(request.path, [200])
        return web.Response(status=answers.pop(0) if len(answers) > 1 else answers[0])


@pytest.fixture
async def hooks() -> AsyncIterator[Hooks]:
    """Receivers on loopback."""
    one = Hooks()
    application = web.Application()
    application.router.add_post("/{path:.*}", one.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    one.port = runner.addresses[0][1]
    yield one
    for event in one.hanging.values():
        event.set()
    await runner.cleanup()


@pytest.fixture
def keys(tmp_path: pathlib.Path) -> SigningKeys:
    """Keys that sign."""
    return load_or_create_keys(tmp_path / "signing.pem")
