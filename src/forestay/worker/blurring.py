"""Blurred copies in the place of pictures and films that a policy wants blurred.

It decides that only a file that an answer names by itself can be replaced, and only when nothing else in the answer
leads to the original: otherwise the answer is blocked. The original stays in quarantine. Called by `judging` once the
guard has said `blur`.
"""

import asyncio
import base64
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import cast

import msgspec

from forestay.media.store import MediaStore
from forestay.media.urls import own_media_id, stored_ids
from forestay.safety.guard import Item
from forestay.safety.leaves import Leaf, LeafKind, leaves_of
from forestay.safety.media import blur
from forestay.safety.model import Picture
from forestay.safety.taxonomy import Modality
from forestay.worker.opening import Work

_SHOWN = frozenset({Modality.IMAGE, Modality.VIDEO})
_FILES = frozenset({LeafKind.STORED, LeafKind.DATA, LeafKind.LINK})


@dataclasses.dataclass(frozen=True, slots=True)
class Blurred:
    """An answer with blurred copies in it."""

    body: bytes
    digests: tuple[str, ...]  # of the copies


async def blurred(media: MediaStore, work: Work, value: object, places: frozenset[str]) -> Blurred | None:
    """Return the answer with copies at these places; None where one of them cannot be replaced. Raises Unavailable."""
    looks = {item.place.where: item for item in work.items if item.place.modality in _SHOWN and item.looks}
    leaves = [leaf for leaf in leaves_of(value) if leaf.where in places]
    if not places.issubset({leaf.where for leaf in leaves}) or any(leaf.kind not in _FILES for leaf in leaves):
        return None
    digests: list[str] = []
    for leaf in leaves:
        item = looks.get(leaf.where)
        if item is None or not await _replaced(media, work, value, (leaf, item), digests):
            return None
    body = msgspec.json.encode(value)
    if {own_media_id(leaf.text.strip()) for leaf in leaves} & set(stored_ids(body)):
        return None
    return Blurred(body, tuple(digests))


async def _replaced(media: MediaStore, work: Work, value: object, shown: tuple[Leaf, Item], digests: list[str]) -> bool:
    """Make one copy and name it in the answer, together with what is written beside it."""
    leaf, item = shown
    pictures = [look for look in item.looks if isinstance(look, Picture)]
    if not pictures:
        return False
    media_id = own_media_id(leaf.text.strip())
    found = await media.find(media_id) if media_id is not None else None
    declared = leaf.text[5:40] if leaf.kind is LeafKind.DATA else "" if found is None else found.content_type
    moves = item.place.modality is Modality.VIDEO and declared.startswith("video/")
    kind = blur.FILM if moves else blur.STILL
    data = await asyncio.to_thread(blur.film, pictures) if moves else await asyncio.to_thread(blur.still, pictures[0])
    digests.append(f"sha256:{hashlib.sha256(data).hexdigest()}")
    name = "blurred.mp4" if moves else "blurred.jpg"
    if leaf.kind is LeafKind.DATA:
        url = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    else:
        saved = await media.save(
            data,
            tenant_id=work.subject.tenant_id,
            file_name=name,
            content_type=kind,
            request_id=work.subject.request_id,
            attempt=work.subject.attempt,
            lifetime_seconds=work.lifetime_seconds,
            state="quarantine",
        )
        url = saved.url
    return _put(value, leaf, url, {"content_type": kind, "file_name": name, "file_size": len(data)})


def _put(value: object, leaf: Leaf, url: str, beside: Mapping[str, object]) -> bool:
    """Write the copy's URL where the original's stood, and mend what is said of the file beside it."""
    holder = value
    for step in leaf.path[:-1]:
        holder = _step(holder, step)
    if not leaf.path or not isinstance(holder, dict | list):
        return False
    last = leaf.path[-1]
    if isinstance(holder, list):
        cast("list[object]", holder)[int(last)] = url
        return True
    named = cast("dict[str, object]", holder)
    if last not in named:
        return False
    named[str(last)] = url
    named.update({name: told for name, told in beside.items() if last == "url" and named.get(name) is not None})
    return True


def _step(holder: object, step: str | int) -> object:
    if isinstance(holder, list):
        return cast("Sequence[object]", holder)[int(step)]
    return cast("dict[str, object]", holder).get(str(step)) if isinstance(holder, dict) else None
