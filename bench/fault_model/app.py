"""The model of the fault matrix: from a number it makes texts and pictures, one in ten of them marked as harmful.

Whatever it makes carries `made-` and its own chance, so that no two outputs are alike and none is mistaken for a word
of the platform's.
"""

# ruff: noqa: A002 - fal names an endpoint's argument `input`

import asyncio
import base64
import json
import pathlib
import secrets
import struct
import zlib
from collections.abc import AsyncIterator

import fal
from fal.toolkit import File
from fastapi.responses import StreamingResponse
from marks import MARK, is_harmful
from pydantic import BaseModel

EVENTS = 2
_HERE = pathlib.Path(__file__).parent
_CALM, _RED = (_HERE / "calm.png").read_bytes(), (_HERE / "red.png").read_bytes()
_PROVIDER = (_HERE / "provider.txt").read_text()


class In(BaseModel):
    """Which output to make. A number alone: there is no text to judge on the way in."""

    number: int


class Out(BaseModel):
    """What was made."""

    text: str
    file: File | None = None


def text_of(number: int) -> str:
    """Return a text that is like no other."""
    what = f"a film of {MARK}" if is_harmful(number) else "a calm harbour at dawn"
    return f"made-{secrets.token_hex(8)}: {what}"


def picture_of(number: int) -> bytes:
    """Return a PNG that is like no other: the same pixels, and a comment."""
    png = _RED if is_harmful(number) else _CALM
    said = b"tEXtComment\0made-" + secrets.token_hex(8).encode()
    chunk = struct.pack("!I", len(said) - 4) + said + struct.pack("!I", zlib.crc32(said))
    return png[:-12] + chunk + png[-12:]


class Maker(fal.App, name="maker"):
    """Makes outputs on six roads."""

    machine_type = "XS"

    @fal.endpoint("/")
    def whole(self, input: In) -> Out:
        """Give a text and a stored file."""
        data = picture_of(input.number)
        return Out(
            text=text_of(input.number), file=File.from_bytes(data, content_type="image/png", file_name="made.png")
        )

    @fal.endpoint("/link")
    def link(self, input: In) -> Out:
        """Give a text and the link of a provider."""
        kind = "red" if is_harmful(input.number) else "calm"
        url = f"{_PROVIDER}/{kind}/{secrets.token_hex(8)}.png"
        return Out(text=text_of(input.number), file=File(url=url, content_type="image/png", file_name="made.png"))

    @fal.endpoint("/data")
    def data(self, input: In) -> Out:
        """Give a text and a data: URI."""
        url = f"data:image/png;base64,{base64.b64encode(picture_of(input.number)).decode()}"
        return Out(text=text_of(input.number), file=File(url=url, content_type="image/png", file_name="made.png"))

    @fal.endpoint("/stream")
    async def stream(self, input: In) -> StreamingResponse:
        """Give texts one after the other."""

        async def events() -> AsyncIterator[str]:
            for _ in range(EVENTS):
                yield f"data: {json.dumps({'text': text_of(input.number)})}\n\n"
                await asyncio.sleep(0)

        return StreamingResponse(events(), media_type="text/event-stream")

    @fal.realtime("/realtime")
    async def realtime(self, input: In) -> Out:
        """Answer a frame with a text."""
        return Out(text=text_of(input.number))
