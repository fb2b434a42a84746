"""The world of the fault matrix: a whole platform, a judge that fails as told, a provider, a bucket, and the faults.

The platform is `forestay up` with its own processes, Postgres, Valkey and object store; only the judge is the bench's
(`fault_judge`), kept alive here as the supervisor would. What is as real as it can be: kills and stops are signals,
memory ends at the process's own limit, a policy is reloaded through the admin API, the worker is killed. Not real: the
full disk is a trigger on the table of verdicts that raises what Postgres raises on one (SQLSTATE 53100), since a small
file system needs rights that a bench should not ask for.
"""

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import AsyncIterator

import aiohttp
import asyncpg
import numpy as np
from aiohttp import web
from PIL import Image
from tests.platform.platform import RunningPlatform, run_cli

from bench.release_checker import Checker
from forestay.safety.hashes.pdq import hash_of
from forestay.settings import process_environment
from forestay.storage.embedded import EmbeddedPostgres

FAULTS = ("crash", "hang", "slow", "garbage", "nan", "memory", "full", "reload", "restart", "disk")
DEADLINE_SECONDS = 2.0
PATIENCE_SECONDS = 1.0
MODELS = ("covered", "strict")  # the first's policy degrades to cheaper checks, the second's only withholds
_HERE = pathlib.Path(__file__).parent
_ROOT = _HERE.parent
_JUDGE_BACK_SECONDS = 0.1  # between a judge's end and the next one's start
_RULES = """\
version: 1
deadline: {deadline}
streams: judge
rules:
  - {{modality: text, categories: [violence], detectors: [words@1], flag_at: {flag}, block_at: 0.9, trouble: {text}}}
  - {{modality: image, categories: [sexual], detectors: [reds@1], flag_at: {flag}, block_at: 0.9, trouble: {image}}}
"""
_SPEC = """\
version: 0
model: faults/{name}
description: Makes texts and pictures from a number, some of them marked as harmful.
owner: {{team: bench, contact: bench@forestay.invalid}}
licence: Apache-2.0
visibility: shared
host: {{kind: fal_app, app: "app.py::Maker", python: null, requirements: [], secrets: [], data_mounts: [], env: {{}}}}
endpoints:
  - {{path: /, media_inputs: []}}
  - {{path: /link, media_inputs: []}}
  - {{path: /data, media_inputs: []}}
  - {{path: /stream, kind: stream}}
  - {{path: /realtime, kind: realtime}}
resources: {{pool: cpu, devices: 1, memory_mb: 400}}
limits: {{max_multiplexing: 32, request_timeout_seconds: 30, startup_timeout_seconds: 60, termination_grace_seconds: 2}}
safety: {{policy: {name}}}
"""
_FULL_DISK = """
CREATE OR REPLACE FUNCTION bench_full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;
CREATE TRIGGER bench_full_disk BEFORE INSERT ON verdict_facts FOR EACH STATEMENT EXECUTE FUNCTION bench_full_disk()
"""


def policy_text(name: str, version: int = 0) -> str:
    """Return a policy of the bench; versions differ in a threshold."""
    troubles = ("crash", "timeout", "overload")
    covered = name == "covered"

    def trouble(cheaper: str) -> str:
        said = dict.fromkeys(troubles, f"{{degrade: {cheaper}, else: review}}" if covered else "review")
        return f"{{{', '.join(f'{item}: {text}' for item, text in said.items())}, language: review, unreadable: block}}"

    return _RULES.format(
        deadline=f"{round(DEADLINE_SECONDS * 1000)}ms", flag=0.4 + version % 40 / 100,
        text=trouble("text-lexicon@1"), image=trouble("hash-pdq@1"),
    )  # fmt: skip


