"""The yardstick of the `gateway` bench: granian and aiohttp with nothing between them.

No key, no slot, no schema, no facts: what a Python proxy costs at the least. `BACKEND` names where it leads.
"""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import aiohttp

BACKEND = os.environ["BACKEND"]
_DROPPED = {b"host", b"content-length"}
_session: aiohttp.ClientSession | None = None
Message = MutableMapping[str, Any]


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Pass a call on, and its answer back."""
    global _session  # noqa: PLW0603 - the smallest program that does it
    if scope["type"] == "lifespan":
        for _ in range(2):
            message = await receive()
            if message["type"] == "lifespan.startup":
                _session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1000))
            elif _session is not None:
                await _session.close()
            await send({"type": f"{message['type']}.complete"})
        return
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    headers = {name.decode(): value.decode() for name, value in scope["headers"] if name not in _DROPPED}
    session = _session or aiohttp.ClientSession()
    async with session.request(scope["method"], BACKEND + scope["path"], data=body, headers=headers) as response:
        data = await response.read()
        kept = [(name.lower().encode(), value.encode()) for name, value in response.headers.items()]
        kept = [item for item in kept if item[0] != b"transfer-encoding"]
        await send({"type": "http.response.start", "status": response.status, "headers": kept})
        await send({"type": "http.response.body", "body": data})
