"""A guarded model on the whole platform, with the real judge: what callers get, and what analysts read afterwards."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.acceptance.conftest import Acceptance
from tests.platform.platform import run_cli

from forestay.safety.judge.folder import missing

pytestmark = pytest.mark.skipif(bool(missing()), reason="the extra `safety` is not installed")
ECHO = Path(__file__).resolve().parents[2] / "examples" / "echo"
GUARDED = "/queue/forestay/guarded"
TOKEN = "MARKER-52D1"  # stands for violence that nobody writes out
PASSWORD = "correct horse battery"
DISGUISES = {
    "spaced": " ".join(TOKEN),
    "full width": "".join(chr(ord(letter) + 0xFEE0) for letter in TOKEN),
    "zero width": "\u200b".join(TOKEN),
    "tags": "".join(chr(0xE0000 + ord(letter)) for letter in TOKEN),
    "combining": "".join(letter + "\u0336" for letter in TOKEN),
    "homoglyphs": TOKEN.replace("M", "\u041c").replace("A", "\u0410").replace("E", "\u0415"),
}


@pytest.fixture(scope="module")
def guarded(acceptance: Acceptance, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Deploy echo once more, under the policy that comes along; yields a caller's client."""
    folder = tmp_path_factory.mktemp("guarded") / "echo"
    shutil.copytree(ECHO, folder)
    spec = folder / "model.yaml"
    text = spec.read_text(encoding="utf-8").replace("model: forestay/echo", "model: forestay/guarded")
    spec.write_text(f"{text}safety: {{policy: standard}}\n", encoding="utf-8")
    environment = {"FORESTAY_URL": acceptance.url, "FORESTAY_KEY": acceptance.admin_key}
    deployed = run_cli("deploy", str(spec), environment=environment)
    assert deployed.returncode == 0, deployed.stderr
    with acceptance.http() as client:
        yield client


def finished(client: httpx.Client, request_id: str) -> httpx.Response:
    """Wait for the end of a request; returns its result."""
    deadline = time.monotonic() + 30.0
    while client.get(f"{GUARDED}/requests/{request_id}/status").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return client.get(f"{GUARDED}/requests/{request_id}")


def verdicts(acceptance: Acceptance, request_id: str) -> list[dict[str, Any]]:
    """Read the records of a request, once its input's has been written."""
    deadline = time.monotonic() + 10.0
    with acceptance.http(acceptance.admin_key) as client:
        while True:
            found = client.get("/admin/safety/verdicts", params={"request_id": request_id}).json()["verdicts"]
            if any(record["point"] == "input" for record in found):
                return found
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_harmless_request_passes_and_both_its_sides_are_on_record(
    guarded: httpx.Client, acceptance: Acceptance
) -> None:
    """The picture was looked at by the real detector; no word of the prompt stands in the records."""
    accepted = guarded.post(GUARDED, json={"text": "a lighthouse in a storm", "image": True})
    assert accepted.status_code == 200, accepted.text
    request_id = accepted.json()["request_id"]
    result = finished(guarded, request_id)
    assert result.status_code == 200, result.text
    assert guarded.get(result.json()["image"]["url"]).status_code == 200
    found = verdicts(acceptance, request_id)
    assert {record["point"]: record["verdict"] for record in found} == {"input": "allow", "output": "allow"}
    asked = {check["detector"] for record in found for check in record["checks"]}
    assert asked == {"text-meaning@1", "nsfw@1"}
    assert "lighthouse" not in json.dumps(found)


@pytest.mark.parametrize("name", ["plain", *DISGUISES])
def test_a_forbidden_prompt_is_refused_however_it_is_disguised(guarded: httpx.Client, name: str) -> None:
    """Typed, with category and field, on both lanes."""
    text = f"a film of {DISGUISES.get(name, TOKEN)}"
    for path in (GUARDED, "/run/forestay/guarded"):
        refused = guarded.post(path, json={"text": text})
        assert refused.status_code == 422, (path, refused.text)
        [detail] = refused.json()["detail"]
        assert (detail["loc"], detail["type"], detail["ctx"]["category"]) == (
            ["body", "text"], "content_policy_violation", "violence",
        )  # fmt: skip


