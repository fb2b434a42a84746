"""Admin routes of the guard: what is refused, and what analysts read."""

import json

from tests.gateway.world import World
from tests.safety.doubles import MARKER, POLICY


async def admin(world: World, method: str, path: str, body: object = None) -> tuple[int, dict[str, object]]:
    """Call the admin API as its administrator."""
    reply = await world.call(method, f"/admin/safety{path}", body, key=world.admin_key)
    return reply.status, json.loads(reply.body)


async def test_a_policy_that_rests_on_nobody_is_refused_with_the_gap(world: World) -> None:
    """Silence is not an option: the mend is in the answer."""
    text = POLICY.replace("categories: [violence]", "categories: [violence, weapons]")
    status, said = await admin(world, "POST", "/policies/strict", {"text": text, "reason": "wider"})
    assert status == 422
    assert "weapons in text: words@1 does not cover it; give it a rule with `uncovered: review` or `block`" in str(said)


async def test_a_policy_with_a_fault_is_refused_with_its_line(world: World) -> None:
    """As `forestay safety policy check` would say it."""
    status, said = await admin(world, "POST", "/policies/strict", {"text": "version: 1\n", "reason": "a slip"})
    assert (status, "lacks `rules`" in str(said)) == (422, True)


async def test_coverage_shows_every_cell_and_where_each_policy_rests_on_nobody(world: World) -> None:
    """The stubs cover little, and that is said."""
    status, said = await admin(world, "GET", "/coverage")
    cells = {(cell["category"], cell["modality"]): cell["detectors"] for cell in said["cells"]}  # type: ignore[attr-defined, index]
    assert status == 200
    assert cells["violence", "text"] == ["words@1", "spare@1"]
    assert cells["weapons", "image"] == []
    policies = {item["policy_id"]: item for item in said["policies"]}  # type: ignore[attr-defined, index]
    assert "nsfw@1 is not installed here" in str(policies["standard"]["gaps"])
    assert set(policies) > {"standard"}
    assert all("audio" in item["unnamed"] for item in policies.values())


async def test_the_verdicts_of_a_request_are_read_without_its_content(world: World) -> None:
    """Policy, scores and reason; no word of the prompt."""
    reply = await world.call("POST", "/queue/acme/guarded", {"prompt": MARKER})
    await world.safety.guard.flush()
    [record] = world.safety.verdicts.records
    assert str(record.request_id) == reply.headers["x-fal-request-id"]
    assert MARKER not in str(record)


async def test_broken_glass_is_mended_within_a_day(world: World) -> None:
    """Longer is refused, with the bound."""
    body = {"detector": "words@1", "reason": "down", "for_seconds": 90_000}
    status, said = await admin(world, "POST", "/glass", body)
    assert (status, "86400" in str(said)) == (422, True)


async def test_only_those_who_may_steer_safety_set_a_policy(world: World) -> None:
    """A caller's key does not."""
    reply = await world.call("POST", "/admin/safety/policies/strict", {"text": POLICY, "reason": "x"})
    assert reply.status == 403
