"""Puts faults into a running model and takes them out again: the part of a drill that runs in the model's process.

It decides nothing: the worker says which faults are to be in force, all of them each time. `hosts/shim` loads this file
and those beside it from a folder that exists only where the operator allows drills. It needs the standard library and
what the model brings. A fault that cannot be put in is told with its reason and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import pathlib
import queue
import sys
import threading
import typing

if typing.TYPE_CHECKING:
    from collections.abc import Callable, Sequence

IN_FORCE = ""
WAIT_SECONDS = 60.0  # for calls that run, before a fault is put in beside them
MAX_REASON_CHARS = 300
Faults = typing.Dict[str, typing.Any]  # noqa: UP006 - read by whatever Python the model has


class Live:
    """The faults of one process."""

    def __init__(
        self,
        faults: typing.Any,
        files: typing.Any,
        pipelines: Callable[[], list[typing.Any]],
        between_calls: Callable[[float], contextlib.AbstractContextManager[object]],
    ) -> None:
        """`pipelines` tells those that are alive; `between_calls` holds new calls back for the time of a block."""
        self._faults: Faults = {fault.name: fault for fault in faults.FAULTS}
        self._files: Faults = {fault.name: fault for fault in files.FILE_FAULTS}
        self._pipelines = pipelines
        self._between_calls = between_calls
        self._in_force: dict[str, contextlib.ExitStack] = {}
        self._lock = threading.Lock()

    def put(self, names: Sequence[str]) -> dict[str, str]:
        """Have these faults in force and no others; returns for each IN_FORCE or why it is not."""
        with self._lock:
            said = {name: IN_FORCE for name in names if name in self._in_force}
            if set(names) == set(self._in_force):
                return said
            with self._between_calls(WAIT_SECONDS):
                # Faults nest: one may only be taken out after those that were put in later.
                while set(self._in_force) - set(names):
                    self._in_force.popitem()[1].close()
                for name in names:
                    if name not in self._in_force:
                        said[name] = self._begin(name)
            return said

    def change_file(self, content: bytes, content_type: str) -> bytes:
        """Return a file as the faults in force make it."""
        for name in list(self._in_force):
            fault = self._files.get(name)
            if fault is not None and content_type.startswith(fault.kind):
                content = fault.change(content)
        return content

    def _begin(self, name: str) -> str:
        if name not in self._faults and name not in self._files:
            return "no fault of this name"
        stack = contextlib.ExitStack()
        try:
            if name in self._faults:
                fault = self._faults[name]
                found = self._concerned(each=fault.each)
                if not found:
                    return "this model has no diffusers pipeline to put it into"
                for pipe in found:
                    stack.enter_context(fault.inject(pipe))
        except Exception as error:  # noqa: BLE001 - any pipeline may lack what a fault changes
            stack.close()
            return f"{type(error).__name__}: {error}"[:MAX_REASON_CHARS]
        self._in_force[name] = stack
        return IN_FORCE

    def _concerned(self, *, each: bool) -> list[typing.Any]:
        """Return the pipelines that a fault goes into: every one, or of those that share networks the first."""
        found: list[typing.Any] = []
        for pipe in self._pipelines():
            shared = any(_network(pipe) is not None and _network(pipe) is _network(other) for other in found)
            if each or not shared:
                found.append(pipe)
        return found


def _network(pipe: typing.Any) -> object:
    return getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)


class Drills:
    """Obeys what the worker says, one line after another, once the app is there."""

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        self._live: Live | None = None
        self.in_force = False

    def order(self, line: bytes) -> None:
        """Take a line of the worker: `{"drills": [names]}`."""
        with contextlib.suppress(ValueError, TypeError, KeyError):
            self._orders.put([str(name) for name in json.loads(line)["drills"]])

    def start(self, probe: typing.Any, tell: Callable[..., None]) -> None:
        """Obey from now on; `probe` knows the pipelines, `tell` takes what became of each fault."""
        threading.Thread(target=self._obey, args=(probe, tell), daemon=True, name="forestay-drills").start()

    def change_file(self, content: bytes, content_type: str) -> bytes:
        """Return a file as the faults in force make it."""
        return content if self._live is None else self._live.change_file(content, content_type)

    def _obey(self, probe: typing.Any, tell: Callable[..., None]) -> None:
        folder = pathlib.Path(__file__).resolve().parent
        while True:
            names = self._orders.get()
            if self._live is None:
                faults, files = _module(folder, "faults"), _module(folder, "files")
                self._live = Live(faults, files, probe.pipelines, probe.between_calls)
            said = self._live.put(names)
            self.in_force = bool(said)
            tell(said=said)


def _module(folder: pathlib.Path, name: str) -> typing.Any:
    spec = importlib.util.spec_from_file_location(f"forestay_drills_{name}", folder / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ImportError(name)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
