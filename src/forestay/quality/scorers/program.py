"""Runs one scorer: the program that a worker starts under the scorer's own interpreter.

It decides nothing. It needs the standard library and what the scorer imports, nothing of Forestay; the worker copies
this one file. What it does: die with the worker, load the class, let it set itself up, and answer batch after batch.

    python program.py --scorer FILE::CLASS --root FOLDER --control-fd N --parent PID

The control fd is a socket, one JSON object a line. To the worker: `{"event": "ready", "name", "version", "modality",
"scores"}`, then `{"event": "scored", "batch", "scores"}` for each batch, or `{"event": "failed", "reason"}`. From the
worker: `{"batch": 1, "items": [{"path", "prompt"}]}`. What fails while outputs are scored is told by the name of its
class alone: its words may hold a prompt.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import os
import pathlib
import signal
import socket
import sys
import typing

MAX_REASON_CHARS = 500


class Item:
    """One output: `path` is its file, `prompt` what was asked for, empty where there was no text."""

    def __init__(self, path: str, prompt: str) -> None:
        self.path = pathlib.Path(path)
        self.prompt = prompt


class Scorer(typing.Protocol):
    """What a scorer's class has; `setup()` is called once if there is one."""

    name: str
    version: int
    modality: str  # image | video | audio
    scores: dict[str, dict[str, typing.Any]]  # {"agreement": {"low": 0, "high": 1, "higher_is_better": True}}

    def score(self, items: list[Item]) -> list[dict[str, float] | None]:
        """Return the scores of each output, in order; None where it cannot say."""
        ...


def main() -> int:
    """Load, say so, answer until the worker is gone."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--scorer", required=True)
    parser.add_argument("--root", required=True)
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args()
    die_with(options.parent)
    control = socket.socket(fileno=options.control_fd)
    try:
        scorer = loaded(options.root, options.scorer)
        told = {"name": scorer.name, "version": scorer.version, "modality": scorer.modality, "scores": scorer.scores}
    except BaseException as error:  # noqa: BLE001 - whatever it is, the worker must hear of it
        say(control, {"event": "failed", "reason": f"{type(error).__name__}: {error}"[:MAX_REASON_CHARS]})
        return 1
    say(control, {"event": "ready", **told})
    with control.makefile("rb") as lines:
        for line in lines:
            say(control, answer(scorer, json.loads(line)))
    return 0


def loaded(root: str, name: str) -> Scorer:
    """Return the scorer, set up."""
    file, _, wanted = name.partition("::")
    sys.path.insert(0, root)
    found = importlib.util.spec_from_file_location(pathlib.Path(file).stem, pathlib.Path(root) / file)
    if found is None or found.loader is None:
        raise ImportError(f"{file} cannot be loaded")
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    scorer = getattr(module, wanted)()
    if hasattr(scorer, "setup"):
        scorer.setup()
    return typing.cast("Scorer", scorer)


def answer(scorer: Scorer, asked: dict[str, typing.Any]) -> dict[str, typing.Any]:
    """Return what the scorer says of a batch."""
    items = [Item(one["path"], one["prompt"]) for one in asked["items"]]
    try:
        scores = [None if row is None else plain(row) for row in scorer.score(items)]
    except Exception as error:  # noqa: BLE001 - it ends the batch, and the worker decides what follows
        return {"event": "failed", "reason": type(error).__name__}
    return {"event": "scored", "batch": asked["batch"], "scores": scores}


def plain(row: dict[str, typing.Any]) -> dict[str, float]:
    """Return scores as Python's own numbers: libraries give their own kinds."""
    return {str(name): float(value) for name, value in row.items()}


def say(control: socket.socket, message: dict[str, typing.Any]) -> None:
    """Send one line."""
    control.sendall(json.dumps(message).encode() + b"\n")


def die_with(parent: int) -> None:
    """Ask for a death signal at the worker's end; Linux only, elsewhere the end of the socket ends the loop."""
    if sys.platform.startswith("linux"):
        set_parent_death_signal = 1  # linux/prctl.h
        ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
