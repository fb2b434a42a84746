"""Models that run elsewhere: any HTTP server, and providers upstream, spoken to over real sockets."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from tests.worker.harness import spec_of

from forestay.chance import SystemChance
from forestay.clock import SystemClock
from forestay.fleet.spec import EndpointSpec, HostKind, HostSpec, LimitSpec
from forestay.ids import new_request_id
from forestay.worker.hosts.host import (
    Answered,
    Broken,
    CallRequest,
    CallResult,
    Refused,
    Stream,
    TimedOut,
    UpstreamFailed,
)
from forestay.worker.hosts.http_server import HttpServerHost
from forestay.worker.hosts.provider import ProviderHost, sync_url
from forestay.worker.hosts.upstream_job import Job, Note, read_note, write_note

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
CLOCK = SystemClock()


@asynccontextmanager
async def serving(**routes: Handler) -> AsyncGenerator[str, None]:
    """Serve handlers at paths named `METHOD_path`; yields the base URL."""
    app = web.Application()
    for name, handler in routes.items():
        method, _, path = name.partition("_")
        app.router.add_route(method, "/" + path.replace("__", "/").replace("_id", "{id}"), handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def request_of(body: object = None, endpoint: str = "/", seconds: float = 5.0) -> CallRequest:
    """Return a call."""
    request_id = new_request_id(CLOCK.now(), 0, SystemChance())
    headers = {"content-type": "application/json", "x-fal-request-id": str(request_id), "authorization": "Key caller"}
    return CallRequest(request_id, 1, endpoint, headers, json.dumps(body or {}).encode(), seconds)


def http_host(url: str, *files: str) -> HttpServerHost:
    """Return a host for the server at `url`, whose input fields `files` hold files."""
    spec = spec_of(host=HostSpec(HostKind.HTTP_SERVER, url=url), limits=LimitSpec(max_multiplexing=8))
    return HttpServerHost(dataclasses.replace(spec, endpoints=(EndpointSpec("/", media_inputs=files),)), CLOCK)


async def ok(_: web.Request) -> web.StreamResponse:
    """Answer 200."""
    return web.json_response({"ok": True})


async def test_a_server_is_ready_once_its_health_path_answers() -> None:
    """Slots, openapi and the direct URL come with it."""
    answers = iter([503, 503, 200])

    async def health(_: web.Request) -> web.StreamResponse:
        return web.Response(status=next(answers))

    async def openapi(_: web.Request) -> web.StreamResponse:
        return web.json_response({"openapi": "3.1.0"})

    async with serving(GET_health=health, **{"GET_openapi.json": openapi}) as url:
        host = http_host(url)
        described = await host.start()
        await host.stop(0)
    assert (described.slots, described.direct_url) == (8, url)
    assert described.openapi == {"openapi": "3.1.0"}


async def test_gateways_do_not_go_past_the_worker_to_a_server_that_takes_files() -> None:
    """The worker fetches and opens them: the server must never see the caller's URL."""

    async def health(_: web.Request) -> web.StreamResponse:
        return web.Response()

    async with serving(GET_health=health) as url:
        host = http_host(url, "image_url")
        described = await host.start()
        await host.stop(0)
    assert described.direct_url is None


