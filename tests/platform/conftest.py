"""One real platform for a module's tests."""

from collections.abc import Iterator

import pytest
from tests.platform.platform import RunningPlatform


@pytest.fixture(scope="module")
def platform() -> Iterator[RunningPlatform]:
    """A running platform with one worker, shared: tests may kill or stop it, and wait until it is back."""
    with RunningPlatform("--workers", "1") as running:
        yield running
