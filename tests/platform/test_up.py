"""`forestay up` with real processes: what it promises about starting, dying, restarting and stopping."""

import asyncio
import json
import pathlib
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request

import asyncpg
import pytest
from tests.platform.platform import RunningPlatform, family, process_table, run_cli, survivors, wait_for

from forestay.safety.judge.folder import is_wanted
from forestay.settings import Judge


def fetch(url: str, ca_file: str = "") -> tuple[int, bytes]:
    """GET without a proxy; returns status and body, 0 when nothing answers."""
    context = ssl.create_default_context(cafile=ca_file) if ca_file else None
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if context is not None:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except OSError:
        return 0, b""


def admin(platform: RunningPlatform, path: str) -> int:
    """GET an admin path with the first ADMIN key; returns the status, 0 when nothing answers."""
    headers = {"authorization": f"Key {platform.admin_key}"}
    request = urllib.request.Request(platform.url + path, headers=headers)  # noqa: S310 - our own loopback URL
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            answer.read()
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


async def rows(url: str, query: str) -> list[asyncpg.Record]:
    """Ask the platform's own database."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return await connection.fetch(query)
    finally:
        await connection.close()


def test_the_ready_file_says_everything_and_is_for_its_owner_alone(platform: RunningPlatform) -> None:
    """Addresses, keys, stores and process ids; mode 0600."""
    ready = platform.ready
    wanted = {"url", "tls_url", "ca_file", "api_key", "admin_key", "metrics_url", "database_url", "valkey_url"}
    assert wanted | {"object_store", "proxy_url", "pids", "data_dir"} <= set(ready)
    assert all(ready[name] for name in wanted)
    assert platform.ready_file.stat().st_mode & 0o777 == 0o600
    table = process_table()
    assert all(pid in table for pid in platform.pids.values())
    judges = {"judge-1"} if is_wanted(Judge()) else set[str]()
    assert set(platform.pids) == {"supervisor", "postgres", "valkey", "controller", "worker-1", "gateway-1"} | judges


def test_plain_and_tls_listeners_answer_and_so_does_every_metrics_port(platform: RunningPlatform) -> None:
    """What the ready file names is served."""
    ready = platform.ready
    assert admin(platform, "/admin/fleet") == 200
    assert fetch(f"{ready['tls_url']}/admin/fleet", str(ready["ca_file"]))[0] == 401
    metrics = ready["metrics_urls"]
    assert isinstance(metrics, dict)
    for url in metrics.values():
        status, body = fetch(str(url))
        assert status == 200
        assert b"process_resident_memory_bytes" in body
        assert fetch(str(url).replace("/metrics", "/health")) == (200, b"ok\n")


def test_a_second_up_on_the_same_folder_is_refused_and_names_the_first(platform: RunningPlatform) -> None:
    """One platform a folder; the message says which process has it."""
    ended = run_cli("up", "--data-dir", str(platform.data_dir), "--port", "0", "--no-profile")
    assert ended.returncode == 1
    assert f"is in use by process {platform.pid}" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert admin(platform, "/admin/fleet") == 200


def test_a_taken_port_is_told_before_anything_starts(platform: RunningPlatform, tmp_path: pathlib.Path) -> None:
    """Another folder, the same port: a clear error and no process."""
    port = platform.url.rpartition(":")[2]
    ended = run_cli("up", "--data-dir", str(tmp_path / "data"), "--port", port, "--no-profile")
    assert ended.returncode == 2
    assert f"--port: cannot listen on 127.0.0.1:{port}" in ended.stderr
    assert not (tmp_path / "data" / "postgres").exists()


@pytest.mark.parametrize("name", ["gateway-1", "worker-1", "controller", "valkey", "postgres"])
def test_a_killed_process_is_started_again_and_the_platform_serves_on(platform: RunningPlatform, name: str) -> None:
    """`kill -9` of any part is survived, and the others recover by themselves."""
    others = {key: pid for key, pid in platform.pids.items() if key != name}
    old = platform.kill(name)
    platform.wait_replaced(name, old)
    assert wait_for(lambda: admin(platform, "/admin/fleet") == 200), platform.printed()
    assert {key: platform.pids[key] for key in others} == others


def test_a_process_died_is_told_on_the_terminal(platform: RunningPlatform) -> None:
    """What happened, and what is done about it."""
    old = platform.kill("controller")
    platform.wait_replaced("controller", old)
    assert "controller was ended by SIGKILL" in platform.output.read_text()
    assert "starting it again in" in platform.output.read_text()


def test_doctor_finds_the_running_platform_healthy(platform: RunningPlatform) -> None:
    """With the data folder named, the stores of the running platform are examined too."""
    ended = run_cli("doctor", "--json", "--data-dir", str(platform.data_dir))
    findings = {item["check"]: item for item in json.loads(ended.stdout)["findings"]}
    assert ended.returncode == 0, ended.stdout
    assert findings["database"]["found"].startswith("Postgres 18")
    assert findings["valkey"]["found"] == "answers"
    assert findings["object store"]["found"] == "file: written, read, deleted"
    assert "certificate good for" in findings["tls"]["found"]


def test_doctor_says_how_to_mend_a_database_that_does_not_answer() -> None:
    """A failure has a mend, and the command fails."""
    ended = run_cli("doctor", environment={"FORESTAY_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"})
    assert ended.returncode == 1
    assert "failure  database" in ended.stdout
    assert "->" in ended.stdout


def test_a_worker_runs_alone_against_the_same_stores(platform: RunningPlatform) -> None:
    """The parts need nothing of `up` but three addresses and the internal key."""
    ready = platform.ready
    environment = {
        "PATH": "/usr/bin:/bin",
        "FORESTAY_DATABASE_URL": str(ready["database_url"]),
        "FORESTAY_VALKEY_URL": str(ready["valkey_url"]),
        "FORESTAY_OBJECT_STORE": str(ready["object_store"]),
        "FORESTAY_INTERNAL_KEY": (platform.data_dir / "secrets" / "internal-key").read_text().strip(),
        "FORESTAY_WORKER_ID": "alone",
        "FORESTAY_WORK_DIR": str(platform.folder / "alone"),
    }
    query = "SELECT state FROM workers WHERE worker_id = 'alone'"

    def states() -> list[str]:
        return [row["state"] for row in asyncio.run(rows(str(ready["database_url"]), query))]

    with (platform.folder / "alone.log").open("wb") as log:
        command = [sys.executable, "-P", "-m", "forestay", "worker"]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        assert wait_for(lambda: states() == ["ready"]), (platform.folder / "alone.log").read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()


def test_secrets_are_in_no_log(platform: RunningPlatform) -> None:
    """Neither keys nor passwords are written by any process."""
    secrets = [path.read_text().strip() for path in (platform.data_dir / "secrets").glob("*-key")]
    assert len(secrets) >= 4
    for log_file in (platform.data_dir / "logs").glob("*.log*"):
        text = log_file.read_text(errors="replace")
        assert not [secret for secret in secrets if secret in text], log_file


def test_everything_survives_a_stop_and_a_start_with_the_same_addresses_and_keys(platform: RunningPlatform) -> None:
    """SIGTERM ends it with status 0, gateways first and Postgres last; a new start finds everything again."""
    before = platform.ready
    members = platform.family()
    printed_before = len(platform.output.read_text())
    assert platform.stop() == 0
    assert not survivors(members)
    assert not platform.ready_file.exists()
    printed = platform.output.read_text()[printed_before:]
    ends = [printed.index(f"{name} has stopped") for name in ("gateway-1", "worker-1", "controller", "postgres")]
    assert ends == sorted(ends)
    platform.start()
    after = platform.ready
    same = ("url", "tls_url", "proxy_url", "metrics_urls", "api_key", "admin_key", "database_url", "valkey_url")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert admin(platform, "/admin/fleet") == 200


def test_kill_9_of_the_parent_leaves_no_process_and_the_folder_usable(platform: RunningPlatform) -> None:
    """Every child and grandchild dies, and the next start recovers."""
    members = platform.kill_all_at_once()
    assert len(members) >= 7
    assert wait_for(lambda: not survivors(members)), survivors(members)
    platform.ready_file.unlink()
    platform.start()
    assert admin(platform, "/admin/fleet") == 200
    assert len(family(platform.pid)) >= 7


def test_an_interrupt_during_the_start_ends_it_cleanly() -> None:
    """Ctrl-C while Postgres is being prepared leaves nothing."""
    platform = RunningPlatform()
    try:
        platform.start(wait=False)
        assert wait_for(lambda: "starting in" in platform.output.read_text())
        members = platform.family()
        platform.signal(signal.SIGINT)
        assert platform.wait_ended() == 0
        assert wait_for(lambda: not survivors(members))
    finally:
        platform.close()
