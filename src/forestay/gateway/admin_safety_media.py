"""Admin route of a stopped output's files: blurred unless a clear copy is asked for, on record before it is shown.

The file is opened in the limited child, which gives a clean copy; only that copy is looked at here. A picture is
shrunk to a few dozen pixels and drawn large again, which leaves colours and masses and no detail. A film or a
recording has no blurred form: it is shown clear, or not at all. It decides nothing else. Mounted below
`/admin/safety/review`.
"""

import asyncio
import io
import tempfile
from typing import IO

from PIL import Image

from forestay.errors import UsageError
from forestay.gateway.admin_reading import Act, NotThere, Problem, plain_text
from forestay.gateway.admin_safety_review import desk_of
from forestay.gateway.responses import Header, Reply
from forestay.media.decode import MediaRefused
from forestay.media.store import MediaItem
from forestay.safety.records import Point
from forestay.safety.review.kept import KeptOutput, unpacked
from forestay.safety.review.sealed import How, Reader

BLUR_PIXELS = 24  # the longer side of what is left of a picture
SHOWN_PIXELS = 384
MAX_BYTES = 64 * 1024 * 1024
_NO_STORE: Header = (b"cache-control", b"no-store")


async def get_media(act: Act) -> Reply:
    """Show one file of a stopped output; `reason` says why, `clear=1` asks for it unblurred."""
    reason = plain_text("reason", act.query("reason") or "", empty=False)
    clear = act.query("clear") in {"1", "true"}
    item = await _file(act, Reader(act.actor, "clear" if clear else "blurred", reason))
    if item.size_bytes > MAX_BYTES:
        raise Problem(409, f"the file is larger than {MAX_BYTES} bytes: read it where it lies", "too_large")
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as copy:
        async for piece in act.ports.media.open(item, 0, item.size_bytes):
            source.write(piece)
        source.flush()
        source.seek(0)
        try:
            cleaned = await act.ports.origins.decoder.clean(source, copy, None)
        except MediaRefused as error:
            raise Problem(409, f"the file cannot be opened: {error.message}", "unreadable") from None
        copy.seek(0)
        if clear:
            return Reply(200, copy.read(), ((b"content-type", cleaned.content_type.encode()), _NO_STORE))
        if cleaned.kind != "image":
            raise Problem(409, f"this is {cleaned.kind}, which has no blurred form; ask with clear=1", "not_blurred")
        return Reply(200, await asyncio.to_thread(blurred, copy), ((b"content-type", b"image/jpeg"), _NO_STORE))


async def _file(act: Act, reader: Reader) -> MediaItem:
    """Note who reads, then find the file by its number in the sealed copy."""
    desk = desk_of(act)
    found = await desk.reviews.find(act.path("item_id"))
    if found is None or found.item.opened.point is not Point.OUTPUT:
        raise NotThere("no stopped output of that name")
    opened = found.item.opened
    how: How = reader.how
    data = await desk.sealed.read(opened.sealed_id, Reader(reader.actor, how, reader.reason, opened.item_id))
    if data is None:
        raise NotThere("no copy was kept, or it has been forgotten")
    names, number = unpacked(data, KeptOutput).media_ids, act.path("number")
    if not (number.isascii() and number.isdigit() and len(number) < 6):
        raise UsageError("number", "must be the number of a file, from 0")
    if int(number) >= len(names):
        raise NotThere(f"the output names {len(names)} files, counted from 0")
    item = await act.ports.media.find(names[int(number)])
    if item is None:
        raise NotThere("the file is gone")
    return item


def blurred(file: IO[bytes]) -> bytes:
    """Return a picture, already cleaned, as a JPEG that shows colours and masses and no detail."""
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    small = picture.copy()
    small.thumbnail((BLUR_PIXELS, BLUR_PIXELS), Image.Resampling.BOX)
    scale = SHOWN_PIXELS / max(small.size)
    size = (max(1, round(small.width * scale)), max(1, round(small.height * scale)))
    out = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=70)
    return out.getvalue()
