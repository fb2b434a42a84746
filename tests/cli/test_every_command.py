"""What holds for every command there is: its help, its JSON, its end without a platform, what a terminal gets."""

import ast
import io
import json
import pathlib
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cli.conftest import _run as run

from forestay import cli
from forestay.cli import load_command
from forestay.cli.output import plain, print_document, print_table, say
from forestay.settings import process_environment

Command = Any  # of the framework, which keeps its classes private
_START_SOMETHING = {"up", "demo", "judge"}
_ASK_NOBODY = {"doctor", "rollout simulate", "artefact keygen"}  # they examine, play or make something, at length


def _leaves(command: Command, path: tuple[str, ...]) -> Iterator[tuple[str, Command]]:
    below = cast("dict[str, Command]", getattr(command, "commands", {}))
    if not below:
        yield " ".join(path), command
    for name, inner in below.items():
        yield from _leaves(inner, (*path, name))


def _every() -> list[tuple[str, Command]]:
    group = cast("Command", typer.main.get_command(cli.app))
    return [leaf for name in group.list_commands(None) for leaf in _leaves(load_command(name), (name,))]


def _example(command: Command) -> list[str]:
    """Return the words of a command's example as a shell would pass them on, from after `forestay`."""
    found = re.search(r"^\s*Example: (.*)$", str(command.help), re.MULTILINE)
    assert found, "no line `Example: ...`"
    words = shlex.split(found[1].split(" | ")[0].split(" > ")[0])
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        del words[0]
    assert words[0] == "forestay"
    return words[1:]


def test_every_command_takes_json_and_shows_an_example_that_parses() -> None:
    """`--help` is enough to use a command, and its example is no prose: its own options and arguments take it."""
    wrong: dict[str, str] = {}
    for name, command in _every():
        try:
            assert any("--json" in parameter.opts for parameter in command.params), "no --json"
            words = _example(command)
            assert " ".join(words).startswith(name), f"the example is of another command: {words}"
            command.make_context(name, words[len(name.split()) :])
        except Exception as error:  # noqa: BLE001 - whatever is wrong is told with the command's name
            wrong[name] = str(error)
    assert not wrong


