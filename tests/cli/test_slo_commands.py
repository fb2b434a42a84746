"""`forestay slo` on files: what docs/howto/write-an-slo.md shows, and what is told when a file is wrong."""

import json
import pathlib
import re

import pytest

from forestay.cli import main

PAGE = (pathlib.Path(__file__).resolve().parents[2] / "docs/howto/write-an-slo.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Return a folder with the files of the page, which is the working folder."""
    for name, body in re.findall(r"^```\w+ file=(\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        (tmp_path / name).write_text(body, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> int:
    """Run a command; return its exit status."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0)


def commands() -> list[list[str]]:
    """Return the page's commands, as words; promtool is tried in tests/slo/test_prometheus.py."""
    blocks = re.findall(r"^```bash [^\n]*\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [line.split() for block in blocks for line in block.splitlines() if line.startswith("forestay ")]


def test_the_commands_of_the_page_work(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each in turn, in the folder with the page's files."""
    for line in commands():
        words = line[1 : line.index(">")] if ">" in line else line[1:]
        target = pathlib.Path(line[-1]) if ">" in line else None
        assert run(*words) == 0, words
        printed = capsys.readouterr()
        if target is not None:
            (folder / target).write_text(printed.out, encoding="utf-8")
        if words[1] == "what-if":
            assert "bad driver on one GPU: page after" in printed.out
    assert (folder / "rules.test.yaml").exists()
    assert "digits-available" in (folder / "again.yaml").read_text(encoding="utf-8")


def test_a_fault_is_told_with_its_line_and_the_exit_status_is_2(
    folder: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """File, line, field and mend."""
    text = (folder / "slos.yaml").read_text(encoding="utf-8")
    (folder / "slos.yaml").write_text(text.replace("objective: 99.9 ", "objective: 999 "), encoding="utf-8")
    assert run("slo", "lint", "slos.yaml") == 2
    assert "slos.yaml:6: slos.0.objective: input should be less than 100" in capsys.readouterr().err


def test_an_error_of_sense_has_exit_status_1(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A window longer than counts are kept can't work; `--json` names the check."""
    del folder
    assert run("slo", "lint", "slos.yaml", "--retention", "7d", "--json") == 1
    checks = {item["check"] for item in json.loads(capsys.readouterr().out)}
    assert "retention" in checks


def test_losses_of_an_export_are_listed_apart(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Documents on standard output, losses on standard error; with `--json` both in one value."""
    del folder
    assert run("slo", "export", "slos.yaml", "--to", "openslo") == 0
    printed = capsys.readouterr()
    assert "apiVersion: openslo/v1" in printed.out
    assert "digits: parts: OpenSLO v1 has no composites" in printed.err
    assert run("slo", "export", "slos.yaml", "--to", "prometheus", "--json") == 0
    assert {loss["slo"] for loss in json.loads(capsys.readouterr().out)["losses"]} == {
        "digits-fast",
        "digits-keeps-up",
        "digits",
    }


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("lint", "gone.yaml"), "gone.yaml cannot be read"),
        (("lint", "slos.yaml", "--histogram-buckets", "a,b"), "is no list of seconds"),
        (("export", "slos.yaml", "--to", "openslo", "--tests", "t.yaml"), "goes with --to prometheus"),
        (("import", "slos.yaml"), "needs `apiVersion: openslo/v1`"),
        (("what-if", "slos.yaml", "--buckets", "slos.yaml"), "must name the columns"),
    ],
)
def test_wrong_use_is_told_with_its_mend(
    folder: pathlib.Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
) -> None:
    """Exit status 2, one line."""
    del folder
    assert run("slo", *words) == 2
    assert told in capsys.readouterr().err


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON."""
    assert run("slo", "schema") == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Forestay SLOs"
