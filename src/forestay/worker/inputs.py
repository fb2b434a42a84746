"""Brings the media that a spec declares as inputs to the model, as data: URIs, so that model code needs no network.

It decides only where bytes come from: our own media from the store, other URLs through the guarded fetcher, data: URIs
as they are. A file that cannot be had is the caller's error (422 `file_download_error`, naming the field). Called by
`worker/attempt.py` and `worker/direct.py`.
"""

import base64
import dataclasses
import json
from collections.abc import Sequence
from typing import Protocol, cast

import msgspec

from forestay.errors import ForestayError, UsageError
from forestay.media.formats import SNIFF_BYTES, content_type_of
from forestay.media.store import MediaStore
from forestay.media.urls import own_media_id
from forestay.queue.model import Answer

MAX_FILES = 32


class Fetcher(Protocol):
    """Fetches a URL that a stranger named; see `media/fetch`."""

    async def fetch(self, url: str) -> bytes:
        """Return the body; a ForestayError says why not."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class _Slot:
    """A place in the body that holds a media URL."""

    holder: dict[str, object] | list[object]
    key: str | int
    location: tuple[str | int, ...]
    url: str


class Inputs:
    """Prepares bodies."""

    def __init__(self, media: MediaStore, fetcher: Fetcher, max_bytes: int) -> None:
        self._media = media
        self._fetcher = fetcher
        self._max_bytes = max_bytes

    async def prepare(self, body: bytes, fields: Sequence[str]) -> bytes | Answer:
        """Return the body for the model, or the 422 that the caller gets. Untouched when nothing is to be fetched."""
        parsed = _object(body) if fields else None
        slots = _slots(parsed, fields) if parsed is not None else []
        if len(slots) > MAX_FILES:
            return _refused(slots[MAX_FILES], f"more than {MAX_FILES} files in one request")
        refusal = await self._fill(slots)
        if refusal is not None:
            return refusal
        return json.dumps(parsed, ensure_ascii=False).encode("utf-8", "surrogatepass") if slots else body

    async def _fill(self, slots: Sequence[_Slot]) -> Answer | None:
        room = self._max_bytes
        for slot in slots:
            data = await self._bytes(slot.url)
            if isinstance(data, str):
                return _refused(slot, data)
            room -= len(data)
            if room < 0:
                return _refused(slot, f"the files of one request exceed {self._max_bytes} bytes")
            _put(slot, data)
        return None

    async def _bytes(self, url: str) -> bytes | str:
        media_id = own_media_id(url)
        if media_id is not None:
            item = await self._media.find(media_id)
            if item is not None and item.state == "released" and item.size_bytes <= self._max_bytes:
                return await self._media.read(media_id) or "the file is gone"
            if item is not None:
                return "the file is not available"
        try:
            return await self._fetcher.fetch(url)
        except UsageError as error:
            return error.message
        except ForestayError as error:
            return str(error)


def _object(body: bytes) -> dict[str, object] | None:
    """Parse; what is no object is refused by the model, in its own words."""
    try:
        parsed: object = json.loads(body)
    except ValueError:
        return None
    return cast("dict[str, object]", parsed) if isinstance(parsed, dict) else None


def _slots(body: dict[str, object], fields: Sequence[str]) -> list[_Slot]:
    found: list[_Slot] = []
    for field in fields:
        _collect(body, field, (field,), found)
    return found


def _collect(
    holder: dict[str, object] | list[object], key: str | int, location: tuple[str | int, ...], found: list[_Slot]
) -> None:
    """Find URLs at `holder[key]`: a text, an object with `url`, or a list of either."""
    value = holder.get(str(key)) if isinstance(holder, dict) else holder[int(key)]
    if isinstance(value, str):
        if value.startswith(("http://", "https://", "forestay-media://")):
            found.append(_Slot(holder, key, location, value))
    elif isinstance(value, list) and len(location) < 3:
        items = cast("list[object]", value)
        for index in range(len(items)):
            _collect(items, index, (*location, index), found)
    elif isinstance(value, dict) and "url" in value:
        _collect(cast("dict[str, object]", value), "url", (*location, "url"), found)


def _put(slot: _Slot, data: bytes) -> None:
    kind = content_type_of(data[:SNIFF_BYTES], file_name=slot.url.partition("?")[0].rpartition("/")[2])
    uri = f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
    if isinstance(slot.holder, dict):
        slot.holder[str(slot.key)] = uri
    else:
        slot.holder[int(slot.key)] = uri


def _refused(slot: _Slot, why: str) -> Answer:
    message = f"Failed to download the file: {why}"
    detail = {
        "loc": ["body", *slot.location],
        "msg": message,
        "type": "file_download_error",
        "url": "https://docs.fal.ai/errors#file_download_error",
        "input": slot.url[:2_000],
    }
    return Answer(
        status_code=422,
        headers={"content-type": "application/json", "x-fal-billable-units": "0"},
        body=msgspec.json.encode({"detail": [detail]}),
        error=message,
        error_type="file_download_error",
    )
