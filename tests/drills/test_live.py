"""Faults in a running model: put in once, taken out in order, and nothing left of one that could not be put in."""

import contextlib
import types
from collections.abc import Generator
from typing import Any

from forestay.drills.live import Live

events: list[str] = []


def fault(name: str, *, each: bool = False, breaks: bool = False) -> Any:
    """Return one that writes down where it goes in and out."""

    @contextlib.contextmanager
    def inject(pipe: Any) -> Generator[None]:
        if breaks and pipe.name == "edit":
            raise ValueError("no scheduler")
        events.append(f"{name} into {pipe.name}")
        yield
        events.append(f"{name} out of {pipe.name}")

    return types.SimpleNamespace(name=name, inject=inject, each=each)


@contextlib.contextmanager
def between_calls(_seconds: float) -> Generator[None]:
    """Nothing runs here."""
    yield


def live(*faults: Any) -> Live:
    """Return a process with two pipelines that share their network."""
    events.clear()
    unet = object()
    pipes = [types.SimpleNamespace(name=name, unet=unet) for name in ("text", "edit")]
    silent = types.SimpleNamespace(name="silent", kind="audio/", change=lambda data: b"0" * len(data))
    return Live(
        types.SimpleNamespace(FAULTS=faults), types.SimpleNamespace(FILE_FAULTS=[silent]), lambda: pipes, between_calls
    )


def test_a_fault_of_a_shared_network_goes_in_once_and_one_of_the_pipeline_everywhere() -> None:
    """Twice on the same weights would be another fault."""
    there = live(fault("noise"), fault("steps", each=True))
    assert there.put(["noise", "steps"]) == {"noise": "", "steps": ""}
    assert events == ["noise into text", "steps into text", "steps into edit"]
    assert there.put(["noise", "steps"]) == {"noise": "", "steps": ""}
    assert len(events) == 3


def test_faults_are_taken_out_in_the_order_in_which_they_nest() -> None:
    """What was put in later comes out first, and goes in again when it is still wanted."""
    there = live(fault("first"), fault("second"))
    there.put(["first", "second"])
    events.clear()
    assert there.put(["second"]) == {"second": ""}
    assert events == ["second out of text", "first out of text", "second into text"]
    assert there.put([]) == {}
    assert events[-1] == "second out of text"


def test_a_fault_that_cannot_be_put_in_leaves_nothing_behind_and_says_why() -> None:
    """Not even in the pipeline that took it; the others go on."""
    there = live(fault("torn", each=True, breaks=True), fault("noise"))
    assert there.put(["torn", "noise", "no such"]) == {
        "torn": "ValueError: no scheduler",
        "noise": "",
        "no such": "no fault of this name",
    }
    assert events == ["torn into text", "torn out of text", "noise into text"]


def test_files_of_the_kind_alone_are_changed_while_the_fault_is_in_force() -> None:
    """Before, after, and for other kinds they go by as they are."""
    there = live()
    assert there.change_file(b"abc", "audio/wav") == b"abc"
    there.put(["silent"])
    assert there.change_file(b"abc", "audio/wav") == b"000"
    assert there.change_file(b"abc", "image/png") == b"abc"
    there.put([])
    assert there.change_file(b"abc", "audio/wav") == b"abc"
