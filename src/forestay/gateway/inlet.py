"""The way in of a call's body: knows whether it came whole, and takes what an early answer leaves unread.

A server closes a connection whose request was not read to its end, and what it then still receives resets the
connection: the answer is lost on its way, and so is the caller's next call. So whoever is refused early is still heard
out, within limits; beyond them the answer says that the connection ends. Called by `asgi` and `access`.
"""

import asyncio

from starlette.types import Message, Receive

HEARD_OUT_BYTES = 65_536
HEARD_OUT_SECONDS = 1.0


class Inlet:
    """One call's `receive`, which remembers how far the body has come."""

    def __init__(self, receive: Receive, headers: dict[bytes, bytes]) -> None:
        declared = headers.get(b"content-length", b"")
        self._receive = receive
        self._declared = int(declared) if declared.isdigit() and len(declared) < 19 else 0
        self._bytes = 0
        self._ended = not self._declared and b"transfer-encoding" not in headers

    async def __call__(self) -> Message:
        """Receive the next message of the server."""
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._ended = True
        else:
            self._bytes += len(message.get("body", b""))
            self._ended = 0 < self._declared <= self._bytes
        return message

    async def hear_out(self) -> bool:
        """Take what is left of the body; False when that is too much or comes too slowly."""
        if self._ended:
            return True
        if self._declared - self._bytes > HEARD_OUT_BYTES:
            return False
        until = self._bytes + HEARD_OUT_BYTES
        try:
            async with asyncio.timeout(HEARD_OUT_SECONDS):
                while not self._ended and self._bytes <= until:
                    await self()
        except TimeoutError:
            return False
        return self._ended
