"""What a caller sees of a finished request while the database is away for a moment."""

from tests.gateway.world import World

from forestay.errors import Unavailable
from forestay.ids import RequestId
from forestay.queue.model import Answer
from forestay.queue.store import Stored


async def test_a_result_outlasts_a_restart_of_the_database(world: World) -> None:
    """Clients do not ask again for a result that was answered with an error, so the gateway does."""
    request_id = await world.submit()
    await world.finish(await world.claim(request_id), Answer(200, {"content-type": "application/json"}, b'{"ok":true}'))
    really, refusals = world.queue.result, 2

    async def away(request_id: RequestId) -> Stored | None:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            raise Unavailable("away, as the test asked")
        return await really(request_id)

    world.queue.result = away  # type: ignore[method-assign]
    reply = await world.call("GET", f"/queue/acme/echo/requests/{request_id}")
    assert (reply.status, reply.json()) == (200, {"ok": True})
    assert refusals == -1


async def test_an_absent_database_is_not_taken_for_the_requests_own_failure(world: World) -> None:
    """No request ends with this error type, and the caller is told when to come back."""

    async def away(*_args: object) -> object:
        raise Unavailable("away, as the test asked", retry_after_seconds=3)

    world.queue.cancel = away  # type: ignore[method-assign]
    request_id = await world.submit()
    reply = await world.call("PUT", f"/queue/acme/echo/requests/{request_id}/cancel")
    assert (reply.status, reply.field("error_type")) == (503, "platform_unavailable")
    assert (reply.headers["x-fal-error-type"], reply.headers["retry-after"]) == ("platform_unavailable", "3")
