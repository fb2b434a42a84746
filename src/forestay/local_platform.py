"""The whole platform on one machine: which processes, in which order they start and stop, and how others find them.

It decides the order (stores, migrations, first keys, controller and workers, gateways, fleet; at the end gateways
first, so that nothing new is accepted, then workers drain), the environment of each child and the content of the ready
file. How a process is kept alive is `supervisor`'s business. Called by `forestay up` and `forestay demo`.
"""

import asyncio
import dataclasses
import json
import os
import pathlib
import socket
from collections.abc import Callable, Mapping, Sequence

from forestay.chance import Chance
from forestay.clock import Clock
from forestay.data_dir import DataDir, write_private
from forestay.errors import ForestayError, UsageError
from forestay.fleet.keys import Caller, KeyRequest, Scope, verify
from forestay.fleet.peppers import Peppers
from forestay.fleet.postgres_keys import PostgresKeyStore
from forestay.ids import PLATFORM_TENANT
from forestay.processes import SPREADS, address_of, bind, keep_memory_private, lock_folder
from forestay.safety.judge.folder import environment_of_judge, is_wanted, socket_in
from forestay.settings import Settings
from forestay.storage.embedded import EmbeddedPostgres, EmbeddedValkey
from forestay.storage.postgres import Database, migrate
from forestay.supervisor import (
    ChildProcess,
    ChildSpec,
    Event,
    Keeper,
    RestartPolicy,
    ServerProcess,
    Supervised,
    Tell,
    cap_logs,
    stop_in_order,
)
from forestay.tls import TlsFiles, ensure_tls

