"""`forestay safety review`, `appeal` and `appeals`, against the admin API and real stores."""

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Platform
from tests.cli.test_abuse import Forestay

from forestay.cli.client import Profile, save_profile
from forestay.fleet.people import Way
from forestay.fleet.roles import Role
from forestay.ids import KeyId, ModelId, RequestId, TenantId, new_request_id
from forestay.queue.model import Options
from forestay.safety.policy import ReviewRules
from forestay.safety.records import Point
from forestay.safety.review.desk import ReviewDesk
from forestay.safety.review.kept import KeptInput, packed
from forestay.safety.review.model import NewItem
from forestay.safety.review.sealed import Label
from forestay.safety.taxonomy import Category
from forestay.verdicts import Verdict

MARKER = "MARKER-52D1"
REASON = ("--reason", "a film title")


def desk_of(platform: Platform) -> ReviewDesk:
    """Where people look again."""
    assert platform.ports.safety is not None
    assert platform.ports.safety.review is not None
    return platform.ports.safety.review


async def blocked(platform: Platform) -> RequestId:
    """A prompt of the API key that the guard has blocked, with its sealed copy."""
    request_id = new_request_id(platform.ports.clock.now(), 0, platform.ports.chance)
    kept = packed(KeptInput(json.dumps({"prompt": MARKER}).encode(), Options(), 1.0))
    sealed_id = await desk_of(platform).sealed.put(Label("input", str(request_id), "acme"), kept)
    key_id = KeyId(platform.api_key.partition(":")[0])
    item = NewItem(
        request_id, 0, Point.INPUT, TenantId("acme"), key_id, ModelId("acme/film"), "/", "standard", 0, Verdict.BLOCK,
        Category.VIOLENCE, "prompt", "violence 0.990 reached 0.8 by words@1", ReviewRules(), sealed_id,
    )  # fmt: skip
    assert await desk_of(platform).reviews.open(item)
    return request_id


async def test_a_caller_appeals_and_two_people_release(
    forestay: Forestay, platform: Platform, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Listed, read on record, claimed, voted by two; the caller sees the linked request."""
    request_id = str(await blocked(platform))
    monkeypatch.setenv("FORESTAY_KEY", platform.api_key)
    made = await forestay("safety", "appeal", request_id, *REASON)
    assert (made.status, "people will look at it" in made.out) == (0, True), made.err
    monkeypatch.setenv("FORESTAY_KEY", platform.admin_key)
    listed = json.loads((await forestay("safety", "review", "list", "--appealed", "--json")).out)
    assert [row["request_id"] for row in listed] == [request_id]
    assert MARKER not in json.dumps(listed)
    item_id = listed[0]["item_id"]
    no_reason = await forestay("safety", "review", "show", item_id, "--content")
    assert (no_reason.status, "reason" in no_reason.err) == (1, True)
    shown = await forestay("safety", "review", "show", item_id, "--content", "--reason", "an appeal", "--json")
    assert shown.json()["content"] == {"point": "input", "body": {"prompt": MARKER}}
    assert "an appeal" in (await forestay("safety", "review", "access", item_id)).out
    for name in ("ann", "bob"):
        await sign_in(platform, monkeypatch, tmp_path, name)
        claimed = await forestay("safety", "review", "claim", item_id)
        assert (claimed.status, "is yours until" in claimed.out) == (0, True), claimed.err
        voted = await forestay("safety", "review", "vote", item_id, "release", *REASON)
        assert voted.status == 0, voted.err
        assert ("1 of 2 people" in voted.out) == (name == "ann")
    assert "released" in voted.out
    stats = json.loads((await forestay("safety", "review", "stats", "--json")).out)
    assert (stats["waiting"], stats["released"], stats["overturn_rate"]) == (0, 1, 1.0)
    monkeypatch.setenv("FORESTAY_KEY", platform.api_key)
    monkeypatch.delenv("FORESTAY_PROFILE")
    [appeal] = json.loads((await forestay("safety", "appeals", "--json")).out)
    assert appeal["outcome"] == "released"
    rows = await platform.database.fetch("SELECT request_id FROM requests")
    assert [str(row[0]) for row in rows] == [appeal["linked_request_id"]]


async def sign_in(platform: Platform, monkeypatch: pytest.MonkeyPatch, folder: Path, name: str) -> None:
    """Add an analyst and let commands act as them, as after `forestay login`."""
    people = platform.ports.people
    hashed = await platform.ports.desk.hash("correct horse battery")
    found = await people.add(f"{name}@example.org", Role.ANALYST, hashed, None, actor="system:test")
    assert found is not None
    opened = await people.open_session(found.person_id, Way.PASSWORD, 600.0)
    save_profile(folder / f"{name}.json", Profile(platform.url, "", session=opened.token))
    monkeypatch.setenv("FORESTAY_PROFILE", str(folder / f"{name}.json"))
    monkeypatch.delenv("FORESTAY_KEY", raising=False)
