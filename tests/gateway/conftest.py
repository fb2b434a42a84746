"""The running gateway over fakes."""

from collections.abc import AsyncIterator, Iterator

import pytest
import structlog
from tests.gateway.world import World, a_world

from forestay.storage.objects import ObjectStore
from forestay.telemetry.logs import configure


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    """Log as a real process does: JSON, no locals in traces."""
    before = structlog.get_config()
    configure("tests", level="warning")
    yield
    structlog.configure(**before)


@pytest.fixture
async def world(objects: ObjectStore) -> AsyncIterator[World]:
    """A gateway with its default settings, no holding of polls."""
    async with a_world(objects) as made:
        yield made
