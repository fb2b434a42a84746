"""`forestay quality scorers`: the example scorers are run as on a worker, learned, and found out when they change."""

import importlib.util
import json
import pathlib
import shutil

import pytest
from typer.testing import CliRunner

from forestay.cli import app, main

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples" / "scorers"
ID = "digits-agreement@1"
RUNNER = CliRunner()


@pytest.fixture
def file(tmp_path: pathlib.Path) -> str:
    """A copy of the example scorers and their file."""
    for name in ("digits_agreement", "dnsmos"):
        shutil.copytree(EXAMPLES / name, tmp_path / name)
    shutil.copyfile(EXAMPLES / "scorers.yaml", tmp_path / "scorers.yaml")
    return str(tmp_path / "scorers.yaml")


def said(*arguments: str, code: int = 0) -> object:
    """What the command prints as JSON."""
    done = RUNNER.invoke(app, ["quality", "scorers", *arguments, "--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def test_the_scorers_of_a_file_are_listed_without_being_started(file: str) -> None:
    """With what would be run, and how large the frozen set is."""
    rows = said("list", "--file", file)
    told = [(row["scorer"], row["frozen"]) for row in rows]  # type: ignore[attr-defined]
    assert told == [(ID, "6 outputs"), ("dnsmos@1", "3 outputs")]


@pytest.mark.slow  # four processes, one after another
def test_the_example_scorer_scores_its_frozen_set_as_it_did_and_a_changed_one_does_not(file: str) -> None:
    """What agrees scores high, another digit low, a prompt without a digit not at all; exit 1 once a file differs."""
    told = said("check", ID, "--file", file, "--allow-unisolated")
    scores = {row["file"]: row["scores"] for row in told["scores"]}  # type: ignore[index]
    assert min(scores[f"{number}.png"]["agreement"] for number in range(4)) > 0.8
    assert scores["4.png"]["digit"] < 0.2
    assert scores["5.png"] is None
    program = pathlib.Path(file).parent / "digits_agreement" / "scorer.py"
    program.write_text(program.read_text().replace("SOFTNESS = 40.0", "SOFTNESS = 60.0"))
    assert said("check", ID, "--file", file, "--allow-unisolated", code=1)["trouble"] == "changed"  # type: ignore[index]
    said("check", ID, "--file", file, "--allow-unisolated", "--learn")
    assert said("check", ID, "--file", file, "--allow-unisolated")["trouble"] == ""  # type: ignore[index]


@pytest.mark.slow  # two processes, one after another
@pytest.mark.skipif(importlib.util.find_spec("speechmos") is None, reason="speechmos is not installed")
def test_the_speech_scorer_scores_its_frozen_set_as_it_did_and_learns_it_again(file: str) -> None:
    """In its confined process: a clean voice above a noisy one, and one that is too quiet not at all."""
    told = said("check", "dnsmos@1", "--file", file, "--allow-unisolated")
    scores = {row["file"]: row["scores"] for row in told["scores"]}  # type: ignore[index]
    assert told["trouble"] == ""  # type: ignore[index]
    assert scores["clean.flac"]["overall"] > scores["noisy-stereo.flac"]["overall"] + 1
    assert scores["quiet.flac"] is None
    said("check", "dnsmos@1", "--file", file, "--allow-unisolated", "--learn")


def test_a_scorer_that_nobody_named_is_a_usage_error(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2, with the way to the list."""
    with pytest.raises(SystemExit) as ended:
        main(["quality", "scorers", "check", "nobody@1", "--file", file])
    assert ended.value.code == 2
    assert "scorers list" in capsys.readouterr().err
