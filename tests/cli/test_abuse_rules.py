"""`forestay abuse rules`, `explain` and `replay` against the admin API and real stores."""

import datetime as dt
import pathlib
import uuid
from typing import cast

import httpx
import msgspec
import pytest
from tests.cli.conftest import Platform
from tests.cli.test_abuse import Forestay, Row, suspended

from forestay.telemetry.call_facts import CallFact, PostgresCalls

RULES = """\
version: 1
rules:
  - id: probing
    code: probing
    per: key
    when: {signal: probing.refused, at_least: 3}
    then: {standing: suspend, for: 1h, reason: "{probing.refused} prompts refused"}
"""


@pytest.fixture
def rules_file(tmp_path: pathlib.Path) -> pathlib.Path:
    """Rules of our own in a file."""
    file = tmp_path / "new.yaml"
    file.write_text(RULES, encoding="utf-8")
    return file


def key_of(platform: Platform) -> str:
    """The id of the API key."""
    return platform.api_key.partition(":")[0]


async def refused(platform: Platform, key: str, count: int, ago: dt.timedelta = dt.timedelta(minutes=5)) -> None:
    """Stored facts of distinct refused prompts."""
    first = platform.ports.clock.now() - ago
    base = CallFact(
        first, uuid.UUID(int=0), "acme", key, "acme/digits", "queue", "submit", "203.0.113.0/24", "a1",
        accepted=False, cause="content_policy_violation", status_code=422, predicted_seconds=1.0,
    )  # fmt: skip
    facts = [
        msgspec.structs.replace(
            base,
            at=first + dt.timedelta(seconds=number),
            call_id=uuid.uuid5(uuid.NAMESPACE_OID, f"{key}{number}"),
            prompt=(number + 1) * 0x0F0F_1234_5678 - (1 << 62),
            raw=number + 1,
        )
        for number in range(count)
    ]
    await PostgresCalls(platform.database).write(facts)


async def test_rules_are_shown_set_and_reset(platform: Platform, forestay: Forestay, rules_file: pathlib.Path) -> None:
    """From those that come along to one's own and back, with an audit row each."""
    brought = await forestay("abuse", "rules", "show")
    assert "id: stranger" in brought.out
    done = await forestay("abuse", "rules", "set", str(rules_file))
    assert done.status == 0, done.err
    assert "1 rules" in done.out
    shown = (await forestay("abuse", "rules", "show", "--json")).json()
    assert (shown["text"], shown["brought"]) == (RULES, False)
    assert (await forestay("abuse", "rules", "reset")).status == 0
    assert (await forestay("abuse", "rules", "show")).out == brought.out
    rows = await platform.ports.fleet.audit_rows(subject="abuse:rules", before=None, limit=5)
    assert [row.entry.action for row in rows] == ["set_abuse_rules", "set_abuse_rules"]


async def test_a_faulty_file_is_refused_with_every_fault_on_its_line(
    forestay: Forestay, rules_file: pathlib.Path
) -> None:
    """Here and before anything is sent; what is no YAML, what cannot hold and what is not there."""
    faulty = replaced(rules_file, ("at_least: 3", "at_least: three"), ("for: 1h", "for: 1y"))
    for command in ("check", "set"):
        ran = await forestay("abuse", "rules", command, str(faulty))
        assert ran.status == 2
        assert "new.yaml:6:" in ran.err
        assert "new.yaml:7:" in ran.err
        assert "must be a number" in ran.err
    assert (await forestay("abuse", "rules", "check", str(rules_file.with_name("none.yaml")))).status == 2
    unknown = replaced(rules_file, ("three", "3"), ("1y", "1h"), ("probing.refused,", "probing.refusals,"))
    assert "probing.refusals" in (await forestay("abuse", "rules", "check", str(unknown))).err
    assert "reset" in (await forestay("abuse", "rules", "set", str(emptied(rules_file)))).err


def replaced(file: pathlib.Path, *changes: tuple[str, str]) -> pathlib.Path:
    """Change a file."""
    text = file.read_text(encoding="utf-8")
    for old, new in changes:
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")
    return file


def emptied(file: pathlib.Path) -> pathlib.Path:
    """Leave nothing in a file."""
    file.write_text("", encoding="utf-8")
    return file


