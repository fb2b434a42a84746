"""Sends files to a caller's own bucket: one POST of a signed form, through the guarded connector.

Decides how often it is tried (what may pass: no connection, 408, 429, 5xx) and when it counts as stored (200, 201, 204,
and the 303 of a policy with a redirect, which is not followed). What the bucket answers is never shown to anybody.
Called by the worker, for outputs of a request with `X-App-Fal-Upload-Policy`.
"""

import asyncio
import dataclasses
import os
from collections.abc import AsyncGenerator
from typing import IO

import aiohttp
import yarl

from forestay.chance import Chance
from forestay.clock import Clock
from forestay.errors import ForestayError, UsageError
from forestay.media.fetch import Network, guarded_session, shown
from forestay.media.targets import read_target
from forestay.media.upload_policy import Form, UploadPolicy, form_for

STORED = frozenset({200, 201, 204, 303})
MAY_PASS = frozenset({408, 429})
CONNECT_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 0.5
_PIECE_BYTES = 256 * 1024


class UploadFailed(UsageError):
    """A file is not in the caller's bucket; the caller's policy or bucket is at fault."""

    def __init__(self, message: str) -> None:
        super().__init__("X-App-Fal-Upload-Policy", message)


@dataclasses.dataclass(frozen=True, slots=True)
class BucketLimits:
    """Caps on one upload."""

    total_seconds: float = 120.0
    tries: int = 3


class Bucket:
    """Sends with one policy of ours towards all policies of callers."""

    def __init__(
        self,
        clock: Clock,
        chance: Chance,
        *,
        allow_private: bool = False,
        limits: BucketLimits | None = None,
        network: Network | None = None,
    ) -> None:
        self._clock = clock
        self._chance = chance
        self._allow_private = allow_private
        self._limits = limits or BucketLimits()
        self._network = network or Network()

    async def send(self, policy: UploadPolicy, file: IO[bytes], file_name: str, content_type: str) -> str:
        """Store the whole of `file`, a real one; returns the URL at which it can be read. UploadFailed says why not."""
        form = form_for(policy, file_name, content_type, self._chance.token(12))
        if isinstance(form, str):
            raise UploadFailed(form)
        seconds = self._limits.total_seconds
        try:
            async with asyncio.timeout(seconds):
                await self._send(policy.url, form, file, content_type)
        except TimeoutError:
            raise UploadFailed(f"{shown(policy.url)} did not take the file within {seconds:g} s") from None
        return form.access_url

    async def _send(self, url: str, form: Form, file: IO[bytes], content_type: str) -> None:
        for number in range(1, self._limits.tries + 1):
            failure, passing = await self._try(url, form, file, content_type)
            if not failure:
                return
            if not passing or number == self._limits.tries:
                raise UploadFailed(f"{shown(url)} {failure}")
            await self._clock.sleep(FIRST_PAUSE_SECONDS * 2 ** (number - 1) * self._chance.uniform(0.5, 1.5))

    async def _try(self, url: str, form: Form, file: IO[bytes], content_type: str) -> tuple[str, bool]:
        """Try once; returns what went wrong (empty: nothing), and whether that may pass."""
        target = read_target(url, self._allow_private)
        if isinstance(target, str):
            return f"cannot be called: {target}", False
        boundary = f"forestay-{self._chance.token(24)}"
        before, after = _envelope(form, boundary, content_type)
        size = len(before) + os.fstat(file.fileno()).st_size + len(after)
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(size)}
        file.seek(0)
        try:
            async with (
                guarded_session(
                    self._network, allow_private=self._allow_private, connect_seconds=CONNECT_SECONDS, limit=1
                ) as session,
                session.post(
                    yarl.URL(target.url, encoded=True),
                    data=_body(before, file, after),
                    headers=headers,
                    allow_redirects=False,
                ) as response,
            ):
                if response.status in STORED:
                    return "", False
                return f"answered {response.status}", response.status >= 500 or response.status in MAY_PASS
        except ForestayError as error:
            return f"cannot be called: {error}", False
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return f"does not answer: {type(error).__name__}", True


def _envelope(form: Form, boundary: str, content_type: str) -> tuple[bytes, bytes]:
    """Write what stands before and after the file; S3 ignores fields that come after it."""
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in form.fields
    ]
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="file"\r\nContent-Type: {content_type}'
    )
    return f"{''.join(parts)}{head}\r\n\r\n".encode(), f"\r\n--{boundary}--\r\n".encode()


async def _body(before: bytes, file: IO[bytes], after: bytes) -> AsyncGenerator[bytes]:
    yield before
    while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
        yield piece
    yield after