async def test_calls_end_in_values() -> None:
    """An answer, a time-out, a cut connection, nobody there: each a value of its own."""

    async def slow(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(3)
        return web.Response()

    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.close()
        return response

    async with serving(POST_ok=ok, POST_slow=slow, POST_cut=cut) as url:
        host = http_host(url)
        assert isinstance(await host.call(request_of(endpoint="/ok")), Answered)
        assert isinstance(await host.call(request_of(endpoint="/slow", seconds=0.1)), TimedOut)
        assert isinstance(await host.call(request_of(endpoint="/cut")), Broken)
    assert isinstance(await host.call(request_of(endpoint="/ok")), Refused | Broken)
    await host.stop(0)


async def test_a_redirect_is_passed_on_and_not_followed() -> None:
    """3xx belongs to the caller."""

    async def away(_: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("http://127.0.0.1:1/")

    async with serving(POST_away=away) as url:
        host = http_host(url)
        result = await host.call(request_of(endpoint="/away"))
        await host.stop(0)
    assert isinstance(result, Answered)
    assert (result.status_code, result.headers["location"]) == (302, "http://127.0.0.1:1/")


async def test_a_stream_breaks_as_a_connection_error() -> None:
    """A relay must not take a broken stream for a whole one."""

    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one")
        assert request.transport is not None
        request.transport.abort()
        return response

    async with serving(POST_broken=broken) as url:
        host = http_host(url)
        async with host.stream(request_of(endpoint="/broken")) as opened:
            assert isinstance(opened, Stream)
            pieces = opened.pieces
            assert await anext(pieces) == b"one"
            with pytest.raises(ConnectionError):
                await anext(pieces)
        await host.stop(0)


async def test_a_websocket_is_opened_or_refused_as_a_value() -> None:
    """Frames go both ways; a refusal is None."""

    async def echo(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=("json",))
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(str(message.data)[::-1])
            await socket.close(code=4001)
        return socket

    async with serving(GET_echo=echo) as url:
        host = http_host(url)
        async with host.websocket("/echo", {"sec-websocket-protocol": "json"}) as socket:
            assert socket is not None
            await socket.send("abc")
            assert await socket.receive() == "cba"
            assert await socket.receive() is None
            assert (socket.subprotocol, socket.close_code) == ("json", 4001)
        async with host.websocket("/nothing", {}) as socket:
            assert socket is None
        await host.stop(0)


@asynccontextmanager
async def provided(url: str, tmp_path: Path, protocol: str = "fal") -> AsyncGenerator[ProviderHost, None]:
    """Return a started provider host with a key."""
    (tmp_path / "UPSTREAM").write_text("id:secret\n")
    host_spec = HostSpec(HostKind.PROVIDER, url=url, protocol=protocol, key_secret="UPSTREAM")
    host = ProviderHost(spec_of(host=host_spec), str(tmp_path), CLOCK)
    await host.start()
    try:
        yield host
    finally:
        await host.stop(0)


async def test_a_fal_provider_is_spoken_to_by_its_queue(tmp_path: Path) -> None:
    """Submit, poll, fetch; our key goes along, the caller's does not."""
    polls = 0
    keys: set[str] = set()

    async def submit(request: web.Request) -> web.StreamResponse:
        keys.add(request.headers["Authorization"])
        base = "https://queue.elsewhere.invalid/up/requests/7"
        urls = {"status_url": base + "/status", "response_url": base, "cancel_url": base + "/cancel"}
        return web.json_response({"request_id": "7", "status": "IN_QUEUE", **urls})

    async def status(request: web.Request) -> web.StreamResponse:
        nonlocal polls
        keys.add(request.headers["Authorization"])
        polls += 1
        if polls == 1:
            return web.Response(status=502)
        return web.json_response({"status": "COMPLETED" if polls > 2 else "IN_PROGRESS"}, status=202)

    async def result(_: web.Request) -> web.StreamResponse:
        return web.json_response({"detail": [{"msg": "bad prompt"}]}, status=422)

    routes = {"POST_up__edit": submit, "GET_up__requests__7__status": status, "GET_up__requests__7": result}
    async with serving(**routes) as url, provided(url + "/up", tmp_path) as host:
        made = await host.call(request_of(endpoint="/edit"))
    assert isinstance(made, Answered)
    assert (made.status_code, json.loads(made.body)["detail"][0]["msg"]) == (422, "bad prompt")
    assert keys == {"Key id:secret"}
    assert polls == 3


async def test_a_direct_call_of_a_fal_provider_brings_the_result_not_the_receipt(tmp_path: Path) -> None:
    """At the synchronous URL where the spec's tells it, else through the queue; never the answer to a submit."""

    async def submit(_: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "IN_QUEUE", "status_url": "/r/7/status", "response_url": "/r/7"})

    async def status(_: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "COMPLETED"})

    async def result(_: web.Request) -> web.StreamResponse:
        return web.json_response({"by": "queue"})

    async def run(request: web.Request) -> web.StreamResponse:
        return web.json_response({"by": "run", "key": request.headers["Authorization"]})

    routes = {
        "POST_queue__up__edit": submit,
        "POST_up__edit": submit,
        "GET_r__7__status": status,
        "GET_r__7": result,
        "POST_run__up__edit": run,
    }
    async with serving(**routes) as url:
        async with provided(url + "/queue/up", tmp_path) as host, host.stream(request_of(endpoint="/edit")) as opened:
            assert isinstance(opened, Stream)
            body = b"".join([piece async for piece in opened.pieces])
        async with provided(url + "/up", tmp_path) as host, host.stream(request_of(endpoint="/edit")) as made:
            assert isinstance(made, Answered)
    assert json.loads(body) == {"by": "run", "key": "Key id:secret"}
    assert json.loads(made.body) == {"by": "queue"}