async def test_the_server_checks_rules_as_well(platform: Platform) -> None:
    """Whoever calls the API without our command line gets the same faults, in the field that is wrong."""
    headers = {"Authorization": f"Key {platform.admin_key}"}
    async with httpx.AsyncClient(base_url=platform.url, headers=headers, trust_env=False) as client:
        answer = await client.put("/admin/abuse/rules", json={"text": "version: 7\nrules: []"})
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"][-1] == "text"
        assert "must be 1" in answer.text
        for query in ("", "since=yesterday", "since=2020-01-01", "since=2999-01-01"):
            assert (await client.get(f"/admin/abuse/calls?{query}")).status_code == 422
        since = (platform.ports.clock.now() - dt.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        wrong = await client.get("/admin/abuse/calls", params={"since": since, "after": "x"})
        assert "position" in wrong.text


async def test_explain_tells_signals_rules_and_the_calls_behind_them(
    platform: Platform, forestay: Forestay, rules_file: pathlib.Path
) -> None:
    """What each condition wanted and saw; a stranger has no signals; a wrong subject is told how to be written."""
    await forestay("abuse", "rules", "set", str(rules_file))
    await refused(platform, key_of(platform), 4)
    told = await forestay("abuse", "explain", key_of(platform))
    assert told.status == 0, told.err
    assert "probing\tsuspend\tholds\tprobing.refused\tat_least 3\t4.0" in told.out
    assert "call: " in told.out
    await suspended(platform, forestay)
    found = (await forestay("abuse", "explain", f"key:{key_of(platform)}", "--json")).json()
    assert cast("Row", found["standing"])["kind"] == "suspend"
    assert cast("Row", found["signals"])["probing.refused"] == 4.0
    assert len(cast("list[str]", found["facts"])) == 4
    nobody = await forestay("abuse", "explain", "tenant:nobody")
    assert "no signal is above 0" in nobody.out
    wrong = await forestay("abuse", "explain", "person:anna")
    assert "key:<id>" in wrong.err


async def test_a_replay_shows_what_new_rules_would_have_done(
    platform: Platform, forestay: Forestay, rules_file: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Who would have been caught, and how right that is by labels and by appeals that people decided."""
    api = key_of(platform)
    await refused(platform, api, 4)
    await refused(platform, "fedcba9876543210", 5)
    await refused(platform, "0123456789abcdef", 1)
    labels = tmp_path / "known.csv"
    labels.write_text("subject,label\nkey:fedcba9876543210,honest\nkey:0123456789abcdef,abuse\n", encoding="utf-8")
    await suspended(platform, forestay)
    standing = (await forestay("abuse", "list", "--json")).out
    standing_id = standing.partition('"standing_id": "')[2].partition('"')[0]
    made = (await forestay("abuse", "appeal", standing_id, "--words", "they called us", "--json")).json()
    await platform.ports.standing_store.deny(str(made["appeal_id"]), "no", actor="human:another")
    ran = await forestay("abuse", "replay", "--rules", str(rules_file), "--since", "1d", "--labels", str(labels))
    assert ran.status == 0, ran.err
    assert f"key:{api}\t-\tsuspend (probing" in ran.out
    assert "2 subjects change, 0 stand the same under both" in ran.out
    assert "new: precision 0.50 (1 of 2, 95 %: 0.09 to 0.91), recall 0.50 (1 of 2" in ran.out
    assert "in_force: precision unknown (0 of 0), recall 0.00 (0 of 2" in ran.out
    found = (await forestay("abuse", "replay", "--rules", str(rules_file), "--json")).json()
    assert (found["judged"], found["labelled"]) == (10, 1)
    assert cast("Row", cast("Row", found["scores"])["new"])["caught"] == 1
    assert "prompts refused" in str(found["changes"])


@pytest.mark.parametrize(
    ("line", "mend"),
    [
        ("key:abc,maybe", "neither abuse nor honest"),
        ("nobody,abuse", "key:<id>"),
        ("key:abc", "subject,label"),
    ],
)
async def test_a_wrong_label_is_told_with_its_line(
    platform: Platform, forestay: Forestay, rules_file: pathlib.Path, tmp_path: pathlib.Path, line: str, mend: str
) -> None:
    """File, line, and what would be right."""
    del platform
    labels = tmp_path / "known.csv"
    labels.write_text(f"key:abc,abuse\n{line}\n", encoding="utf-8")
    ran = await forestay("abuse", "replay", "--rules", str(rules_file), "--labels", str(labels))
    assert ran.status == 2
    assert "known.csv:2:" in ran.err
    assert mend in ran.err


async def test_a_replay_reads_page_by_page_and_back_no_further_than_facts_are_kept(
    platform: Platform, forestay: Forestay, rules_file: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small pages give the same answer; a time out of reach is told."""
    monkeypatch.setattr("forestay.cli.abuse_replay.PAGE", 2)
    await refused(platform, key_of(platform), 5)
    found = (await forestay("abuse", "replay", "--rules", str(rules_file), "--json")).json()
    assert found["judged"] == 5
    for since in ("89d", "0s", "soon"):
        assert (await forestay("abuse", "replay", "--rules", str(rules_file), "--since", since)).status == 2
