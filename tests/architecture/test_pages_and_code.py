"""Pages name only commands, options, settings and metrics that exist, and none of them is lost."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forestay.cli import _COMMANDS, load_command  # pyright: ignore[reportPrivateUsage] - the table of nouns

ROOT = Path(__file__).resolve().parents[2]
ROOTS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "docs/**/*.md", "examples/**/*.md")
PAGES = [page for pattern in ROOTS for page in sorted(ROOT.glob(pattern))]
SOURCES = [*(ROOT / "src").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]
WRITTEN = re.compile(r"`forestay ([a-z][^`\\]*)`|^(?:\$ |! )?(?:\.venv/bin/)?forestay ([a-z][^#|;>&\n]*)", re.MULTILINE)
NAMED = re.compile(r"\b(?:FORESTAY_[A-Z0-9_]+|forestay_[a-z0-9_]+)")
LINK = re.compile(r"\]\(([^)#\s]+\.md)(?:#[^)]*)?\)")
Tree = dict[tuple[str, ...], set[str]]


@pytest.fixture(scope="module")
def tree() -> Tree:
    """Every command by its words, with its options."""
    return {words: options for noun in _COMMANDS for words, options in commands_below(load_command(noun), (noun,))}


def commands_below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], set[str]]]:
    """Yield a command and those below it; typer's click has no types."""
    options = {name for field in command.params for name in (*field.opts, *field.secondary_opts)}
    yield words, options | {"--help", "-h", "--version"}
    for name, below in getattr(command, "commands", {}).items():
        yield from commands_below(below, (*words, name))


def fault_of(written: str, tree: Tree) -> str:
    """Say what of a written command does not exist; empty when all of it does. `a|b` stands for either word."""
    for spelt in itertools.product(*(word.split("|") for word in written.split())):
        words = [word.strip("\"'.,:;()[]") for word in spelt]
        depth = next(n for n in range(len(words), -1, -1) if n == 0 or tuple(words[:n]) in tree)
        found, rest = tuple(words[:depth]), words[depth:]
        group = any(known[:depth] == found and len(known) > depth for known in tree)
        if depth == 0 or (group and rest and re.fullmatch(r"[a-z][a-z-]*", rest[0])):
            return f"no command `forestay {' '.join(words[: depth + 1])}`"
        for word in rest:
            if word.startswith("--") and word.partition("=")[0] not in tree[found]:
                return f"`forestay {' '.join(found)}` has no {word}"
    return ""


@pytest.mark.parametrize("written", ["limit set model:a/b --concurrency 0", "artefact check", "fly"])
def test_a_command_that_does_not_exist_is_found(written: str, tree: Tree) -> None:
    """Three commands that stood in pages, or could."""
    assert fault_of(written, tree)


def test_commands_in_pages_and_messages_exist(tree: Tree) -> None:
    """Whoever types what a page, a message or a docstring says is not told that there is no such command."""
    faults: list[str] = []
    for path in [*PAGES, *SOURCES]:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for match in WRITTEN.finditer(text) if path.suffix == ".md" else re.finditer(r"`forestay ([a-z][^`]*)`", text):
            fault = fault_of(next(group for group in match.groups() if group), tree)
            faults += [f"{path.relative_to(ROOT)}: {fault}"] if fault else []
    assert faults == []


def test_settings_and_metrics_in_pages_exist() -> None:
    """A variable or a metric that a page names stands in the source; `FORESTAY_MEDIA_*` names those that begin so."""
    known = {name for path in SOURCES for name in NAMED.findall(path.read_text(encoding="utf-8"))}
    faults = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in PAGES
        for name in sorted(set(NAMED.findall(page.read_text(encoding="utf-8"))) - known)
        if not (name.endswith("_") and any(one.startswith(name) for one in known))
    ]
    assert faults == []


def test_every_page_is_found_from_the_first() -> None:
    """A reader who follows links from README comes to every page."""
    seen, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in seen and page.is_relative_to(ROOT):
            seen.add(page)
            links = LINK.findall(page.read_text(encoding="utf-8"))
            waiting += [(page.parent / link).resolve() for link in links if "://" not in link]
    lost = [str(page.relative_to(ROOT)) for page in PAGES if page not in seen]
    assert lost == []
