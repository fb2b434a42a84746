"""A small bucket: takes signed forms as S3's browser uploads do, and remembers what it was sent."""

import dataclasses
import email.parser
import email.policy
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

from aiohttp import web


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """One object."""

    key: str
    data: bytes
    content_type: str
    fields: dict[str, str]


class Bucket:
    """The objects, and how it answers."""

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}
        self.answers: list[int] = []  # statuses of the next answers; when empty, 204
        self.location = ""
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        """Take a form; what comes after the file does not count, a chunked body is refused as S3 does."""
        body = await request.read()
        status = self.answers.pop(0) if self.answers else 204
        if "Content-Length" not in request.headers:
            return web.Response(status=411)
        if status < 400:
            stored = parsed(request.headers["Content-Type"], body)
            self.objects[stored.key] = stored
        headers = {"Location": self.location} if self.location else {}
        return web.Response(status=status, headers=headers, text="<Error><Code>Secret</Code></Error>")


def parsed(content_type: str, body: bytes) -> Stored:
    """Read a form with the standard library's parser of mail."""
    head = f"Content-Type: {content_type}\r\nMIME-Version: 1.0\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    fields: dict[str, str] = {}
    for part in message.iter_parts():  # type: ignore[attr-defined]
        name = str(part.get_param("name", header="content-disposition"))
        if name == "file":
            data = cast("bytes", part.get_payload(decode=True))
            return Stored(fields["key"], data, part.get_content_type(), fields)
        fields[name] = cast("str", part.get_payload())
    raise ValueError("the form holds no file")


@asynccontextmanager
async def serving_bucket() -> AsyncGenerator[Bucket]:
    """Serve a bucket on loopback."""
    bucket = Bucket()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/{path:.*}", bucket.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    bucket.url = f"http://127.0.0.1:{runner.addresses[0][1]}/bucket"
    try:
        yield bucket
    finally:
        await runner.cleanup()
