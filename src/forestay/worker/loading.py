"""Makes the host of a replica by the kind that its spec names.

It decides nothing but which adapter; heavy adapters are imported when first needed, so that an idle worker stays small.
Called by `worker/keeping.py` for each start.
"""

import asyncio
import os
import pathlib
import shutil
import tempfile
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, assert_never

from forestay.clock import Clock
from forestay.errors import UsageError
from forestay.fleet.spec import HostKind
from forestay.ids import WorkerId
from forestay.media.store import MediaStore
from forestay.settings import Settings
from forestay.storage.objects import ObjectStore
from forestay.worker.admitting import FileCheck
from forestay.worker.bucket_outputs import BucketOutputs
from forestay.worker.bundles import fetch_bundle
from forestay.worker.hosts.host import Host, StartFailed
from forestay.worker.logs import LogBook
from forestay.worker.replica import Replica

if TYPE_CHECKING:
    from forestay.worker.hosts.confinement import Machine

MAX_SOCKET_FOLDER_CHARS = 60  # leaves room for the rest of a unix socket's path


class Loader:
    """Makes hosts of every kind."""

    def __init__(  # noqa: PLR0913 - the ports that the three kinds need, each used by name
        self,
        *,
        objects: ObjectStore,
        media: MediaStore,
        outputs: BucketOutputs,
        log_book: LogBook,
        settings: Settings,
        clock: Clock,
        environment: Mapping[str, str],
        folders: "Folders",
        files: FileCheck,
    ) -> None:
        self._objects = objects
        self._media = media
        self._outputs = outputs
        self._log_book = log_book
        self._settings = settings
        self._clock = clock
        self._environment = environment
        self._folders = folders
        self._files = files
        self._machine: Machine | None = None

    async def __call__(self, replica: Replica) -> Host:
        """Return a host that has not been started; StartFailed when what it needs is not to be had."""
        spec = replica.revision.spec
        match spec.host.kind:
            case HostKind.FAL_APP:
                return await self._fal_app(replica)
            case HostKind.HTTP_SERVER:
                from forestay.worker.hosts.http_server import HttpServerHost  # noqa: PLC0415 - only where needed

                return HttpServerHost(spec, self._clock)
            case HostKind.PROVIDER:
                from forestay.worker.hosts.provider import ProviderHost  # noqa: PLC0415 - only where needed

                return ProviderHost(spec, self._settings.worker.secrets_dir, self._clock)
            case _:
                assert_never(spec.host.kind)

    async def _fal_app(self, replica: Replica) -> Host:
        from forestay.worker.hosts.fal_app import FalAppHost, FalAppPlan  # noqa: PLC0415 - only where needed
        from forestay.worker.media_server import MediaServer  # noqa: PLC0415

        revision = replica.revision
        if revision.bundle_key is None:
            raise StartFailed(f"revision {revision.revision_id} has no bundle; deploy the model again")
        replica.tell("fetching the bundle")
        bundle = await fetch_bundle(self._objects, revision.bundle_key, self._folders.bundles)
        replica.tell("checking the model's files")
        replica.tell(await self._files.check(revision, bundle))
        plan = FalAppPlan(
            revision_id=revision.revision_id,
            spec=revision.spec,
            bundle=bundle,
            run_dir=self._folders.runs / replica.replica_id.rpartition("-")[2],
            environments=self._folders.environments,
            secrets_dir=self._settings.worker.secrets_dir,
            environment=self._environment,
            machine=await self._machine_facts(),
            hidden=self._hidden(),
            allow_unisolated=self._settings.worker.allow_unisolated,
            drills=self._settings.worker.drills,
            devices=replica.devices,
        )
        media = MediaServer(self._media, self._outputs, replica.owner_of, self._settings.worker.max_media_bytes)

        def on_log(request_id: str | None, level: str, message: str) -> None:
            self._log_book.take(replica, request_id, level, message)

        return FalAppHost(plan, media, on_log, replica.tell)

    async def _machine_facts(self) -> "Machine":
        """Return what this machine allows; tried once, since it does not change while we run."""
        from forestay.worker.hosts.confinement import probe_machine  # noqa: PLC0415 - only where needed

        if self._machine is None:
            self._machine = await asyncio.to_thread(probe_machine)
        return self._machine

    def _hidden(self) -> tuple[pathlib.Path, ...]:
        """Return the folders that hold what belongs to other models and to us."""
        folders, secrets = self._folders, self._settings.worker.secrets_dir
        named = (pathlib.Path(secrets).absolute(),) if secrets else ()
        return (folders.bundles, folders.environments, folders.scratch, folders.runs, *named)


class Folders:
    """Where a worker keeps bundles, environments and sockets."""

    def __init__(self, work_dir: pathlib.Path, runs: pathlib.Path) -> None:
        self.bundles = work_dir / "bundles"
        self.environments = work_dir / "environments"
        self.scratch = work_dir / "scratch"  # files of inputs while they are opened; they have no names
        self.runs = runs  # short: it holds unix sockets, whose paths may not exceed about 100 bytes

    async def prepare(self) -> None:
        """Make the folders; what an earlier life of this worker left running space of is removed."""
        await asyncio.to_thread(self._prepare)

    def _prepare(self) -> None:
        shutil.rmtree(self.runs, ignore_errors=True)
        shutil.rmtree(self.scratch, ignore_errors=True)  # weights have names while they are checked
        folders = ((self.bundles, 0o755), (self.environments, 0o755), (self.scratch, 0o700), (self.runs, 0o711))
        for folder, mode in folders:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(mode)


def folders_of(settings: Settings, worker_id: WorkerId) -> Folders:
    """Return where a worker keeps its files; UsageError where no folder is named and it has no name either."""
    work_dir = _work_dir(settings, worker_id)
    return Folders(work_dir, _short(work_dir / "run" / worker_id))


def _work_dir(settings: Settings, worker_id: WorkerId) -> pathlib.Path:
    configured = settings.worker.work_dir
    if configured:
        return pathlib.Path(configured).resolve()
    if not worker_id:
        raise UsageError("FORESTAY_WORK_DIR", "is not set; expected a folder for bundles and environments")
    return pathlib.Path(tempfile.gettempdir()) / f"forestay-{os.geteuid()}"


def _short(folder: pathlib.Path) -> pathlib.Path:
    """Keep unix sockets within their length: a long path is replaced by one below the system's temporary folder."""
    if len(str(folder)) <= MAX_SOCKET_FOLDER_CHARS:
        return folder
    name = f"forestay-{os.geteuid()}-{zlib.crc32(str(folder).encode()):08x}"
    return pathlib.Path(tempfile.gettempdir()) / name
