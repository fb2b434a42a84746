"""Rollouts as the person who ships sees them: begun, looked at, paused, promoted, aborted."""

import asyncio
import dataclasses
import datetime as dt
import pathlib
from collections.abc import Awaitable, Callable
from typing import cast

from tests.cli.conftest import Platform, Ran
from tests.cli.test_rolling_deploy import MODEL, report, serving, spec_of
from tests.conformance.fleet_values import replica_of
from tests.rollouts.shadow_values import compared

from forestay.chance import SeededChance
from forestay.fleet.model import Revision
from forestay.ids import BUCKETS, KeyId, ReplicaId, RequestId, RevisionId, TenantId, bucket_of, new_request_id
from forestay.rollouts.postgres_store import PostgresRolloutFacts, PostgresRolloutStore
from forestay.rollouts.shadow.model import Outcome
from forestay.rollouts.shadow.postgres_store import PostgresShadowStore
from forestay.rollouts.steer import GateSources, SteeringLoop
from forestay.slo.budget_policy import BudgetDecision
from forestay.slo.model import BudgetAction, Minute, SloId
from forestay.slo.policy_store import PostgresBudgetPolicy
from forestay.telemetry.facts import FactWriter, RequestFact

Forestay = Callable[..., Awaitable[Ran]]
QUICK = ("--no-shadow", "--step-seconds", "0", "--step-requests", "5", "--watch", "0", "--steps", "5,50")


SHADOWED = ("--shadow-requests", "12", *QUICK[1:])


def request_id_of(number: int) -> RequestId:
    """An id as callers' requests have it."""
    return new_request_id(dt.datetime(2030, 1, 1, tzinfo=dt.UTC), 0, SeededChance(number))


class Shipping:
    """A rollout under way, with the controller's loop in the test's hand."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.chance = SeededChance(11)
        store = PostgresRolloutStore(platform.database, writer="loop")
        facts = PostgresRolloutFacts(platform.database, settled_seconds=-5.0)
        self.shadow = PostgresShadowStore(platform.database)
        self.budgets = PostgresBudgetPolicy(platform.database, writer="loop")
        self.loop = SteeringLoop(store, facts, platform.ports.fleet, self.shadow, GateSources(budgets=self.budgets))

    async def begin(self, forestay: Forestay, folder: pathlib.Path, *options: str) -> str:
        """Deploy one revision, let it serve, and begin the rollout of another; returns the rollout's id."""
        first = await serving(forestay, self.platform, folder)
        ran = await forestay("rollout", "start", spec_of(folder, "two"), *options, "--json")
        assert ran.status == 0, ran.err
        second = (await self.platform.ports.fleet.load()).revisions[RevisionId(str(ran.json()["revision_id"]))]
        await self.ready(first, second)
        return str(ran.json()["rollout_id"])

    async def freeze(self, reason: str) -> None:
        """Let an SLO of the model demand that nothing grows."""
        now = (await self.platform.ports.fleet.load()).now
        decided = BudgetDecision(SloId("digits-up"), BudgetAction.FREEZE, 0.0, Minute(1), reason)
        await self.budgets.decide([(decided, f"model:{MODEL}", BudgetAction.NONE)], now)

    async def ready(self, first: Revision, second: Revision) -> None:
        """Let both have a replica."""
        await report(self.platform, replica_of(first), replica_of(second, name="r2"))

    async def share(self) -> float:
        """The candidate's share of the traffic, in percent."""
        fleet = await self.platform.ports.fleet.load()
        newest = max(fleet.revisions.values(), key=lambda item: item.created_at).revision_id
        routes = [route for route in fleet.routes if route.revision_id == newest]
        return sum(route.bucket_to - route.bucket_from for route in routes) * 100 / BUCKETS

    async def serve(self, requests: int, failing_share: float) -> None:
        """Let requests finish by the routes as they are; the candidate fails all of its own when the share is 1."""
        now, edge = (await self.platform.ports.fleet.load()).now, await self.share() * BUCKETS / 100
        facts: list[RequestFact] = []
        for number in range(requests):
            request_id = new_request_id(now, 0, self.chance)
            failed = bucket_of(request_id) < edge and self.chance.uniform(0, 1) < failing_share
            at = now + dt.timedelta(seconds=2.5, microseconds=number)
            outcome, status = ("model_error", 500) if failed else ("succeeded", 200)
            facts.append(
                RequestFact(
                    request_id, "direct", TenantId("acme"), KeyId("k"), MODEL, "/", RevisionId("x"), ReplicaId("r"),
                    1, "SUCCEEDED", outcome, status, None, at, at, at, 0.1,
                )
            )  # fmt: skip
        await FactWriter(self.platform.database).write(facts)

    async def settle(self, requests: int = 0, failing_share: float = 0.0, rounds: int = 12) -> None:
        """Let traffic and the loop go on until the rollout is over or the rounds are."""
        for _ in range(rounds):
            await self.loop.run_once()
            if requests:
                await self.serve(requests, failing_share)