def picture(seed: int, colour: tuple[int, int, int]) -> Image.Image:
    """Draw coarse noise around a colour: structure enough for a hash."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (8, 8, 1)) / 255
    pixels = np.kron(coarse, np.ones((8, 8, 1))) * np.array(colour)
    return Image.fromarray(pixels.astype(np.uint8), "RGB")


@dataclasses.dataclass
class Outside:
    """A provider that keeps pictures, and a bucket that takes them; both on loopback."""

    pictures: dict[str, bytes]
    url: str = ""
    stored: dict[str, bytes] = dataclasses.field(default_factory=dict[str, bytes])

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve while the block runs."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.add_routes([web.get("/{kind}/{name}", self._picture), web.post("/bucket", self._take)])
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield
        finally:
            await runner.cleanup()

    async def _picture(self, request: web.Request) -> web.Response:
        return web.Response(body=self.pictures[request.match_info["kind"]], content_type="image/png")

    async def _take(self, request: web.Request) -> web.Response:
        form = await request.post()
        file = form["file"]
        if isinstance(file, web.FileField):
            self.stored[str(form["key"])] = await asyncio.to_thread(file.file.read)
        return web.Response(status=204)


class JudgeKeeper:
    """The bench's judge, started again whenever it ends."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.socket = folder / "judge.sock"
        self.fault_file = folder / "fault"
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    async def keep(self) -> None:
        """Keep it running for ever."""
        own = {
            "FORESTAY_JUDGE_SOCKET": str(self.socket),
            "FORESTAY_FAULT_FILE": str(self.fault_file),
            "FORESTAY_JUDGE_MEMORY_MB": "512",
            "FORESTAY_JUDGE_HANG": "5",
            "PYTHONPATH": f"{_ROOT}:{_ROOT / 'src'}",
        }
        kept = {name: value for name, value in process_environment().items() if name in {"PATH", "LANG"}}
        command = [sys.executable, "-m", "bench.fault_judge"]
        try:
            while True:
                self._process = subprocess.Popen(  # noqa: ASYNC220 - a bench
                    command, env={**kept, **own}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
                self.starts += 1
                while self._process.poll() is None:
                    await asyncio.sleep(0.02)
                await asyncio.sleep(_JUDGE_BACK_SECONDS)
        finally:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGKILL)
            if self._process is not None:
                self._process.wait(10.0)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it lives."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, number)

    def fail(self, how: str) -> None:
        """Let detectors fail from now on, or no more."""
        self.fault_file.write_text(how)


