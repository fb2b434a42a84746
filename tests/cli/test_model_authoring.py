"""From an app's source to a spec that is good, with one command and one edit."""

import asyncio
import pathlib
import re
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
from tests.cli.broken_models import APP as GOOD_APP
from tests.cli.broken_models import SPECS
from tests.cli.conftest import Platform, Ran
from tests.conformance.fleet_values import worker_of

from forestay.fleet import spec_file
from forestay.fleet.app_source import read_app
from forestay.fleet.spec_template import Identity, render_spec

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
    asked = ("owner.team", "owner.contact", "owner.escalation", "licence", "intended_use")
    assert all(field in todo for field in asked)
    file = tmp_path / "model.yaml"
    marked = [line for line in file.read_text().splitlines() if "  # FILL" in line]
    assert len(marked) == len(asked)
    file.write_text(filled(file.read_text()))
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
    assert (spec.safety.policy, spec.quality.mode, len(spec.slos)) == ("standard", "enforce", 2)
    assert "image_url" in str(spec.endpoints[0].media_inputs)
    assert "mask_url" in str(spec.endpoints[0].media_inputs)


def filled(text: str) -> str:
    """A spec with an answer in every line that is marked for a person."""
    return re.sub(r'^( *)(\w+): ""  # FILL.*$', r"\1\2: answered", text, flags=re.MULTILINE)


def test_what_a_person_must_answer_for_is_marked_and_nothing_else_is_left() -> None:
    """A review accepts every other line; what fetches over the network is told, and stays without one."""
    text = render_spec(
        read_app(APP.replace("compute()", "Pipe.from_pretrained('a/b')"), "painter.py"), "painter.py", Identity()
    )
    spec = spec_file.parse(filled(text), "model.yaml")
    assert "its source says from_pretrained" in text
    assert spec.host.network == "none"
    with pytest.raises(spec_file.SpecError) as refused:
        spec_file.parse(text, "model.yaml")
    assert len(refused.value.faults) == text.count("# FILL")
    assert all("fill it in" in fault for fault in refused.value.faults)


async def test_a_wrong_spec_is_refused_with_its_field_and_what_to_write(
    forestay: Forestay, tmp_path: pathlib.Path
) -> None:
    """Every fault that people make, by line, so that an editor can jump there."""
    app_in(tmp_path, GOOD_APP).rename(tmp_path / "app.py")
    for case in SPECS:
        (tmp_path / "model.yaml").write_text(case.spec)
        ran = await forestay("model", "check", tmp_path / "model.yaml")
        assert (ran.status, case.field in ran.err, case.mend in ran.err) == (2, True, True), (case.name, ran.err)


async def test_onboarding_says_what_is_left_to_edit_and_ends_when_nobody_does(
    forestay: Forestay, tmp_path: pathlib.Path
) -> None:
    """The spec is there by then; run again the command goes on with it."""
    ran = await forestay("model", "onboard", app_in(tmp_path, GOOD_APP), "--edit-within", "0")
    assert ran.status == 2
    assert "needs you" in ran.err
    assert all(f"model.yaml:{line}: owner." in ran.err for line in (7, 8, 9))
    assert "run this again" in ran.err
    again = await forestay("model", "onboard", tmp_path / "painter.py", "--edit-within", "0")
    assert "is there: going on with it" in again.err


async def test_onboarding_goes_on_when_the_spec_is_saved(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """One command, one edit: whoever saves the file need not type anything again."""
    await platform.ports.fleet.report(worker_of(), [])
    spec = tmp_path / "model.yaml"

    async def edit() -> None:
        while not spec.exists() or not spec.read_text():  # noqa: ASYNC110 - another thread writes it
            await asyncio.sleep(0.01)
        spec.write_text(filled(spec.read_text()))

    async with asyncio.TaskGroup() as group:
        group.create_task(edit())
        ran = await forestay("model", "onboard", app_in(tmp_path, GOOD_APP), "--edit-within", "30")
    assert "is whole" in ran.err
    assert "sending 160 requests" in ran.err
    assert (ran.status, "HTTP 404" in ran.err, "--input" in ran.err) == (1, True, True)  # no callers' routes here


async def test_onboarding_ends_where_no_worker_can_ever_run_the_model(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """An app for a GPU on a laptop: its first request would wait for ten minutes, and nobody would know for what."""
    await platform.ports.fleet.report(worker_of(), [])
    app = app_in(tmp_path, GOOD_APP.replace('name="painter")', 'name="painter", machine_type="GPU-H100")'))
    words = ["--team", "t", "--contact", "c", "--escalation", "e", "--licence", "MIT", "--intended-use", "u"]
    await forestay("model", "init", app, *words)
    ran = await forestay("model", "onboard", tmp_path / "model.yaml", "--edit-within", "0")
    assert ran.status == 2
    assert "no worker is of its pool gpu" in ran.err
    assert (
        "there are workers of cpu: start one (FORESTAY_POOL=gpu forestay worker), or change resources.pool" in ran.err
    )


async def test_with_everything_said_nothing_is_left_to_do(forestay: Forestay, tmp_path: pathlib.Path) -> None:
    """And a file that is there is never written over."""
    words = ["--model", "acme/painter", "--team", "paint", "--contact", "p@example.com", "--licence", "MIT"]
    words += ["--escalation", "acme on call", "--intended-use", "pictures"]
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
