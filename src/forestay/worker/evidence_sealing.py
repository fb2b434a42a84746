"""Seals what a finding is shown by: files that a request made, and its input, into the sealed store of reviews.

It decides what is kept: nothing where the store keeps nothing (`FORESTAY_SEALED_RETENTION` is 0), nothing of a request
whose caller forbade it (`X-Fal-Store-IO: 0`) or of which no record is kept (direct calls), no file that is too large to
be read again. Copies end with the retention of the sealed store. Files are taken whatever their state: what a contract
broke was released to nobody, and is what people want to see. Given to `quality/evidence_loop` by the controller.
"""

from collections.abc import Sequence
from uuid import UUID

from forestay.ids import RequestId
from forestay.media.store import MediaStore
from forestay.quality.evidence import Copy
from forestay.queue.listing import KeptInput, PostgresRequestList
from forestay.safety.review.sealed import MAX_READ_BYTES, Label, SealedStore

MAX_FILES = 4  # of one request


class EvidenceSealer:
    """`quality/evidence.Sealer` over the sealed store."""

    def __init__(
        self, sealed: SealedStore, media: MediaStore, requests: PostgresRequestList, retention_seconds: float
    ) -> None:
        self._sealed = sealed
        self._media = media
        self._requests = requests
        self._keeps = retention_seconds > 0

    async def seal(self, finding_id: str, request_ids: Sequence[UUID]) -> list[Copy]:
        """Return the copies; doing so twice is harmless. Raises Unavailable."""
        if not self._keeps or not request_ids:
            return []
        kept = await self._requests.inputs([RequestId(one) for one in request_ids])
        return [copy for one in kept for copy in await self._of_request(finding_id, one)]

    async def _of_request(self, finding_id: str, kept: KeptInput) -> list[Copy]:
        request_id, place = str(kept.request_id), f"finding/{finding_id}"
        found: list[Copy] = []
        for item in await self._media.of_request(kept.request_id, MAX_FILES):
            if 0 < item.size_bytes <= MAX_READ_BYTES:
                label = Label("media", request_id, kept.tenant_id, f"{place}/{item.media_id}")
                sealed_id = await self._sealed.put_stream(label, self._media.open(item, 0, item.size_bytes))
                found.append(Copy(sealed_id, request_id, item.content_type, item.size_bytes))
        if found and kept.body is not None:
            sealed_id = await self._sealed.put(Label("input", request_id, kept.tenant_id, place), kept.body)
            found.append(Copy(sealed_id, request_id, "input", len(kept.body)))
        return found
