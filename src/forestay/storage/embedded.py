"""The servers of a laptop: a Postgres 18 and a Valkey from Python wheels, in one data folder, for this process alone.

Postgres speaks over a unix socket with passwords only, never as root: as root we drop to a uid of its own (the
cluster is made under an existing user, on which `initdb` insists, then handed over). Its data folder is addressed as
`/proc/self/cwd`, so parents that the uid may not enter do not matter. `forestay up` and the tests call it; production
sets `FORESTAY_DATABASE_URL` and never comes here.

All functions block: call them at start-up or from a thread. A lock on the data folder keeps a second process out.
"""

import fcntl
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO
from urllib.parse import quote

from forestay.chance import Chance, SystemChance
from forestay.errors import Refused, Unavailable
from forestay.storage.children import is_alive, short_socket_folder, start_child, wait_until
from forestay.storage.programs import postgres_binaries, valkey_binary

POSTGRES_UID = 60_991  # in a range that distributions leave free; nobody else on the machine runs under it
_INITDB_USERS = ("nobody", "daemon", "postgres")
_READY_SECONDS = 60.0
_STOP_SECONDS = 15.0
_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "128MB",
    "wal_compression": "pglz",
    "max_wal_size": "2GB",
    "min_wal_size": "128MB",
    "checkpoint_timeout": "15min",
    "autovacuum_naptime": "10s",  # the hot table turns over in seconds
    "random_page_cost": "1.1",
    "log_min_messages": "warning",
    "log_min_error_statement": "panic",  # statements carry callers' input: never into a log
    "log_checkpoints": "off",
}


