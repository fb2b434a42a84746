"""From an app's source to a spec that is good, with one command and one edit."""

import pathlib
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
from tests.cli.conftest import Ran

from forestay.fleet import spec_file

Forestay = Callable[..., Awaitable[Ran]]
ROOT = pathlib.Path(__file__).resolve().parents[2]
APP = '''"""Paints."""
import fal
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

class Input(BaseModel):
    prompt: str
    image_url: str
    mask_url: str | None = None

class Painter(fal.App, name="painter", max_multiplexing=2):
    """Paints over pictures."""
    requirements = ["torch==2.13.0", "pillow"]
    num_gpus = 1
    startup_timeout = 300
    machine_type = compute()

    @fal.endpoint("/")
    def paint(self, input: Input) -> dict: ...

    @fal.endpoint("/stream")
    async def watch(self, input: Input) -> StreamingResponse: ...

    @fal.realtime("/live")
    def live(self, text: str) -> dict: ...
'''


def app_in(folder: pathlib.Path, text: str = APP) -> pathlib.Path:
    """Write an app's file."""
    (folder / "painter.py").write_text(text)
    return folder / "painter.py"


async def test_one_command_and_one_edit_make_a_good_spec(forestay: Forestay, tmp_path: pathlib.Path) -> None:
    """What the source says is filled in without running it; what a person answers for is asked by line and field."""
    made = await forestay("model", "init", app_in(tmp_path), "--json")
    todo = "\n".join(cast("list[str]", made.json()["to_do"]))
    assert all(field in todo for field in ("owner.team", "owner.contact", "licence"))
    file = tmp_path / "model.yaml"
    edited = file.read_text().replace('{team: "", contact: ""}', "{team: paint, contact: paint@example.com}")
    file.write_text(edited.replace('licence: ""', "licence: Apache-2.0"))
    checked = await forestay("model", "check", file)
    assert checked.status == 0, checked.err
    spec = spec_file.parse(file.read_text(), "model.yaml")
    assert (spec.host.app, spec.host.requirements) == ("painter.py::Painter", ("torch==2.13.0", "pillow"))
    assert [(item.path, item.kind) for item in spec.endpoints] == [
        ("/", "call"),
        ("/stream", "stream"),
        ("/live", "realtime"),
    ]
    assert (spec.resources.pool, spec.resources.devices) == ("gpu", 1)
    assert (spec.limits.max_multiplexing, spec.limits.startup_timeout_seconds) == (2, 300)
    assert "image_url" in str(spec.endpoints[0].media_inputs)
    assert "mask_url" in str(spec.endpoints[0].media_inputs)


async def test_with_everything_said_nothing_is_left_to_do(forestay: Forestay, tmp_path: pathlib.Path) -> None:
    """And a file that is there is never written over."""
    words = ("--model", "acme/painter", "--team", "paint", "--contact", "p@example.com", "--licence", "MIT")
    made = await forestay("model", "init", app_in(tmp_path), *words)
    assert made.status == 0
    assert "to do" not in made.out
    again = await forestay("model", "init", tmp_path / "painter.py", *words)
    assert again.status == 2
    assert "is there already" in again.err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1\n", "holds no class"),
        ("class A(fal.App): pass\nclass B(fal.App): pass\n", "several apps"),
        ("class A(fal.App):\n    def f(self): ...\n", "no method under"),
        ("def (:\n", "no Python"),
    ],
)
async def test_what_is_no_app_is_told(forestay: Forestay, tmp_path: pathlib.Path, text: str, told: str) -> None:
    """With what to do about it."""
    ran = await forestay("model", "init", app_in(tmp_path, text))
    assert ran.status == 2
    assert told in ran.err


async def test_a_diff_names_each_field(forestay: Forestay, tmp_path: pathlib.Path) -> None:
    """Only what differs, by its name in the file."""
    first, second = ROOT / "examples/digits/model.yaml", tmp_path / "other.yaml"
    second.write_text(first.read_text().replace("memory_mb: 1500", "memory_mb: 3000"))
    ran = await forestay("model", "diff", first, second, "--json")
    [change] = cast("list[dict[str, object]]", ran.json()["changes"])
    assert (change["field"], change["before"], change["after"]) == ("resources.memory_mb", 1500, 3000)
    assert "they say the same" in (await forestay("model", "diff", first, first)).out
