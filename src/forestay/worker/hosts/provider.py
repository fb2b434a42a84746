"""A platform upstream as a model: another fal-compatible API by its queue protocol, or any JSON API by plain POST.

It decides how an answer from upstream counts: its 4xx are the caller's, its 5xx and silence are failures of the
provider; and when a job that an earlier attempt began is waited for instead of paying for another. The key comes from
the worker's secrets and leaves only towards the spec's URL. Called by `worker/replica.py`.
"""

import asyncio
import dataclasses
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import cast
from urllib.parse import urlsplit

from forestay.clock import Clock
from forestay.fleet.spec import ModelSpec
from forestay.ids import RequestId
from forestay.telemetry.logs import logger
from forestay.worker.hosts.connection import ModelConnection
from forestay.worker.hosts.host import (
    Answered,
    Broken,
    CallRequest,
    CallResult,
    Crashed,
    Description,
    Exit,
    HealthCheck,
    ModelSocket,
    Refused,
    Stream,
    TimedOut,
    UpstreamFailed,
)
from forestay.worker.hosts.secret_files import read_secret
from forestay.worker.hosts.upstream_job import Job, Note, read_note, write_note

log = logger("worker")
FIRST_POLL_SECONDS, LAST_POLL_SECONDS = 0.1, 2.0
CALL_SECONDS = 30.0  # one step of the queue protocol
TRIES_PER_STEP = 5  # of the steps that may be repeated: status and result
FOR_EVER_SECONDS = 86_400.0
QUEUE_LABEL, QUEUE_PREFIX, RUN_PREFIX = "queue.", "/queue/", "/run/"
_SILENT = frozenset({429, 502, 503, 504})  # no word of the job itself: it is asked for again
_UNKNOWN = frozenset({404, 410})
_KEPT_HEADERS = ("content-type", "accept")


def sync_url(queue_url: str) -> str | None:
    """Return a fal provider's synchronous URL, beside that of its queue; None where it cannot be told.

    fal tells the two apart by the host name (`queue.fal.run`, `fal.run`), platforms on one address by the first
    segment of the path (`/queue`, `/run`).
    """
    parts = urlsplit(queue_url)
    if parts.netloc.startswith(QUEUE_LABEL):
        return parts._replace(netloc=parts.netloc.removeprefix(QUEUE_LABEL)).geturl()
    if parts.path.startswith(QUEUE_PREFIX):
        return parts._replace(path=RUN_PREFIX + parts.path.removeprefix(QUEUE_PREFIX)).geturl()
    return None


@dataclasses.dataclass(frozen=True, slots=True)
class _Base:
    """One base URL of the provider, and its connections."""

    connection: ModelConnection
    base_path: str

    @classmethod
    def of(cls, url: str) -> "_Base":
        parts = urlsplit(url)
        return cls(ModelConnection(f"{parts.scheme}://{parts.netloc}", keep_alive_seconds=1.5), parts.path.rstrip("/"))

    def path(self, endpoint: str) -> str:
        return (self.base_path + endpoint).rstrip("/") or "/"


