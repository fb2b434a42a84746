"""How the demo tells its end: exit status, sheet, lines, JSON."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from forestay.demo.caller import SCENARIOS
from forestay.demo.platform import Process, family
from forestay.demo.promises import SPINE, Kept, Mark, SavedFile, all_kept
from forestay.demo.screen import JsonScreen, LiveScreen, PlainScreen
from forestay.demo.sheet import render_sheet, write_sheet

KEPT = {name: Kept(name, Mark.KEPT, "seen", 1.0) for name in SPINE}


def test_only_all_promises_kept_is_success() -> None:
    """Kept is success; one broken or never tried is not."""
    assert all_kept(KEPT, SPINE)
    for name in SPINE:
        for mark in (Mark.BROKEN, Mark.WAITING, Mark.RUNNING):
            assert not all_kept({**KEPT, name: Kept(name, mark)}, SPINE)


def test_every_step_of_the_caller_is_a_promise() -> None:
    """No step is without its line in the table, and the caller's are not those of the platform's side."""
    steps = [name for scenario in SCENARIOS.values() for name, _ in scenario]
    assert len(steps) == len(set(steps))
    assert set(SPINE) - set(steps) == {"start", "killed", "once", "webhooks", "stop"}
    assert set(steps) <= set(SPINE)


def test_the_sheet_shows_every_file_and_escapes_what_it_is_told(tmp_path: Path) -> None:
    """Pictures, film and sound appear with captions; a caption cannot become markup."""
    files = [SavedFile("seven.png", "<b>seven</b>"), SavedFile("clip.mp4", "a film"), SavedFile("c4.wav", "c4")]
    page = write_sheet(tmp_path, list(KEPT.values()), files).read_text(encoding="utf-8")
    assert '<img src="seven.png"' in page
    assert '<video src="clip.mp4"' in page
    assert '<audio src="c4.wav"' in page
    assert "<b>seven" not in page
    assert page.count('class="kept"') == len(SPINE)


def test_contact_sheets_are_shown_whole() -> None:
    """Each on a line of its own, under what its columns are."""
    page = render_sheet([], [SavedFile("sheet-0.png", "differs most"), SavedFile("seven.png", "seven")])
    assert page.count('class="grid wide"') == 1
    assert page.index("seven.png") < page.index("Side by side") < page.index("sheet-0.png")
    assert "Promises" not in page


def test_a_broken_promise_is_marked_in_the_sheet() -> None:
    """The sheet does not gloss over it."""
    page = render_sheet([Kept("burst", Mark.BROKEN, "3 lost")], [])
    assert 'class="broken"' in page
    assert "3 lost" in page


def test_plain_lines_name_every_promise_and_its_evidence() -> None:
    """Without a terminal: one line an event, the table, the summary."""
    out = io.StringIO()
    screen = PlainScreen(Console(file=out, width=200))
    screen.show(KEPT["start"])
    screen.show(Kept("burst", Mark.RUNNING))
    screen.close(list(KEPT.values()), "the end")
    said = out.getvalue()
    assert said.startswith("kept   one command starts everything")
    assert said.rstrip().endswith("the end")
    assert all(text in said for text in SPINE.values())


def test_json_is_one_object_on_standard_output_alone() -> None:
    """Progress goes to standard error, so that the output can be piped."""
    out, progress = io.StringIO(), io.StringIO()
    screen = JsonScreen(Console(file=out, width=200), Console(file=progress, width=200))
    screen.show(KEPT["start"])
    screen.close([*KEPT.values()][:2], "the end")
    said = json.loads(out.getvalue())
    assert [row["kept"] for row in said["promises"]] == [True, True]
    assert "one command" in progress.getvalue()


def test_the_live_table_ends_as_a_table() -> None:
    """On a terminal the last frame stays."""
    out = io.StringIO()
    screen = LiveScreen(Console(file=out, width=140, force_terminal=True), SPINE)
    screen.show(Kept("start", Mark.RUNNING))
    screen.show(KEPT["start"])
    screen.close(list(KEPT.values()), "the end")
    assert "the end" in out.getvalue()
    assert "seen" in out.getvalue()


@pytest.mark.parametrize(("root", "members"), [(1, {1, 2, 3, 4}), (2, {2, 4}), (3, {3}), (9, set[int]())])
def test_a_family_is_a_process_and_all_below_it(root: int, members: set[int]) -> None:
    """Whatever the order of the table."""
    table = [Process(4, 2, "d"), Process(3, 1, "c"), Process(2, 1, "b"), Process(1, 0, "a"), Process(7, 6, "e")]
    assert {process.pid for process in family(table, root)} == members
