"""Serves one `fal.App` on a unix socket: the program that a worker starts for every `fal_app` replica.

It decides nothing. It needs the standard library and what a fal.App brings, nothing of Forestay, because it runs under
the model's own interpreter; the worker copies this one file. What it does: leave rights and environment behind, load
the class, hand toolkit files to the worker, serve the ASGI app, say which request wrote which line, and obey SIGTERM.

    python shim.py --app FILE::CLASS --root FOLDER --socket app.sock --media media.sock --control-fd N --parent PID
    python shim.py --describe FILE::CLASS --root FOLDER       prints openapi and host settings, setup() is not run

The control fd is a socket. Towards the worker: one JSON object a line, `{"event": "ready" | "failed" | "log", ...}`.
From the worker: `{"drills": [...]}`, the faults that are to be in force (only where the operator allows drills; then
`--drills` names the folder with them). Its end means that the worker is gone, and then the whole process group ends.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import contextlib
import contextvars
import ctypes
import dataclasses
import functools
import http.client
import importlib
import importlib.util
import inspect
import io
import json
import logging
import os
import pathlib
import resource
import signal
import socket
import sys
import threading
import traceback
import typing
import urllib.parse

MAX_LINE_CHARS = 65_536  # a longer line is cut into lines of this size
MAX_REASON_CHARS = 20_000
REQUEST_HEADER = b"x-fal-request-id"
PROBE_HEADER = b"x-forestay-probe"  # of an answer: what the probes saw, for the worker; of a call: read weights again
PACKAGE_LIST = (
    "[debug] Python packages installed:"  # the SDK prints every installed package once: of no use to a caller
)

Scope = typing.MutableMapping[str, typing.Any]
Message = typing.MutableMapping[str, typing.Any]
Receive = typing.Callable[[], typing.Awaitable[Message]]
Send = typing.Callable[[Message], typing.Awaitable[None]]
Asgi = typing.Callable[[Scope, Receive, Send], typing.Awaitable[None]]

current_request: contextvars.ContextVar[str | None] = contextvars.ContextVar("forestay_request", default=None)


# Rights ------------------------------------------------------------------------------------------------------------


class _CapHeader(ctypes.Structure):
    _fields_: typing.ClassVar = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapData(ctypes.Structure):
    _fields_: typing.ClassVar = [
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    ]


def leave_rights_behind(parent: int) -> None:
    """Die with the parent, never gain rights, drop every capability, leave no core dump, be first when memory ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    set_parent_death_signal, set_no_new_privileges, drop_from_bounding_set = 1, 38, 24  # linux/prctl.h
    libc.prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
    if parent and os.getppid() != parent:
        os._exit(1)  # the worker died before the line above: nobody would ever end this process
    libc.prctl(set_no_new_privileges, 1, 0, 0, 0)
    for capability in range(64):
        libc.prctl(drop_from_bounding_set, capability, 0, 0, 0)
    header = _CapHeader(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3: two data blocks
    libc.capset(ctypes.byref(header), (_CapData * 2)())
    with contextlib.suppress(OSError):  # some containers forbid it; the memory watch of the worker still stands
        pathlib.Path("/proc/self/oom_score_adj").write_text("1000")


def follow_the_worker(control: socket.socket, on_line: typing.Callable[[bytes], None]) -> None:
    """Read the control socket's lines; at its end kill the whole process group (where no pdeathsig reaches)."""
    waiting = b""
    while True:
        try:
            piece = control.recv(4096)
        except OSError:
            piece = b""
        if not piece:
            break
        *lines, waiting = (waiting + piece).split(b"\n")
        waiting = waiting[:MAX_LINE_CHARS]
        for line in lines:
            on_line(line)
    os.killpg(0, signal.SIGKILL)


# Lines -------------------------------------------------------------------------------------------------------------


class Control:
    """The way to the worker: whole JSON lines, from any thread."""

    def __init__(self, connection: socket.socket, shortened: typing.Callable[[str], str]) -> None:
        self._connection, self._shortened = connection, shortened
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def send(self, **message: object) -> None:
        """Send one object; a gone worker is noticed elsewhere."""
        data = json.dumps(message, default=str).encode() + b"\n"
        if os.getpid() != self._pid:  # a forked child: the lock may have been held while it was forked
            self._lock, self._pid = threading.Lock(), os.getpid()
        with self._lock, contextlib.suppress(OSError):
            self._connection.sendall(data)

    def log(self, level: str, text: str, request: str | None) -> None:
        """Send one line of a request, or of nobody, in pieces if it is very long."""
        if text.startswith(PACKAGE_LIST):
            return
        text = self._shortened(text)
        for start in range(0, max(len(text), 1), MAX_LINE_CHARS):
            self.send(event="log", request=request, level=level, message=text[start : start + MAX_LINE_CHARS])


class _RawBytes(io.RawIOBase):
    """`sys.stdout.buffer`: bytes written around the text layer go to the real descriptor, unattributed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: typing.Any) -> int:
        return os.write(self._descriptor, data)


class AttributedStream(io.TextIOBase):
    """Stands in for sys.stdout or sys.stderr: every finished line goes to the worker with the request that wrote it."""

    encoding = "utf-8"  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]
    errors = "backslashreplace"  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]

    def __init__(self, control: Control, level: str, descriptor: int) -> None:
        self._control = control
        self._level = level
        self._partial: dict[str | None, str] = {}
        self._lock = threading.RLock()
        self._descriptor = descriptor
        self.buffer = io.BufferedWriter(_RawBytes(descriptor))

    def fileno(self) -> int:
        """Return the real descriptor, for libraries that write around Python."""
        return self._descriptor

    def writable(self) -> bool:
        """Say yes."""
        return True

    def write(self, text: str) -> int:
        """Keep the tail until its line is whole."""
        request = current_request.get()
        with self._lock:
            *lines, rest = (self._partial.pop(request, "") + str(text)).split("\n")
            if len(rest) > MAX_LINE_CHARS:
                lines, rest = [*lines, rest], ""
            if rest:
                self._partial[request] = rest
        for line in lines:
            self._control.log(self._level, line, request)
        return len(text)

    def flush(self) -> None:
        """Nothing waits but unfinished lines, which stay until they are whole or their request ends."""

    def end_request(self, request: str | None) -> None:
        """Send what a request left without an end of line."""
        with self._lock:
            rest = self._partial.pop(request, "")
        if rest:
            self._control.log(self._level, rest, request)


def attribute_output(control: Control) -> list[AttributedStream]:
    """Put our streams in place of stdout and stderr, give log records their level, and let threads inherit requests."""
    out, err = AttributedStream(control, "STDOUT", 1), AttributedStream(control, "STDERR", 2)
    sys.stdout, sys.stderr = typing.cast("typing.Any", out), typing.cast("typing.Any", err)
    _give_log_records_their_level(control)
    _let_threads_inherit()
    return [out, err]


def _give_log_records_their_level(control: Control) -> None:
    plain_emit = typing.cast("typing.Callable[..., None]", logging.StreamHandler.emit)  # pyright: ignore[reportUnknownMemberType]

    def emit(self: logging.StreamHandler[typing.Any], record: logging.LogRecord) -> None:
        if not isinstance(self.stream, AttributedStream):
            plain_emit(self, record)
            return
        try:
            level = "WARN" if record.levelname == "WARNING" else record.levelname
            level = "ERROR" if level == "CRITICAL" else level
            for line in self.format(record).split("\n"):
                control.log(level, line, current_request.get())
        except Exception:  # noqa: BLE001 - logging's own rule: a record that cannot be written is reported, never raised
            self.handleError(record)

    logging.StreamHandler.emit = emit


def _let_threads_inherit() -> None:
    """A thread, and a piece of work given to a thread pool, belongs to the request that started it."""
    plain_start = threading.Thread.start
    plain_submit = concurrent.futures.ThreadPoolExecutor.submit

    def start(self: threading.Thread) -> None:
        request, run = current_request.get(), self.run

        def run_for_request() -> None:
            current_request.set(request)
            run()

        if request is not None:
            self.run = run_for_request
        plain_start(self)

    def submit(
        self: concurrent.futures.ThreadPoolExecutor,
        function: typing.Callable[..., typing.Any],
        /,
        *args: typing.Any,
        **kwargs: typing.Any,
    ) -> concurrent.futures.Future[typing.Any]:
        request = current_request.get()

        def call_for_request() -> typing.Any:
            token = current_request.set(request)
            try:
                return function(*args, **kwargs)
            finally:
                current_request.reset(token)

        return plain_submit(self, call_for_request)

    threading.Thread.start = start
    concurrent.futures.ThreadPoolExecutor.submit = submit  # pyright: ignore[reportAttributeAccessIssue]


# Files -------------------------------------------------------------------------------------------------------------


class UploadFailed(Exception):
    """The worker refused or lost a file; trying another repository would not help."""

    falls_back = False


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("forestay", timeout=300)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def send_file(
    media_socket: str, content: bytes | typing.BinaryIO, size: int, name: str, content_type: str, lifecycle: object
) -> str:
    """Hand bytes to the worker in the name of the request being handled; returns the URL to put into the answer."""
    headers = {
        "Content-Type": content_type,
        "Content-Length": str(size),
        "X-Fal-File-Name": urllib.parse.quote(name),
        "X-Fal-Request-Id": current_request.get() or "",
    }
    if lifecycle:
        headers["X-Fal-Object-Lifecycle-Preference"] = json.dumps(lifecycle)
    connection = _UnixConnection(media_socket)
    try:
        connection.request("POST", "/media", body=content, headers=headers)
        response = connection.getresponse()
        answer = response.read(65_536)
    except OSError as error:
        message = f"file {name!r} could not be handed to the platform: {error}"
        raise UploadFailed(message) from error
    finally:
        connection.close()
    if response.status == 424:  # the caller's own bucket: fal's answer to it is the caller's, not a fault of the app
        raise _caller_error(answer)
    if response.status != 200:
        message = f"file {name!r} was refused by the platform: {answer.decode(errors='replace')[:500]}"
        raise UploadFailed(message)
    return str(json.loads(answer)["url"])


def _caller_error(answer: bytes) -> Exception:
    error = importlib.import_module("fal.exceptions").AppException(str(json.loads(answer)["detail"]), 424)
    error.falls_back = False  # trying another repository would put the file where the caller did not want it
    return typing.cast("Exception", error)


def redirect_toolkit_files(media_socket: str, drills: typing.Any) -> None:
    """Replace the fal toolkit's own repositories (those that upload to fal) by one that hands bytes to the worker.

    `drills` may put faults into files; None where the operator allows none.
    """
    toolkit = importlib.import_module("fal.toolkit.file.file")
    types = importlib.import_module("fal.toolkit.file.types")

    class WorkerRepository(types.FileRepository):
        """Saves through the worker; takes the arguments of the SDK's own repositories."""

        def save(self, data: typing.Any, *_: object, **options: object) -> str:
            lifecycle = options.get("object_lifecycle_preference")
            content = bytes(data.data)
            if drills is not None:
                content = drills.change_file(content, str(data.content_type))
            return send_file(media_socket, content, len(content), data.file_name, data.content_type, lifecycle)

        def save_file(
            self, file_path: str | pathlib.Path, content_type: str, *_: object, **options: object
        ) -> tuple[str, None]:
            path = pathlib.Path(file_path)
            lifecycle = options.get("object_lifecycle_preference")
            if drills is not None and drills.in_force:
                made = drills.change_file(path.read_bytes(), content_type)
                return send_file(media_socket, made, len(made), path.name, content_type, lifecycle), None
            with path.open("rb") as content:
                size = path.stat().st_size
                return send_file(media_socket, content, size, path.name, content_type, lifecycle), None

    for name in ("fal", "fal_v3"):
        toolkit.BUILT_IN_REPOSITORIES[name] = WorkerRepository


# The app -----------------------------------------------------------------------------------------------------------


def load_class(target: str, root: pathlib.Path) -> typing.Any:
    """Load `file.py::Class` or `package.module::Class`; without a class, the only fal.App of the module."""
    source, _, name = target.partition("::")
    sys.path.insert(0, str(root))
    if source.endswith(".py"):
        path = (root / source).resolve()
        sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            message = f"{source} is no Python file"
            raise ImportError(message)
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module  # so that pickling and type hints find the classes again
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(source)
    if name:
        return getattr(module, name)
    base = importlib.import_module("fal").App
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        message = f"{source} has {len(found)} fal.App classes; name one: {source}::Class"
        raise ImportError(message)
    return found[0]


def host_settings(app_class: typing.Any) -> dict[str, object]:
    """Read what the class says about how it wants to be run, as JSON values."""
    settings: dict[str, object] = dict(app_class.host_kwargs)
    health: typing.Any = settings.pop("health_check_config", None)
    settings["health_check"] = dataclasses.asdict(health) if dataclasses.is_dataclass(health) else None  # pyright: ignore[reportArgumentType]
    settings["app_name"] = getattr(app_class, "app_name", None)
    settings["app_auth"] = getattr(app_class, "app_auth", None)
    settings["endpoints"] = [
        {"path": signature.path, "websocket": bool(signature.is_websocket)}
        for _, function in inspect.getmembers(app_class, inspect.isfunction)
        if (signature := getattr(function, "route_signature", None)) is not None
    ]
    return typing.cast("dict[str, object]", json.loads(json.dumps(settings, default=str)))


def read_hints(app: typing.Any) -> list[str]:
    """Ask the app what is warm in it; most apps say nothing."""
    try:
        return [str(hint) for hint in app.provide_hints()]
    except NotImplementedError:
        return []
    except Exception:
        logging.getLogger("forestay.shim").exception("provide_hints() failed")
        return []


class _Answer:
    """Notes whether an HTTP answer has been sent to its end, and sends unfinished lines before that end."""

    def __init__(self, send: Send, before_end: typing.Callable[[], None], report: typing.Callable[[], str]) -> None:
        self._send = send
        self._before_end = before_end
        self._report = report
        self.whole = False

    async def send(self, message: Message) -> None:
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if last or message["type"] == "http.response.start":  # a short answer may be whole before its last message
            self._before_end()
        if message["type"] == "http.response.start" and (seen := self._report()):
            message = {**message, "headers": [*message.get("headers", ()), (PROBE_HEADER, seen.encode())]}
        await self._send(message)
        self.whole = self.whole or last


class Attribution:
    """ASGI around the app: names the request in the context, and reports why a start failed."""

    def __init__(self, app: Asgi, streams: list[AttributedStream], probe: typing.Any) -> None:
        self._app = app
        self._streams = streams
        self._probe = probe
        self.startup_failure = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one connection (or the lifespan) of the app."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, self._watch(send))
            return
        request = next((value.decode("latin-1") for name, value in scope["headers"] if name == REQUEST_HEADER), None)
        token = current_request.set(request)

        def end_lines() -> None:
            for stream in self._streams:
                stream.end_request(request)

        weights = any(name == PROBE_HEADER for name, _ in scope["headers"])
        answer = _Answer(send, end_lines, lambda: self._probe.take(request, weights=weights))
        try:
            await self._app(scope, receive, answer.send)
        except Exception:
            # Starlette raises once more what the SDK has answered (500, 503) and printed already; the server would
            # print it again and close the connection. A broken stream, on the other hand, must break.
            if not answer.whole:
                raise
        finally:
            end_lines()
            self._probe.forget(request)
            current_request.reset(token)

    def _watch(self, send: Send) -> Send:
        async def watched(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                self.startup_failure = str(message.get("message", ""))
            await send(message)

        return watched


def load_beside(name: str, path: pathlib.Path) -> typing.Any:
    """Load a file of ours under the name by which an app may import it."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(str(path))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def serve(arguments: argparse.Namespace, control: Control, streams: list[AttributedStream], drills: typing.Any) -> int:
    """Load the app, serve it until SIGTERM, and return the exit code."""
    import uvicorn  # noqa: PLC0415 - comes with the fal SDK; --describe and failures above need no server

    probe = load_beside("forestay_probe", pathlib.Path(__file__).with_name("probe.py"))
    app_class = load_class(arguments.app, pathlib.Path(arguments.root))
    redirect_toolkit_files(arguments.media, drills)
    app = app_class(_allow_init=True)
    importlib.import_module("fal.ref").set_current_app(app)
    asgi = app._build_app()  # noqa: SLF001 - the SDK has no public name for it; a test pins it
    wrapped = Attribution(asgi, streams, probe)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            try:
                await super().startup(sockets)
            except SystemExit:
                control.send(event="failed", reason=wrapped.startup_failure[-MAX_REASON_CHARS:] or "setup() failed")
                raise
            probe.watch(current_request.get)
            probe.find_pipelines(app)
            openapi, settings = asgi.openapi(), host_settings(app_class)
            if drills is not None:
                drills.start(probe, functools.partial(control.send, event="drills"))
            control.send(event="ready", openapi=openapi, settings=settings, hints=read_hints(app))

        def handle_exit(self, sig: int, frame: typing.Any) -> None:
            try:
                app.handle_exit()
            except Exception:
                logging.getLogger("forestay.shim").exception("handle_exit() failed")
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        typing.cast("typing.Any", wrapped),
        uds=arguments.socket,
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_keep_alive=300,
        h11_max_incomplete_event_size=1024 * 1024,
        ws_max_size=64 * 1024 * 1024,
    )
    # uvicorn raises the signal again when it is done; with this it then ends as a normal exit.
    signal.signal(signal.SIGTERM, _go_on)
    asyncio.run(Server(config).serve())
    return 0


def _go_on(_signal: int, _frame: object) -> None:
    """Take a signal without acting on it."""


def describe(target: str, root: str, answer: typing.TextIO) -> int:
    """Print openapi and host settings as one JSON object, without running setup()."""
    app_class = load_class(target, pathlib.Path(root))
    app = app_class(_allow_init=True)
    json.dump({"openapi": app.openapi(), "settings": host_settings(app_class)}, answer, default=str)
    answer.write("\n")
    answer.flush()
    return 0


def _describe_on_clean_stdout(target: str, root: str) -> int:
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the model prints while it loads must not mix with the answer
    try:
        return describe(target, root, answer)
    except Exception:  # noqa: BLE001 - whatever the model's module raises becomes the reason
        traceback.print_exc()
        return 1


def main(argv: list[str]) -> int:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description="Serve one fal.App for a Forestay worker.")
    for option in ("--app", "--describe", "--root", "--socket", "--media", "--drills"):
        parser.add_argument(option, default="")
    for option in ("--control-fd", "--parent"):
        parser.add_argument(option, type=int, default=0)
    arguments = parser.parse_args(argv)
    own_folder = str(pathlib.Path(__file__).resolve().parent)
    sys.path[:] = [entry for entry in sys.path if entry and os.path.realpath(entry) != own_folder]
    os.environ["IS_ISOLATE_AGENT"] = "1"  # noqa: TID251 - a program of its own; the SDK makes an App only with it
    leave_rights_behind(arguments.parent)
    if arguments.describe:
        return _describe_on_clean_stdout(arguments.describe, arguments.root)
    connection = socket.socket(fileno=arguments.control_fd)
    connection.set_inheritable(False)
    data_uris = load_beside("forestay_data_uris", pathlib.Path(__file__).with_name("data_uris.py"))
    data_uris.teach()
    control = Control(connection, data_uris.shortened)
    drills = None
    if arguments.drills:
        drills = load_beside("forestay_drills", pathlib.Path(arguments.drills) / "live.py").Drills()
    obey: typing.Callable[[bytes], None] = (lambda _line: None) if drills is None else drills.order
    follow = (connection, obey)
    threading.Thread(target=follow_the_worker, args=follow, daemon=True, name="forestay-worker-watch").start()
    streams = attribute_output(control)
    try:
        return serve(arguments, control, streams, drills)
    except Exception:  # noqa: BLE001 - whatever the model's module raises becomes the reason
        control.send(event="failed", reason=traceback.format_exc()[-MAX_REASON_CHARS:])
        return 1


if __name__ == "__main__":
    code = main(sys.argv[1:])
    for current in threading.enumerate():
        if current is not threading.current_thread() and not current.daemon:
            os._exit(code)  # a model's forgotten thread must not keep the replica alive after teardown
    sys.exit(code)
