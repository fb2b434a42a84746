"""Did we make this? Every layer is asked, and each answer says how much it proves.

    manifest     proof: signed under our authority, and the file is as it was signed
    watermark    strong: an id under our key with 32 bits of check; chance shows one in half a billion pictures
    fingerprint  likely within 10 bits, possible within 31: it looks like something that we released

Layers do not depend on one another: a manifest is stripped by most platforms, a watermark does not survive a crop, a
fingerprint survives a screenshot and proves least. A file that no layer knows may still be ours. Called by the admin
route.
"""

import asyncio
import dataclasses
import enum
import os
from collections.abc import Sequence
from typing import IO

import numpy as np

from forestay.errors import ForestayError
from forestay.media.decode import Decoder, MediaRefused
from forestay.safety.hashes.pdq import LEAST_QUALITY, Pixels, hashes_of
from forestay.safety.media.frames import depth, pictures_of
from forestay.safety.provenance import c2pa
from forestay.safety.provenance.fingerprints import Alike, PostgresFingerprints
from forestay.safety.provenance.identity import Identity
from forestay.safety.provenance.manifest import Made, Seal
from forestay.safety.provenance.watermark import Watermark

LIKELY_BITS = 10


class Strength(enum.StrEnum):
    """How much a layer proves."""

    PROOF = "proof"
    STRONG = "strong"
    LIKELY = "likely"
    POSSIBLE = "possible"


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """What one layer says; `made` is empty where a watermark is ours and its record is gone."""

    layer: str  # manifest | watermark | fingerprint
    strength: Strength
    made: Made | None
    told: str


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """What all layers say of a file, the strongest first, and what could not be looked at."""

    evidence: tuple[Evidence, ...]
    notes: tuple[str, ...]

    @property
    def ours(self) -> bool:
        """Tell whether more than a faint likeness shows that we made it."""
        return any(item.strength is not Strength.POSSIBLE for item in self.evidence)


class Origins:
    """Asks every layer that this platform has."""

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

    @property
    def decoder(self) -> Decoder:
        """Return who opens files here."""
        return self._decoder

    async def of(self, source: IO[bytes]) -> Origin:
        """Return what is known of a file, a real one."""
        notes: list[str] = []
        seen = await self._seen(source, notes)
        evidence = [*await self._manifest(source, notes), *await self._marked(seen, notes), *await self._alike(seen)]
        order = list(Strength)
        return Origin(tuple(sorted(evidence, key=lambda item: order.index(item.strength))), tuple(notes))

    async def _seen(self, source: IO[bytes], notes: list[str]) -> Sequence[Pixels]:
        """Return the picture, or frames of the film; nothing of what cannot be opened."""
        source.seek(0)
        try:
            looks = (await pictures_of(self._decoder, source, "", depth(0.0))).pictures
        except MediaRefused as error:
            notes.append(f"not looked at: {error}")
            return ()
        return [np.frombuffer(one.rgb, np.uint8).reshape(one.height, one.width, 3) for one in looks]

    async def _manifest(self, source: IO[bytes], notes: list[str]) -> Sequence[Evidence]:
        if self._identity is None:
            notes.append("manifests are not looked at: FORESTAY_PROVENANCE_DIR is not set")
            return ()
        content_type = content_type_of(os.pread(source.fileno(), 16, 0))  # past the buffer, which children outrun
        try:
            found = await c2pa.read(source, content_type, self._identity)
        except ForestayError as error:
            notes.append(f"manifest: {error}")
            return ()
        if found.seal is Seal.OURS:
            return (Evidence("manifest", Strength.PROOF, found.made, "signed under our authority and whole"),)
        if found.seal is Seal.OTHERS:
            notes.append(f"manifest: whole, but signed by {found.issuer or 'somebody else'}, not by us")
        if found.seal is Seal.BROKEN:
            notes.append(f"manifest: the file is not what was signed ({', '.join(found.problems) or 'no reason'})")
        return ()

    async def _marked(self, seen: Sequence[Pixels], notes: list[str]) -> Sequence[Evidence]:
        if self._watermark is None:
            notes.append("watermarks are not looked at: FORESTAY_WATERMARK_KEY is not set")
            return ()
        for pixels in seen:
            mark_id = await asyncio.to_thread(self._watermark.read, pixels)
            if mark_id is not None:
                found = await self._fingerprints.by_mark(mark_id)
                made = found[0].made if found else None
                return (Evidence("watermark", Strength.STRONG, made, f"bears our mark {mark_id:016x}"),)
        return ()

    async def _alike(self, seen: Sequence[Pixels]) -> Sequence[Evidence]:
        """Return what was released and looks alike; a single picture is looked up turned and mirrored too."""
        nearest: dict[str, Alike] = {}
        for pixels in seen:
            hashes = await asyncio.to_thread(hashes_of, pixels)
            for one in hashes[: 8 if len(seen) == 1 else 1]:
                if one.quality < LEAST_QUALITY:
                    continue
                for alike in await self._fingerprints.near(one.value):
                    known = nearest.get(alike.made.media_id)
                    if known is None or alike.distance < known.distance:
                        nearest[alike.made.media_id] = alike
        ranked = sorted(nearest.values(), key=lambda item: (item.distance, item.made.made_at))
        return [_told(alike) for alike in ranked[:5]]


def content_type_of(head: bytes) -> str:
    """Return which file that can bear a manifest begins so, empty for all else."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "audio/wav"
    return "video/mp4" if head[4:8] == b"ftyp" else ""


def _told(alike: Alike) -> Evidence:
    strength = Strength.LIKELY if alike.distance <= LIKELY_BITS else Strength.POSSIBLE
    place = f", {alike.place}" if alike.place else ""
    told = f"{alike.distance} of 256 bits from what was released as {alike.made.media_id}{place}"
    return Evidence("fingerprint", strength, alike.made, told)
