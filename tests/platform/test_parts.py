"""The parts, each started by hand against stores of one's own: what `docs/howto/run-the-parts.md` says."""

import contextlib
import dataclasses
import datetime as dt
import json
import pathlib
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping

import pytest
from tests.conftest import url_of
from tests.platform.platform import run_cli

from forestay.fleet.first_key import FIRST_TENANT, decide_first_key
from forestay.fleet.keys import Key, KeyRequest, Scope
from forestay.ids import KeyId, TenantId
from forestay.settings import process_environment
from forestay.storage.children import wait_until
from forestay.storage.embedded import EmbeddedPostgres

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOW = dt.datetime(2026, 11, 26, tzinfo=dt.UTC)
ADMIN = Key(KeyId("0011223344556677"), FIRST_TENANT, "a", frozenset({Scope.ADMIN}), NOW)


@pytest.mark.parametrize(
    "key",
    [
        dataclasses.replace(ADMIN, revoked_at=NOW),
        dataclasses.replace(ADMIN, expires_at=NOW),
        dataclasses.replace(ADMIN, scopes=frozenset({Scope.API})),
        dataclasses.replace(ADMIN, tenant_id=TenantId("acme")),
    ],
    ids=["revoked", "expired", "no ADMIN", "of another tenant"],
)
def test_a_first_key_is_due_while_no_admin_key_works(key: Key) -> None:
    """One that ended, that opens too little, or that sees one tenant alone, leaves nobody to issue the next."""
    assert isinstance(decide_first_key([key], NOW), KeyRequest)


def test_a_first_key_is_not_made_beside_one_that_works_unless_somebody_says_so() -> None:
    """A lost secret is said, never guessed."""
    assert decide_first_key([ADMIN], NOW) == ADMIN.key_id
    assert isinstance(decide_first_key([ADMIN], NOW, anyway=True), KeyRequest)


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def started(part: str, environment: Mapping[str, str], log_file: pathlib.Path) -> Iterator[None]:
    """One part as a process of its own, ended in good order."""
    command = [sys.executable, "-P", "-m", "forestay", part]
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        assert wait_until(lambda: f"{part}.ready" in log_file.read_text() or process.poll() is not None, 60.0)
        assert process.poll() is None, log_file.read_text()[-2_000:]
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0, log_file.read_text()[-2_000:]
    finally:
        process.kill()


def asked(url: str, key: str = "", body: object = None) -> bytes:
    """One call, as curl would make it."""
    data = None if body is None else json.dumps(body).encode()
    head = {"content-type": "application/json", **({"authorization": f"Key {key}"} if key else {})}
    request = urllib.request.Request(url, data, head)  # noqa: S310 - our own gateway
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - as above
        return bytes(answer.read())


@pytest.mark.slow  # three real processes and a model: 20 s
def test_parts_that_are_started_by_hand_serve_a_model(
    postgres_server: EmbeddedPostgres, databases: object, valkey_url: str, tmp_path: pathlib.Path
) -> None:
    """Migrate, make the first key, start a controller, a worker and a gateway, deploy, call, and read the metrics."""
    name = databases.take()  # type: ignore[attr-defined] - the fixture's class is private to the conftest
    folder = tmp_path / "forestay"
    folder.mkdir()
    clean = {key: value for key, value in process_environment().items() if not key.startswith("FORESTAY_")}
    port, metrics_port = free_port(), free_port()
    shared = {
        **clean,
        "HOME": str(tmp_path),
        "FORESTAY_DATABASE_URL": url_of(postgres_server, name),
        "FORESTAY_VALKEY_URL": valkey_url,
        "FORESTAY_OBJECT_STORE": folder.as_uri(),
        "FORESTAY_INTERNAL_KEY": "a long random text of the tests",
        "FORESTAY_SIGNING_KEY_FILE": str(tmp_path / "signing.pem"),
        "FORESTAY_TOKEN_KEY": "another long random text of the tests",
        "FORESTAY_ALLOW_UNISOLATED": "true",
    }
    pepper = {"FORESTAY_KEY_PEPPER": "a pepper of the tests, 32 letters or more"}
    assert run_cli("migrate", environment=shared).returncode == 0
    made = run_cli("key", "first", environment={**shared, **pepper})
    assert made.returncode == 0, made.stderr
    again = run_cli("key", "first", environment={**shared, **pepper})
    assert (again.returncode, "--anyway" in again.stderr) == (1, True)
    assert "FORESTAY_KEY_PEPPER" in run_cli("key", "first", environment=shared).stderr
    key, url = made.stdout.strip(), f"http://127.0.0.1:{port}"
    worker = {**shared, "FORESTAY_WORKER_ID": "one", "FORESTAY_WORK_DIR": str(tmp_path / "work")}
    gateway = {**shared, **pepper, "FORESTAY_PORT": str(port), "FORESTAY_TLS_PORT": "-1", "FORESTAY_CONNECT_PORT": "-1"}
    controller = {**shared, "FORESTAY_METRICS_PORT": str(metrics_port)}
    with (
        started("controller", controller, tmp_path / "controller.log"),
        started("worker", worker, tmp_path / "worker.log"),
        started("gateway", gateway, tmp_path / "gateway.log"),
    ):
        where = {"FORESTAY_URL": url, "FORESTAY_KEY": key, "HOME": str(tmp_path)}
        deployed = run_cli("deploy", str(ROOT / "examples/echo/model.yaml"), "--wait", environment=where)
        assert deployed.returncode == 0, deployed.stderr
        assert json.loads(asked(f"{url}/run/forestay/echo", key, {"text": "by hand"}))["text"] == "by hand"
        assert b"forestay_loop_runs_total" in asked(f"http://127.0.0.1:{metrics_port}/metrics")
