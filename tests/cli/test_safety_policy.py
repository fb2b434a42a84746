"""`forestay safety`: policies, coverage, verdicts, replay, seals and broken glass, against real stores."""

import asyncio
import datetime as dt
import json
import pathlib
import uuid

import msgspec
import pytest
from tests.cli.conftest import Platform
from tests.cli.test_abuse import Forestay
from tests.safety.test_chain import record

from forestay.chance import SeededChance
from forestay.cli.deploying import read_tenant_policies
from forestay.clock import SystemClock
from forestay.errors import UsageError
from forestay.ids import (
    BUCKETS,
    KeyId,
    ModelId,
    ReplicaId,
    RevisionId,
    TenantId,
    WorkerId,
    new_request_id,
)
from forestay.queue.model import Answer, AttemptReport, Finish, Outcome, State, Submission
from forestay.queue.store import Offer
from forestay.safety.chain import Sealer
from forestay.safety.policy_file import standard_text
from forestay.safety.records import CheckRecord, PostgresVerdicts, keep_partitions

REASON = ("--reason", "a test")


async def test_a_policy_goes_from_a_file_into_force_and_back(forestay: Forestay, tmp_path: pathlib.Path) -> None:
    """Shown, checked, set in shadow, staged, rolled back; each step says where it stands."""
    shown = await forestay("safety", "policy", "show", "standard")
    file = tmp_path / "mine.yaml"
    file.write_text(shown.out, encoding="utf-8")
    assert shown.out == standard_text()
    assert "detectors nsfw@1, text-linear@1, text-meaning@1" in (await forestay("safety", "policy", "check", file)).out
    assert "judges in shadow" in (await forestay("safety", "policy", "set", "standard", file, *REASON)).out
    staged = await forestay("safety", "policy", "stage", "standard", "25", *REASON)
    assert "version 1 decides for 25 % of requests, version 0 for the rest" in staged.out
    assert "version 1 decides for all" in (await forestay("safety", "policy", "stage", "standard", "100", *REASON)).out
    listed = json.loads((await forestay("safety", "policy", "list", "--json")).out)
    assert listed == [{"policy_id": "standard", "stage": "all", "live": 1, "candidate": None, "percent": 0.0}]
    again = await forestay("safety", "policy", "rollback", "standard", "--version", "1", *REASON)
    assert (again.status, "version 1 decides for all" in again.out) == (0, True)
    missing = await forestay("safety", "policy", "rollback", "standard", "--version", "7", *REASON)
    assert (missing.status, "has no version 7" in missing.err) == (1, True)


async def test_a_tenant_has_a_stricter_policy_for_a_while(forestay: Forestay, tmp_path: pathlib.Path) -> None:
    """Named only while it is in force; shown with the tenant; ended again; each step audited."""
    file = tmp_path / "mine.yaml"
    file.write_text(standard_text(), encoding="utf-8")
    unknown = await forestay("tenant", "policy", "acme", "careful", *REASON)
    told = "nobody has set a policy 'careful'; name one of standard, unguarded"
    assert (unknown.status, told in unknown.err) == (1, True)
    await forestay("safety", "policy", "set", "careful", file, *REASON)
    early = await forestay("tenant", "policy", "acme", "careful", *REASON)
    assert (early.status, "forestay safety policy stage careful 100" in early.err) == (1, True)
    await forestay("safety", "policy", "stage", "careful", "100", *REASON)
    named = await forestay("tenant", "policy", "acme", "careful", *REASON)
    assert (named.status, named.out) == (0, "acme is also judged by careful\n")
    assert "as before" in (await forestay("tenant", "policy", "acme", "careful", *REASON)).out
    assert "policy of its own: careful" in (await forestay("tenant", "show", "acme")).out
    nobody = await forestay("tenant", "policy", "nobody", "careful", *REASON)
    assert (nobody.status, "no tenant 'nobody'" in nobody.err) == (1, True)
    ended = await forestay("tenant", "policy", "acme", "none", *REASON)
    assert ended.out == "acme is judged by the models' own policies alone\n"
    audit = json.loads((await forestay("audit", "list", "--json")).out)
    assert {"set_tenant_policy", "drop_tenant_policy"} <= {row["action"] for row in audit}


async def test_a_deploy_names_a_policy_that_is_in_force(forestay: Forestay, tmp_path: pathlib.Path) -> None:
    """A typing error is told at once, with the names that there are."""
    spec = tmp_path / "model.yaml"
    text = (
        "version: 0\nmodel: acme/remote\ndescription: a test\nowner: {team: t, contact: t@example.org}\nlicence: MIT\n"
        "host: {kind: http_server, url: http://127.0.0.1:9}\nendpoints: [{path: /}]\n"
    )
    spec.write_text(f"{text}safety: {{policy: standart}}\n", encoding="utf-8")
    refused = await forestay("deploy", spec)
    assert refused.status != 0
    assert "safety.policy: nobody has set a policy 'standart'; name one of standard, unguarded" in refused.err
    for policy in ("standard", "unguarded"):
        spec.write_text(f"{text}safety: {{policy: {policy}}}\n", encoding="utf-8")
        assert (await forestay("deploy", spec)).status == 0