def test_the_synchronous_url_stands_beside_the_queues() -> None:
    """Fal's by host name, ours by path; elsewhere it cannot be told."""
    assert sync_url("https://queue.fal.run/fal-ai/flux") == "https://fal.run/fal-ai/flux"
    assert sync_url("https://gpu.invalid:8443/queue/acme/echo") == "https://gpu.invalid:8443/run/acme/echo"
    assert sync_url("https://gpu.invalid/acme/queue/echo") is None


@dataclasses.dataclass
class Notes:
    """What attempts leave to one another, in memory."""

    text: str | None = None

    async def read(self) -> str | None:
        """Return it."""
        return self.text

    async def write(self, text: str) -> None:
        """Keep it."""
        self.text = text


class Upstream:
    """A provider that counts what it sells: each submit with a new Idempotency-Key is a job."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.polled = asyncio.Event()
        self.state = "IN_PROGRESS"
        self.result_status = 200
        self.forgets = False

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """Sell a job, or give the one that this key has bought already."""
        key = request.headers["Idempotency-Key"]
        if key not in self.keys:
            self.keys.append(key)
        path = f"/jobs/{self.keys.index(key)}"
        return web.json_response({"status_url": path + "/status", "response_url": path})

    async def status(self, _: web.Request) -> web.StreamResponse:
        """Tell how far it is."""
        self.polled.set()
        return web.Response(status=404) if self.forgets else web.json_response({"status": self.state})

    async def result(self, request: web.Request) -> web.StreamResponse:
        """Hand a job over."""
        return web.json_response({"job": request.match_info["id"]}, status=self.result_status)

    @property
    def routes(self) -> dict[str, Handler]:
        """Where it listens."""
        return {"POST_": self.submit, "GET_jobs___id__status": self.status, "GET_jobs___id": self.result}


async def _lost(host: ProviderHost, request: CallRequest, upstream: Upstream) -> None:
    """Let an attempt begin its job and be killed while it waits."""
    async with asyncio.TaskGroup() as group:
        attempt = group.create_task(host.call(request))
        await upstream.polled.wait()
        attempt.cancel()


async def test_a_job_of_a_lost_worker_is_waited_for_instead_of_bought_again(tmp_path: Path) -> None:
    """Another worker finds the note and asks for the same job."""
    upstream, notes = Upstream(), Notes()
    async with serving(**upstream.routes) as url:
        request = dataclasses.replace(request_of(), notes=notes)
        async with provided(url, tmp_path) as host:
            await _lost(host, request, upstream)
        upstream.state = "COMPLETED"
        async with provided(url, tmp_path) as host:
            made = await host.call(dataclasses.replace(request, attempt=2))
    assert isinstance(made, Answered)
    assert json.loads(made.body) == {"job": "0"}
    assert len(upstream.keys) == 1


async def test_a_submit_whose_answer_was_never_read_is_not_paid_twice_where_keys_are_honoured(tmp_path: Path) -> None:
    """Between the provider's answer and the note a worker may die: the key says that it is the same wish."""
    upstream = Upstream()
    upstream.state = "COMPLETED"
    async with serving(**upstream.routes) as url, provided(url, tmp_path) as host:
        request = request_of()
        for attempt in (1, 2):
            await host.call(dataclasses.replace(request, attempt=attempt, notes=Notes()))
    assert len(upstream.keys) == 1


@pytest.mark.parametrize("ending", ["failed", "forgotten"])
async def test_a_job_that_is_over_is_bought_anew(tmp_path: Path, ending: str) -> None:
    """A retry of what failed upstream is a new job; so is one that the provider does not know any more."""
    upstream, notes = Upstream(), Notes()
    async with serving(**upstream.routes) as url, provided(url, tmp_path) as host:
        request = dataclasses.replace(request_of(), notes=notes)
        if ending == "failed":
            upstream.state, upstream.result_status = "COMPLETED", 500
            assert isinstance(await host.call(request), UpstreamFailed)
        else:
            await _lost(host, request, upstream)
            upstream.forgets = True
            assert isinstance(await host.call(request), UpstreamFailed)
            upstream.forgets = False
        upstream.state, upstream.result_status = "COMPLETED", 200
        made = await host.call(dataclasses.replace(request, attempt=2))
    assert isinstance(made, Answered)
    assert json.loads(made.body)["job"] != "0"


