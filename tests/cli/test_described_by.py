"""An app whose packages Forestay's own interpreter has not: its interface is read by one that has them."""

import pathlib
import sys

import pytest

from forestay.cli.deploying import DeployFailed, describe, read_candidate

APP = """import only_elsewhere
import fal
from pydantic import BaseModel

class Input(BaseModel):
    prompt: str

class Painter(fal.App):
    @fal.endpoint("/")
    def paint(self, input: Input) -> dict: ...
"""
SPEC = """version: 0
model: acme/painter
description: Paints.
owner: {team: t, contact: c@example.com}
licence: MIT
host: {kind: fal_app, app: app.py::Painter, requirements: [only-elsewhere]}
endpoints: [{path: /}]
"""


def test_an_interpreter_of_this_machine_reads_the_interface_of_an_app(tmp_path: pathlib.Path) -> None:
    """Without one a deploy goes on unchecked and says so, and onboarding, which makes inputs from it, ends."""
    model, packages = tmp_path / "model", tmp_path / "packages"
    model.mkdir()
    packages.mkdir()
    (packages / "only_elsewhere.py").touch()
    (model / "app.py").write_text(APP)
    spec = model / "model.yaml"
    spec.write_text(SPEC)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    told: list[str] = []
    assert describe(read_candidate(spec), told.append) is None
    assert "No module named 'only_elsewhere'; --python names an interpreter" in told[-1]
    with pytest.raises(DeployFailed, match=r"host.requirements.*--python"):
        describe(read_candidate(spec, must_describe=True), told.append)
    found = describe(read_candidate(spec, python=str(python), must_describe=True), told.append)
    assert found is not None
    assert "/" in str(found["paths"])