async def test_a_fleet_file_names_tenants_policies(tmp_path: pathlib.Path) -> None:
    """What it says of tenants is read before anything is deployed; anything else is refused by name."""
    file = tmp_path / "fleet.yaml"
    file.write_text("models: []\ntenants: {acme: {policy: careful}, other: {policy: none}}\n", encoding="utf-8")
    assert read_tenant_policies(file) == {"acme": "careful", "other": "none"}
    file.write_text("models: []\ntenants: {acme: careful}\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"tenants\.acme must be"):
        read_tenant_policies(file)


async def test_a_wrong_policy_is_told_with_its_line(forestay: Forestay, tmp_path: pathlib.Path) -> None:
    """Without a platform by `check`, with the gap by `set`."""
    file = tmp_path / "wrong.yaml"
    file.write_text(standard_text().replace("block_at: 0.8", "block_at: 8", 1), encoding="utf-8")
    checked = await forestay("safety", "policy", "check", file)
    assert (checked.status, "rules.0.block_at: must be a score" in checked.err) == (2, True)
    file.write_text(standard_text().replace("[sexual]", "[sexual, weapons]", 1), encoding="utf-8")
    refused = await forestay("safety", "policy", "set", "standard", file, *REASON)
    assert (refused.status, "weapons in image: nsfw@1 does not cover it" in refused.err) == (1, True)


async def test_coverage_shows_gaps(forestay: Forestay) -> None:
    """A row a category, a column a modality; below, what each policy in force does not name."""
    shown = (await forestay("safety", "coverage")).out
    matrix, policies = shown.split("\n\n")
    [weapons] = [line for line in matrix.splitlines() if line.startswith("weapons")]
    assert "text-meaning@1" in weapons
    assert "nsfw@1" not in weapons
    lines = [line.split("\t") for line in policies.splitlines()]
    assert [line[:3] for line in lines[1:]] == [
        ["standard", "0", modality] for modality in ("text", "image", "video", "audio")
    ]
    assert (lines[2][3], "weapons" in lines[2][4], lines[4][4]) == ("sexual", True, "every category")


async def test_coverage_tells_of_every_policy_in_force(forestay: Forestay, tmp_path: pathlib.Path) -> None:
    """The live version and the candidate of each, and a file before it is set; one with gaps ends with 1."""
    file = tmp_path / "mine.yaml"
    file.write_text(standard_text().replace("categories: [sexual]", "categories: [sexual, weapons]", 1), "utf-8")
    told = await forestay("safety", "coverage", "--policy", file)
    assert (told.status, f"{file} rests on nobody: weapons in image: nsfw@1 does not cover it" in told.err) == (1, True)
    file.write_text(standard_text(), encoding="utf-8")
    await forestay("safety", "policy", "set", "careful", file, *REASON)
    shadow = json.loads((await forestay("safety", "coverage", "--json")).out)["policies"]
    assert [(row["policy_id"], row["version"], row["usable"]) for row in shadow] == [
        ("careful", 1, True), ("standard", 0, True),
    ]  # fmt: skip
    await forestay("safety", "policy", "stage", "careful", "100", *REASON)
    await forestay("safety", "policy", "set", "careful", file, *REASON)
    said = await forestay("safety", "coverage", "--policy", file, "--json")
    found = [(row["policy_id"], row["version"], row["live"], row["gaps"]) for row in json.loads(said.out)["policies"]]
    assert (said.status, found) == (
        0,
        [("careful", 1, True, []), ("careful", 2, False, []), ("standard", 0, True, []), (str(file), None, False, [])],
    )


async def test_verdicts_are_shown_replayed_and_verified(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """What a stricter policy would change, with precision and recall; an altered record is betrayed."""
    clock = SystemClock()
    await keep_partitions(platform.database, clock, 86_400 * 30)
    verdicts = PostgresVerdicts(platform.database)
    for number, score in enumerate((0.1, 0.6, 0.9), 1):
        check = CheckRecord(
            "text-meaning@1", "", "prompt", "text", "violence", score, 0.5, "flag", None, 0.0, {"violence": score}
        )
        action = "block" if score > 0.8 else "flag"
        made = msgspec.structs.replace(
            record(number), at=clock.now() - dt.timedelta(minutes=1), checks=[check], action=action, point="input",
            request_id=uuid.UUID(int=number),
        )  # fmt: skip
        await verdicts.write([made])
    assert await Sealer(platform.database, clock).run_once() == 3
    file, labels = tmp_path / "new.yaml", tmp_path / "labels.csv"
    file.write_text(standard_text().replace("block_at: 0.8", "block_at: 0.55", 1), encoding="utf-8")
    truth = "".join(
        f"{uuid.UUID(int=number)},{label}\n" for number, label in ((1, "safe"), (2, "unsafe"), (3, "unsafe"))
    )
    labels.write_text(f"request_id,label\n{truth}", encoding="utf-8")
    played = await forestay("safety", "replay", "--policy", file, "--since", "1h", "--labels", labels, "--json")
    said = json.loads(played.out)
    assert (said["judged"], [change["after"] for change in said["changes"]]) == (3, ["allow", "block"])
    assert said["scores"] == {
        "in_force": {"precision": 1.0, "recall": 0.5}, "new": {"precision": 1.0, "recall": 1.0},
    }  # fmt: skip
    assert (said["labelled"], sum(move["count"] for move in said["moves"])) == (3, 2)
    other = await forestay("safety", "replay", "--policy", file, "--instead-of", "nobody", "--json")
    assert json.loads(other.out)["judged"] == 0
    wrong = await forestay("safety", "replay", "--policy", file, "--point", "outputs")
    assert (wrong.status, "--point: must be one of input, input_media, output" in wrong.err) == (2, True)
    told = await forestay("safety", "replay", "--policy", file, "--since", "1h", "--labels", labels)
    assert "flag -> block: 1" in told.out
    assert "new: precision 1.000, recall 1.000 on 3 labels" in told.out
    shown = await forestay("safety", "verdicts", str(uuid.UUID(int=3)))
    assert "block" in shown.out
    assert (await forestay("safety", "verify")).out == "1 seals checked\n"
    await platform.database.execute("UPDATE verdict_facts SET action = 'allow'")
    betrayed = await forestay("safety", "verify")
    assert (betrayed.status != 0, "a record was changed" in betrayed.err) == (True, True)


async def test_glass_is_broken_for_a_while_and_mended(forestay: Forestay) -> None:
    """Listed while it lasts."""
    broken = json.loads(
        (await forestay("safety", "break-glass", "on", "nsfw@1", "--for", "30m", *REASON, "--json")).out
    )
    listed = json.loads((await forestay("safety", "break-glass", "list", "--json")).out)
    assert [row["detector_id"] for row in listed] == ["nsfw@1"]
    assert (await forestay("safety", "break-glass", "off", broken["waiver_id"], *REASON)).status == 0
    assert json.loads((await forestay("safety", "break-glass", "list", "--json")).out) == []
    long = await forestay("safety", "break-glass", "on", "nsfw@1", "--for", "2d", *REASON)
    assert (long.status, "for_seconds" in long.err) == (1, True)


async def test_a_person_rules_about_a_withheld_output_once(forestay: Forestay, platform: Platform) -> None:
    """Released as the model gave it, on record by name; a second ruling comes too late."""
    queue = platform.ports.queue
    now = SystemClock().now()
    ids = [new_request_id(now, 0, SeededChance(number)) for number in (1, 2)]
    for request_id in ids:
        who = (TenantId("acme"), KeyId("k"), ModelId("acme/film"))
        await queue.submit([Submission(request_id, *who, "/", b"{}", now)], {})
    offered = Offer(ReplicaId("r"), RevisionId("v"), ModelId("acme/film"), ((0, BUCKETS),), 2, idle=True)
    for lease in await queue.claim(WorkerId("w"), [offered], 15.0):
        report = AttemptReport(Outcome.SUCCEEDED, now, now, now, 0.1)
        answer = Answer(200, {"content-type": "application/json"}, b'{"ok": true}')
        assert await queue.finish([Finish(lease, State.WITHHELD, answer, report)])
    listed = await forestay("request", "list", "--state", "withheld", "--json")
    assert {row["request_id"] for row in json.loads(listed.out)} == {str(request_id) for request_id in ids}
    async with asyncio.TaskGroup() as group:
        assert platform.ports.safety is not None
        running = group.create_task(platform.ports.safety.guard.run())
        released = await forestay("safety", "release", str(ids[0]), *REASON)
        blocked = await forestay("safety", "block", str(ids[1]), *REASON)
        again = await forestay("safety", "block", str(ids[0]), *REASON)
        running.cancel()
    assert (released.status, blocked.status, again.status) == (0, 0, 1), (released.err, blocked.err)
    assert "decided already" in again.err
    results = [await queue.result(request_id) for request_id in ids]
    assert [result.answer.status_code for result in results if result is not None] == [200, 422]
    reasons = [row[0] for row in await platform.database.fetch("SELECT reason FROM verdict_facts ORDER BY position")]
    assert [": a test; stopped before by " in reason for reason in reasons] == [True, True]
