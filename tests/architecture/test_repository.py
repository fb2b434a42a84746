"""What must hold of the repository as a whole: names, drawings, locks, bans."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from forestay.queue.model import FINAL, TRANSITIONS, State

ROOT = Path(__file__).resolve().parents[2]
PEOPLE_FACING = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
STEP = re.compile(r"^\s*(\S+) --> (\S+?)(?::.*)?$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
PATH = re.compile(r"`((?:src|docs|tests|examples|bench|tools)/[A-Za-z0-9_./-]+|[A-Za-z0-9_.-]+\.(?:lock|toml|yaml))`")
GENERATED_OR_LOCAL = {"demo-output/"}


def committed_files() -> list[Path]:
    """Return every file that git knows, or would know after `git add`."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / line for line in listed.splitlines() if (ROOT / line).is_file()]


def committed_texts() -> Iterator[tuple[Path, str]]:
    """Yield the committed files that are text, with their text."""
    for path in committed_files():
        try:
            yield path.relative_to(ROOT), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def pages() -> list[Path]:
    """Return the people-facing pages."""
    return [ROOT / name for name in PEOPLE_FACING] + sorted((ROOT / "docs").rglob("*.md"))


def test_the_drawing_of_the_states_is_the_table_in_code() -> None:
    """Every step of the table is drawn, and nothing else is."""
    drawing = (ROOT / "docs/reference/states.md").read_text(encoding="utf-8")
    drawn = {(before, after) for before, after in STEP.findall(drawing)}
    table = {(before.value, after.value) for before, allowed in TRANSITIONS.items() for after in allowed}
    ends = {(state.value, "[*]") for state in FINAL} | {("[*]", State.QUEUED.value)}
    assert drawn == table | ends


def test_the_lock_brings_no_cuda_and_names_no_registry() -> None:
    """The lock installs on a machine without a GPU, from whichever index that machine uses."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    names = re.findall(r"^([a-z0-9][a-z0-9._-]*)==", lock, re.MULTILINE)
    assert len(names) > 100
    assert [name for name in names if name.startswith(("nvidia", "triton", "torch", "cuda"))] == []
    assert re.findall(r"https?://|file:|--(?:index|extra-index|find-links)\S*", lock) == []


def test_the_lock_holds_what_the_project_asks_for_and_what_torch_imports() -> None:
    """Nothing that pyproject or torch itself needs is missing from the lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    for extra in project["project"]["optional-dependencies"].values():
        wanted += extra
    needs = (ROOT / "tools/lock-torch-needs.txt").read_text(encoding="utf-8")
    wanted += [line for line in needs.splitlines() if line and not line.startswith("#")]
    names = {re.split(r"[<>=;\[ ]", item)[0].lower().replace("_", "-") for item in wanted} - {"torch"}
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert sorted(name for name in names if not re.search(rf"^{re.escape(name)}==", lock, re.MULTILINE)) == []


def test_versions_named_twice_agree() -> None:
    """The Makefile's uv is the lock's, and its torch is the project's."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    uv = re.search(r"^UV_VERSION := (\S+)$", makefile, re.MULTILINE)
    torch = re.search(r"^TORCH_VERSION := (\S+)$", makefile, re.MULTILINE)
    assert uv is not None
    assert torch is not None
    assert f"\nuv=={uv[1]} " in (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert f'"torch=={torch[1]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_no_machine_of_ours_is_named() -> None:
    """No path of a developer's machine and no package registry stands in the tree (PyTorch's public index excepted)."""
    home = "|".join(["/" + "work/(?:main|shared)", "/" + "root/", "/" + "home/[a-z]+/", "/" + "opt/(?:pypi|wheels)"])
    registry = "|".join(["pypi" + r"\.org", "registry\\." + "npmjs", "files\\.python" + "hosted"])
    named = [
        f"{path}: {found}" for path, text in committed_texts() for found in re.findall(f"{home}|{registry}", text)[:3]
    ]
    assert named == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_name_only_what_exists(page: Path) -> None:
    """Links and paths in people-facing pages lead somewhere."""
    text = page.read_text(encoding="utf-8")
    links = [(page.parent / target) for target in LINK.findall(text) if "://" not in target]
    named = [ROOT / name for name in PATH.findall(text) if "*" not in name]
    missing = [str(path) for path in links + named if not path.exists()]
    assert missing == []


def test_the_order_of_imports_is_drawn_as_it_is_enforced() -> None:
    """The architecture page shows the layers of the import contract."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    page = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")
    drawn = page.split("```text\n", 1)[1].split("```", 1)[0].splitlines()
    assert drawn == [layer for layer in layers if layer != "__main__"]


def test_every_migration_says_whether_it_comes_before_or_after_the_code() -> None:
    """Migrations are numbered without gaps or doubles and are `pre` or `post`."""
    for folder in ("migrations", "facts_migrations"):
        names = sorted(path.name for path in (ROOT / "src/forestay/storage" / folder).glob("*.sql"))
        assert names
        assert [name for name in names if not re.fullmatch(r"\d{4}_[a-z0-9_]+\.(pre|post)\.sql", name)] == []
        numbers = [int(name[:4]) for name in names]
        assert numbers == list(range(1, len(names) + 1))


@pytest.mark.parametrize(
    "line",
    [
        "import time",
        "import random",
        "import secrets",
        "from datetime import datetime\nMOMENT = datetime.now()",
        "import os\nNOISE = os.urandom(8)",
        "import os\nHOME = os.environ['HOME']",
        "import uuid\nNAME = uuid.uuid4()",
        "import asyncio\n\n\nasync def lose() -> None:\n    asyncio.create_task(lose())",
    ],
)
def test_clocks_chance_and_environment_are_banned_outside_their_doors(line: str, tmp_path: Path) -> None:
    """Ruff refuses a module of ours that reads a clock, chance or the environment by itself."""
    bad = tmp_path / "bad.py"
    bad.write_text(f"{line}\n", encoding="utf-8")
    command = [sys.executable, "-m", "ruff", "check", "--config", ROOT / "pyproject.toml", "--select", "TID251"]
    checked = subprocess.run([*command, "--no-cache", bad], capture_output=True, text=True, check=False)
    assert "TID251" in checked.stdout


def test_the_ban_has_no_exceptions_beyond_the_doors() -> None:
    """Only clock, chance, settings and a file with a stated reason may lift the ban inside the package."""
    doors = {"src/forestay/clock.py", "src/forestay/chance.py", "src/forestay/settings.py"}
    lifted = [
        f"{path}: {line.strip()}"
        for path, text in committed_texts()
        if path.suffix == ".py" and str(path).startswith("src/") and str(path) not in doors
        for line in text.splitlines()
        if re.search(r"noqa:.*TID251(?!.* - )", line)
    ]
    assert lifted == []


def test_no_module_is_too_long() -> None:
    """A module of the package stays under 600 lines."""
    long = [
        f"{path}: {len(text.splitlines())}"
        for path, text in committed_texts()
        if str(path).startswith("src/") and path.suffix == ".py" and len(text.splitlines()) > 600
    ]
    assert long == []


def test_every_module_says_what_it_is_for() -> None:
    """Each module of the package opens with a docstring."""
    silent = [
        str(path)
        for path, text in committed_texts()
        if str(path).startswith("src/") and path.suffix == ".py" and not text.lstrip().startswith('"""')
    ]
    assert silent == []
