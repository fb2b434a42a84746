"""The specs say what the apps serve, and the committed weights are the ones that were trained."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import EXAMPLES, load_example

SPECS = sorted(EXAMPLES.glob("*/model.yaml"))
TRAINED = {"digits": 6_000_000, "tones": 2_000_000}
# Endpoints that the platform calls by itself are no part of a spec.
DESCRIBE = """
import importlib.util, json, os, sys
os.environ["IS_ISOLATE_AGENT"] = "1"
sys.dont_write_bytecode = True
answers = {}
for file, name in json.loads(sys.argv[1]):
    spec = importlib.util.spec_from_file_location("app_" + name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    app = getattr(module, name)
    kept = {key: app.host_kwargs.get(key) for key in
            ("max_multiplexing", "request_timeout", "startup_timeout", "termination_grace_period_seconds")}
    answers[name] = {"paths": app.get_endpoints(), **kept}
    heavy = {"torch", "diffusers", "transformers", "forestay"} & set(sys.modules)
    assert not heavy, (name, heavy)
print(json.dumps(answers))
"""


def spec_of(path: Path) -> dict[str, Any]:
    """Return a model spec."""
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    """What each app class says of itself, read in one fresh process that must stay free of heavy imports."""
    asked = [(str(path.parent / "app.py"), spec_of(path)["host"]["app"].partition("::")[2]) for path in SPECS]
    done = subprocess.run(
        [sys.executable, "-c", DESCRIBE, json.dumps(asked)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.parent.name)
def test_a_spec_lists_exactly_what_its_app_serves(path: Path, described: dict[str, Any]) -> None:
    """Every endpoint is in the spec, apart from the ones for cancelling, and nothing else is."""
    spec = spec_of(path)
    file, _, class_name = spec["host"]["app"].partition("::")
    assert (path.parent / file).is_file()
    served = {one for one in described[class_name]["paths"] if not one.endswith("/cancel")}
    assert {endpoint["path"] for endpoint in spec["endpoints"]} == served


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.parent.name)
def test_a_spec_and_its_app_agree_on_limits(path: Path, described: dict[str, Any]) -> None:
    """What the SDK would be told is what the spec says."""
    spec = spec_of(path)
    app = described[spec["host"]["app"].partition("::")[2]]
    assert spec["limits"] == {
        "max_multiplexing": app["max_multiplexing"],
        "request_timeout_seconds": app["request_timeout"],
        "startup_timeout_seconds": app["startup_timeout"],
        "termination_grace_seconds": app["termination_grace_period_seconds"],
    }


def test_the_fleet_lists_specs_that_exist() -> None:
    """Each file of the fleet is a spec with a name of its own."""
    fleet = yaml.safe_load((EXAMPLES / "fleet.yaml").read_text())["models"]
    names = [spec_of(EXAMPLES / file)["model"] for file in fleet]
    assert names == ["forestay/digits", "forestay/digits-motion", "forestay/tones", "forestay/echo"]


@pytest.mark.parametrize("name", TRAINED)
def test_weights_are_the_recorded_ones_and_within_their_budget(name: str) -> None:
    """Every weight file has the hash that training recorded; the folder is small and free of pickles."""
    weights = EXAMPLES / name / "weights"
    record = json.loads((weights / "TRAINING.json").read_text())
    files = {str(file.relative_to(weights)): file for file in weights.rglob("*.safetensors")}
    assert record["files_sha256"] == {name: hashlib.sha256(f.read_bytes()).hexdigest() for name, f in files.items()}
    everything = [file for file in weights.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in everything) < TRAINED[name]
    assert {file.suffix for file in everything} <= {".safetensors", ".json", ".txt"}


def test_the_recorded_scores_meet_the_targets() -> None:
    """What training measured is at least what the examples promise."""
    digits = json.loads((EXAMPLES / "digits" / "weights" / "TRAINING.json").read_text())
    measured = digits["stages"]["measure"]["steps_12"]
    assert measured["pictures"] >= 80
    assert measured["digits_right_ratio"] >= 0.95
    assert measured["colours_right_ratio"] >= 0.98
    tones = json.loads((EXAMPLES / "tones" / "weights" / "TRAINING.json").read_text())
    assert tones["metrics"]["steps_16"]["notes_right_ratio"] >= 0.95


def test_a_retrained_model_names_no_folder_of_the_machine(tmp_path: Path) -> None:
    """Saving what was loaded writes where it was loaded from into the configs; training takes it out again."""
    configs = load_example("digits", "configs.py")
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps({"_name_or_path": "/a/folder", "sample_size": 4}))
    (tmp_path / "merges.json").write_text("[1, 2]")
    configs.forget_paths(tmp_path)
    assert json.loads((tmp_path / "unet" / "config.json").read_text()) == {"sample_size": 4}
    assert (tmp_path / "merges.json").read_text() == "[1, 2]"


def test_no_committed_config_names_a_folder_of_a_machine() -> None:
    """Neither in the digits nor in any other example."""
    configs = [path for path in EXAMPLES.rglob("*.json") if "_name_or_path" in path.read_text(encoding="utf-8")]
    assert configs == []
