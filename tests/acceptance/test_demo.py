"""`forestay demo` from the outside: it ends well, shows its table, and leaves files that a person can look at."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.programs import clean_environment

ROOT = Path(__file__).resolve().parents[2]
DEMO_SECONDS = 240
TOUR_SECONDS = 480  # four minutes on a machine that does nothing else


@pytest.mark.slow
@pytest.mark.timeout(TOUR_SECONDS + 60)
def test_the_tour_is_one_story_in_which_every_promise_is_kept(tmp_path: Path) -> None:
    """Exit status 0, every promise kept, and a page with every act, its pictures, its rollouts and its budgets."""
    told = run_demo("tour", tmp_path / "out", TOUR_SECONDS)
    assert all(row["kept"] and row["evidence"] for row in told["promises"])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"seven.png", "three-to-eight.mp4", "c4.wav", "harmless.png", "sheet-0.png", "rollout-leaking.html"} <= names
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert page.count('<h2 id="act-') == 6
    assert "subtle: rolled_back" in page
    assert "forestay slo status" in page


@pytest.mark.slow
@pytest.mark.timeout(DEMO_SECONDS + 60)
def test_the_demo_keeps_every_promise(tmp_path: Path) -> None:
    """Exit status 0, every promise kept, pictures, film, sound and the sheet on disk."""
    told = run_demo("spine", tmp_path / "out")
    assert all(row["kept"] for row in told["promises"])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"index.html", "seven.png", "seven-edited.png", "three-to-eight.mp4", "c4.wav"} <= names


@pytest.mark.slow
@pytest.mark.timeout(DEMO_SECONDS + 60)
def test_an_attacker_is_stopped_step_by_step(tmp_path: Path) -> None:
    """Exit status 0, every promise kept with its reason, the neighbour's waits on the sheet as numbers and a plot."""
    told = run_demo("abuse", tmp_path / "out")
    assert all(row["kept"] and row["evidence"] for row in told["promises"])
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "under attack, all" in page


@pytest.mark.slow
@pytest.mark.timeout(DEMO_SECONDS + 60)
def test_nothing_is_released_unjudged_whatever_happens(tmp_path: Path) -> None:
    """Exit status 0, every promise kept with its evidence, and the two policies beside the sheet."""
    told = run_demo("safety", tmp_path / "out")
    assert all(row["kept"] and row["evidence"] for row in told["promises"])
    assert {"index.html", "policy.yaml", "stricter.yaml"} <= {path.name for path in (tmp_path / "out").iterdir()}


@pytest.mark.slow
@pytest.mark.timeout(DEMO_SECONDS + 60)
def test_what_burns_wakes_somebody_and_nothing_else_does(tmp_path: Path) -> None:
    """Exit status 0, every promise kept with its evidence, budgets drawn, the waterfall and the rules on disk."""
    told = run_demo("slo", tmp_path / "out")
    assert all(row["kept"] and row["evidence"] for row in told["promises"])
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 8
    assert "attempt 1" in page
    assert "standing: held" in page
    assert {"rules.yaml", "rules.test.yaml", "edge.jsonl"} <= {path.name for path in (tmp_path / "out").iterdir()}


@pytest.mark.slow
@pytest.mark.timeout(DEMO_SECONDS + 60)
def test_every_fault_of_a_game_day_is_found_and_a_mere_change_of_prompts_is_not(tmp_path: Path) -> None:
    """Exit status 0, every promise kept with its evidence, and what callers got beside what is healthy."""
    told = run_demo("quality", tmp_path / "out")
    assert all(row["kept"] and row["evidence"] for row in told["promises"])
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "forestay quality explain" in page
    assert page.count("not handed out") == 3
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"seven.png", "seven-leaked.png", "three-repeated.png", "seven-revision.png", "film.mp4"} <= names


@pytest.mark.slow
@pytest.mark.timeout(DEMO_SECONDS + 60)
def test_a_good_revision_is_shipped_and_bad_ones_are_not(tmp_path: Path) -> None:
    """Exit status 0, every promise kept with its evidence, a page for each rollout and contact sheets on disk."""
    told = run_demo("rollout", tmp_path / "out")
    assert all(row["kept"] and row["evidence"] for row in told["promises"])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"rollout-good.html", "rollout-subtle.html", "rollout-leaking.html", "sheet-0.png"} <= names
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 3
    for ending in ("good: promoted", "subtle: rolled_back", "leaking: rolled_back"):
        assert ending in page


def run_demo(scenario: str, output: Path, seconds: float = DEMO_SECONDS) -> dict[str, Any]:
    """Run the demo; returns what it tells at its end. It ends well."""
    command = [sys.executable, "-m", "forestay", "demo", "--scenario", scenario, "--json", "--output", str(output)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return json.loads(done.stdout.splitlines()[-1])


def test_an_unknown_scenario_is_told_with_those_that_exist() -> None:
    """Wrong usage: exit status 2 and the names to choose from."""
    command = [sys.executable, "-m", "forestay", "demo", "--scenario", "pillage"]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "'pillage' is none of tour, spine, abuse, safety, slo, quality, rollout" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_fleet_that_is_not_there_is_told_in_one_line() -> None:
    """Wrong usage: exit status 2 and how to mend it."""
    command = [sys.executable, "-m", "forestay", "demo", "--fleet", "nowhere.yaml"]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "nowhere.yaml does not exist" in done.stderr
    assert "Traceback" not in done.stderr
