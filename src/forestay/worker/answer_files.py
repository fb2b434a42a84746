"""Finds the files of ours in an answer, and brings their bytes. It decides which leaves are files, and nothing of them.

An answer that is no JSON is one file, where it says that it is media. What repeats the input is none. Called by
`output_quality` and `canary_looks`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import IO, cast

from forestay.media.formats import content_type_of
from forestay.media.store import MediaStore
from forestay.media.urls import own_media_id
from forestay.queue.model import Answer
from forestay.safety.leaves import Leaf, LeafKind, TooMuch, leaves_of, parsed, unpacked

MAX_FILE_BYTES = 256 * 1024 * 1024
MEDIA = ("image/", "video/", "audio/")


def value_of(answer: Answer) -> object:
    """Return an answer's JSON; None where it is none."""
    kind = answer.headers.get("content-type", "")
    return parsed_or_none(answer.body) if "json" in kind or not kind else None


def parsed_or_none(body: bytes) -> object:
    """Return JSON as a value; None where it is none."""
    try:
        return parsed(body)
    except ValueError:
        return None


def files_of(value: object, answer: Answer, said: object) -> Sequence[Leaf]:
    """Return the leaves that are files of ours; an answer that is no JSON is one file, where it says it is media."""
    if value is None:
        kind = answer.headers.get("content-type", "")
        return [Leaf((), LeafKind.BYTES, data=answer.body)] if kind.startswith(MEDIA) and answer.body else []
    try:
        echoed = {leaf.text for leaf in leaves_of(said)}
        leaves = leaves_of(value)
    except TooMuch:
        return []
    files = {LeafKind.STORED, LeafKind.DATA}
    return [leaf for leaf in leaves if leaf.kind in files and leaf.text not in echoed]


def declared_type(value: object, leaf: Leaf) -> str:
    """Return the content type that the answer gives a file: beside its URL, or in the head of its data: URI."""
    if leaf.kind is LeafKind.DATA:
        return leaf.text.strip()[5:].partition(",")[0].partition(";")[0].lower()
    node = value
    for part in leaf.path[:-1]:
        if isinstance(node, Mapping):
            node = cast("Mapping[object, object]", node).get(part)
        elif isinstance(node, list) and isinstance(part, int):
            items = cast("Sequence[object]", node)
            node = items[part] if part < len(items) else None
    said = cast("Mapping[str, object]", node).get("content_type") if isinstance(node, Mapping) else None
    return said.partition(";")[0].strip().lower() if isinstance(said, str) else ""


async def bring(media: MediaStore, leaf: Leaf, file: IO[bytes]) -> str:
    """Write a leaf's bytes to a file; returns the content type by its first bytes, as far as they tell."""
    if leaf.kind is LeafKind.STORED:
        await _read(media, leaf.text.strip(), file.write)
    else:
        data = leaf.data or await asyncio.to_thread(unpacked, leaf.text)
        if len(data) > MAX_FILE_BYTES:
            raise ValueError("the file is too large to be opened")
        file.write(data)
    file.flush()
    file.seek(0)
    head = file.read(4096)
    file.seek(0)
    return content_type_of(head) if head else ""


async def _read(media: MediaStore, url: str, write: Callable[[bytes], object]) -> None:
    media_id = own_media_id(url)
    item = await media.find(media_id) if media_id is not None else None
    if item is None or item.size_bytes > MAX_FILE_BYTES:
        raise ValueError("the stored file is gone, or too large to be opened")
    async for piece in media.open(item, 0, item.size_bytes):
        write(piece)