async def test_a_bad_revision_is_rolled_back_and_the_reason_is_shown(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """From gates to canary to weight 0, with nobody's hand."""
    shipping = Shipping(platform)
    name = await shipping.begin(forestay, tmp_path, *QUICK)
    await shipping.loop.run_once()
    await shipping.loop.run_once()
    assert await shipping.share() == 5.0
    await shipping.settle(150, failing_share=1.0)
    told = (await forestay("rollout", "status", name, "--json")).json()
    assert (told["stage"], told["settled"]) == ("rolled_back", True)
    assert "errors" in str(told["reason"])
    assert await shipping.share() == 0.0
    assert (await platform.ports.fleet.load()).pending == {}
    shown = (await forestay("rollout", "status", MODEL)).out
    assert "rolled_back" in shown
    assert "worse than the control" in shown


async def test_one_rollout_at_a_time_and_wrong_options_are_named(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """The second is told which one is in the way."""
    shipping = Shipping(platform)
    name = await shipping.begin(forestay, tmp_path)
    second = await forestay("rollout", "start", spec_of(tmp_path, "three"))
    assert second.status == 1
    assert name in second.err
    wrong = await forestay("rollout", "start", spec_of(tmp_path, "three"), "--steps", "50,5")
    assert "steps" in wrong.err
    assert (await forestay("rollout", "status", "nothing")).status != 0
    assert [
        item["rollout_id"]
        for item in cast("list[dict[str, str]]", (await forestay("rollout", "list", "--json")).json())
    ] == [name]


async def test_a_person_pauses_promotes_and_is_in_the_audit_log(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """A pause holds the share; a promotion by word gives all traffic and is over."""
    shipping = Shipping(platform)
    name = await shipping.begin(forestay, tmp_path, *QUICK)
    await shipping.settle(rounds=3)
    assert (await forestay("rollout", "pause", name, "--reason", "looking")).status == 0
    await shipping.settle(150, rounds=4)
    assert await shipping.share() == 5.0
    await forestay("rollout", "resume", name, "--reason", "seen")
    await forestay("rollout", "promote", MODEL, "--reason", "seen by eye")
    await shipping.settle(rounds=3)
    assert await shipping.share() == 100.0
    over = await forestay("rollout", "abort", name, "--reason", "too late")
    assert over.status == 1
    assert "is over" in over.err
    rows = await platform.ports.fleet.audit_rows(subject=f"rollout:{name}", before=None, limit=10)
    acts = {row.entry.action for row in rows}
    assert acts == {"begin_rollout", "pause_rollout", "resume_rollout", "promote_rollout"}


async def test_what_a_spent_budget_holds_goes_on_by_a_person_s_word(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """Held with the budget's reason and the way out; once overridden it grows, and shows who said so and why."""
    shipping = Shipping(platform)
    await shipping.freeze("digits-up: the error budget is spent: freeze")
    name = await shipping.begin(forestay, tmp_path, *QUICK)
    await shipping.settle(rounds=3)
    assert await shipping.share() == 0.0
    held = (await forestay("rollout", "status", name)).out
    assert "digits-up: the error budget is spent" in held
    assert f"forestay rollout override {name}" in held

    silent = await forestay("rollout", "override", name, "--reason", " ")
    assert silent.status != 0
    assert "reason" in silent.err
    assert await shipping.share() == 0.0
    ran = await forestay("rollout", "override", MODEL, "--reason", "it mends what burns", "--json")
    assert ran.status == 0, ran.err
    assert str(ran.json()["despite_budget"]).endswith(": it mends what burns")
    await shipping.settle(rounds=3)
    assert await shipping.share() == 5.0
    told = (await forestay("rollout", "status", name, "--json")).json()
    assert "override_rollout: it mends what burns" in str(told["journal"])
    rows = await platform.ports.fleet.audit_rows(subject=f"rollout:{name}", before=None, limit=10)
    [overridden] = [row.entry for row in rows if row.entry.action == "override_rollout"]
    assert (overridden.reason, overridden.actor != "") == ("it mends what burns", True)

    await forestay("rollout", "abort", name, "--reason", "enough")
    await shipping.settle(rounds=3)
    late = await forestay("rollout", "override", name, "--reason", "again")
    assert (late.status, "is over" in late.err) == (1, True)


async def test_an_abort_takes_the_traffic_back_in_one_run(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """Orders of people meet a loop that writes all the time, and are not lost."""
    shipping = Shipping(platform)
    name = await shipping.begin(forestay, tmp_path, *QUICK)
    await shipping.settle(rounds=3)
    async with asyncio.TaskGroup() as group:
        ordering = group.create_task(_run(forestay, "rollout", "abort", name, "--reason", "wrong weights"))
        await shipping.settle(rounds=3)
        assert (await ordering).status == 0
    await shipping.loop.run_once()
    assert await shipping.share() == 0.0


async def _run(forestay: Forestay, *words: object) -> Ran:
    return await forestay(*words)


async def test_the_first_deploy_of_a_model_needs_no_rollout(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """There is nothing to compare it with: it gets the traffic, and the command says so."""
    ran = await forestay("rollout", "start", spec_of(tmp_path, "one"))
    assert ran.status == 0
    assert "nothing to compare" in ran.err
    assert len((await platform.ports.fleet.load()).routes) == 1


async def test_a_policy_can_be_played_before_it_is_used(forestay: Forestay) -> None:
    """A good candidate is let through and a bad one stopped early; the same call says the same."""
    words = ("rollout", "simulate", "--per-minute", "120", "--worse", "0.3", "--steps", "10,50", "--deadline", "7200")
    told = (await forestay(*words, "--seeds", "3", "--json")).json()
    good, bad = (cast("dict[str, float]", told[name]) for name in ("good", "bad"))
    assert (good["promoted"], bad["rolled_back"]) == (1.0, 1.0)
    assert bad["requests_p90"] < 200 < good["requests_median"]
    assert (await forestay(*words, "--seeds", "3", "--json")).json() == told
    assert "rolled back" in (await forestay(*words, "--seeds", "1")).out


async def test_a_rollout_ends_in_a_page_and_its_verdicts_follow_from_what_is_stored(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """With the pictures of its shadow; a verdict that does not follow is told, by the exit code as well."""
    shipping = Shipping(platform)
    name = await shipping.begin(forestay, tmp_path, *SHADOWED)
    await shipping.loop.run_once()
    assert (await forestay("rollout", "status", name, "--json")).json()["stage"] == "shadow"
    await platform.ports.objects.put("shadow/r/1.png", b"a picture")
    for number in range(12):
        pair = compared(number, excess=6.0)
        outcome = dataclasses.replace(pair.outcome or Outcome({}, {}), sheet_key="shadow/r/1.png")
        begun = dataclasses.replace(pair, request_id=request_id_of(number), outcome=None)
        assert await shipping.shadow.begin(name, begun)
        await shipping.shadow.end(name, dataclasses.replace(begun, outcome=outcome, device_seconds=1.0))
    await shipping.settle()
    told = (await forestay("rollout", "report", name, "--json")).json()
    assert (told["stage"], cast("dict[str, object]", told["shadow"])["said"]) == ("rolled_back", "differs")
    assert "device-seconds" in (await forestay("rollout", "status", name)).out
    page = tmp_path / "page.html"
    assert (await forestay("rollout", "report", MODEL, "--format", "html", "--out", str(page))).status == 0
    assert "data:image/png;base64" in page.read_text()
    notes = tmp_path / "page.md"
    assert (await forestay("rollout", "report", MODEL, "--out", str(notes))).status == 0
    assert len(list(tmp_path.glob("page-*.png"))) == 12  # noqa: ASYNC240 - a test
    assert "12 requests compared" in (await forestay("rollout", "report", MODEL)).out
    again = await forestay("rollout", "replay", name, "--json")
    assert again.status == 0, again.out
    assert [item["part"] for item in cast("list[dict[str, str]]", again.json()["parts"])] == ["shadow"]
    await platform.database.execute("DELETE FROM shadow_pairs WHERE number % 4 <> 0")
    lost = await forestay("rollout", "replay", name)
    assert lost.status == 1
    assert "NO" in lost.out
