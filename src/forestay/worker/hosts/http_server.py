"""Any HTTP server at a URL as a model: gateways may speak to it themselves, one hop.

It decides nothing. The server runs elsewhere: it is never started, killed or watched for memory here; it is ready once
its health path answers 2xx. Its openapi is read if it serves one. Called by `worker/replica.py`.
"""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import cast

from forestay.clock import Clock
from forestay.fleet.spec import UNGUARDED, ModelSpec
from forestay.ids import RequestId
from forestay.worker.hosts.connection import ModelConnection
from forestay.worker.hosts.host import CallRequest, CallResult, Description, Exit, HealthCheck, ModelSocket, Stream

FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.1, 2.0
CANCEL_SECONDS = 5.0
OPENAPI_SECONDS = 5.0
MAX_OPENAPI_BYTES = 8 * 1024 * 1024
# Shorter than what servers commonly keep an idle connection for (5 s and less): a POST must not meet a closing one.
KEEP_ALIVE_SECONDS = 1.5
FOR_EVER_SECONDS = 86_400.0


class HttpServerHost:
    """Host adapter: a server that somebody else runs."""

    def __init__(self, spec: ModelSpec, clock: Clock) -> None:
        self._spec = spec
        self._clock = clock
        self._connection = ModelConnection(spec.host.url, keep_alive_seconds=KEEP_ALIVE_SECONDS)
        self._check = HealthCheck(spec.host.health_path, method="GET", start_period_seconds=1.0)

    async def start(self) -> Description:
        """Wait until the health path answers; the caller bounds the time."""
        pause = FIRST_PAUSE_SECONDS
        while not await self.healthy(self._check):
            await self._clock.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE_SECONDS)
        return Description(
            openapi=await self._openapi(),
            slots=self._spec.limits.max_multiplexing,
            # Files of inputs are fetched and opened by the worker: then gateways may not go past it.
            direct_url=None if self._takes_files() or self._is_guarded() else self._spec.host.url.rstrip("/"),
            health_check=self._check,
        )

    def _is_guarded(self) -> bool:
        return self._spec.safety.policy != UNGUARDED or self._spec.quality.looks

    def _takes_files(self) -> bool:
        return any(endpoint.media_inputs for endpoint in self._spec.endpoints)

    async def call(self, request: CallRequest) -> CallResult:
        """Run one call."""
        return await self._connection.call(request)

    @asynccontextmanager
    async def stream(self, request: CallRequest) -> AsyncGenerator[Stream | CallResult, None]:
        """Run one call, handing on the answer as it arrives."""
        async with self._connection.stream(request) as opened:
            yield opened

    @asynccontextmanager
    async def websocket(self, path: str, headers: Mapping[str, str]) -> AsyncGenerator[ModelSocket | None, None]:
        """Open a websocket to the server."""
        async with self._connection.websocket(path, headers) as opened:
            yield opened

    async def cancel(self, request_id: RequestId, endpoint: str) -> None:
        """POST `{endpoint}/cancel`, as fal does; a server without it answers 404 and goes on."""
        headers = {"x-fal-request-id": str(request_id), "x-fal-endpoint": endpoint}
        path = endpoint.rstrip("/") + "/cancel"
        await self._connection.status_of("POST", path, headers=headers, timeout_seconds=CANCEL_SECONDS)

    async def healthy(self, check: HealthCheck | None) -> bool:
        """Ask the health path."""
        asked = check or self._check
        status = await self._connection.status_of(
            asked.method, asked.path, headers={}, timeout_seconds=asked.timeout_seconds
        )
        return status is not None and 200 <= status < 300

    async def exited(self) -> Exit:
        """Never return: its process is not ours to watch."""
        while True:
            await self._clock.sleep(FOR_EVER_SECONDS)

    async def stop(self, grace_seconds: float) -> None:
        """Let go of the connections; the server itself runs on."""
        del grace_seconds  # there is nothing to wait for
        await self._connection.close()

    async def _openapi(self) -> Mapping[str, object] | None:
        data = await self._connection.read_json(
            "/openapi.json", timeout_seconds=OPENAPI_SECONDS, max_bytes=MAX_OPENAPI_BYTES
        )
        try:
            parsed: object = json.loads(data) if data is not None else None
        except ValueError:
            return None
        return cast("dict[str, object]", parsed) if isinstance(parsed, dict) else None