@pytest.fixture
def nowhere(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, a home of its own, and an address at which nobody answers."""
    for variable in process_environment():
        if variable.startswith("FORESTAY_"):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FORESTAY_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("FORESTAY_KEY", "0123456789abcdef:hunter2")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("nowhere")
def test_where_nothing_is_every_command_ends_with_one_json_value_and_its_exit_code() -> None:
    """No platform, no store, no file: one line on standard error, one value on standard output, and no defect."""
    wrong: dict[str, object] = {}
    for name, command in _every():
        if name in _START_SOMETHING | _ASK_NOBODY:
            continue
        ran = run([*_example(command), "--json"])
        try:
            json.loads(ran.out)
            assert ran.status in {0, 1, 2}
            assert "defect" not in ran.err
            assert "hunter2" not in ran.out + ran.err
            assert ran.status == 0 or len(ran.err.splitlines()) <= 1
        except (AssertionError, ValueError):
            wrong[name] = ran
    assert not wrong


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize("body", [None, b"", bytes(range(256)), b"[" * 1_100, "ä\u202e\x1b[31m\n".encode(), b"7\n"])
def test_a_file_that_is_not_what_it_should_be_is_told_in_words(body: bytes | None) -> None:
    """A folder, nothing, bytes, brackets without end, marks that steer a terminal: never a defect, never a mark."""
    for words in (
        ["model", "check", "a.yaml"],
        ["alert", "check", "a.yaml"],
        ["slo", "lint", "a.yaml"],
        ["abuse", "rules", "check", "a.yaml"],
        ["safety", "policy", "check", "a.yaml"],
        ["quality", "scorers", "list", "--file", "a.yaml"],
        ["safety", "evaluate", "--dataset", "a.yaml", "--label-column", "unsafe", "--scores", "a.yaml"],
        ["artefact", "verify", "weights", "--key", "a.yaml"],
        ["audit", "verify", "--checkpoint", "a.yaml"],
    ):
        file = pathlib.Path("a.yaml")
        if body is None:
            file.mkdir(exist_ok=True)
        else:
            file.write_bytes(body)
        ran = run([*words, "--json"])
        assert ran.status in {1, 2}, (words, ran)
        json.loads(ran.out)
        assert "defect" not in ran.err, (words, ran)
        assert not re.search("[\x1b\u202e]", ran.err), (words, ran)


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["key", "show", "\udcff"], 2),
        (["slo", "report", "--tenant", "\udcff"], 2),
        (["drill", "stop", "\udcff", "--reason", "x"], 2),
        (["artefact", "scan", "\udcff"], 2),
        (["artefact", "keygen", ""], 2),
        (["tls", "init", "--data-dir", "d", "--host", "\udcff"], 2),
        (["tls", "init", "--data-dir", "d", "--host", "m\xfchle.example"], 0),
        (["alert", "silence", "subject=x", "--for", "7x", "--reason", "r"], 2),
        (["abuse", "replay", "--rules", "", "--since", "-1d"], 2),
        (["status", "--within", "0s"], 2),
    ],
)
def test_an_argument_that_is_no_text_no_name_or_no_duration_is_wrong_usage(words: list[str], status: int) -> None:
    """Bytes that are not UTF-8, nothing at all, spans that are none: told in a line, never as a defect of ours."""
    ran = run([*words, "--json"])
    assert (ran.status, "defect" in ran.err) == (status, False), ran
    json.loads(ran.out)


# What reaches a terminal --------------------------------------------------------------------------------------------
class _Terminal(io.StringIO):
    """Standard output that is a terminal."""

    def isatty(self) -> bool:
        return True


def _sent(monkeypatch: pytest.MonkeyPatch, rows: Sequence[Sequence[object]], *, terminal: bool) -> str:
    out = _Terminal() if terminal else io.StringIO()
    with monkeypatch.context() as patch:
        patch.setenv("NO_COLOR", "1")
        patch.setenv("COLUMNS", "40")
        patch.setenv("TERM", "dumb")
        patch.setattr("sys.stdout", out)
        print_table(("name", "reason"), rows)
    return out.getvalue()


@settings(max_examples=50)
@given(st.text())
def test_what_steers_a_terminal_is_written_out_and_the_rest_is_as_it_was(text: str) -> None:
    """No control character but tab and line feed, no mark of direction is left; twice changes no more than once."""
    made = plain(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", made)
    assert plain(made) == made
    if text.isprintable():
        assert made == text


@pytest.mark.threat("API8:2023")
@pytest.mark.parametrize("terminal", [True, False])
def test_a_name_cannot_steer_the_operators_terminal_or_make_a_row(
    monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> None:
    """The title of the window, colours, hidden text, a line's end, markup of our own library: all arrive as text."""
    hostile = ["\x1b]0;owned\x07", "\x1b[8mhidden", "acme\nforged\trow", "[/red] [bold]", "\u202egnp.exe", "\x9b31m"]
    shown = _sent(monkeypatch, [(name, "why") for name in hostile], terminal=terminal)
    assert not re.search("[\x07\x1b\x9b\u202e]", shown)
    assert len(shown.splitlines()) == 1 + len(hostile)
    for words in ("\\x1b]0;owned", "\\x1b[8mhidden", "acme\\nforged", "[/red] [bold]", "\\u202egnp.exe"):
        assert words in shown


def test_on_a_narrow_terminal_an_id_breaks_and_is_never_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who copies it has all of it."""
    name = "01980f5e-7c1a-7000-8000-0123456789ab" * 2
    shown = _sent(monkeypatch, [(name, "because " * 9)], terminal=True)
    assert "\u2026" not in shown
    columns = [line.split("  ")[0].strip() for line in shown.splitlines()[1:]]
    assert "".join(columns) == name


def test_errors_and_lines_are_plain_and_a_document_is_faithful_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is written by `>` is what was stored; what a person reads on the screen is harmless."""
    say("\x1b[2J", err=True)
    say("\x1b[2J")
    print_document("a: '\u202e'\n")
    out, err = capsys.readouterr()
    assert err == "\\x1b[2J\n"
    assert out == "\\x1b[2J\na: '\u202e'\n"


@pytest.mark.threat("API8:2023")
def test_commands_print_by_the_one_door_alone() -> None:
    """Nothing in `forestay.cli` prints past the module that makes text plain, but help and a colour of our own."""
    doors = {
        file.name
        for file in pathlib.Path(cli.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"print", "typer.echo", "click.echo"}
    }
    assert doors == {"__init__.py", "output.py"}