async def test_a_silent_provider_keeps_its_job(tmp_path: Path) -> None:
    """It took the money: when it speaks again it is asked for what was bought."""
    upstream, notes = Upstream(), Notes()
    async with serving(**upstream.routes) as url, provided(url, tmp_path) as host:
        request = dataclasses.replace(request_of(), notes=notes)
        upstream.state, upstream.result_status = "COMPLETED", 503
        assert isinstance(await host.call(request), UpstreamFailed)
        upstream.result_status = 200
        assert isinstance(await host.call(dataclasses.replace(request, attempt=2)), Answered)
    assert len(upstream.keys) == 1


async def test_a_cancelled_call_of_a_json_provider_is_abandoned(tmp_path: Path) -> None:
    """HTTP has no word for it but the closed connection."""
    began, dropped = asyncio.Event(), asyncio.Event()

    async def slow(_: web.Request) -> web.StreamResponse:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            dropped.set()
            raise
        raise AssertionError

    app = web.Application()
    app.router.add_post("/", slow)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with provided(url, tmp_path, "json") as host, asyncio.TaskGroup() as group, asyncio.timeout(10):
        request = request_of(seconds=60.0)
        calling = group.create_task(host.call(request))
        await began.wait()
        await host.cancel(request.request_id, "/")
        assert isinstance(await calling, UpstreamFailed)
        await dropped.wait()
    await runner.cleanup()


@given(st.one_of(st.none(), st.text()), st.text())
def test_whatever_a_note_says_it_is_read_or_as_good_as_none(text: str | None, target: str) -> None:
    """A note about another provider, a broken one, none: the next attempt begins anew."""
    assert read_note(text, target).target == target
    note = Note("here", 3, Job("/s", "/r", None))
    written = write_note(note)
    assert written is not None
    assert read_note(written, "here") == note
    assert read_note(written, target).job is None or target == "here"


async def test_a_cancel_is_forwarded_upstream(tmp_path: Path) -> None:
    """The provider's own cancel URL is called."""
    cancelled = asyncio.Event()
    submitted = asyncio.Event()

    async def submit(_: web.Request) -> web.StreamResponse:
        submitted.set()
        base = "/requests/7"
        return web.json_response({"status_url": base + "/status", "response_url": base, "cancel_url": base + "/cancel"})

    async def status(_: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "COMPLETED" if cancelled.is_set() else "IN_PROGRESS"})

    async def cancel(_: web.Request) -> web.StreamResponse:
        cancelled.set()
        return web.json_response({"status": "CANCELLATION_REQUESTED"}, status=202)

    routes = {
        "POST_": submit,
        "GET_requests__7__status": status,
        "PUT_requests__7__cancel": cancel,
        "GET_requests__7": ok,
    }
    async with serving(**routes) as url, provided(url, tmp_path) as host, asyncio.TaskGroup() as group:
        request = request_of()
        running = group.create_task(host.call(request))
        await submitted.wait()
        await asyncio.sleep(0.05)
        await host.cancel(request.request_id, "/")
        await asyncio.wait_for(asyncio.shield(running), 5)
    assert cancelled.is_set()


@pytest.mark.parametrize(("status", "expected"), [(500, UpstreamFailed), (401, UpstreamFailed), (404, Answered)])
async def test_upstreams_own_failures_are_not_the_callers(
    status: int, expected: type[CallResult], tmp_path: Path
) -> None:
    """5xx and a refused key are the provider's; other 4xx are the caller's."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({"detail": "x"}, status=status)

    async with serving(POST_=answer) as url, provided(url, tmp_path, "json") as host:
        assert isinstance(await host.call(request_of()), expected)


async def test_a_provider_that_is_not_there_is_upstreams_failure(tmp_path: Path) -> None:
    """Silence counts as 503."""
    async with provided("http://127.0.0.1:9", tmp_path, "json") as host:
        made = await host.call(request_of())
    assert isinstance(made, UpstreamFailed)
    assert made.status_code == 503


async def test_a_key_that_the_worker_does_not_hold_fails_the_start(tmp_path: Path) -> None:
    """With the secret's name and what to do."""
    host_spec = HostSpec(HostKind.PROVIDER, url="http://127.0.0.1:9", key_secret="ABSENT")
    with pytest.raises(Exception, match="secret ABSENT cannot be read"):
        await ProviderHost(spec_of(host=host_spec), str(tmp_path), CLOCK).start()