class EmbeddedPostgres:
    """One private Postgres server below `data_dir/postgres`."""

    def __init__(self, data_dir: Path, *, fsync: bool = True, chance: Chance | None = None) -> None:
        self._home = data_dir.absolute() / "postgres"
        self._data = self._home / "data"
        self._fsync = fsync
        self._chance = SystemChance() if chance is None else chance
        self._uid = POSTGRES_UID if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[bytes] | None = None
        self._sockets = self._data / "run"

    @property
    def pid(self) -> int | None:
        """Return the postmaster's process id, None when it was never started."""
        return None if self._process is None else self._process.pid

    @property
    def superuser_url(self) -> str:
        """Return the URL of the superuser: for tests and for a person at 3 a.m., not for Forestay's processes."""
        return self._url("postgres", self._passwords()["postgres"], "postgres")

    @property
    def facts_url(self) -> str:
        """Return the URL of the database for facts, apart from the queue's.

        Postgres keeps dead rows for the oldest snapshot of the same database: a long query over facts in the queue's
        own would hold back its vacuum.
        """
        return self._url("forestay", self._passwords()["forestay"], "forestay_facts")

    def alive(self) -> bool:
        """Tell whether the server that we started still runs."""
        return self._process is not None and self._process.poll() is None

    def prepare(self) -> None:
        """Take the data folder and make the cluster when there is none; raises Refused when another process has it."""
        self._home.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._take_lock()
        if not (self._home / "ready").exists():
            shutil.rmtree(self._data, ignore_errors=True)  # a half-made cluster: initdb was cut short
            self._make_cluster()
            (self._home / "ready").touch()

    def start(self) -> str:
        """Start the server (preparing it first when needed), wait until it accepts connections, return its URL."""
        if self._lock is None:
            self.prepare()
        self._end_leftovers()
        self._sockets = short_socket_folder(self._data / "run", self._uid)
        with (self._home / "postgres.log").open("ab") as log:
            self._process = start_child(
                [postgres_binaries(self._uid) / "postgres", "-D", self._data_argument(), *self._arguments()],
                cwd=self._data,
                environment=_ENVIRONMENT,
                uid=self._uid,
                output=log,
                death_signal=signal.SIGINT,  # a fast and clean shutdown
            )
        wait_until(lambda: self._answers() or not self.alive(), _READY_SECONDS, 0.05)
        if not self._answers():
            tail = _tail(self._home / "postgres.log")
            self.stop()
            raise Unavailable(f"the embedded Postgres in {self._home} did not start; the end of postgres.log: {tail}")
        return self._url("forestay", self._passwords()["forestay"], "forestay")

    def stop(self) -> None:
        """Shut the server down (fast, then by force) and give the data folder back. Harmless when it does not run."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            if not wait_until(lambda: process.poll() is not None, _STOP_SECONDS):
                process.send_signal(signal.SIGQUIT)
                process.wait(timeout=_STOP_SECONDS)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = (self._home / "lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            message = f"{self._home} is in use by another process; stop it, or choose another --data-dir"
            raise Refused(message) from None
        self._lock = lock

    def _make_cluster(self) -> None:
        passwords = {"postgres": self._chance.token(24), "forestay": self._chance.token(24)}
        initial_uid = None if self._uid is None else _existing_uid()
        self._data.mkdir(mode=0o700)
        if initial_uid is not None:
            os.chown(self._data, initial_uid, initial_uid)
        binaries = postgres_binaries(self._uid)
        options = ["-U", "postgres", "-A", "reject", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"]
        options += ["--locale-provider=builtin", "--data-checksums"]
        self._run([str(binaries / "initdb"), "-D", self._data_argument(), *options], initial_uid, "")
        roles = (
            f"ALTER ROLE postgres PASSWORD '{passwords['postgres']}';\n"
            f"CREATE ROLE forestay LOGIN PASSWORD '{passwords['forestay']}';\n"
            "CREATE DATABASE forestay OWNER forestay;\n"
            "CREATE DATABASE forestay_facts OWNER forestay;\n"
        )
        single = [str(binaries / "postgres"), "--single", "-D", self._data_argument(), "-c", "log_statement=none"]
        self._run([*single, "postgres"], initial_uid, roles)
        self._write_private(self._data / "pg_hba.conf", _HBA)
        if self._uid is not None:
            for path in [self._data, *self._data.rglob("*")]:
                os.chown(path, self._uid, self._uid, follow_symlinks=False)
        self._write_private(self._home / "passwords.json", json.dumps(passwords))

    def _run(self, command: list[str], uid: int | None, text: str) -> None:
        groups: list[int] | None = None if uid is None else []
        result = subprocess.run(
            command,
            input=text.encode(),
            cwd=self._data,
            env=_ENVIRONMENT,
            user=uid,
            group=uid,
            extra_groups=groups,
            capture_output=True,
            timeout=120,
            check=False,
        )
        if result.returncode != 0 or b"ERROR:" in result.stderr:
            said = result.stderr.decode(errors="replace").strip()[-500:]
            raise Unavailable(f"{Path(command[0]).name} could not prepare {self._data}: {said}")

    def _write_private(self, path: Path, text: str) -> None:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)

    def _passwords(self) -> dict[str, str]:
        return json.loads((self._home / "passwords.json").read_text(encoding="utf-8"))

    def _url(self, user: str, password: str, database: str) -> str:
        return f"postgresql://{user}:{quote(password)}@/{database}?host={quote(str(self._sockets), safe='/')}"

    def _data_argument(self) -> str:
        return "/proc/self/cwd" if sys.platform == "linux" else str(self._data)

    def _arguments(self) -> list[str]:
        durable = {} if self._fsync else {"fsync": "off", "full_page_writes": "off"}
        settings = {**_SETTINGS, **durable, "unix_socket_directories": str(self._sockets)}
        if self._sockets == self._data / "run" and sys.platform == "linux":
            settings["unix_socket_directories"] = "/proc/self/cwd/run"
        return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]

    def _answers(self) -> bool:
        command = [postgres_binaries(None) / "pg_isready", "-q", "-h", self._sockets, "-U", "forestay", "-t", "2"]
        return self.alive() and subprocess.run(command, env=_ENVIRONMENT, timeout=10, check=False).returncode == 0

    def _end_leftovers(self) -> None:
        """Wait for, then end, what an earlier owner of this folder left: a postmaster, or backends without one."""
        postmaster = self._recorded_postmaster()
        if postmaster is not None:
            for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
                _send(postmaster, how)
                if wait_until(lambda: not is_alive(postmaster), 10.0):
                    break
        if not wait_until(lambda: not self._orphans(), 5.0):
            for pid in self._orphans():
                _send(pid, signal.SIGKILL)
            wait_until(lambda: not self._orphans(), 5.0)
        (self._data / "postmaster.pid").unlink(missing_ok=True)  # nobody is left whom it could name

    def _recorded_postmaster(self) -> int | None:
        """Return the pid in postmaster.pid when that process is a Postgres working in our data folder."""
        try:
            pid = int((self._data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
        except (OSError, ValueError):
            return None
        if sys.platform == "linux" and pid not in self._orphans():
            return None  # the number belongs to someone else by now
        return pid if is_alive(pid) else None

    def _orphans(self) -> list[int]:
        """List the Postgres processes whose working folder is our data folder. Linux only: elsewhere none are seen."""
        found: list[int] = []
        if sys.platform != "linux":
            return found
        ours = self._data.stat()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                folder = (entry / "cwd").stat()
                program = (entry / "comm").read_text(encoding="utf-8").strip()
            except OSError:
                continue  # gone, or not ours to see
            if (folder.st_dev, folder.st_ino) == (ours.st_dev, ours.st_ino) and program == "postgres":
                found.append(int(entry.name))
        return found


class EmbeddedValkey:
    """One private Valkey server: a unix socket, a password, no persistence."""

    def __init__(self, data_dir: Path, *, chance: Chance | None = None) -> None:
        self._home = data_dir.absolute() / "valkey"
        self._chance = SystemChance() if chance is None else chance
        self._password = ""
        self._socket = self._home / "run" / "valkey.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Return the server's process id, None when it was never started."""
        return None if self._process is None else self._process.pid

    def alive(self) -> bool:
        """Tell whether the server that we started still runs."""
        return self._process is not None and self._process.poll() is None

    def prepare(self) -> None:
        """Make the folder and the password (kept, so that the URL outlives a restart of the server)."""
        self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
        secret = self._home / "password"
        if not secret.exists():
            descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(self._chance.token(24))
        self._password = secret.read_text(encoding="utf-8")

    def start(self) -> str:
        """Start the server, wait until it answers, return its URL (unix://)."""
        self.prepare()
        self._socket = short_socket_folder(self._home / "run", None) / "valkey.sock"
        self._socket.unlink(missing_ok=True)
        config = self._home / "valkey.conf"  # not arguments: those are public, and the password is among them
        descriptor = os.open(config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(_VALKEY_CONFIG.format(socket=self._socket, password=self._password))
        with (self._home / "valkey.log").open("ab") as log:
            self._process = start_child(
                [valkey_binary(), config],
                cwd=self._home,
                environment=_ENVIRONMENT,
                uid=None,
                output=log,
                death_signal=signal.SIGKILL,  # it holds nothing worth keeping
            )
        wait_until(lambda: self._answers() or not self.alive(), 10.0)
        if not self._answers():
            tail = _tail(self._home / "valkey.log")
            self.stop()
            raise Unavailable(f"the embedded Valkey in {self._home} did not start; the end of valkey.log: {tail}")
        return f"unix://:{quote(self._password)}@{quote(str(self._socket), safe='/')}"

    def stop(self) -> None:
        """End the server. Harmless when it does not run."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            if not wait_until(lambda: process.poll() is not None, 5.0):
                process.kill()
                process.wait(timeout=5.0)

    def _answers(self) -> bool:
        if not self.alive():
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(2.0)
                probe.connect(str(self._socket))
                probe.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                return probe.recv(64).startswith(b"+OK")
        except OSError:
            return False


_ENVIRONMENT: Mapping[str, str] = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
_HBA = """# Unix socket and passwords only; there is no TCP listener.
local all all scram-sha-256
host  all all all reject
"""
_VALKEY_CONFIG = """port 0
unixsocket "{socket}"
unixsocketperm 700
requirepass "{password}"
save ""
appendonly no
daemonize no
maxmemory 256mb
maxmemory-policy volatile-lru
client-output-buffer-limit pubsub 8mb 2mb 30
"""


def embedded_programs() -> tuple[Path, Path]:
    """Return the programs of the embedded Postgres and Valkey; Unavailable names the package that is missing."""
    return postgres_binaries(None) / "postgres", valkey_binary()


def _existing_uid() -> int:
    """Return the uid under which initdb runs: it insists on one with a name."""
    for name in _INITDB_USERS:
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise Refused(f"Postgres does not run as root and none of the users {_INITDB_USERS} exists; run without root")


def _send(pid: int, how: signal.Signals) -> None:
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        return  # gone already: that is what we want


def _tail(path: Path) -> str:
    return path.read_bytes()[-1500:].decode(errors="replace")
