"""`forestay rollout replay-safety`: a labelled set under both policies; counts go to the gate, prompts nowhere."""

import csv
import pathlib
from typing import cast

import httpx
from tests.cli.conftest import Platform
from tests.cli.test_rolling_deploy import SPEC, Forestay, report
from tests.conformance.fleet_values import replica_of
from tests.rollouts.test_safety_gate import POLICY
from tests.safety.doubles import SEAL

from forestay.chance import SeededChance
from forestay.clock import SystemClock
from forestay.ids import RevisionId
from forestay.rollouts.postgres_store import PostgresRolloutFacts, PostgresRolloutStore
from forestay.rollouts.safety_gate import SafetyGate
from forestay.rollouts.steer import GateSources, SteeringLoop
from forestay.safety.records import PostgresVerdicts
from forestay.safety.review.postgres_store import PostgresReviews

WORD = "MARKER-52D1"  # that the lexicon takes for violence, with a score of 1


async def in_force(platform: Platform, name: str, text: str) -> None:
    """Bring a policy in force; its detector runs in gateways, not in the judge that vouches for a policy by hand."""
    assert platform.ports.safety is not None
    store = platform.ports.safety.store
    await store.propose(name, text, actor="ada", reason="a test")
    await store.advance(name, 100.0, actor="ada", reason="a test")


def labelled(folder: pathlib.Path, unsafe: int, safe: int, text: str = WORD) -> pathlib.Path:
    """Write a set of labelled prompts."""
    file = folder / "prompts.csv"
    with file.open("w", encoding="utf-8", newline="") as sink:
        rows = csv.writer(sink)
        rows.writerow(("prompt", "unsafe"))
        rows.writerows([(f"{text} {number}", "yes") for number in range(unsafe)])
        rows.writerows([(f"a harbour at dawn {number}", "no") for number in range(safe)])
    return file


async def begun(forestay: Forestay, platform: Platform, folder: pathlib.Path, policies: tuple[str, str]) -> str:
    """Deploy a model judged by one policy, and begin the rollout of a revision that is judged by another."""
    file = folder / "model.yaml"
    revisions: list[RevisionId] = []
    name = ""
    for text, policy in zip(("one", "two"), policies, strict=True):
        file.write_text(f"{SPEC.format(text=text)}safety: {{policy: {policy}}}\n", encoding="utf-8")
        ran = await forestay(*(("deploy",) if text == "one" else ("rollout", "start")), file, "--json")
        assert ran.status == 0, ran.err
        revisions.append(RevisionId(str(ran.json()["revision_id"])))
        name = str(ran.json().get("rollout_id", ""))
    known = (await platform.ports.fleet.load()).revisions
    await report(platform, replica_of(known[revisions[0]]), replica_of(known[revisions[1]], name="r2"))
    return name


def steering(platform: Platform) -> SteeringLoop:
    """The controller's loop, with the gate of safety."""
    database = platform.database
    assert platform.ports.safety is not None
    gate = SafetyGate(
        platform.ports.safety.store,
        SEAL,
        PostgresReviews(database, SystemClock(), SeededChance(1)),
        PostgresVerdicts(database),
    )
    store = PostgresRolloutStore(database, writer="loop")
    return SteeringLoop(store, PostgresRolloutFacts(database), platform.ports.fleet, asked=GateSources(safety=gate))


async def test_a_set_that_is_judged_alike_opens_the_gate(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """Until then the rollout waits, and says for how many labelled rows and by which command."""
    await in_force(platform, "strict", POLICY.format(block="0.5"))
    await in_force(platform, "mild", POLICY.format(block="0.9"))
    name, loop = await begun(forestay, platform, tmp_path, ("strict", "mild")), steering(platform)
    await loop.run_once()
    shown = (await forestay("rollout", "status", name)).out
    assert "gate safety: inconclusive, 72 more labelled unsafe and 72 more labelled safe rows are needed" in shown

    counts = dict.fromkeys(("newly_passed", "newly_stopped", "safe", "newly_blocked", "newly_freed"), 3)
    body = {"reason": "a test", "source": "a set", "unsafe": 3, **counts}
    headers = {"authorization": f"Key {platform.admin_key}"}
    async with httpx.AsyncClient(base_url=platform.url, headers=headers, trust_env=False) as client:
        refused = await client.post(f"/admin/rollouts/{name}/safety", json=body)
    assert (refused.status_code, "newly_passed and newly_stopped together" in refused.text) == (422, True)

    few = await forestay("rollout", "replay-safety", name, "--dataset", labelled(tmp_path, 3, 3), "--label", "unsafe")
    assert (few.status, "inconclusive" in few.out) == (1, True)
    enough = labelled(tmp_path, 80, 80)
    ran = await forestay("rollout", "replay-safety", name, "--dataset", enough, "--label", "unsafe", "--json")
    assert (ran.status, ran.json()["verdict"]) == (0, "pass"), ran.err
    assert WORD not in ran.out + ran.err
    await loop.run_once()
    told = (await forestay("rollout", "status", name, "--json")).json()
    gates = cast("list[dict[str, str]]", told["gates"])
    assert [item["verdict"] for item in gates if item["gate"] == "safety"] == ["pass"]
    assert WORD not in str(told)
    rows = await platform.ports.fleet.audit_rows(subject=f"rollout:{name}", before=None, limit=10)
    assert "replay_safety" in {row.entry.action for row in rows}


async def test_a_set_that_the_candidate_lets_through_stops_it(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """Before any traffic; a set without labels, or for a rollout that changes no policy, is refused with the mend."""
    await in_force(platform, "strict", POLICY.format(block="0.5"))
    await in_force(platform, "blind", POLICY.format(block="0.9").replace("violence", "hate"))
    name, loop = await begun(forestay, platform, tmp_path, ("strict", "blind")), steering(platform)
    missing = await forestay(
        "rollout", "replay-safety", name, "--dataset", labelled(tmp_path, 9, 9), "--label", "harmful"
    )
    assert (missing.status != 0, "--label" in missing.err) == (True, True)
    ran = await forestay("rollout", "replay-safety", name, "--dataset", labelled(tmp_path, 9, 9), "--label", "unsafe")
    assert (ran.status, "judged worse" in ran.out) == (1, True), ran.err
    await loop.run_once()
    await loop.run_once()
    told = (await forestay("rollout", "status", name, "--json")).json()
    assert told["stage"] == "rolled_back"
    assert "blind passes 9 of 9 unsafe rows that strict does not" in str(told["reason"])
