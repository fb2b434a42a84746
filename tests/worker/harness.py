"""A whole worker in the test's own process, over the memory adapters, with real model processes behind it."""

# ruff: noqa: ASYNC240 - tests may touch the disk while they wait

import asyncio
import base64
import dataclasses
import hashlib
import io
import json
import pathlib
import tarfile
import tempfile
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import cast

from tests.conformance.memory_artefacts import MemoryArtefactStore, report_on
from tests.conformance.memory_canaries import MemoryCanaries
from tests.conformance.memory_findings import MemoryFindings
from tests.conformance.memory_fleet import MemoryFleetStore
from tests.conformance.memory_queue import MemoryQueueStore
from tests.conformance.memory_shadow import MemoryShadowStore
from tests.safety.doubles import GuardWorld, guard_world

from forestay.artefacts.admission import Admission
from forestay.artefacts.report import Report
from forestay.chance import SystemChance
from forestay.clock import SystemClock
from forestay.fleet.actions import Origin, Place, RegisterRevision, SetRoutes
from forestay.fleet.model import ReplicaReport, ReplicaState, Revision, Route, WorkerReport
from forestay.fleet.spec import EndpointSpec, HostKind, HostSpec, LimitSpec, ModelSpec, ResourceSpec, SafetySpec
from forestay.handshake import AUTH_HEADER, new_nonce, sign_call
from forestay.ids import BUCKETS, KeyId, ModelId, RequestId, RevisionId, TenantId, WorkerId, new_request_id
from forestay.media.store import MediaItem, MediaState, UploadStore
from forestay.queue.model import Options, Submission
from forestay.queue.store import QueueStore, Stored
from forestay.safety.provenance.fingerprints import Fingerprint, PostgresFingerprints
from forestay.safety.provenance.identity import load_or_create_identity
from forestay.safety.provenance.stamp import Stamps
from forestay.safety.provenance.watermark import Watermark
from forestay.safety.review.opening import Opener
from forestay.settings import Delivery, Queue, Safety, Secrets, Settings, Worker
from forestay.settings_observe import Quality
from forestay.storage.objects import ObjectStore, open_object_store
from forestay.storage.valkey import LocalWakeups
from forestay.telemetry.metrics import Metrics
from forestay.telemetry.output_facts import OutputSink
from forestay.worker.process import WorkerPorts, run_worker

TENANT = TenantId("acme")
KEY = KeyId("key-1")
WORKER = WorkerId("w1")
MODEL = ModelId("acme/probe")
INTERNAL_KEY = "test key that gateways and workers share"