# Of the embedded server's hundred connections; with the most gateways and workers that `up` allows they still suffice.
_GATEWAY_CONNECTIONS = 24
_WORKER_CONNECTIONS = 60
_CONTROLLER_CONNECTIONS = 6
_LOG_LIMIT_BYTES = 32 * 1024 * 1024
_LOG_LOOK_SECONDS = 10.0
_CPU_SLOTS = 4  # per worker unless FORESTAY_DEVICES or --devices says otherwise: on a laptop memory is what runs out
_WORKER_MEMORY_SHARE = 0.8  # of the machine's memory, shared out among the workers
_FIRST_KEYS: Mapping[str, frozenset[Scope]] = {
    "api-key": frozenset({Scope.API}),
    "admin-key": frozenset({Scope.API, Scope.ADMIN}),
}
_FOR_GATEWAYS_ALONE = frozenset({"FORESTAY_KEY_PEPPER", "FORESTAY_OLD_KEY_PEPPERS", "FORESTAY_OIDC_CLIENT_SECRET"})
_NOT_FOR_CHILDREN = frozenset({"FORESTAY_URL", "FORESTAY_KEY", "FORESTAY_PROFILE", "FORESTAY_CA_FILE"})


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What the caller of `forestay up` asked for."""

    data_dir: pathlib.Path
    workers: int = 1
    gateways: int = 1
    ready_file: pathlib.Path | None = None
    fleet_file: pathlib.Path | None = None
    server: str = "granian"
    devices: int | None = None  # per worker


@dataclasses.dataclass(frozen=True, slots=True)
class Ready:
    """How others find the running platform: the content of the ready file."""

    url: str
    tls_url: str
    proxy_url: str
    ca_file: str
    api_key: str
    admin_key: str
    metrics_url: str
    metrics_urls: Mapping[str, str]
    database_url: str
    valkey_url: str
    object_store: str
    data_dir: str
    pids: Mapping[str, int]


@dataclasses.dataclass(frozen=True, slots=True)
class Hooks:
    """What the caller wants done along the way."""

    tell: Tell
    load_fleet: Callable[[Ready, pathlib.Path, Callable[[str], None]], None]  # blocks; runs in a thread
    ready: Callable[[Ready], None]


class LocalPlatform:
    """One run of the platform on one data folder."""

    def __init__(
        self,
        plan: Plan,
        settings: Settings,
        environment: Mapping[str, str],
        hooks: Hooks,
        clock_and_chance: tuple[Clock, Chance],
    ) -> None:
        self._plan = plan
        self._settings = settings
        self._environment = {name: value for name, value in environment.items() if name not in _NOT_FOR_CHILDREN}
        self._hooks = hooks
        self._tell = hooks.tell
        self._clock, self._chance = clock_and_chance
        self._folder = DataDir(plan.data_dir)
        self._listeners: dict[str, socket.socket] = {}
        self._spreads: dict[str, socket.socket] = {}  # "http:gateway-2": the same port once more
        self._groups: list[list[Keeper]] = []  # in the order of their start
        self._keys: dict[str, str] = {}
        self._urls: dict[str, str] = {}
        self._published = False

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set; raises what kept it from starting. Ends every process before it returns."""
        self._folder.prepare()
        lock = lock_folder(self._folder.root)
        keep_memory_private()
        if self._plan.ready_file is not None:
            self._plan.ready_file.unlink(missing_ok=True)
        failure: ForestayError | None = None
        try:
            tls = self._open_listeners()
            async with asyncio.TaskGroup() as tasks:
                try:
                    await self._start(tasks, stop, tls)
                    await self._watch_logs(stop)
                except ForestayError as error:
                    failure = error
                finally:
                    await self._end()
        finally:
            for listener in (*self._listeners.values(), *self._spreads.values()):
                listener.close()
            lock.release()
        if failure is not None:
            raise failure

    def _open_listeners(self) -> TlsFiles:
        """Bind every address before anything starts, on the ports of the last run where they are free."""
        gateway = self._settings.gateway
        self._bind("http", gateway.host, gateway.port, "--port")
        if gateway.tls_port >= 0:
            self._bind("tls", gateway.host, gateway.tls_port, "--tls-port")
        if gateway.connect_port >= 0 and gateway.tls_port >= 0:
            self._bind("connect", gateway.host, gateway.connect_port, "FORESTAY_CONNECT_PORT")
        self._spread()
        for name in self._process_names():
            wanted = gateway.metrics_port if name == "gateway-1" else 0
            self._bind(f"metrics:{name}", gateway.host, wanted, "FORESTAY_METRICS_PORT")
        ports = {name: _port_of(listener) for name, listener in self._listeners.items()}
        self._folder.remember({"ports": ports, **self._addresses()})
        return ensure_tls(self._folder.tls, self._clock.now(), (gateway.host,))

    def _spread(self) -> None:
        """Give every further gateway sockets of its own on the same ports, or all connections end up at one of them."""
        if not SPREADS:
            return
        for name in self._named("gateway")[1:]:
            for kind in ("http", "tls", "connect"):
                if kind in self._listeners:
                    port = _port_of(self._listeners[kind])
                    self._spreads[f"{kind}:{name}"] = bind(
                        self._settings.gateway.host, port, what="--gateways", spread=True
                    )

    def _process_names(self) -> list[str]:
        gateways = [f"gateway-{number}" for number in range(1, self._plan.gateways + 1)]
        workers = [f"worker-{number}" for number in range(1, self._plan.workers + 1)]
        judges = ["judge-1"] if is_wanted(self._settings.judge) else []
        return ["controller", *judges, *workers, *gateways]

    def _bind(self, name: str, host: str, port: int, what: str) -> None:
        """Bind a port that is free; only then may our own further sockets join it."""

        def bind_free(host: str, port: int, what: str) -> socket.socket:
            first = bind(host, port, what=what)
            if self._plan.gateways == 1 or ":" in name:
                return first
            port = _port_of(first)
            first.close()
            return bind(host, port, what=what, spread=True)

        if port == 0:
            try:
                self._listeners[name] = bind_free(host, self._folder.port_of(name), what)
            except UsageError as error:  # taken by someone else since the last run: any free one will do
                self._tell(Event("platform.port_taken", f"{name} moves to another port: {error.message}"))
            else:
                return
        self._listeners[name] = bind_free(host, port, what)

    def _addresses(self) -> dict[str, str]:
        reachable = {name: _reachable(listener) for name, listener in self._listeners.items()}
        return {
            "url": f"http://{reachable['http']}",
            "tls_url": f"https://{reachable['tls']}" if "tls" in reachable else "",
            "proxy_url": f"http://{reachable['connect']}" if "connect" in reachable else "",
        }

    async def _start(self, tasks: asyncio.TaskGroup, stop: asyncio.Event, tls: TlsFiles) -> None:
        self._tell(Event("platform.starting", f"starting in {self._folder.root}"))
        if not await self._start_stores(tasks, stop):
            return
        await self._prepare_database()
        environment = self._child_environment(tls)
        for group in (["controller", *self._named("judge"), *self._named("worker")], self._named("gateway")):
            children = [ChildProcess(self._child(name, environment), self._clock) for name in group]
            if not await self._keep(tasks, stop, children):
                return
        ready = self._ready()
        if self._plan.fleet_file is not None:
            await asyncio.to_thread(self._hooks.load_fleet, ready, self._plan.fleet_file, self._progress)
        if not stop.is_set():
            self._published = True
            self._publish()
            self._tell(Event("platform.ready", f"ready at {ready.url}", {"url": ready.url, "tls_url": ready.tls_url}))
            self._hooks.ready(ready)

    async def _start_stores(self, tasks: asyncio.TaskGroup, stop: asyncio.Event) -> bool:
        storage = self._settings.storage
        self._urls = {
            "FORESTAY_DATABASE_URL": storage.database_url,
            "FORESTAY_VALKEY_URL": storage.valkey_url,
            "FORESTAY_OBJECT_STORE": storage.object_store or self._folder.objects.as_uri(),
        }
        servers: dict[str, ServerProcess] = {}
        root = self._folder.root
        postgres = None
        if not storage.database_url:
            postgres = EmbeddedPostgres(root, chance=self._chance)
            log_file = root / "postgres" / "postgres.log"
            servers["FORESTAY_DATABASE_URL"] = ServerProcess("postgres", postgres, log_file)
        if not storage.valkey_url:
            valkey = EmbeddedValkey(root, chance=self._chance)
            servers["FORESTAY_VALKEY_URL"] = ServerProcess("valkey", valkey, root / "valkey" / "valkey.log")
        if not await self._keep(tasks, stop, list(servers.values())):
            return False
        self._urls.update({variable: server.url for variable, server in servers.items()})
        own_facts = self._urls["FORESTAY_DATABASE_URL"] if postgres is None else postgres.facts_url
        self._urls["FORESTAY_FACTS_URL"] = storage.facts_url or own_facts
        stores = {variable.removeprefix("FORESTAY_").lower(): url for variable, url in self._urls.items()}
        self._folder.remember({**self._folder.addresses(), **stores})
        return True

    async def _keep(self, tasks: asyncio.TaskGroup, stop: asyncio.Event, processes: Sequence[Supervised]) -> bool:
        """Start processes together and wait until all serve; False when `stop` came first."""
        group = [Keeper(process, self._clock, self._tell, self._publish, RestartPolicy()) for process in processes]
        self._groups.append(group)
        for keeper in group:
            tasks.create_task(keeper.run())
        for keeper in group:
            if not await keeper.until_ready(stop):
                return False
        return True

    async def _prepare_database(self) -> None:
        url = self._urls["FORESTAY_DATABASE_URL"]
        facts_url = self._urls["FORESTAY_FACTS_URL"]
        applied = [*await migrate(url, kind="main"), *await migrate(facts_url, kind="facts")]
        if applied:
            self._tell(Event("database.migrated", f"database: {len(applied)} migrations applied"))
        database = await Database.connect(
            url, pool_size=1, statement_timeout_seconds=15.0, application_name="forestay up"
        )
        try:
            peppers = Peppers(self._pepper(), self._settings.secrets.old_key_peppers.split())
            store = PostgresKeyStore(database, self._clock, self._chance, "up", peppers)
            await self._issue_first_keys(store, peppers)
        finally:
            await database.close()

    def _pepper(self) -> str:
        return self._settings.secrets.key_pepper or self._folder.secret("key-pepper", self._chance)

    async def _issue_first_keys(self, store: PostgresKeyStore, peppers: Peppers) -> None:
        """Make the keys of the first start; a restart finds them, and makes new ones only for an emptied database."""
        await store.create_tenant(PLATFORM_TENANT, "Default", actor="loop:up")
        for name, scopes in _FIRST_KEYS.items():
            known = self._folder.kept(name)
            if known and isinstance(await verify(store, known, self._clock.now(), peppers), Caller):
                self._keys[name] = known
                continue
            issued = await store.create(KeyRequest(PLATFORM_TENANT, f"first {name}", scopes), actor="loop:up")
            if issued is None:
                raise UsageError("tenant", f"{PLATFORM_TENANT} is gone from the database; create it again")
            self._folder.keep(name, issued.credential)
            self._keys[name] = issued.credential

    def _child_environment(self, tls: TlsFiles) -> dict[str, str]:
        secrets = self._settings.secrets
        return {
            **self._environment,
            **self._urls,
            "FORESTAY_INTERNAL_KEY": secrets.internal_key or self._folder.secret("internal-key", self._chance),
            "FORESTAY_TOKEN_KEY": secrets.token_key or self._folder.secret("token-key", self._chance),
            "FORESTAY_SIGNING_KEY_FILE": secrets.signing_key_file
            or str(self._folder.secrets / "webhook-signing-key.pem"),
            "FORESTAY_TLS_DIR": str(tls.certificate.parent),
            "FORESTAY_HOST": self._settings.gateway.host,
            "FORESTAY_SECRETS_DIR": self._settings.worker.secrets_dir or str(self._folder.model_secrets),
            "FORESTAY_JUDGE_SOCKET": self._judge_socket(),
            "FORESTAY_PROVENANCE_DIR": self._settings.safety.provenance_dir or str(self._folder.secrets / "provenance"),
            "FORESTAY_WATERMARK_KEY": self._settings.safety.watermark_key
            or self._folder.secret("watermark-key", self._chance),
        }

    def _judge_socket(self) -> str:
        """Return where the judge listens, and its clients look; empty where there is none."""
        chosen = self._settings.judge.socket
        return chosen or (str(socket_in(self._folder.judge)) if self._named("judge") else "")

    def _child(self, name: str, environment: Mapping[str, str]) -> ChildSpec:
        kind, _, number = name.partition("-")
        own: dict[str, str] = {}
        if kind != "gateway":
            environment = {key: value for key, value in environment.items() if key not in _FOR_GATEWAYS_ALONE}
        arguments: tuple[str, ...] = (kind,)
        sockets = {"metrics": self._listeners[f"metrics:{name}"]}
        if kind == "worker":
            own = {
                "FORESTAY_WORKER_ID": f"w{number}",
                "FORESTAY_WORK_DIR": str(self._folder.workers / f"w{number}"),
                "FORESTAY_DEVICES": str(self._plan.devices or environment.get("FORESTAY_DEVICES") or _CPU_SLOTS),
                "FORESTAY_WORKER_MEMORY_MB": str(self._settings.worker.memory_mb or self._memory_share_mb()),
            }
            pathlib.Path(own["FORESTAY_WORK_DIR"]).mkdir(exist_ok=True, mode=0o711)
        elif kind == "judge":
            environment = environment_of_judge(environment)
        elif kind == "controller":
            own = {"FORESTAY_PUBLIC_URL": self._settings.gateway.public_url or self._addresses()["url"]}
        else:
            own = {"FORESTAY_KEY_PEPPER": self._pepper()}
            arguments = (kind, "--server", self._plan.server)
            shared = {key: value for key, value in self._listeners.items() if ":" not in key}
            sockets |= {key: self._spreads.get(f"{key}:{name}", value) for key, value in shared.items()}
        return ChildSpec(
            name=name,
            arguments=arguments,
            environment={**environment, **own, "FORESTAY_DATABASE_POOL_SIZE": self._pool_size(kind)},
            log_file=self._folder.logs / f"{name}.log",
            work_dir=self._folder.root,
            listeners={key: value.fileno() for key, value in sockets.items()},
        )

    def _pool_size(self, kind: str) -> str:
        """Share the embedded server's connections out; a size set by the operator, or a server of theirs, wins."""
        configured = self._environment.get("FORESTAY_DATABASE_POOL_SIZE", "")
        if configured or self._settings.storage.database_url:
            return configured
        share = {
            "gateway": _GATEWAY_CONNECTIONS // self._plan.gateways,
            "worker": _WORKER_CONNECTIONS // self._plan.workers - 1,  # one more keeps the leases
        }
        return str(max(2, min(self._settings.storage.pool_size, share.get(kind, _CONTROLLER_CONNECTIONS))))

    def _memory_share_mb(self) -> int:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1024 * 1024)
        return int(total * _WORKER_MEMORY_SHARE / self._plan.workers)

    def _named(self, kind: str) -> list[str]:
        return [name for name in self._process_names() if name.startswith(f"{kind}-")]

    def _ready(self) -> Ready:
        addresses = self._addresses()
        metrics = {
            name.partition(":")[2]: f"http://{_reachable(listener)}/metrics"
            for name, listener in self._listeners.items()
            if name.startswith("metrics:")
        }
        return Ready(
            **addresses,
            ca_file=str(self._folder.tls / "ca.pem"),
            api_key=self._keys["api-key"],
            admin_key=self._keys["admin-key"],
            metrics_url=metrics["gateway-1"],
            metrics_urls=metrics,
            database_url=self._urls["FORESTAY_DATABASE_URL"],
            valkey_url=self._urls["FORESTAY_VALKEY_URL"],
            object_store=self._urls["FORESTAY_OBJECT_STORE"],
            data_dir=str(self._folder.root),
            pids=self._pids(),
        )

    def _pids(self) -> dict[str, int]:
        known = {keeper.process.name: keeper.process.pid for group in self._groups for keeper in group}
        return {"supervisor": os.getpid(), **{name: pid for name, pid in known.items() if pid is not None}}

    def _publish(self) -> None:
        """Write the ready file, once everything was up; again whenever a process has a new pid."""
        if self._published and self._plan.ready_file is not None:
            write_private(self._plan.ready_file, json.dumps(dataclasses.asdict(self._ready()), indent=2) + "\n")

    def _progress(self, line: str) -> None:
        self._tell(Event("fleet.loading", line))

    async def _watch_logs(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            for folder in log_folders(self._folder):
                await asyncio.to_thread(cap_logs, folder, _LOG_LIMIT_BYTES)
            try:
                await asyncio.wait_for(stop.wait(), _LOG_LOOK_SECONDS)
            except TimeoutError:
                continue

    async def _end(self) -> None:
        """Stop gateways, then workers, then the controller, then the stores."""
        self._published = False
        if self._plan.ready_file is not None:
            self._plan.ready_file.unlink(missing_ok=True)
        self._tell(Event("platform.stopping", "stopping: gateways first, then workers finish what they run"))
        keepers = {keeper.process.name: keeper for group in self._groups for keeper in group}
        kinds = ("gateway-", "worker-", "controller", "judge-", "valkey", "postgres")
        await stop_in_order([[k for name, k in keepers.items() if name.startswith(kind)] for kind in kinds])
        self._tell(Event("platform.stopped", "stopped"))


def log_folders(folder: DataDir) -> list[pathlib.Path]:
    """Return where logs grow: those of our processes, and of the embedded servers, who append to theirs as well."""
    embedded = [folder.root / "postgres", folder.root / "valkey"]
    return [folder.logs, *(path for path in embedded if path.is_dir())]


def _port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


def _reachable(listener: socket.socket) -> str:
    """Return host:port by which this machine reaches the listener (a wildcard address by loopback)."""
    address = address_of(listener)
    for wildcard, loopback in (("0.0.0.0:", "127.0.0.1:"), ("[::]:", "[::1]:")):
        if address.startswith(wildcard):
            return loopback + address[len(wildcard) :]
    return address
