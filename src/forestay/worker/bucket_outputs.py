"""Outputs of a request whose caller named a bucket of their own: files go there, and only there.

Decides when: a queued request's files once every check has allowed them, those of a direct call as they are made, since
they are on their way to the caller already. What cannot be stored there is a clear 424, never a silent copy here: our
own copies are deleted either way. Called by `worker/attempt.py` and `worker/media_server.py`.
"""

import dataclasses
import json
import pathlib
from collections.abc import AsyncIterable, Sequence
from typing import IO, Protocol

from forestay.errors import ForestayError
from forestay.ids import RequestId
from forestay.media.bucket import UploadFailed
from forestay.media.decode import open_scratch
from forestay.media.formats import SNIFF_BYTES, content_type_of, safe_file_name
from forestay.media.store import MediaItem, MediaStore
from forestay.media.upload_policy import UploadPolicy, parse_upload_policy
from forestay.media.urls import replace_stored, stored_ids
from forestay.queue.model import Answer
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import BUCKET_FILES, Metrics

FAILED_DEPENDENCY = 424  # fal's own: the fault lies with the caller's bucket, and trying the model again helps nobody
log = logger("worker")


class Sender(Protocol):
    """Sends one file; see `media/bucket`."""

    async def send(self, policy: UploadPolicy, file: IO[bytes], file_name: str, content_type: str) -> str:
        """Return the URL at which the file can be read; UploadFailed otherwise."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class BucketOutputs:
    """The way of outputs into buckets of callers."""

    media: MediaStore
    sender: Sender
    folder: pathlib.Path  # for scratch files
    allow_private: bool
    metrics: Metrics

    async def deliver(
        self, policy_text: str, answer: Answer, owners: Sequence[RequestId], *, keep: bool = False
    ) -> Answer:
        """Return the answer with the bucket's URLs in it, or a 424 that says why not; `keep`: our copies stay.

        Files that other requests than `owners` made stay where they are: naming one in an answer gives no right to it.
        """
        found = [await self.media.find(media_id) for media_id in stored_ids(answer.body)]
        made = [item for item in found if item is not None and item.request_id in owners]
        urls: dict[str, str] = {}
        try:
            if None in found:
                raise UploadFailed("a file of the output is gone")
            policy = self._policy(policy_text)
            for item in made:
                urls[item.media_id] = await self._move(policy, item)
        except ForestayError as error:
            return failed(error)
        finally:
            if not keep:
                await self.media.delete([item.media_id for item in made])
        return dataclasses.replace(answer, body=replace_stored(answer.body, urls))

    async def take(self, policy_text: str, pieces: AsyncIterable[bytes], file_name: str, content_type: str) -> str:
        """Store a file that is being made; returns its URL. UploadFailed says why not."""
        policy = self._policy(policy_text)
        with open_scratch(self.folder) as file:
            async for piece in pieces:
                file.write(piece)
            file.flush()
            file.seek(0)
            kind = content_type_of(file.read(SNIFF_BYTES), file_name=file_name, declared=content_type)
            return await self._send(policy, file, safe_file_name(file_name, kind), kind)

    def _policy(self, text: str) -> UploadPolicy:
        policy = parse_upload_policy(text, allow_private=self.allow_private)
        if isinstance(policy, str):
            raise UploadFailed(policy)
        return policy

    async def _move(self, policy: UploadPolicy, item: MediaItem) -> str:
        with open_scratch(self.folder) as file:
            async for piece in self.media.open(item, 0, item.size_bytes):
                file.write(piece)
            file.flush()
            return await self._send(policy, file, item.file_name, item.content_type)

    async def _send(self, policy: UploadPolicy, file: IO[bytes], file_name: str, content_type: str) -> str:
        try:
            url = await self.sender.send(policy, file, file_name, content_type)
        except UploadFailed:
            self.metrics.add(BUCKET_FILES, "failed")
            raise
        self.metrics.add(BUCKET_FILES, "stored")
        return url


def failed(error: ForestayError) -> Answer:
    """Return the answer to a file that is not in the caller's bucket."""
    message = f"The output could not be stored: {error}"
    log.info("bucket.failed", reason=str(error))
    return Answer(
        status_code=FAILED_DEPENDENCY,
        headers={"content-type": "application/json"},
        body=json.dumps({"detail": message}).encode(),
        error=message,
        error_type="upload_policy_failed",
    )