@dataclasses.dataclass
class World:
    """Everything that runs."""

    platform: RunningPlatform
    judge: JudgeKeeper
    outside: Outside
    session: aiohttp.ClientSession
    requests: asyncpg.Pool  # the platform's own tables
    facts: asyncpg.Pool
    checker: Checker
    reloads: int = 0

    async def admin(self, method: str, path: str, body: object) -> object:
        """Ask the admin API."""
        headers = {"authorization": f"Key {self.platform.admin_key}"}
        async with self.session.request(method, f"{self.platform.url}/admin{path}", json=body, headers=headers) as got:
            if got.status >= 400:
                raise RuntimeError(f"{method} {path}: {got.status} {await got.text()}")
            return await got.json()

    async def set_policy(self, name: str, version: int = 0) -> None:
        """Put a version of a policy in force."""
        text = policy_text(name, version)
        await self.admin("POST", f"/safety/policies/{name}", {"text": text, "reason": "bench"})
        await self.admin("POST", f"/safety/policies/{name}/stage", {"percent": 100, "reason": "bench"})

    @contextlib.asynccontextmanager
    async def fault(self, kind: str) -> AsyncIterator[None]:
        """Let something be wrong while the block runs."""
        async with asyncio.TaskGroup() as group:
            going = group.create_task(self._go_wrong(kind))
            try:
                yield
            finally:
                going.cancel()
                await asyncio.wait({going})
                await self._mend(kind)

    async def _go_wrong(self, kind: str) -> None:
        match kind:
            case "crash":
                await self._signal_again(signal.SIGKILL, 0.7)
            case "hang":
                await self._signal_again(signal.SIGSTOP, 0.5)
            case "reload":
                await self._reload_again()
            case "restart":
                old = self.platform.kill("worker-1")
                self.judge.signal(signal.SIGTERM)
                await asyncio.to_thread(self.platform.wait_replaced, "worker-1", old, 60.0)
            case "disk":
                await self.facts.execute(_FULL_DISK)
            case "none":
                return
            case _:
                self.judge.fail(kind)

    async def _signal_again(self, number: signal.Signals, pause_seconds: float) -> None:
        while True:
            self.judge.signal(number)
            await asyncio.sleep(pause_seconds)

    async def _reload_again(self) -> None:
        while True:
            self.reloads += 1
            for name in MODELS:
                await self.set_policy(name, self.reloads)

    async def _mend(self, kind: str) -> None:
        match kind:
            case "hang":
                self.judge.signal(signal.SIGCONT)
            case "disk":
                await self.facts.execute("DROP TRIGGER bench_full_disk ON verdict_facts")
            case _:
                self.judge.fail("")


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[World]:
    """Run it all."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fs-faults-"))
    folder.chmod(0o755)  # noqa: ASYNC240 - a bench
    drawn = {"calm": picture(1, (40, 120, 255)), "red": picture(2, (255, 30, 30))}
    for name, image in drawn.items():
        image.save(folder / f"{name}.png")
    outside = Outside({name: (folder / f"{name}.png").read_bytes() for name in drawn})
    judge = JudgeKeeper(folder)
    platform = RunningPlatform(
        "--workers",
        "1",
        environment={
            "FORESTAY_JUDGE": "off",  # the platform's own
            "FORESTAY_JUDGE_SOCKET": str(judge.socket),
            "FORESTAY_JUDGE_PATIENCE": str(PATIENCE_SECONDS),
            "FORESTAY_LEASE_SECONDS": "2",
            "PYTHONFAULTHANDLER": "1",  # a process that aborts tells in its log where
            "FORESTAY_ALLOW_PRIVATE_INPUTS": "true",
            "FORESTAY_ALLOW_PRIVATE_BUCKETS": "true",
        },
    )
    async with contextlib.AsyncExitStack() as opened:
        opened.callback(shutil.rmtree, folder, ignore_errors=True)
        await opened.enter_async_context(outside.serving())
        group = await opened.enter_async_context(asyncio.TaskGroup())
        keeping = group.create_task(judge.keep())
        opened.callback(keeping.cancel)
        opened.callback(platform.close)
        await asyncio.to_thread(platform.__enter__)
        timeout = aiohttp.ClientTimeout(total=60)
        session = await opened.enter_async_context(
            aiohttp.ClientSession(timeout=timeout, trust_env=False, connector=aiohttp.TCPConnector(limit=256))
        )
        urls = (str(platform.ready["database_url"]), EmbeddedPostgres(platform.data_dir).facts_url)
        requests, facts = [
            await opened.enter_async_context(asyncpg.create_pool(url, min_size=2, max_size=8)) for url in urls
        ]
        world = World(platform, judge, outside, session, requests, facts, Checker(requests, facts))
        await _prepare(world, folder, drawn["red"])
        yield world


async def _prepare(world: World, folder: pathlib.Path, red: Image.Image) -> None:
    """Set bank, policies and models, and wait until both models answer."""
    bank = {"bank_id": "reds", "source": "bench", "category": "sexual"}
    await world.admin("POST", "/safety/banks", bank)
    entry = {"entries": [{"hash": hash_of(np.asarray(red)).hex}], "reason": "bench"}
    await world.admin("POST", "/safety/banks/reds/add", entry)
    await asyncio.sleep(2.0)  # the gateway follows the banks, and hears what covers what
    environment = {"FORESTAY_URL": world.platform.url, "FORESTAY_KEY": world.platform.admin_key}
    for name in MODELS:
        await world.set_policy(name)
        model = folder / name
        shutil.copytree(_HERE / "fault_model", model, ignore=shutil.ignore_patterns("__*"))
        for picture_name in ("calm", "red"):
            shutil.copy(folder / f"{picture_name}.png", model)
        (model / "provider.txt").write_text(world.outside.url)
        (model / "model.yaml").write_text(_SPEC.format(name=name))
        done = await asyncio.to_thread(run_cli, "deploy", str(model / "model.yaml"), environment=environment)
        if done.returncode:
            raise RuntimeError(done.stderr)


def bucket_policy(url: str) -> str:
    """Return the header that sends a request's files to the bucket."""
    return f'{{"url": "{url}/bucket", "fields": {{"key": "out/${{filename}}"}}}}'


def key_in(url: str) -> str:
    """Return the bucket's key of a file's URL."""
    return urllib.parse.unquote(urllib.parse.urlsplit(url).path.removeprefix("/bucket/"))