APP = """
import asyncio, json, logging, os, signal, sys, threading, time
import fal
from fal.toolkit import File, Image
from fal.exceptions import AppException, RequestCancelledException
from fastapi import Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

class In(BaseModel):
    do: str = ""
    text: str = "hello"
    seconds: float = 0.0
    image_url: str = ""

class Out(BaseModel):
    text: str = ""
    file: File | None = None
    number: float | None = None

class Probe(fal.App, name="probe"):
    machine_type = "XS"

    def setup(self):
        self.cancelled = {}
        self.marks = os.environ.get("MARKS", "")
        if os.path.exists("fail-setup") or os.environ.get("FAIL_SETUP"):
            raise RuntimeError("weights are missing")
        self.mark("setup " + os.environ["FAL_RUNNER_STATE"])

    def mark(self, text):
        if self.marks:
            with open(self.marks, "a") as f:
                f.write(text + "\\n")

    def handle_exit(self):
        self.mark("handle_exit")

    def teardown(self):
        self.mark("teardown")

    def provide_hints(self):
        return ["probe", "b\\u00e4r"]

    @fal.endpoint("/")
    def run(self, input: In) -> Out:
        ask = input.do
        if ask == "sleep":
            stop = self.cancelled.setdefault(self.current_request.request_id, threading.Event())
            if stop.wait(input.seconds):
                self.mark("cancelled")
                raise RequestCancelledException("cancelled")
        if ask == "file":
            return Out(text="ok", file=File.from_bytes(b"twelve bytes", content_type="text/plain", file_name="a b.txt"))
        if ask == "say":
            print(input.text + " begins")
            logging.getLogger("model").warning("%s warns", input.text)
            time.sleep(input.seconds)
            worker = threading.Thread(target=lambda: print(input.text + " in a thread", file=sys.stderr))
            worker.start()
            worker.join()
            print(input.text + " ends without a line end", end="")
        if ask == "environ":
            return Out(text=open("/proc/self/environ").read())
        if ask == "getenv":
            return Out(text=json.dumps(dict(os.environ)))
        if ask == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if ask == "exit":
            os._exit(1)
        if ask == "hang":
            threading.Event().wait()
        if ask == "triton":
            raise ValueError("cannot draw Triton")
        if ask == "bug":
            raise RuntimeError("a bug")
        if ask == "504":
            raise AppException("slow upstream", 504)
        if ask == "422":
            raise AppException("no", 422)
        if ask == "memory":
            held = []
            while True:
                held.append(b"x" * (16 * 1024 * 1024))
        if ask == "garbage":
            os.write(1, bytes(range(128, 256)) * 100 + b"\\x00\\xff{\\n")
            os.write(2, b"\\xff" * 200_000)
        if ask == "whoami":
            def readable(path):
                try:
                    return bool(open(path, "rb").read(1))
                except OSError:
                    return False
            status = dict(l.split(":\\t", 1) for l in open("/proc/self/status").read().splitlines() if ":\\t" in l)
            return Out(text=json.dumps({
                "uid": os.getuid(), "groups": os.getgroups(), "capabilities": status["CapEff"],
                "no_new_privs": status["NoNewPrivs"], "reads_worker": readable(f"/proc/{os.getppid()}/environ"),
                "reads_secrets": readable(input.text),
            }))
        if ask == "complain":
            raise AppException(input.text.upper(), 422)
        if ask == "hide":  # a file that the answer does not name
            File.from_bytes(b"twelve bytes", content_type="text/plain", file_name="a.txt")
            return Out(text="ok")
        if ask == "backwards":
            return Out(text=input.text[::-1])
        if ask == "mention":  # in the middle of a text
            import base64
            png = base64.b64decode(input.text)
            return Out(text="see " + File.from_bytes(png, content_type="image/png", file_name="a.png").url + " here")
        if ask == "header":
            return JSONResponse({"text": "ok"}, headers={"x-note": "it says " + input.text.upper()})
        if ask == "shout":
            return Out(text=input.text.upper())
        if ask == "picture":
            import base64
            data = base64.b64decode(input.text[::-1])  # written backwards: the guard of inputs sees no picture in it
            return Out(file=File.from_bytes(data, content_type="image/png", file_name="a.png"))
        if ask == "link":
            return Out(file=File(url="http:" + input.text, content_type="image/png", file_name="a.png"))
        if ask == "show":  # in the middle of a text
            return Out(text="see ![it](http:" + input.text + ") here")
        if ask == "cwd":
            return Out(text=" ".join(sorted(os.listdir("."))))
        if ask == "seen":
            return Out(text=input.image_url)
        return Out(text=input.text)

    @fal.endpoint("/traced")
    def traced(self, input: In, request: Request) -> Out:
        return Out(text=request.headers["traceparent"])

    @fal.endpoint("/nan")
    def nan(self) -> JSONResponse:
        from starlette.responses import Response
        return Response(b'{"number": NaN}', media_type="application/json", headers={"x-fal-stop-runner": "0"})

    @fal.endpoint("/stream")
    async def stream(self, input: In) -> StreamingResponse:
        request_id = self.current_request.request_id
        async def events():
            try:
                if input.image_url:
                    yield f": {input.image_url.upper()}\\nevent: {input.image_url.upper()}\\n\\n"
                    yield f"event: said\\nodd: {input.image_url.upper()}\\ndata: {{}}\\n\\n"
                for number in range(int(input.text)):
                    said = {'number': number, **({'text': input.do.upper()} if number == 1 and input.do else {})}
                    yield f"data: {json.dumps(said)}\\n\\n"
                    await asyncio.sleep(input.seconds)
            finally:
                self.mark("stream ended")
        return StreamingResponse(events(), media_type="text/event-stream")

    @fal.realtime("/realtime")
    async def realtime(self, input: In) -> Out:
        return Out(text=input.text[::-1])

    @fal.endpoint("/cancel")
    async def cancel(self) -> dict:
        event = self.cancelled.get(self.current_request.request_id)
        if event:
            event.set()
        return {"cancelled": event is not None}
"""


