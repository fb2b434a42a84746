"""What happens to a file before it is released: watermark, manifest, fingerprint. The one function is `Stamps.put`.

The worker calls it for every file that a model made, after a verdict allows it and before the file is stored under the
name that callers read:

    stamped = await stamps.put(source, out, "image/png", made, wishes)

`source` and `out` are real files; `out` then holds what is to be stored, even where nothing could be added (it is then
a copy of `source`, and `stamped.problems` says why). Fingerprints of a picture, or of frames of a film, are kept in the
database. Files are opened in the limited child of `media/decode`, manifests written in that of `c2pa`. Who has looked
at the file already may give those `looks`. What a policy must do when something could not be added (release or
withhold) is for the caller to decide by `stamped.problems`; NotStamped and MediaRefused never leave this function,
Unavailable does when the database or the decoder is away.
"""

import asyncio
import dataclasses
import hashlib
import io
import shutil
import tempfile
from collections.abc import Sequence
from typing import IO, cast

import numpy as np
from PIL import Image

from forestay.errors import ForestayError, Unavailable
from forestay.media.decode import Decoder, MediaRefused
from forestay.safety.hashes.pdq import Pixels, hash_of
from forestay.safety.media.frames import depth, pictures_of
from forestay.safety.model import Picture
from forestay.safety.provenance import c2pa
from forestay.safety.provenance.fingerprints import Fingerprint, PostgresFingerprints
from forestay.safety.provenance.identity import Identity
from forestay.safety.provenance.manifest import Made
from forestay.safety.provenance.watermark import Watermark

_MARKED = {"image/png": "PNG", "image/jpeg": "JPEG"}
_JPEG_QUALITY = 95
MAX_LOOKS = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Wishes:
    """What a policy asks for."""

    manifest: bool = True
    watermark: bool = False
    fingerprint: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Stamped:
    """What a file now bears."""

    manifest: bool = False
    mark_id: int | None = None
    fingerprints: int = 0
    problems: tuple[str, ...] = ()  # what was asked for and could not be added, in words


@dataclasses.dataclass(frozen=True, slots=True)
class _Opened:
    """A picture as the limited child gave it back."""

    pixels: Pixels
    plain: bool  # one frame without transparency: it can be written again as it is
    profile: bytes | None  # of its colours


class NotMarked(ForestayError):
    """No watermark could be written: the message says why."""


class Stamps:
    """Adds what can be added: without an identity no manifests, without a watermark's key no watermarks."""

    def __init__(
        self,
        decoder: Decoder,
        fingerprints: PostgresFingerprints,
        identity: Identity | None,
        watermark: Watermark | None,
    ) -> None:
        self._decoder = decoder
        self._fingerprints = fingerprints
        self._identity = identity
        self._watermark = watermark

    async def put(
        self,
        source: IO[bytes],
        out: IO[bytes],
        content_type: str,
        made: Made,
        wishes: Wishes,
        looks: Sequence[Picture] | None = None,
    ) -> Stamped:
        """Write `source` to `out` with what the policy asks for; see the module."""
        problems: list[str] = []
        with tempfile.TemporaryFile() as kept:
            middle = cast("IO[bytes]", kept)
            mark_id = await self._mark(source, middle, content_type, made, problems) if wishes.watermark else None
            if mark_id is None:
                _replace(source, middle)
            signed = wishes.manifest and await self._sign(middle, out, content_type, made, problems)
            if not signed:
                _replace(middle, out)
        count = 0
        if wishes.fingerprint:
            seen = await self._looks(source, content_type, problems) if looks is None else looks
            count = await self._keep(seen[:MAX_LOOKS], made, mark_id)
        return Stamped(signed, mark_id, count, tuple(problems))

    async def _looks(self, source: IO[bytes], content_type: str, problems: list[str]) -> Sequence[Picture]:
        """Return what there is to see in a file; nothing in sound, or where it cannot be opened."""
        if content_type.startswith("audio/"):
            return ()
        source.seek(0)
        try:
            return (await pictures_of(self._decoder, source, "", depth(0.0))).pictures
        except MediaRefused as error:
            problems.append(f"no fingerprint: {error}")
            return ()

    async def _opened(self, source: IO[bytes]) -> _Opened:
        """Open a picture in the limited child at its full size; MediaRefused when it cannot be."""
        with tempfile.TemporaryFile() as clean:
            copy = cast("IO[bytes]", clean)
            source.seek(0)
            await self._decoder.clean(source, copy, "image")
            copy.seek(0)
            with Image.open(copy) as picture:
                plain = picture.mode in {"RGB", "L"} and getattr(picture, "n_frames", 1) == 1
                pixels = np.asarray(picture.convert("RGB"), np.uint8)
                return _Opened(pixels, plain, cast("bytes | None", picture.info.get("icc_profile")))

    async def _mark(
        self, source: IO[bytes], out: IO[bytes], content_type: str, made: Made, problems: list[str]
    ) -> int | None:
        """Write the marked picture to `out`; None, and a problem, where none could be written."""
        try:
            coded = await self._marked(source, content_type, made)
        except (MediaRefused, NotMarked) as error:
            problems.append(f"no watermark: {error}")
            return None
        out.write(coded)
        return mark_id_of(made.media_id)

    async def _marked(self, source: IO[bytes], content_type: str, made: Made) -> bytes:
        if self._watermark is None:
            raise NotMarked("FORESTAY_WATERMARK_KEY is not set")
        opened = await self._opened(source) if content_type in _MARKED else None
        if opened is None or not opened.plain:
            raise NotMarked("only still PNG and JPEG without transparency bear one")
        marked = await asyncio.to_thread(self._watermark.mark, opened.pixels, mark_id_of(made.media_id))
        if marked is None:
            raise NotMarked("this picture cannot hold one")
        coded = io.BytesIO()
        profile = {} if opened.profile is None else {"icc_profile": opened.profile}
        Image.fromarray(marked).save(coded, _MARKED[content_type], quality=_JPEG_QUALITY, **profile)
        return coded.getvalue()

    async def _sign(
        self, middle: IO[bytes], out: IO[bytes], content_type: str, made: Made, problems: list[str]
    ) -> bool:
        if self._identity is None:
            problems.append("no manifest: FORESTAY_PROVENANCE_DIR is not set")
            return False
        _empty(out)
        try:
            await c2pa.sign(middle, out, content_type, made, self._identity)
        except (c2pa.NotStamped, Unavailable) as error:
            problems.append(f"no manifest: {error}")
            return False
        return True

    async def _keep(self, looks: Sequence[Picture], made: Made, mark_id: int | None) -> int:
        """Keep how it looks; a mark changes nothing that the hash could see."""
        kept: list[Fingerprint] = []
        for one in looks:
            shown = np.frombuffer(one.rgb, np.uint8).reshape(one.height, one.width, 3)
            kept.append(Fingerprint(made, await asyncio.to_thread(hash_of, shown), one.where.strip(), mark_id))
        if kept:
            await self._fingerprints.keep(kept)
        return len(kept)


def mark_id_of(media_id: str) -> int:
    """Return the id that a file's watermark bears: 63 bits, so that a database's bigint holds it."""
    return int.from_bytes(hashlib.sha256(media_id.encode()).digest()[:8]) >> 1


def _empty(out: IO[bytes]) -> None:
    out.seek(0)
    out.truncate()
    out.flush()


def _replace(source: IO[bytes], out: IO[bytes]) -> None:
    _empty(out)
    source.seek(0)
    shutil.copyfileobj(source, out)
    out.flush()
