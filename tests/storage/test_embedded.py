"""The embedded servers: private, durable over restarts, gone with their owner."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from forestay.errors import Refused
from forestay.storage.children import is_alive, wait_until
from forestay.storage.embedded import EmbeddedPostgres, EmbeddedValkey
from forestay.storage.valkey import connect_wakeups

OWNER = """
import sys
from pathlib import Path
from forestay.storage.embedded import EmbeddedPostgres, EmbeddedValkey
folder = Path(sys.argv[1])
servers = EmbeddedPostgres(folder, fsync=False), EmbeddedValkey(folder)
urls = [server.start() for server in servers]
print(*urls, *(server.pid for server in servers), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that only its owner may enter, with a short name."""
    with tempfile.TemporaryDirectory(prefix="fs-", ignore_cleanup_errors=True) as name:
        yield Path(name)


async def _value(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_what_was_written_survives_a_restart(folder: Path) -> None:
    """The same data folder gives the same database under the same URL."""
    server = EmbeddedPostgres(folder, fsync=False)
    url = server.start()
    await _value(url, "CREATE TABLE kept AS SELECT 7 AS n")
    server.stop()
    again = EmbeddedPostgres(folder, fsync=False)
    try:
        assert again.start() == url
        assert await _value(url, "SELECT n FROM kept") == 7
        assert await _value(url, "SHOW listen_addresses") == ""
    finally:
        again.stop()


async def test_a_wrong_password_and_other_peoples_eyes_are_kept_out(folder: Path) -> None:
    """Every local connection needs its password, and the files that hold it are the owner's alone."""
    server = EmbeddedPostgres(folder, fsync=False)
    url = server.start()
    try:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await _value(url.replace("forestay:", "forestay:x", 1), "SELECT 1")
        secret = folder / "postgres" / "passwords.json"
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        assert stat.S_IMODE((folder / "postgres" / "data").stat().st_mode) == 0o700
    finally:
        server.stop()


def test_a_second_owner_is_refused(folder: Path) -> None:
    """The data folder has one owner at a time, and the message says so."""
    first, second = EmbeddedPostgres(folder, fsync=False), EmbeddedPostgres(folder, fsync=False)
    first.prepare()
    try:
        with pytest.raises(Refused, match="in use"):
            second.prepare()
    finally:
        first.stop()
    second.prepare()
    second.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="death with the parent is asked of the Linux kernel")
async def test_the_servers_die_with_a_killed_owner_and_the_next_one_takes_over(folder: Path) -> None:
    """After kill -9 of the owner nothing stays behind, and what was committed is there."""
    with subprocess.Popen(  # noqa: ASYNC220 - nothing else runs on this loop
        [sys.executable, "-c", OWNER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        url, _, postgres_pid, valkey_pid = owner.stdout.readline().split()
        await _value(url, "CREATE TABLE kept AS SELECT 7 AS n")
        owner.kill()
    server = EmbeddedPostgres(folder, fsync=False)
    try:
        assert server.start() == url
        assert not is_alive(int(postgres_pid))
        assert wait_until(lambda: not is_alive(int(valkey_pid)), 5.0)
        assert await _value(url, "SELECT n FROM kept") == 7
    finally:
        server.stop()


async def test_a_killed_server_starts_again_over_what_it_left(folder: Path) -> None:
    """Kill -9 of the postmaster leaves a pid file, shared memory and backends; start clears them away."""
    server = EmbeddedPostgres(folder, fsync=False)
    url = server.start()
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    assert wait_until(lambda: not server.alive(), 5.0)
    try:
        assert server.start() == url
        assert await _value(url, "SELECT n FROM kept") == 7
    finally:
        connection.terminate()
        server.stop()


async def test_a_stale_pid_file_that_names_a_stranger_does_no_harm(folder: Path) -> None:
    """The process that has the number by now is left alone."""
    server = EmbeddedPostgres(folder, fsync=False)
    server.prepare()
    (folder / "postgres" / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n")
    try:
        assert await _value(server.start(), "SELECT 1") == 1
    finally:
        server.stop()


async def test_a_long_folder_name_still_gives_a_working_socket(folder: Path) -> None:
    """Paths beyond the kernel's limit for sockets are replaced by a short private folder."""
    long = folder / ("x" * 120)
    postgres, valkey = EmbeddedPostgres(long, fsync=False), EmbeddedValkey(long)
    try:
        assert await _value(postgres.start(), "SELECT 1") == 1
        wakeups = await connect_wakeups(valkey.start())
        await wakeups.publish("c", "m")
        assert wakeups.lost == 0
        await wakeups.close()
    finally:
        postgres.stop()
        valkey.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another uid")
def test_as_root_postgres_runs_under_a_uid_of_its_own(folder: Path) -> None:
    """Neither as root nor as the user that other things run under."""
    server = EmbeddedPostgres(folder, fsync=False)
    server.start()
    try:
        owner = Path(f"/proc/{server.pid}").stat().st_uid
        assert owner not in (0, 65534)
    finally:
        server.stop()