class MemoryMedia:
    """A media store in memory."""

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock
        self.saved = 0
        self.items: dict[str, MediaItem] = {}
        self.data: dict[str, bytes] = {}
        self.attempts: dict[str, tuple[RequestId | None, int | None]] = {}

    @property
    def uploads(self) -> UploadStore:
        """Workers use none."""
        raise NotImplementedError

    async def save(
        self,
        data: bytes | AsyncIterable[bytes],
        *,
        tenant_id: TenantId,
        file_name: str,
        content_type: str,
        request_id: RequestId | None,
        attempt: int | None,
        lifetime_seconds: int | None,
        state: MediaState,
    ) -> MediaItem:
        """Keep it."""
        del lifetime_seconds
        whole = data if isinstance(data, bytes) else b"".join([piece async for piece in data])
        self.saved += 1
        media_id = f"{self.saved:032d}"
        item = MediaItem(
            media_id,
            "",
            tenant_id,
            file_name.replace(" ", "_"),
            content_type,
            len(whole),
            state,
            self._clock.now(),
            None,
            request_id,
        )
        self.items[media_id], self.data[media_id], self.attempts[media_id] = item, whole, (request_id, attempt)
        return item

    async def find(self, media_id: str) -> MediaItem | None:
        """Look it up."""
        return self.items.get(media_id)

    async def open(self, item: MediaItem, start: int, end: int) -> AsyncIterator[bytes]:
        """Read a part."""
        yield self.data[item.media_id][start:end]

    async def read(self, media_id: str) -> bytes | None:
        """Read it whole."""
        return self.data.get(media_id)

    async def release(self, media_ids: Sequence[str], owners: Sequence[RequestId]) -> None:
        """Let them be read."""
        for media_id in media_ids:
            if media_id in self.items and self.items[media_id].request_id in owners:
                self.items[media_id] = dataclasses.replace(self.items[media_id], state="released")

    async def delete(self, media_ids: Sequence[str]) -> None:
        """Forget them."""
        for media_id in media_ids:
            self.items.pop(media_id, None)
            self.data.pop(media_id, None)

    async def of_request(self, request_id: RequestId, limit: int) -> Sequence[MediaItem]:
        """List what a request made."""
        raise NotImplementedError

    async def withhold(self, media_ids: Sequence[str]) -> None:
        """Shut files again."""
        raise NotImplementedError

    async def delete_expired(self, limit: int) -> int:
        """Nothing expires here."""
        del limit
        return 0


class MemoryFingerprints:
    """Fingerprints in memory."""

    def __init__(self) -> None:
        self.kept: list[Fingerprint] = []

    async def keep(self, fingerprints: Sequence[Fingerprint]) -> None:
        """Keep them."""
        self.kept += fingerprints


