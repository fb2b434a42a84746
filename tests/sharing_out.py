"""How `make test` shares the tests out to its processes; the decision alone, `conftest.py` hands it to pytest-xdist.

A module's tests stay in one process, for its fixtures. Tests that start whole platforms stay in one process together:
they share a platform, and no two platforms struggle for the machine while they are being timed. What takes long starts
first, so that no process is left with it at the end.
"""

from collections.abc import Sequence

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

ONE_PROCESS = {  # folder -> the process's work that it belongs to
    "tests/acceptance": "whole platforms",
    "tests/crash": "whole platforms",
    "tests/platform": "whole platforms",
    "tests/examples": "example models",
}
FIRST = ("tests/platform", "tests/acceptance", "tests/crash", "tests/examples", "tests/worker")


class Sharing(LoadScopeScheduling):
    """Pieces of work in the order of collection, each a module's tests or those of `ONE_PROCESS`."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return piece_of(nodeid)


def piece_of(nodeid: str) -> str:
    """Return the name of the piece of work that a test belongs to."""
    return ONE_PROCESS.get(_folder_of(nodeid), nodeid.partition("::")[0])


def in_order(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Return the tests with the folders of `FIRST` before all others, each folder's in the order that they have."""
    return sorted(items, key=lambda item: _rank_of(item.nodeid))


def _rank_of(nodeid: str) -> int:
    folder = _folder_of(nodeid)
    return FIRST.index(folder) if folder in FIRST else len(FIRST)


def _folder_of(nodeid: str) -> str:
    return "/".join(nodeid.partition("::")[0].split("/")[:2])
