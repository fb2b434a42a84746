"""A real Prometheus and a real Alertmanager as processes on loopback, for a while. It decides nothing.

Called by the bench `slo_prometheus` and by the tests of exported rules; Debian's packages `prometheus` and
`prometheus-alertmanager` bring the programs. Every wait has an end.
"""

import contextlib
import dataclasses
import datetime as dt
import pathlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import httpx
import yaml

from bench.prometheus_wire import Line, write_request

PROMETHEUS = shutil.which("prometheus")
ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
READY_SECONDS = 30.0
_HTTP_SECONDS = 20.0
_LOOK_SECONDS = 0.05


@dataclasses.dataclass(frozen=True, slots=True)
class GroupTiming:
    """When a group of rules is evaluated: once each `interval_ms`, at `phase_ms` within it."""

    interval_ms: int
    phase_ms: float


class Server:
    """One of the two, by its address."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx.Client(timeout=_HTTP_SECONDS, trust_env=False)

    def get(self, path: str, **query: str) -> Any:
        """Return the `data` of an answer of its API."""
        answer = self.http.get(f"{self.url}{path}", params=query)
        return answer.raise_for_status().json()["data"]

    def post(self, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Send a body; raises with the answer's words when it is refused."""
        answer = self.http.post(f"{self.url}{path}", content=body, headers=dict(headers or {}))
        if answer.is_error:
            raise RuntimeError(f"{path} answered {answer.status_code}: {answer.text[:300]}")


class Prometheus(Server):
    """A Prometheus that is given samples by remote write and evaluates rules."""

    def __init__(self, url: str, folder: pathlib.Path) -> None:
        super().__init__(url)
        self._folder = folder

    def load_rules(self, files: Mapping[str, str]) -> None:
        """Put files of rules in force in place of those before."""
        for old in self._folder.glob("*.rules.yaml"):
            old.unlink()
        for name, text in files.items():
            (self._folder / f"{name}.rules.yaml").write_text(text, encoding="utf-8")
        self.post("/-/reload")

    def groups(self) -> Mapping[str, GroupTiming]:
        """Return the groups that have been evaluated at least once, by name."""
        found: dict[str, GroupTiming] = {}
        for group in self.get("/api/v1/rules")["groups"]:
            moment = _moment(group["lastEvaluation"])
            if moment > 0:
                interval = round(group["interval"] * 1000)
                found[group["name"]] = GroupTiming(interval, moment * 1000 % interval)
        return found

    def write(self, lines: Sequence[Line]) -> None:
        """Hand over samples."""
        headers = {
            "Content-Encoding": "snappy",
            "Content-Type": "application/x-protobuf",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
        }
        self.post("/api/v1/write", write_request(lines), headers)

    def samples(
        self, selector: str, seconds: int, at: float
    ) -> list[tuple[Mapping[str, str], list[tuple[int, float]]]]:
        """Return the series and samples (ms, value) as they are stored, of the `seconds` before `at`."""
        answer = self.get("/api/v1/query", query=f"{selector}[{seconds}s]", time=f"{at:.3f}")
        return [
            (series["metric"], [(round(moment * 1000), float(value)) for moment, value in series["values"]])
            for series in answer["result"]
        ]

    def missed_evaluations(self) -> int:
        """Return how many evaluations it left out since the machine was too slow."""
        text = self.http.get(f"{self.url}/metrics").raise_for_status().text
        lines = re.findall(r"^prometheus_rule_group_iterations_missed_total\{.*\} (\S+)$", text, re.MULTILINE)
        return int(sum(float(value) for value in lines))


@contextlib.contextmanager
def prometheus(folder: pathlib.Path, *, lookback_ms: int, alertmanager: str = "") -> Generator[Prometheus]:
    """Run a Prometheus that sends its alerts to `alertmanager` (its URL), until the block ends."""
    if PROMETHEUS is None:
        raise FileNotFoundError("prometheus is not installed: apt-get install prometheus")
    config: dict[str, object] = {"rule_files": [str(folder / "*.rules.yaml")]}
    if alertmanager:
        target = [{"targets": [alertmanager.removeprefix("http://")]}]
        config["alerting"] = {"alertmanagers": [{"static_configs": target}]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    port = free_port()
    command = [
        PROMETHEUS,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--query.lookback-delta={lookback_ms}ms",
        "--web.enable-remote-write-receiver",
        "--web.enable-lifecycle",
        "--rules.alert.resend-delay=1s",  # an alert that fires before the Alertmanager is found is told soon after
        "--log.level=warn",
    ]
    with _running(command, folder / "prometheus.log", f"http://127.0.0.1:{port}"):
        server = Prometheus(f"http://127.0.0.1:{port}", folder)
        with server.http:
            yield server


@contextlib.contextmanager
def alertmanager(folder: pathlib.Path, config: str) -> Generator[Server]:
    """Run an Alertmanager with a configuration, until the block ends."""
    if ALERTMANAGER is None:
        raise FileNotFoundError("Alertmanager is not installed: apt-get install prometheus-alertmanager")
    (folder / "alertmanager.yml").write_text(config, encoding="utf-8")
    port = free_port()
    command = [
        ALERTMANAGER,
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
        "--log.level=warn",
    ]
    with _running(command, folder / "alertmanager.log", f"http://127.0.0.1:{port}"):
        server = Server(f"http://127.0.0.1:{port}")
        with server.http:
            yield server


@contextlib.contextmanager
def _running(command: Sequence[str], log: pathlib.Path, url: str) -> Generator[None]:
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL) as child:
        try:
            deadline = time.monotonic() + READY_SECONDS
            while not _ready(url):
                if child.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command[0]} did not come up: {log.read_text(errors='replace')[-500:]}")
                time.sleep(_LOOK_SECONDS)
            yield
        finally:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", timeout=1.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def free_port() -> int:
    """Return a port of loopback that nobody listens on just now."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def _moment(text: str) -> float:
    """Read a time with nanoseconds; 0 for the year 1, which stands for never."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", text)
    if match is None or text.startswith("0001"):
        return 0.0
    zone = "+00:00" if match[3] == "Z" else match[3]
    return dt.datetime.fromisoformat(match[1] + zone).timestamp() + float(match[2] or 0.0)
