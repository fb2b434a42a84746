"""Host example apps over real HTTP, each in a process of its own, and say when each one listens.

Run as a program: the one argument is JSON,
`{"preload": [modules], "apps": [{"name", "file", "class", "folder"}], "ready_fd": number}`.
Heavy modules are imported once, before forking. Each app is hosted as an ASGI app with its own `setup()` and
`teardown()`; the toolkit's uploads go to files in the app's folder. When an app listens, a line `name port` is written
to `ready_fd`. Each line of the input, `{"name", "code", "arguments", "variables", "folder"}`, is a script to run in a
child of its own, with the same modules loaded; at its end a line `name exit_code` is written.
"""

import importlib
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fal.ref
import uvicorn
from fal.toolkit.file import file as toolkit_file
from fal.toolkit.file.types import FileData, FileRepository


class FolderRepository(FileRepository):
    """Keep uploads as files of one folder."""

    folder = Path()

    def save(self, data: FileData, *_: Any, **__: Any) -> str:
        """Write the bytes and return where they are."""
        path = self.folder / data.file_name
        path.write_bytes(data.data)
        return path.as_uri()


class ReadyServer(uvicorn.Server):
    """A server that tells its parent which port it listens on."""

    name = ""
    ready_fd = 0

    async def startup(self, sockets: Any = None) -> None:
        """Start, then write one line."""
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            os.write(self.ready_fd, f"{self.name} {port}\n".encode())


def serve(asked: dict[str, Any], ready_fd: int) -> None:
    """Load one app from its file and serve it until told to stop."""
    FolderRepository.folder = Path(asked["folder"])
    for repository in ("fal_v3", "fal"):
        toolkit_file.BUILT_IN_REPOSITORIES[repository] = FolderRepository
    sys.dont_write_bytecode = True  # as the platform does: an app's folder stays as its owner left it
    spec = importlib.util.spec_from_file_location(f"example_{asked['name']}", asked["file"])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    app = getattr(module, asked["class"])(_allow_init=True)
    fal.ref.set_current_app(app)
    config = uvicorn.Config(app._build_app(), host="127.0.0.1", port=0, lifespan="on", log_level="warning")
    server = ReadyServer(config)
    server.name, server.ready_fd = asked["name"], ready_fd
    server.run()


def run_script(asked: dict[str, Any], ready_fd: int) -> None:
    """Run a script to its end as a program of its own would be, and tell how it ended."""
    os.environ.update(asked["variables"])  # noqa: TID251 - the script's own environment
    sys.argv = [asked["name"], *asked["arguments"]]
    code = 0
    try:
        exec(compile(asked["code"], asked["name"], "exec"), {"__name__": "__main__"})  # noqa: S102 - a test's own script
    except BaseException:  # noqa: BLE001 - also what asks the process to end: the caller waits for one line
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(ready_fd, f"{asked['name']} {code}\n".encode())


def in_a_child(action: Callable[[dict[str, Any], int], None], asked: dict[str, Any], ready_fd: int) -> None:
    """Fork, and do it there, with all output in the log of its folder."""
    if os.fork() == 0:
        log = os.open(Path(asked["folder"]) / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        action(asked, ready_fd)
        os._exit(0)


def main() -> None:
    """Fork one process for each app, one for each script that is asked for, and wait for all of them."""
    asked = json.loads(sys.argv[1])
    for module in asked["preload"]:
        importlib.import_module(module)
    for app in asked["apps"]:
        in_a_child(serve, app, asked["ready_fd"])
    for line in sys.stdin:
        in_a_child(run_script, json.loads(line), asked["ready_fd"])
    os.close(asked["ready_fd"])
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


if __name__ == "__main__":
    main()
