"""Wake-ups: delivered when all is well, counted when lost, never an error."""

import asyncio
from pathlib import Path

import pytest

from forestay.storage.embedded import EmbeddedValkey
from forestay.storage.valkey import LocalWakeups, ValkeyWakeups, Wakeups, connect_wakeups


@pytest.fixture(params=["valkey", "local"])
def any_wakeups(request: pytest.FixtureRequest, valkey_wakeups: Wakeups) -> Wakeups:
    """Each adapter in turn."""
    return valkey_wakeups if request.param == "valkey" else LocalWakeups()


async def test_a_message_reaches_every_listener_of_its_channel(any_wakeups: Wakeups) -> None:
    """Two listeners hear it, and what is published on other channels is not heard."""
    async with any_wakeups.subscribe("a", "b") as first, any_wakeups.subscribe("b") as second:
        await any_wakeups.publish("c", "nobody")
        await any_wakeups.publish("a", "one")
        await any_wakeups.publish("b", "two")
        async with asyncio.timeout(5):
            assert [await anext(first), await anext(first)] == [("a", "one"), ("b", "two")]
            assert await anext(second) == ("b", "two")


async def test_without_a_server_messages_are_counted_as_lost(tmp_path: Path) -> None:
    """Publishing to nothing raises nothing."""
    wakeups = await connect_wakeups(f"unix://{tmp_path}/nothing.sock")
    await wakeups.publish("a", "one")
    assert wakeups.lost == 1
    await wakeups.close()


async def test_a_listener_outlives_a_restart_of_the_server(server_dir: Path) -> None:
    """After the server is killed and started again, messages arrive without subscribing anew."""
    server = EmbeddedValkey(server_dir / "v")
    wakeups = ValkeyWakeups(server.start())
    try:
        async with asyncio.timeout(20), wakeups.subscribe("a") as messages:
            await wakeups.publish("a", "before")
            assert await anext(messages) == ("a", "before")
            server.stop()
            server.start()
            async with asyncio.TaskGroup() as group:
                publishing = group.create_task(_publish_until_heard(wakeups))
                assert await anext(messages) == ("a", "after")
                publishing.cancel()
    finally:
        await wakeups.close()
        server.stop()


async def _publish_until_heard(wakeups: Wakeups) -> None:
    while True:
        await wakeups.publish("a", "after")
        await asyncio.sleep(0.02)


async def test_a_local_listener_far_behind_loses_messages_that_are_counted() -> None:
    """The backlog is bounded."""
    wakeups = LocalWakeups()
    async with wakeups.subscribe("a"):
        for _ in range(1_005):
            await wakeups.publish("a", "x")
    assert wakeups.lost == 5
