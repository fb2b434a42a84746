"""`forestay safety review`, `appeal` and `appeals`, against the admin API and real stores."""

import io
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image
from tests.cli.conftest import Platform
from tests.cli.test_abuse import Forestay
from tests.safety.test_chain import record

from forestay.cli.client import Profile, save_profile
from forestay.clock import SystemClock
from forestay.fleet.people import Way
from forestay.fleet.roles import Role
from forestay.ids import KeyId, ModelId, RequestId, TenantId, new_request_id
from forestay.queue.model import Options
from forestay.safety.policy import ReviewRules
from forestay.safety.policy_file import standard_text
from forestay.safety.records import CheckRecord, Point, PostgresVerdicts, keep_partitions
from forestay.safety.review.desk import ReviewDesk
from forestay.safety.review.kept import KeptInput, KeptOutput, packed
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


async def stopped_output(platform: Platform, picture: bytes) -> RequestId:
    """An output that the guard has withheld, with one file in quarantine."""
    request_id = new_request_id(platform.ports.clock.now(), 0, platform.ports.chance)
    file = await platform.ports.media.save(
        picture, tenant_id=TenantId("acme"), file_name="a.png", content_type="image/png", request_id=request_id,
        attempt=1, lifetime_seconds=None, state="quarantine",
    )  # fmt: skip
    kept = packed(KeptOutput(200, {"content-type": "application/json"}, b'{"ok": true}', [file.media_id], Options()))
    sealed_id = await desk_of(platform).sealed.put(Label("output", str(request_id), "acme", "1"), kept)
    item = NewItem(
        request_id, 1, Point.OUTPUT, TenantId("acme"), KeyId("k"), ModelId("acme/film"), "/", "standard", 0,
        Verdict.INCONCLUSIVE, None, "images[0]", "nobody could tell", ReviewRules(), sealed_id,
    )  # fmt: skip
    assert await desk_of(platform).reviews.open(item)
    return request_id


def drawn(size: int = 640) -> bytes:
    """A marker picture: stripes one pixel wide, which no blur leaves."""
    rows = np.zeros((size, size, 3), np.uint8)
    rows[:, ::2] = 255
    out = io.BytesIO()
    Image.fromarray(rows).save(out, "PNG")
    return out.getvalue()


async def test_a_file_is_shown_blurred_unless_it_is_asked_for_clear(
    forestay: Forestay, platform: Platform, tmp_path: Path
) -> None:
    """Each look takes a reason and is on record as what it was."""
    request_id = str(await stopped_output(platform, drawn()))
    out = tmp_path / "seen"
    for clear in ((), ("--clear",)):
        ran = await forestay("safety", "review", "media", request_id, out, "--reason", "an appeal", *clear)
        assert ran.status == 0, ran.err
        with Image.open(out) as opened:
            seen = np.asarray(opened.convert("L"), np.float64)
        sharp = float(np.abs(np.diff(seen, axis=1)).mean())
        assert (sharp > 200) if clear else (sharp < 2 and max(seen.shape) <= 384)
    no_reason = await forestay("safety", "review", "media", request_id, out, "--reason", "")
    assert (no_reason.status, "reason" in no_reason.err) == (1, True)
    beyond = await forestay("safety", "review", "media", request_id, out, "--number", "7", "--reason", "x")
    assert (beyond.status, "1 files" in beyond.err) == (1, True)
    log = json.loads((await forestay("safety", "review", "access", request_id, "--json")).out)
    assert [row["how"] for row in log][1:] == ["clear", "blurred"]


async def test_what_could_not_be_told_is_listed_and_told_anew(forestay: Forestay, platform: Platform) -> None:
    """Dead letters of FORESTAY_REVIEW_URL."""
    await blocked(platform)
    await platform.database.execute("UPDATE review_events SET state = 'dead', last_error = 'answered 500'")
    [dead] = json.loads((await forestay("safety", "review", "events", "--json")).out)
    assert dead["last_error"] == "answered 500"
    again = await forestay("safety", "review", "events", "--retry", dead["event_id"], "--reason", "their hook is back")
    assert (again.status, "told anew" in again.out) == (0, True), again.err
    assert (await forestay("safety", "review", "events")).out.strip() == "no such events"


async def test_replays_are_measured_by_what_people_found(
    forestay: Forestay, platform: Platform, tmp_path: Path
) -> None:
    """A finding counts without a file of labels; a file's word goes before it."""
    request_id = await blocked(platform)
    await forestay("safety", "review", "vote", str(request_id), "block", "--reason", "as it says")
    now = SystemClock().now()
    await keep_partitions(platform.database, SystemClock(), 86_400.0)
    check = CheckRecord(
        "text-meaning@1", "", "prompt", "text", "violence", 0.9, 0.8, "block", None, 0.0, {"violence": 0.9}
    )
    said = msgspec.structs.replace(
        record(1), at=now, request_id=request_id, point="input", action="block", checks=[check]
    )
    await PostgresVerdicts(platform.database).write([said])
    file = tmp_path / "mine.yaml"
    file.write_text(standard_text(), encoding="utf-8")
    play = ("safety", "replay", "--policy", file, "--since", "1h", "--json")
    assert (await forestay(*play)).json()["scores"]["in_force"] == {"precision": 1.0, "recall": 1.0}  # type: ignore[index]
    unread = (await forestay(*play, "--no-reviewed")).json()["scores"]
    assert unread["in_force"] == {"precision": None, "recall": None}  # type: ignore[index]
    labels = tmp_path / "labels.csv"
    labels.write_text(f"{request_id},safe\n", encoding="utf-8")
    own = (await forestay(*play, "--labels", labels)).json()["scores"]
    assert own["in_force"] == {"precision": 0.0, "recall": None}  # type: ignore[index]


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
