"""Fixtures that host the example fleet and load its judges."""

import base64
import importlib.util
import io
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from PIL import Image as PILImage

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
START_TIMEOUT_SECONDS = 100.0
TORCH_PRELOAD = [
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img",
    "diffusers.models.unets.unet_1d",
    "peft",
]


def load_example(name: str, file: str) -> ModuleType:
    """Import one file of an example under a name of its own; its neighbours can be imported while that happens."""
    path = EXAMPLES / name / file
    spec = importlib.util.spec_from_file_location(f"example_{name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)  # the folder is scanned and copied elsewhere
        spec.loader.exec_module(module)
    return module


@dataclass(frozen=True, slots=True)
class Hosted:
    """One hosted app and the folder of its uploads and log."""

    name: str
    url: str
    folder: Path

    def call(self, path: str = "/", body: dict[str, Any] | None = None, request_id: str = "test") -> httpx.Response:
        """POST as a platform does."""
        headers = {"x-fal-request-id": request_id}
        return httpx.post(f"{self.url}{path}", json=body or {}, headers=headers, timeout=60.0)

    def made(self, path: str = "/", body: dict[str, Any] | None = None) -> dict[str, Any]:
        """POST, expect success and return the answer."""
        answer = self.call(path, body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def events(
        self,
        path: str,
        body: dict[str, Any],
        request_id: str = "test",
        on_event: Callable[[dict[str, Any]], None] | None = None,
    ) -> list[dict[str, Any]]:
        """POST and collect server-sent events."""
        found: list[dict[str, Any]] = []
        headers = {"x-fal-request-id": request_id}
        with httpx.stream("POST", f"{self.url}{path}", json=body, headers=headers, timeout=60.0) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    found.append(json.loads(line.removeprefix("data: ")))
                    if on_event is not None:
                        on_event(found[-1])
        return found

    def cancelled_while_running(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """Start a long request, cancel it as soon as the app knows of it, and return the request's own answer."""
        over = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(self.call, path, body, "to-be-cancelled")
            running.add_done_callback(lambda _: over.set())
            target = f"{path.rstrip('/')}/cancel"
            while not over.is_set() and not self.call(target, request_id="to-be-cancelled").json()["cancelled"]:
                pass
            return running.result()

    def log(self) -> str:
        """Return what the app has printed so far."""
        return (self.folder / "log.txt").read_text(errors="replace")


def bytes_of(file: dict[str, Any]) -> bytes:
    """Return the content of a toolkit file: a data URI or a file of the upload folder."""
    url = file["url"]
    if url.startswith("data:"):
        return base64.b64decode(url.partition(",")[2])
    return Path(url.removeprefix("file://")).read_bytes()


def picture_of(file: dict[str, Any]) -> PILImage.Image:
    """Return the content of a toolkit image as RGB."""
    return PILImage.open(io.BytesIO(bytes_of(file))).convert("RGB")


class Fleet:
    """Apps hosted by one launcher process, which dies with the session."""

    def __init__(self, folder: Path, apps: dict[str, str], preload: list[str]) -> None:
        self.folder, self.ready = folder, {}
        read_fd, write_fd = os.pipe()
        asked = [
            {
                "name": name,
                "file": str(EXAMPLES / name / "app.py"),
                "class": class_name,
                "folder": str(folder / name),
            }
            for name, class_name in apps.items()
        ]
        for name in apps:
            (folder / name).mkdir(parents=True)
        instructions = json.dumps({"preload": preload, "apps": asked, "ready_fd": write_fd})
        launcher = Path(__file__).parent / "hosting.py"
        with (folder / "launcher.txt").open("wb") as log:
            self.process = subprocess.Popen(
                ["env", "IS_ISOLATE_AGENT=1", "OMP_NUM_THREADS=1", sys.executable, str(launcher), instructions],
                pass_fds=(write_fd,),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        os.close(write_fd)
        self.read_fd, self.unread = read_fd, b""

    def __getitem__(self, name: str) -> Hosted:
        """Return a hosted app, waiting until it listens."""
        return Hosted(name, f"http://127.0.0.1:{self.told(name)}", self.folder / name)

    def run(self, name: str, code: str, arguments: list[str], variables: dict[str, str]) -> tuple[int, str]:
        """Run a script where the heavy modules are loaded already; return its exit status and what it printed."""
        folder = self.folder / name
        folder.mkdir()
        asked = {"name": name, "code": code, "arguments": arguments, "variables": variables, "folder": str(folder)}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asked).encode() + b"\n")
        self.process.stdin.flush()
        return int(self.told(name)), (folder / "log.txt").read_text(errors="replace")

    def told(self, name: str) -> str:
        """Return what the launcher says of an app or a script, waiting until it does."""
        while name not in self.ready:
            readable, _, _ = select.select([self.read_fd], [], [], START_TIMEOUT_SECONDS)
            chunk = os.read(self.read_fd, 4096) if readable else b""
            if not chunk:
                logs = [path.read_text(errors="replace")[-2000:] for path in self.folder.rglob("*.txt")]
                pytest.fail(f"{name} did not start or end: {logs}")
            *lines, self.unread = (self.unread + chunk).split(b"\n")
            self.ready |= dict(line.decode().split() for line in lines)
        return self.ready[name]

    def stop(self) -> None:
        """End the launcher's own process group."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        os.close(self.read_fd)


@pytest.fixture(scope="session")
def torch_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The apps with networks, started together."""
    apps = {"digits": "Digits", "digits_motion": "DigitsMotion", "tones": "Tones"}
    fleet = Fleet(tmp_path_factory.mktemp("fleet"), apps, TORCH_PRELOAD)
    yield fleet
    fleet.stop()


@pytest.fixture(scope="session")
def digits(torch_fleet: Fleet) -> Hosted:
    """The digits app, hosted."""
    return torch_fleet["digits"]


@pytest.fixture(scope="session")
def motion(torch_fleet: Fleet) -> Hosted:
    """The app of digits in motion, hosted."""
    return torch_fleet["digits_motion"]


@pytest.fixture(scope="session")
def tones(torch_fleet: Fleet) -> Hosted:
    """The tones app, hosted."""
    return torch_fleet["tones"]


@pytest.fixture
def fresh_echo(tmp_path: Path) -> Iterator[Hosted]:
    """An echo app of the test's own, which it may kill."""
    fleet = Fleet(tmp_path, {"echo": "Echo"}, [])
    yield fleet["echo"]
    fleet.stop()


@pytest.fixture(scope="session")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    """An echo app that all tests share."""
    fleet = Fleet(tmp_path_factory.mktemp("echo"), {"echo": "Echo"}, [])
    yield fleet["echo"]
    fleet.stop()


@pytest.fixture(scope="session")
def digits_judge() -> ModuleType:
    """The judge of pictures, with its dataset beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES / "digits"))
        judge = load_example("digits", "judge.py")
        # `dataset.py` asks for its neighbour by the name that it has when run as a script.
        patch.setitem(sys.modules, "judge", judge)
        patch.setitem(sys.modules, "dataset", load_example("digits", "dataset.py"))
        judge.fitted_machine()
    return judge


@pytest.fixture(scope="session")
def tones_judge() -> ModuleType:
    """The judge of pitch."""
    return load_example("tones", "judge.py")
