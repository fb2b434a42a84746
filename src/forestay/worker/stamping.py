"""Provenance on the way out: files of an allowed answer get what the policy asks for, and are stored anew.

It decides that provenance never holds back what a verdict allowed: what could not be added is logged and counted. The
stamped copy takes the place of the file as the model made it, which is deleted. Called by `judging` after a verdict.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Sequence

from forestay.clock import Clock
from forestay.errors import ForestayError
from forestay.media.decode import open_scratch
from forestay.media.store import MediaItem, MediaStore
from forestay.media.urls import replace_stored
from forestay.safety.guard import Subject
from forestay.safety.provenance.manifest import Made
from forestay.safety.provenance.stamp import Stamped, Stamps, Wishes
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import STAMPED, Metrics

log = logger("worker")


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """An answer with its files as they are stored now; files that were somebody's before count in neither number."""

    body: bytes
    digests: tuple[str, ...] = ()
    signed: int = 0  # files that bear a manifest now
    unsigned: int = 0  # files made here that bear none


@dataclasses.dataclass(frozen=True, slots=True)
class Stamping:
    """Stamps the files of one worker's answers."""

    stamps: Stamps
    media: MediaStore
    folder: pathlib.Path  # for scratch files
    clock: Clock
    metrics: Metrics

    async def apply(
        self, subject: Subject, body: bytes, media_ids: Sequence[str], wishes: Wishes, *, keep: bool = False
    ) -> Stored:
        """Return the answer with stamped files in it, the digests of what is stored now, and how many bear a manifest.

        With `keep` the files as the model made them stay where they are, for whoever may have to begin again.
        """
        urls: dict[str, str] = {}
        digests: list[str] = []
        made, signed = 0, 0
        for media_id in media_ids:
            item = await self.media.find(media_id)
            if item is None or item.state == "released":  # a file that was somebody's already is nothing made here
                continue
            made += 1
            try:
                renamed, manifest = await self._one(subject, item, wishes, digests)
                urls |= renamed
                signed += manifest
            except (ForestayError, OSError) as error:
                self.metrics.add(STAMPED, "failed")
                log.warning("stamping.failed", request=str(subject.request_id), reason=str(error))
        if urls:
            body = replace_stored(body, urls)
            if not keep:
                await self.media.delete(list(urls))
        return Stored(body, tuple(digests), signed, made - signed)

    async def _one(
        self, subject: Subject, item: MediaItem, wishes: Wishes, digests: list[str]
    ) -> tuple[dict[str, str], bool]:
        """Stamp one file; returns its new URL by its old id, if its bytes changed, and whether it bears a manifest."""
        made = Made(
            request_id=str(subject.request_id),
            model_id=subject.model_id,
            revision_id=subject.revision_id,
            media_id=item.media_id,
            made_at=self.clock.now(),
        )
        with open_scratch(self.folder) as source, open_scratch(self.folder) as out:
            async for piece in self.media.open(item, 0, item.size_bytes):
                source.write(piece)
            source.flush()
            stamped = await self.stamps.put(source, out, item.content_type, made, wishes)
            self._tell(subject, stamped)
            if not stamped.manifest and stamped.mark_id is None:
                return {}, False
            out.seek(0)
            data = out.read()
        saved = await self.media.save(
            data,
            tenant_id=item.tenant_id,
            file_name=item.file_name,
            content_type=item.content_type,
            request_id=subject.request_id,
            attempt=subject.attempt,
            lifetime_seconds=_left_seconds(item, self.clock),
            state="quarantine",
        )
        digests.append(f"sha256:{hashlib.sha256(data).hexdigest()}")
        return {item.media_id: saved.url}, stamped.manifest

    def _tell(self, subject: Subject, stamped: Stamped) -> None:
        self.metrics.add(STAMPED, "partly" if stamped.problems else "whole")
        if stamped.problems:
            log.info("stamping.partly", request=str(subject.request_id), reasons=list(stamped.problems))


def _left_seconds(item: MediaItem, clock: Clock) -> int | None:
    """Return for how long the file was still to be kept."""
    return None if item.expires_at is None else max(1, round((item.expires_at - clock.now()).total_seconds()))
