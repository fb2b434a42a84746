"""The model server behind every proxy of the `gateway` bench: one constant answer, as fast as granian gives it."""

import json
from collections.abc import Awaitable, Callable, MutableMapping

BODY = json.dumps(
    {"images": [{"url": "https://example.com/a.png", "width": 512, "height": 512}], "seed": 42, "has_nsfw": [False]}
).encode()
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
Message = MutableMapping[str, object]


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Answer anything."""
    if scope["type"] == "lifespan":
        for _ in range(2):
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": BODY})