@dataclasses.dataclass
class Harness:
    """A running worker and everything around it."""

    folder: pathlib.Path
    settings: Settings
    clock: SystemClock
    chance: SystemChance
    queue: MemoryQueueStore
    fleet: MemoryFleetStore
    media: MemoryMedia
    wakeups: LocalWakeups
    metrics: Metrics
    artefacts: MemoryArtefactStore
    environment: Mapping[str, str]
    guard: GuardWorld
    fingerprints: MemoryFingerprints
    findings: MemoryFindings = dataclasses.field(default_factory=MemoryFindings)
    canaries: MemoryCanaries = dataclasses.field(default_factory=MemoryCanaries)
    offers: MemoryShadowStore = dataclasses.field(default_factory=MemoryShadowStore)
    opener: Opener | None = None  # of items that people look at
    outputs: OutputSink | None = None  # where notes of outputs go
    address: str = ""
    deployed: int = 0

    async def deploy(
        self,
        spec: ModelSpec,
        files: Mapping[str, str | bytes] | None = None,
        replicas: int = 1,
        report: Report | None = None,
    ) -> Revision:
        """Register, route and place a revision with its bundle."""
        self.deployed += 1
        key = None
        if files:
            data = bundle_of(files)
            digest = hashlib.sha256(data).hexdigest()
            key = f"bundles/{digest}.tar"
            await self.objects.put(key, data)
            await self.artefacts.save_report(digest, report or report_on(data))
        name = RevisionId(f"{spec.model_id.rpartition('/')[2]}-{self.deployed}")
        revision = Revision(name, spec.model_id, name, spec, key, None, self.clock.now())
        routes = SetRoutes(spec.model_id, (Route(spec.model_id, name, 0, BUCKETS),), "test")
        register = RegisterRevision(revision, TENANT, "shared", "test")
        await self.fleet.apply([register, routes], origin=Origin.HUMAN, actor="test")
        await self.place(revision, replicas)
        return revision

    async def place(self, revision: Revision, replicas: int) -> None:
        """Ask for replicas on the worker."""
        await until(self.known, "the worker reports itself")
        await self.fleet.apply(
            [Place(WORKER, revision.revision_id, replicas, "test")], origin=Origin.HUMAN, actor="test"
        )
        await self.wakeups.publish("forestay:fleet", "")

    async def known(self) -> bool:
        """Tell whether the worker has reported itself."""
        return WORKER in (await self.fleet.load()).workers

    @property
    def objects(self) -> ObjectStore:
        """The object store."""
        return open_object_store(f"file://{self.folder}/objects")

    async def replicas(self, revision: Revision, *states: ReplicaState) -> list[ReplicaReport]:
        """Return what the fleet knows of a revision's replicas."""
        fleet = await self.fleet.load()
        found = [item for item in fleet.replicas.values() if item.revision_id == revision.revision_id]
        return [item for item in found if not states or item.state in states]

    async def ready(self, revision: Revision, count: int = 1, seconds: float = 30) -> list[ReplicaReport]:
        """Wait until so many replicas are ready."""

        async def enough() -> bool:
            return len(await self.replicas(revision, ReplicaState.READY)) == count

        await until(enough, f"{count} replicas of {revision.revision_id} are ready", seconds)
        return await self.replicas(revision, ReplicaState.READY)

    async def submit(
        self, body: object, endpoint: str = "/", model: ModelId = MODEL, options: Options | None = None
    ) -> RequestId:
        """Put a request into the queue and wake the worker."""
        now = self.clock.now()
        request_id = new_request_id(now, 0, self.chance)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        await self.queue.submit(
            [Submission(request_id, TENANT, KEY, model, endpoint, data, now, options or Options())], {}
        )
        await self.wakeups.publish("forestay:queue", model)
        return request_id

    async def result(self, request_id: RequestId, seconds: float = 15) -> Stored:
        """Wait for the end of a request."""

        async def done() -> bool:
            return await self.queue.result(request_id) is not None

        await until(done, f"request {request_id} ends", seconds)
        stored = await self.queue.result(request_id)
        assert stored is not None
        return stored

    async def run(self, body: object, endpoint: str = "/", seconds: float = 15) -> Stored:
        """Submit and wait."""
        return await self.result(await self.submit(body, endpoint), seconds)

    def proof(self, method: str, path: str) -> dict[str, str]:
        """Return the gateway's proof for one direct call."""
        nonce = new_nonce(self.chance)
        now = self.clock.now().timestamp()
        value = sign_call(INTERNAL_KEY, method=method, path=path, now_seconds=now, nonce=nonce)
        return {AUTH_HEADER: value, "x-fal-request-id": str(new_request_id(self.clock.now(), 0, self.chance))}


def spec_of(  # a spec with the fields that tests vary
    *,
    app: str = "app.py::Probe",
    host: HostSpec | None = None,
    limits: LimitSpec | None = None,
    memory_mb: int = 1024,
    model: ModelId = MODEL,
    policy: str = "unguarded",
    **host_fields: object,
) -> ModelSpec:
    """Return the spec of the probe app."""
    chosen = host or dataclasses.replace(HostSpec(HostKind.FAL_APP, app=app), **host_fields)
    return ModelSpec(
        model_id=model,
        description="",
        owner_team="tests",
        owner_contact="tests@forestay.invalid",
        licence="Apache-2.0",
        visibility="shared",
        host=chosen,
        endpoints=(EndpointSpec("/", media_inputs=("image_url",)), EndpointSpec("/stream", "stream")),
        resources=ResourceSpec(memory_mb=memory_mb),
        safety=SafetySpec(policy),
        limits=limits or LimitSpec(max_multiplexing=2, startup_timeout_seconds=30, termination_grace_seconds=3),
    )


