"""One real platform for the whole folder, and the ways to call it."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from tests.acceptance.hooks import HookReceiver
from tests.acceptance.programs import run_javascript, run_python
from tests.platform.platform import RunningPlatform

from forestay.demo.receiver import read_jwks
from forestay.tls import client_environment

FLEET = Path(__file__).resolve().parent / "fleet.yaml"
_started: list[RunningPlatform] = []


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
    platform: RunningPlatform
    receiver: HookReceiver

    def python(self, program: str, mode: str = "hosts", **arguments: Any) -> Any:
        """Run a Python program with the published client; `mode` is how it is pointed at us."""
        hosts, proxy = (self.tls_url, "") if mode == "hosts" else ("", self.proxy_url)
        environment = client_environment(Path(self.ca_file), hosts, proxy)
        return run_python(program, {**environment, "FAL_KEY": self.api_key}, arguments)

    def javascript(self, program: str, mode: str = "middleware", **arguments: Any) -> Any:
        """Run a JavaScript program with the published client; `untouched` leaves it all to the CONNECT proxy."""
        proxy = self.proxy_url if mode == "untouched" else ""
        environment = {**client_environment(Path(self.ca_file), "", proxy), "NODE_USE_ENV_PROXY": "1"}
        platform = {"url": self.url, "key": self.api_key, "mode": mode}
        return run_javascript(program, environment, {**arguments, "platform": platform})

    def http(self, key: str | None = None) -> httpx.Client:
        """Return a plain HTTP client with the API key, another key, or (with "") none."""
        credential = self.api_key if key is None else key
        headers = {"Authorization": f"Key {credential}"} if credential else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30.0, trust_env=False)

    def new_key(self, tenant: str) -> str:
        """Create a tenant of that name with one API key; return the key."""
        with self.http(self.admin_key) as client:
            client.post("/admin/tenants", json={"tenant_id": tenant, "name": tenant}).raise_for_status()
            answered = client.post("/admin/keys", json={"tenant_id": tenant, "name": tenant, "scopes": ["API"]})
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
def acceptance() -> Iterator[Acceptance]:
    """Start `forestay up` once for the folder."""
    settings = {"FORESTAY_ALLOW_PRIVATE_WEBHOOKS": "true", "FORESTAY_DEVICES": "3", "FORESTAY_BODY_TIMEOUT": "2"}
    with HookReceiver() as receiver, RunningPlatform(environment=settings, fleet=FLEET) as platform:
        ready = platform.ready
        addresses = ("url", "tls_url", "proxy_url", "ca_file", "api_key", "admin_key", "database_url")
        said = {name: str(ready[name]) for name in addresses}
        _started.append(platform)
        yield Acceptance(**said, data_dir=platform.data_dir, platform=platform, receiver=receiver)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """End the platform after the folder's last test, not after the session's: at rest it takes from all others.

    By force, since tests leave requests running, for which it would wait; `tests/platform` proves that none is left.
    """
    if nextitem is None or FLEET.parent not in nextitem.path.parents:
        while _started:
            _started.pop().kill_all_at_once()
