"""The parts of the scenario of quality that need no platform: models, traffic, the page."""

import json
from collections import Counter
from pathlib import Path

import pytest

from forestay.demo import faulting, workshop
from forestay.demo.promises import QUALITY, SavedFile
from forestay.demo.side_by_side import Side, render_sides, rows_of
from forestay.demo.tenants import Ended
from forestay.drills.model import fault_named
from forestay.fleet.spec_file import parse
from forestay.quality.catalogue import name_of

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_every_promise_has_its_step() -> None:
    """But for the start and the stop, which every scenario has."""
    assert [name for name, _ in faulting.STEPS] == [name for name in QUALITY if name not in {"start", "stop"}]


def test_its_models_are_the_examples_with_contracts_that_are_enforced(tmp_path: Path) -> None:
    """Good specs; the pictures take a worker's one device, film and sound none."""
    fleet = workshop.build(EXAMPLES, tmp_path / "fleet")
    specs = [parse(path.read_text(), "model.yaml") for path in sorted(fleet.parent.glob("*/model.yaml"))]
    devices = {str(spec.model_id): spec.resources.devices for spec in specs}
    assert devices == {workshop.DIGITS: 1, workshop.MOTION: 0, workshop.TONES: 0}
    assert all(spec.quality.mode == "enforce" for spec in specs)


def test_the_wrong_setting_is_one_line_of_the_scheduler(tmp_path: Path) -> None:
    """Nothing else of the model changes."""
    workshop.build(EXAMPLES, tmp_path / "fleet")
    folder = tmp_path / "fleet" / "digits"
    before = json.loads((folder / workshop.SCHEDULER).read_text())
    workshop.set_wrong(folder)
    after = json.loads((folder / workshop.SCHEDULER).read_text())
    assert {f"scheduler.{name}" for name in after if after[name] != before[name]} == {workshop.SETTING}


def test_the_two_mixes_differ_in_how_often_and_in_nothing_else() -> None:
    """The same prompts; no seed is asked for twice, so that no picture is rightly a repeated one."""
    even = workshop.pictures(100, skewed=False, first_seed=0)
    skewed = workshop.pictures(100, skewed=True, first_seed=1_000)
    counts = [Counter(one["prompt"] for one in mix) for mix in (even, skewed)]
    assert set(counts[0]) == set(workshop.PROMPTS) >= set(counts[1])
    assert max(counts[0].values()) == 10
    assert sum(count for _, count in counts[1].most_common(3)) >= 90
    seeds = [one["seed"] for one in (*even, *skewed)]
    assert len(set(seeds)) == len(seeds)


def test_what_is_put_in_is_in_the_kit_and_what_is_expected_in_the_catalogue() -> None:
    """So that a fault and its finding have names."""
    for name in ("half-overflows-in-the-denoiser", "an-adapter-is-left-in", "first-answer-again-and-again",
                 "clip-is-frozen", "sound-is-silent"):  # fmt: skip
        assert fault_named(name)
    assert all(name_of(row) for row in (1, 12, 23, 29, 34, 40, 42))


def test_the_rows_that_a_finding_speaks_for_come_by_their_likelihood() -> None:
    """Features whose names begin alike are no rows; where none is scored there is the one that is named."""
    evidence = {"row_7": 0.4, "row_9": 0.6, "row_stripes_sd": 3.0}
    assert rows_of({"catalogue": 9, "evidence": evidence}) == [9, 7]
    assert rows_of({"catalogue": 12, "evidence": {}}) == [12]


def test_files_are_found_in_answers_of_every_kind() -> None:
    """Several pictures, one film, one sound."""
    answers = ({"images": [{"url": "a"}, {"url": "b"}]}, {"video": {"url": "c"}}, {"audio": {"url": "d"}}, {})
    assert [Ended("", 200, {}, dict(values)).urls for values in answers] == [["a", "b"], ["c"], ["d"], []]


@pytest.mark.parametrize(("name", "shown"), [("a.png", "<img"), ("a.mp4", "<video"), ("a.wav", "<audio")])
def test_a_fault_stands_beside_what_is_healthy(name: str, shown: str) -> None:
    """As a file, or as what the caller read; nothing is taken for HTML."""
    file = SavedFile(name, "<healthy>")
    page = render_sides([Side("<fault>", file, file, "", "row 1"), Side("other", file, None, "502 <frozen>", "")], {})
    assert page.count(shown) == 3
    assert "not handed out: 502 &lt;frozen&gt;" in page
    assert "&lt;fault&gt;" in page
