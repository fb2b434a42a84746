"""How tests are shared out to processes."""

import pytest
from tests.architecture.test_repository import ROOT
from tests.sharing_out import FIRST, ONE_PROCESS, piece_of


def test_a_module_stays_together_and_so_do_all_tests_of_whole_platforms() -> None:
    """Cases and functions of a module are one piece; no two platforms run at once."""
    one, other = "tests/queue/test_rescue.py::test_one[a::b]", "tests/queue/test_rescue.py::test_two"
    assert piece_of(one) == piece_of(other) == "tests/queue/test_rescue.py"
    assert piece_of("tests/platform/test_up.py::test_one") == piece_of("tests/acceptance/test_wire.py::test_two")


@pytest.mark.parametrize("folder", sorted({*ONE_PROCESS, *FIRST}))
def test_each_folder_that_is_named_exists(folder: str) -> None:
    """A folder that moved would lose its place in silence."""
    assert (ROOT / folder).is_dir()


def test_every_module_that_starts_a_platform_is_among_the_whole_platforms() -> None:
    """Two platforms at once would time each other out on a small machine; only slow tests may."""
    apart = [
        path
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "RunningPlatform(" in (text := path.read_text(encoding="utf-8")) and "pytest.mark.slow" not in text
        if piece_of(f"{path.relative_to(ROOT)}::x") != "whole platforms"
    ]
    assert apart == []