class ProviderHost:
    """Host adapter: calls leave the machine."""

    def __init__(self, spec: ModelSpec, secrets_dir: str, clock: Clock) -> None:
        self._spec = spec
        self._secrets_dir = secrets_dir
        self._clock = clock
        self._base = _Base.of(spec.host.url)
        synchronous = sync_url(spec.host.url) if spec.host.protocol == "fal" else None
        self._sync_base = None if synchronous is None else _Base.of(synchronous)
        self._key = ""
        self._cancel_paths: dict[RequestId, str] = {}
        self._abandonable: dict[RequestId, asyncio.Timeout] = {}

    async def start(self) -> Description:
        """Read the key; nothing is called before the first request."""
        if self._spec.host.key_secret:
            self._key = read_secret(self._secrets_dir, self._spec.host.key_secret)
        return Description(openapi=None, slots=self._spec.limits.max_multiplexing)

    async def call(self, request: CallRequest) -> CallResult:
        """Run one call upstream, by the protocol that the spec names."""
        if self._spec.host.protocol == "json":
            return await self._plain(request)
        deadline = self._clock.monotonic() + request.timeout_seconds
        try:
            return await self._queued(request, deadline)
        finally:
            self._cancel_paths.pop(request.request_id, None)

    @asynccontextmanager
    async def stream(self, request: CallRequest) -> AsyncGenerator[Stream | CallResult, None]:
        """Run one call at the provider's synchronous URL, handing on the answer as it arrives.

        A fal provider of whose URLs only the queue's is known runs it there: its answer to a submit is no result.
        """
        at = self._synchronous()
        if at is None:
            yield await self.call(request)
            return
        outbound = self._outbound("POST", at.path(request.endpoint), request, request.timeout_seconds)
        async with at.connection.stream(outbound) as opened:
            if isinstance(opened, Stream) and opened.status_code < 500:
                yield opened
            elif isinstance(opened, Stream):
                yield UpstreamFailed(opened.status_code, f"it answered {opened.status_code}")
            else:
                yield _upstream(opened)

    @asynccontextmanager
    async def websocket(self, path: str, headers: Mapping[str, str]) -> AsyncGenerator[ModelSocket | None, None]:
        """Open a websocket upstream with our key."""
        kept = {name: value for name, value in headers.items() if name == "sec-websocket-protocol"}
        authorization = {"authorization": f"Key {self._key}"} if self._key else {}
        at = self._synchronous() or self._base
        async with at.connection.websocket(at.base_path + path, {**kept, **authorization}) as opened:
            yield opened

    async def _plain(self, request: CallRequest) -> CallResult:
        try:
            async with asyncio.timeout(None) as scope:
                self._abandonable[request.request_id] = scope
                path = self._base.path(request.endpoint)
                return _upstream(await self._send("POST", path, request, request.timeout_seconds))
        except TimeoutError:  # only a cancel sets this scope's end
            return UpstreamFailed(503, "its connection was closed by a cancel")
        finally:
            self._abandonable.pop(request.request_id, None)

    async def cancel(self, request_id: RequestId, endpoint: str) -> None:
        """Forward the cancel. A plain JSON API has no word for it: its connection is closed, the rest is up to it."""
        del endpoint  # the provider's own cancel URL is what counts
        scope = self._abandonable.pop(request_id, None)
        if scope is not None:
            log.info("provider.abandoned", request=str(request_id), model=self._spec.model_id)
            scope.reschedule(asyncio.get_running_loop().time())
        path = self._cancel_paths.get(request_id)
        if path is not None:
            headers = {"authorization": f"Key {self._key}"} if self._key else {}
            await self._base.connection.status_of("PUT", path, headers=headers, timeout_seconds=CALL_SECONDS)

    async def healthy(self, check: HealthCheck | None) -> bool:
        """Say yes: a provider in trouble is seen by its answers, and a restart here would not help it."""
        del check
        return True

    async def exited(self) -> Exit:
        """Never return: there is no process."""
        while True:
            await self._clock.sleep(FOR_EVER_SECONDS)

    async def stop(self, grace_seconds: float) -> None:
        """Let go of the connections."""
        del grace_seconds  # there is nothing to wait for
        await self._base.connection.close()
        if self._sync_base is not None:
            await self._sync_base.connection.close()

    async def _queued(self, request: CallRequest, deadline: float) -> CallResult:
        """Submit unless an earlier attempt has, poll, fetch (fal's queue protocol)."""
        target = self._spec.host.url + request.endpoint
        note = read_note(None if request.notes is None else await request.notes.read(), target)
        if note.job is not None:
            log.info("provider.resumed", request=str(request.request_id), attempt=request.attempt)
            result = await self._await_job(note, note.job, request, deadline)
            if result is not None:
                return result
            note = note.over()
        job = await self._submit(note, request)
        if not isinstance(job, Job):
            return job
        note = dataclasses.replace(note, job=job)
        await _keep(note, request)
        unknown = UpstreamFailed(502, "it does not know the job that it has just accepted")
        return await self._await_job(note, job, request, deadline) or unknown

    async def _submit(self, note: Note, request: CallRequest) -> Job | CallResult:
        """Begin a job. A provider that honours the key gives the same job for a submit whose answer we never read."""
        outbound = self._outbound("POST", self._base.path(request.endpoint), request, CALL_SECONDS)
        key = f"{request.request_id}-{note.jobs_over}"
        outbound = dataclasses.replace(outbound, headers={**outbound.headers, "idempotency-key": key})
        submitted = await self._base.connection.call(outbound)
        if not isinstance(submitted, Answered) or submitted.status_code >= 400:
            return _upstream(submitted)
        told = _object(submitted.body)
        status_path, response_path = self._own_path(told.get("status_url")), self._own_path(told.get("response_url"))
        if status_path is None or response_path is None:
            return UpstreamFailed(502, "its answer to a submit names no status_url and response_url of its own")
        return Job(status_path, response_path, self._own_path(told.get("cancel_url")))

    async def _await_job(self, note: Note, job: Job, request: CallRequest, deadline: float) -> CallResult | None:
        """Wait for a job's end; None when the provider knows no such job (any more).

        While it is silent the note stays: the next attempt asks for the same job again.
        """
        if job.cancel_path is not None:
            self._cancel_paths[request.request_id] = job.cancel_path
        pause = FIRST_POLL_SECONDS
        while (left := deadline - self._clock.monotonic()) > 0:
            answered = await self._repeated(job.status_path, request)
            if isinstance(answered, Answered) and answered.status_code in _UNKNOWN:
                await _keep(note.over(), request)
                return None
            if isinstance(answered, Answered) and answered.status_code < 400:
                if _object(answered.body).get("status") != "COMPLETED":
                    await self._clock.sleep(min(pause, left))
                    pause = min(pause * 1.5, LAST_POLL_SECONDS)
                    continue
                answered = await self._repeated(job.response_path, request)
            if isinstance(answered, Answered) and answered.status_code not in _SILENT:
                await _keep(note.over(), request)
            return _upstream(answered)
        await self.cancel(request.request_id, request.endpoint)
        await _keep(note.over(), request)
        return TimedOut(request.timeout_seconds)

    async def _repeated(self, path: str, request: CallRequest) -> CallResult:
        """GET a step that changes nothing: a lost answer or a 5xx is asked for again, so that no paid work is lost."""
        result: CallResult = Broken("not asked")
        for attempt in range(TRIES_PER_STEP):
            result = await self._send("GET", path, request, CALL_SECONDS)
            if isinstance(result, Answered) and result.status_code not in _SILENT:
                return result
            await self._clock.sleep(FIRST_POLL_SECONDS * 2**attempt)
        return result

    async def _send(self, method: str, path: str, request: CallRequest, seconds: float) -> CallResult:
        return await self._base.connection.call(self._outbound(method, path, request, seconds))

    def _outbound(self, method: str, path: str, request: CallRequest, seconds: float) -> CallRequest:
        headers = {name: request.headers[name] for name in _KEPT_HEADERS if name in request.headers}
        if "traceparent" in request.headers:
            headers["traceparent"] = request.headers["traceparent"]
        if self._key:
            scheme = "Key" if self._spec.host.protocol == "fal" else "Bearer"
            headers["authorization"] = f"{scheme} {self._key}"
        body = request.body if method == "POST" else b""
        return CallRequest(request.request_id, request.attempt, path, headers, body, seconds, method)

    def _synchronous(self) -> "_Base | None":
        return self._base if self._spec.host.protocol == "json" else self._sync_base

    def _own_path(self, url: object) -> str | None:
        """Return the path of a URL that the provider gave; whatever host it names, our key goes to the spec's URL."""
        if not isinstance(url, str):
            return None
        parts = urlsplit(url)
        return parts.path + (f"?{parts.query}" if parts.query else "") if parts.path.startswith("/") else None


async def _keep(note: Note, request: CallRequest) -> None:
    text = write_note(note)
    if request.notes is not None and text is not None:
        await request.notes.write(text)


def _upstream(result: CallResult) -> CallResult:
    """Turn the endings of one HTTP call into those of a provider."""
    match result:
        case Answered(status_code, _, _) if status_code >= 500:
            return UpstreamFailed(status_code, f"it answered {status_code}")
        case Answered(401 | 403, _, _):
            return UpstreamFailed(502, "it refused our key; check the secret that the spec names")
        case Refused() | Broken():
            return UpstreamFailed(503, "it does not answer")
        case Crashed(reason, _):
            return UpstreamFailed(503, reason)
        case Answered() | TimedOut() | UpstreamFailed():
            return result


def _object(body: bytes) -> dict[str, object]:
    try:
        parsed: object = json.loads(body)
    except ValueError:
        return {}
    return cast("dict[str, object]", parsed) if isinstance(parsed, dict) else {}
