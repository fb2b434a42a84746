"""One real platform for the whole folder, and the ways to call it."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from tests.acceptance.hooks import HookReceiver
from tests.acceptance.programs import clean_environment, run_javascript, run_python

from forestay.demo.receiver import read_jwks
from forestay.tls import client_environment

START_SECONDS = 90.0
STOP_SECONDS = 40.0
FLEET = Path(__file__).resolve().parent / "fleet.yaml"


@dataclasses.dataclass(frozen=True, slots=True)
class Acceptance:
    """The running platform as its users know it."""

    url: str
    tls_url: str
    proxy_url: str
    ca_file: str
    api_key: str
    admin_key: str
    database_url: str
    data_dir: Path
    ready_file: Path
    receiver: HookReceiver

    def python(self, program: str, mode: str = "hosts", **arguments: Any) -> Any:
        """Run a Python program with the published client; `mode` is how it is pointed at us."""
        hosts, proxy = (self.tls_url, "") if mode == "hosts" else ("", self.proxy_url)
        environment = client_environment(Path(self.ca_file), hosts, proxy)
        return run_python(program, {**environment, "FAL_KEY": self.api_key}, arguments)

    def javascript(self, program: str, mode: str = "middleware", **arguments: Any) -> Any:
        """Run a JavaScript program with the published client."""
        platform = {"url": self.url, "key": self.api_key, "mode": mode}
        return run_javascript(program, {"NODE_EXTRA_CA_CERTS": self.ca_file}, {**arguments, "platform": platform})

    def http(self, key: str | None = None) -> httpx.Client:
        """Return a plain HTTP client with the API key, another key, or (with "") none."""
        credential = self.api_key if key is None else key
        headers = {"Authorization": f"Key {credential}"} if credential else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30.0, trust_env=False)

    def pids(self) -> dict[str, int]:
        """Return the process ids of the platform's parts, by name."""
        return json.loads(self.ready_file.read_text(encoding="utf-8"))["pids"]

    def new_key(self, tenant: str) -> str:
        """Create a tenant of that name with one API key; return the key."""
        with self.http(self.admin_key) as client:
            answered = client.post("/admin/keys", json={"tenant": tenant, "name": tenant, "scopes": ["API"]})
            return answered.raise_for_status().json()["key"]

    def revoke(self, key: str) -> None:
        """Revoke a key."""
        with self.http(self.admin_key) as client:
            client.delete(f"/admin/keys/{key.partition(':')[0]}").raise_for_status()

    def wait_until(self, holds: Callable[[], bool], seconds: float) -> None:
        """Poll until `holds`, at most `seconds`."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"it did not hold within {seconds} s"
            time.sleep(0.05)

    def webhook_keys(self) -> list[Ed25519PublicKey]:
        """Return the public keys that webhooks are signed with."""
        with self.http("") as client:
            return read_jwks(client.get("/rest/.well-known/jwks.json").raise_for_status().json())


@pytest.fixture(scope="session")
def acceptance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acceptance]:
    """Start `forestay up` once for the session and stop it in good order."""
    folder = tmp_path_factory.mktemp("acceptance")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)  # as root, Postgres and model processes run as other users
    ready_file = folder / "ready.json"
    command = [sys.executable, "-m", "forestay", "up", "--data-dir", str(folder / "data"), "--port", "0"]
    command += ["--fleet", str(FLEET), "--workers", "1", "--ready-file", str(ready_file), "--no-profile"]
    environment = {**clean_environment(), "FORESTAY_ALLOW_PRIVATE_WEBHOOKS": "true", "FORESTAY_DEVICES": "3"}
    environment["FORESTAY_BODY_TIMEOUT"] = "2"
    log = folder / "up.log"
    with HookReceiver() as receiver, log.open("wb") as output:
        child = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            said = _wait_until_ready(child, ready_file, log)
            own = {"receiver": receiver, "ready_file": ready_file, "data_dir": Path(said["data_dir"])}
            plain = {field.name for field in dataclasses.fields(Acceptance)} - own.keys()
            yield Acceptance(**own, **{name: said[name] for name in plain})
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.kill(child.pid, signal.SIGKILL)
                child.wait()
                raise


def _wait_until_ready(child: subprocess.Popen[bytes], ready_file: Path, log: Path) -> dict[str, str]:
    deadline = time.monotonic() + START_SECONDS
    while not ready_file.exists():
        if child.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"forestay up did not become ready:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.05)
    return json.loads(ready_file.read_text(encoding="utf-8"))