def bundle_of(files: Mapping[str, str | bytes]) -> bytes:
    """Return a tar of text files."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, text in files.items():
            data = text.encode() if isinstance(text, str) else text
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return target.getvalue()


async def until(condition: Callable[[], object], what: str, seconds: float = 15) -> None:
    """Look until the condition holds; fails naming what did not come true."""
    deadline = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < deadline:
        if await condition():  # type: ignore[misc]
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"within {seconds} s it did not come true that {what}")


@asynccontextmanager
async def running_worker(
    *,
    environment: Mapping[str, str] | None = None,
    lease_seconds: float = 15.0,
    delivery: Delivery | None = None,
    patience_seconds: float = 2.0,
    opening: Callable[[Harness], Opener] | None = None,
    outputs: OutputSink | None = None,
    scorers_file: str = "",
    **worker: object,
) -> AsyncGenerator[Harness, None]:
    """Run a worker while the context lasts."""
    with tempfile.TemporaryDirectory(prefix="fw-", dir="/tmp") as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        (folder / "secrets").mkdir()
        (folder / "objects").mkdir()
        fields = {
            "worker_id": WORKER,
            "devices": 4,
            "work_dir": str(folder / "work"),
            "secrets_dir": str(folder / "secrets"),
            "drain_seconds": 3.0,
            "start_backoff_seconds": 0.2,
            "report_seconds": 0.2,
            "allow_unisolated": True,  # so that tests of other things run on machines without namespaces
            **worker,
        }
        settings = Settings(
            queue=Queue(lease_seconds=lease_seconds, retry_base_seconds=0.05, poll_seconds=0.2),
            worker=dataclasses.replace(Worker(), **fields),
            delivery=delivery or Delivery(),
            secrets=Secrets(internal_key=INTERNAL_KEY),
            safety=Safety(patience_seconds=patience_seconds),
            quality=Quality(scorers_file=scorers_file),
        )
        clock = SystemClock()
        harness = Harness(
            folder=folder,
            settings=settings,
            clock=clock,
            chance=SystemChance(),
            queue=MemoryQueueStore(clock, settings.queue),
            fleet=MemoryFleetStore(clock),
            media=MemoryMedia(clock),
            wakeups=LocalWakeups(),
            metrics=Metrics(),
            artefacts=MemoryArtefactStore(clock),
            environment=environment or {},
            guard=await guard_world(),
            fingerprints=MemoryFingerprints(),
            outputs=outputs,
        )
        harness.opener = None if opening is None else opening(harness)
        async with running_process(harness):
            yield harness


@asynccontextmanager
async def running_process(harness: Harness) -> AsyncGenerator[None, None]:
    """Run the worker process of a harness."""
    stop, ready = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def open_queue() -> AsyncGenerator[QueueStore, None]:
        yield harness.queue

    def on_ready(address: str) -> None:
        harness.address = address
        ready.set()

    ports = WorkerPorts(
        queue=harness.queue,
        open_queue=open_queue,
        fleet=harness.fleet,
        objects=harness.objects,
        media=harness.media,
        wakeups=harness.wakeups,
        settings=harness.settings,
        clock=harness.clock,
        chance=harness.chance,
        metrics=harness.metrics,
        artefacts=Admission(
            harness.artefacts,
            harness.objects,
            harness.clock,
            signatures_required=harness.settings.artefacts.require_signatures,
        ),
        environment=harness.environment,
        guard=harness.guard.guard,
        opener=harness.opener,
        policies=harness.guard.policies,
        findings=harness.findings,
        canaries=harness.canaries,
        outputs=harness.outputs,
        offers=harness.offers,
        stamps=lambda decoder: Stamps(
            decoder,
            cast("PostgresFingerprints", harness.fingerprints),
            load_or_create_identity(harness.folder / "provenance", harness.clock.now()),
            Watermark("a watermark's key of the tests"),
        ),
    )
    async with asyncio.TaskGroup() as group:
        running = group.create_task(run_worker(ports, stop, on_ready))
        await asyncio.wait_for(ready.wait(), 10)
        try:
            yield
        finally:
            stop.set()
            async with asyncio.timeout(30):
                await asyncio.wait({running})


def data_uri(data: bytes, kind: str) -> str:
    """Return a data: URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def worker_report(name: str = "w1") -> WorkerReport:
    """Return a worker's report for decisions."""
    now = SystemClock().now()
    return WorkerReport(WorkerId(name), "cpu", "http://127.0.0.1:1", 4, 4096, "ready", now, now)
