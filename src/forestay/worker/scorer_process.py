"""One scorer in a process of its own: confined like a model without a network, asked one batch after the other.

It decides nothing about scores. It decides what the process may have: its own folder and those that the operator named,
no network, no secret and no variable of ours, memory and processes up to a limit, and a time for each answer. Whatever
the process does, the caller gets a value: scores, or why there are none. What it prints is dropped, since prompts may
stand in it. Called by `scoring` and by `forestay quality scorers check`.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from forestay.fleet.spec import HostKind, HostSpec, ModelSpec, ResourceSpec
from forestay.ids import ModelId
from forestay.quality.scorers import program
from forestay.quality.scorers.decide import read_described, read_scores
from forestay.quality.scorers.file import ScorerEntry
from forestay.quality.scorers.model import Described, Failed, Item, Score, Trouble
from forestay.worker.hosts import privileges
from forestay.worker.hosts.child import Child, Launch
from forestay.worker.hosts.confinement import (
    SCRATCH,
    Confinement,
    Machine,
    Places,
    Unconfinable,
    choose_cpus,
    decide_confinement,
    interpreter_folders,
    launcher,
    private_ancestors,
    probe_machine,
)
from forestay.worker.hosts.fal_app import base_environment

PROGRAM = pathlib.Path(program.__file__)
PROCESSES = 256
CPUS = 1
END_SECONDS = 5.0
_INHERITED = frozenset({"LD_LIBRARY_PATH", "TZ"})
_MIB = 1024 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class ScorerPlace:
    """Where a scorer runs."""

    run_dir: pathlib.Path  # of its own; removed at the end
    environment: Mapping[str, str]  # the worker's: a few names of it pass
    hidden: tuple[pathlib.Path, ...] = ()  # folders that it shall not see
    allow_unisolated: bool = False
    machine: Machine | None = None  # None: it is probed at the start


class ScorerProcess:
    """One life of a scorer; one caller asks at a time."""

    def __init__(self, entry: ScorerEntry, place: ScorerPlace) -> None:
        self._entry = entry
        self._place = place
        self._child: Child | None = None
        self._uid: int | None = None
        self._heard: asyncio.Queue[Mapping[str, object] | None] = asyncio.Queue(maxsize=64)
        self._batch = 0
        self._described: Described | None = None

    @property
    def described(self) -> Described | None:
        """Return what it says of itself, once it is started."""
        return self._described

    async def start(self) -> Described | Failed:
        """Start it and hear what it is; Failed says what keeps it from starting."""
        python = self._entry.python or sys.executable
        try:
            await asyncio.to_thread(self._prepare)
            confinement = await self._confine(python)
            if isinstance(confinement, Failed):
                return confinement
            self._uid = confinement.uid
            privileges.own([path for path in (self._own, *self._own.iterdir()) if path.is_dir()], self._uid)
            self._child = Child(self._launch(python, confinement), self._on_control, _drop, self._on_end)
            await self._child.start()
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            return Failed(Trouble.NOT_STARTED, f"it cannot be started with {python}: {error}")
        told = await self._next(self._entry.startup_seconds)
        if isinstance(told, Failed):
            return dataclasses.replace(told, trouble=Trouble.NOT_STARTED) if told.trouble is Trouble.CRASH else told
        if told.get("event") != "ready":
            return Failed(Trouble.NOT_STARTED, str(told.get("reason", "it did not say that it is ready"))[:500])
        described = read_described(told, self._entry.scorer_id)
        self._described = described if isinstance(described, Described) else None
        return described

    async def score(self, items: Sequence[Item]) -> Sequence[Score] | Failed:
        """Return the scores of outputs, in order; after Failed the process is of no use any more."""
        if self._child is None or self._described is None:
            return Failed(Trouble.NOT_STARTED, "it was not started")
        self._batch += 1
        names = await asyncio.to_thread(self._write, items)
        asked = [{"path": name, "prompt": item.prompt} for name, item in zip(names, items, strict=True)]
        try:
            self._child.tell(json.dumps({"batch": self._batch, "items": asked}).encode())
            told = await self._next(self._entry.timeout_seconds)
        finally:
            await asyncio.to_thread(_remove, names)
        if isinstance(told, Failed):
            return told
        if told.get("event") == "failed":
            return Failed(Trouble.CRASH, f"it failed with {str(told.get('reason'))[:100]}")
        if told.get("event") != "scored" or told.get("batch") != self._batch:
            return Failed(Trouble.GARBAGE, "its answer is no answer to what it was asked")
        return read_scores(self._described, told.get("scores"), len(items))

    async def stop(self) -> None:
        """End it and remove its folder."""
        child, self._child = self._child, None
        try:
            if child is not None:
                child.kill()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(END_SECONDS):
                        await child.exited()
                child.close()
        finally:
            await asyncio.to_thread(shutil.rmtree, self._place.run_dir, ignore_errors=True)

    @property
    def _own(self) -> pathlib.Path:
        return self._place.run_dir / "scorer"

    @property
    def _items(self) -> pathlib.Path:
        return self._place.run_dir / "items"

    def _prepare(self) -> None:
        shutil.rmtree(self._place.run_dir, ignore_errors=True)
        self._place.run_dir.mkdir(parents=True, mode=0o711)
        self._items.mkdir(mode=0o711)  # ours: the scorer can put nothing into it
        self._own.mkdir(mode=0o700)
        for name in ("home", "tmp", "work"):
            (self._own / name).mkdir(mode=0o700)
        copy = self._place.run_dir / PROGRAM.name
        shutil.copyfile(PROGRAM, copy)
        copy.chmod(0o644)

    def _write(self, items: Sequence[Item]) -> list[str]:
        """Write files that the scorer alone may read."""
        names: list[str] = []
        for number, item in enumerate(items):
            path = self._items / f"{self._batch}-{number}"
            with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o400), "wb") as file:
                if self._uid is not None:
                    os.fchown(file.fileno(), self._uid, self._uid)
                file.write(item.data)
            names.append(str(path))
        return names

    async def _confine(self, python: str) -> Confinement | Failed:
        place, entry = self._place, self._entry
        machine = place.machine or await asyncio.to_thread(probe_machine)
        places = await asyncio.to_thread(self._places, python)
        name = f"scorer/{place.run_dir}"  # no other's user: all processes of it end with this one
        decided = decide_confinement(machine, _as_model(entry), name, places, allow_unisolated=place.allow_unisolated)
        if isinstance(decided, Unconfinable):
            words = "this machine cannot keep a process from the network: set FORESTAY_ALLOW_UNISOLATED=true"
            return Failed(Trouble.NOT_STARTED, words)
        if decided.uid is not None and entry.folder.stat().st_mode & 0o005 != 0o005:
            words = f"{entry.folder} is closed to the user that it gets: open it (chmod o+rx), and its files"
            return Failed(Trouble.NOT_STARTED, words)
        if decided.uid is None or decided.mounts:
            return decided
        readable = [place.run_dir / PROGRAM.name, entry.folder, *entry.reads]
        problem = await asyncio.to_thread(privileges.reach_problem, decided.uid, python, readable)
        if problem and not place.allow_unisolated:
            return Failed(Trouble.NOT_STARTED, f"it cannot have a user of its own: user {decided.uid} {problem}")
        return dataclasses.replace(decided, uid=None) if problem else decided

    def _places(self, python: str) -> Places:
        needed = [*interpreter_folders(python), *interpreter_folders(sys.executable), self._entry.folder]
        needed += self._entry.reads
        own = [self._place.run_dir]
        return Places(
            needed=tuple(path for path in needed if path.exists()),
            own=tuple(own),
            hidden=tuple(path for path in self._place.hidden if path.is_dir()),
            private=private_ancestors([*needed, *own]),
            scratch=tuple(pathlib.Path(path) for path in SCRATCH if os.path.isdir(path)),  # noqa: PTH112 - texts
        )

    def _launch(self, python: str, confinement: Confinement) -> Launch:
        entry = self._entry
        command = [python, str(self._place.run_dir / PROGRAM.name), "--scorer", entry.program]
        return Launch(
            command=[*command, "--root", str(entry.folder)],
            cwd=self._own / "work",
            environment=self._environment(python),
            uid=confinement.uid,
            memory_bytes=entry.memory_mb * _MIB,
            processes=PROCESSES,
            prefix=self._prefix(confinement),
        )

    def _prefix(self, confinement: Confinement) -> Callable[[int, int], list[str]] | None:
        if not sys.platform.startswith("linux"):
            return None
        cpus = choose_cpus(CPUS, sorted(os.sched_getaffinity(0)), confinement.uid or os.getpid())
        return launcher(confinement, self._own / "work", cpus)

    def _environment(self, python: str) -> dict[str, str]:
        """Return all that the process knows: nothing of ours, nothing of a model's."""
        kept = {name: value for name, value in self._place.environment.items() if name in _INHERITED}
        return {
            **base_environment(python),
            **kept,
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
            **dict.fromkeys(("USER", "LOGNAME"), "scorer"),
            "HOME": str(self._own / "home"),
            "TMPDIR": str(self._own / "tmp"),
            **self._entry.env,
            "CUDA_VISIBLE_DEVICES": self._entry.cuda_devices,
        }

    async def _next(self, seconds: float) -> Mapping[str, object] | Failed:
        """Return the next thing that it says."""
        try:
            async with asyncio.timeout(seconds):
                told = await self._heard.get()
        except TimeoutError:
            return Failed(Trouble.HANG, f"it gave no answer within {seconds:g} s")
        if told is not None:
            return told
        ended = await self._child.exited() if self._child is not None else None
        memory = ended is not None and ended.memory
        return Failed(Trouble.MEMORY if memory else Trouble.CRASH, f"its process {ended}")

    def _on_control(self, line: bytes) -> None:
        try:
            said: object = json.loads(line)
        except ValueError:
            said = None
        known = cast("Mapping[str, object]", said) if isinstance(said, dict) else {"event": "garbage"}
        with contextlib.suppress(asyncio.QueueFull):  # one that talks without being asked is not listened to
            self._heard.put_nowait(known)

    def _on_end(self) -> None:
        while self._heard.full():
            self._heard.get_nowait()
        self._heard.put_nowait(None)


def _as_model(entry: ScorerEntry) -> ModelSpec:
    """Return the model that a scorer is confined like: one without a network."""
    return ModelSpec(
        model_id=ModelId("forestay/scorer"),
        description="",
        owner_team="",
        owner_contact="",
        licence="",
        visibility="private",
        host=HostSpec(HostKind.FAL_APP, app=entry.program, python=entry.python, network="none"),
        endpoints=(),
        resources=ResourceSpec(pool="cpu", memory_mb=entry.memory_mb, processes=PROCESSES, cpus=CPUS),
    )


def _remove(names: Sequence[str]) -> None:
    for name in names:
        pathlib.Path(name).unlink(missing_ok=True)


def _drop(name: str, line: bytes) -> None:
    """Take a printed line, and keep nothing of it."""
    del name, line
