"""Every command in the docs is run: the pages' own code blocks, in order, against the platform.

A block's first line says what becomes of it: `bash run`, `python run file=NAME`, `javascript run file=NAME` are
executed; `file=NAME` alone is written to that file; `covered-by=PATH` names the test or script that runs it.
"""

import dataclasses
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.acceptance.conftest import Acceptance
from tests.acceptance.programs import JS_FOLDER, NODE, clean_environment

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(?P<head>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = {"bash", "sh", "console", "python", "javascript"}
PAGE_SECONDS = 100


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of a page."""

    language: str
    options: tuple[str, ...]
    body: str

    @property
    def runs(self) -> bool:
        """Whether it is executed."""
        return "run" in self.options

    def option(self, name: str) -> str:
        """Return the value of `name=value`, empty when absent."""
        values = [text.removeprefix(f"{name}=") for text in self.options if text.startswith(f"{name}=")]
        return values[0] if values else ""


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page in order."""
    found: list[Block] = []
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        language, *options = match["head"].split() or [""]
        found.append(Block(language, tuple(options), match["body"]))
    return found


def name_of(page: Path) -> str:
    """Return a page's path in the repository."""
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_is_run_somewhere(page: Path) -> None:
    """A block of commands is executed here, is a file that a later block uses, or names what runs it."""
    for block in blocks_of(page):
        if block.language not in COMMANDS or block.runs or block.option("file"):
            continue
        covered = block.option("covered-by")
        assert covered, f"nothing runs:\n{block.body}"
        assert (ROOT / covered).exists(), covered


@pytest.mark.parametrize("page", [page for page in PAGES if any(block.runs for block in blocks_of(page))], ids=name_of)
def test_the_commands_of_a_page_work(page: Path, acceptance: Acceptance, tmp_path: Path) -> None:
    """All blocks of a page, in order, in one shell, as a reader would type them."""
    blocks = [block for block in blocks_of(page) if block.runs or block.option("file")]
    if any(block.language == "javascript" for block in blocks) and not (JS_FOLDER / "node_modules").exists():
        pytest.skip("the JavaScript client is not installed: npm ci had no package registry at make setup")
    workspace = make_workspace(tmp_path, acceptance)
    script = tmp_path / "page.sh"
    script.write_text(script_of(blocks), encoding="utf-8")
    environment = {
        **clean_environment(),
        "FORESTAY_URL": acceptance.url,
        "FORESTAY_KEY": acceptance.admin_key,
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }
    done = subprocess.run(
        ["bash", "-m", str(script)],
        cwd=workspace,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PAGE_SECONDS,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def make_workspace(folder: Path, acceptance: Acceptance) -> Path:
    """Make a folder that looks like the source folder to a reader: .venv, examples and the platform's data."""
    workspace = folder / "forestay"
    workspace.mkdir()
    for name, target in {
        ".venv": Path(sys.executable).parents[1],
        "examples": ROOT / "examples",
        ".forestay": acceptance.data_dir,
        "node_modules": JS_FOLDER / "node_modules",
    }.items():
        (workspace / name).symlink_to(target)
    return workspace


def script_of(blocks: Sequence[Block]) -> str:
    """Return one shell script that types the page."""
    lines = ["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    for number, block in enumerate(blocks):
        name = block.option("file") or f"block-{number}"
        if block.language == "bash":
            lines.append(block.body)
            continue
        lines += [f"mkdir -p {shlex.quote(str(Path(name).parent))}", f"cat > {shlex.quote(name)} <<'END_OF_BLOCK'"]
        lines += [block.body.rstrip("\n"), "END_OF_BLOCK"]
        if block.runs:
            program = shlex.quote(str(NODE)) if block.language == "javascript" else "python"
            lines.append(f"{program} {shlex.quote(name)}")
    return "\n".join(lines) + "\n"