def test_a_killed_judge_lets_nothing_through_unjudged_and_is_back_soon(
    guarded: httpx.Client, acceptance: Acceptance
) -> None:
    """While it is away callers are told to come back; what is forbidden is never accepted."""
    platform = acceptance.platform
    old = platform.kill("judge-1")
    deadline, told = time.monotonic() + 20.0, set[int]()
    while True:
        assert guarded.post(GUARDED, json={"text": f"a film of {TOKEN}"}).status_code in {422, 503}
        answered = guarded.post(GUARDED, json={"text": "a calm sea"}).status_code
        told.add(answered)
        if answered == 200 and 503 in told:
            break
        assert time.monotonic() < deadline, told
    assert told == {200, 503}
    assert platform.wait_replaced("judge-1", old) != old
    verified = run_cli(
        "safety", "verify", environment={"FORESTAY_URL": acceptance.url, "FORESTAY_KEY": acceptance.admin_key}
    )
    assert verified.returncode == 0, verified.stderr


def signed_in(acceptance: Acceptance, name: str) -> httpx.Client:
    """Add an analyst and return a client that acts as them."""
    who = {"email": f"{name}@example.org", "password": PASSWORD}
    with acceptance.http(acceptance.admin_key) as admin:
        admin.post("/admin/people", json={**who, "role": "analyst"}).raise_for_status()
        token = admin.post("/admin/sign-in", json=who).raise_for_status().json()["token"]
    client = acceptance.http("")
    client.headers["Authorization"] = f"Bearer {token}"
    return client


def vote(client: httpx.Client, request_id: str, why: str) -> dict[str, Any]:
    """Vote to release; returns how the item stands."""
    said = {"vote": "release", "reason": why}
    answered = client.post(f"/admin/safety/review/{request_id}/vote", json=said)
    assert answered.status_code == 200, answered.text
    return answered.json()


@pytest.mark.threat("API5:2023", "ML01:2023")
def test_a_blocked_prompt_runs_after_an_appeal_that_two_different_people_grant(
    guarded: httpx.Client, acceptance: Acceptance
) -> None:
    """One reviewer is not enough, the same one twice is not, a key is not; its output is judged like every other."""
    ours = {"FORESTAY_URL": acceptance.url, "FORESTAY_KEY": acceptance.api_key}
    with signed_in(acceptance, "ann") as ann, signed_in(acceptance, "bob") as bob:
        blocked = guarded.post(GUARDED, json={"text": f"a film of {TOKEN}"})
        assert blocked.status_code == 422, blocked.text
        request_id = blocked.headers["x-fal-request-id"]
        appealed = run_cli("safety", "appeal", request_id, "--reason", "the title of a film", environment=ours)
        assert appealed.returncode == 0, appealed.stderr
        for _ in range(2):
            item = vote(ann, request_id, "a title")
            assert (item["has"], item["needs"], item["outcome"]) == (1, 2, None)
        key = {**ours, "FORESTAY_KEY": acceptance.admin_key}
        by_key = run_cli("safety", "release", request_id, "--reason", "me too", environment=key)
        assert (by_key.returncode, "each signed in" in by_key.stderr) == (1, True), by_key.stderr
        assert vote(bob, request_id, "a title indeed")["outcome"] == "released"
        [appeal] = json.loads(run_cli("safety", "appeals", request_id, "--json", environment=ours).stdout)
        linked = appeal["linked_request_id"]
        assert finished(guarded, linked).json()["text"] == f"a film of {TOKEN}"
        assert guarded.get(f"{GUARDED}/requests/{request_id}").status_code == 422
        records = bob.get("/admin/safety/verdicts", params={"request_id": linked}).json()["verdicts"]
    points = {(record["point"], record["policy_id"]): record["verdict"] for record in records}
    assert points == {("input", "person"): "allow", ("output", "standard"): "allow"}
    assert TOKEN not in json.dumps(records)
