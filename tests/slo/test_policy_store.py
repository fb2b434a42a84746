"""What budgets demand and what people took out of them: kept once whatever crashes, and obeyed by the loop."""

import dataclasses
import datetime as dt

from tests.slo.objectives import slo
from tests.slo.test_loop import NOW, START, HandClock, Memory, Rollups

from forestay.fleet import postgres_audit
from forestay.fleet.audit import AuditEntry
from forestay.slo.budget import Adjustment
from forestay.slo.budget_policy import BudgetDecision
from forestay.slo.loop import SloLoop, SloPorts
from forestay.slo.model import BudgetAction, Minute, Slo, SloId
from forestay.slo.policy_store import PostgresBudgetPolicy
from forestay.storage.postgres import Database
from forestay.telemetry.metrics import Metrics


def adjustment(first: int, until: int) -> tuple[Adjustment, AuditEntry]:
    """Minutes that a person takes out, with the audit row of it."""
    audit = AuditEntry(NOW, "human:k1", "adjust_slo", "slo:digits", {}, "planned work")
    return Adjustment(SloId("digits"), Minute(first), Minute(until), "human:k1", "planned work", Minute(0)), audit


def watcher(policy: PostgresBudgetPolicy, rollups: Rollups, *slos: Slo) -> tuple[SloLoop, Memory]:
    """A controller's loop, as one begins after a crash."""
    memory = Memory()

    async def named() -> tuple[Slo, ...]:
        return slos

    return SloLoop(SloPorts(rollups, named, memory, HandClock(), Metrics(), policy)), memory


async def test_a_spent_budget_freezes_once_whoever_judges_again_and_thaws_when_minutes_are_taken_out(
    database: Database,
) -> None:
    """A controller that died after judging is followed by one that judges again: nothing doubles."""
    policy, rollups = PostgresBudgetPolicy(database, writer="test"), Rollups()
    for minute in range(START, START + 20):
        rollups.put(minute, 50, 20 if minute == START + 10 else 0)
    rollups.until = START + 20
    loop, _ = watcher(policy, rollups, slo())
    await loop.run_once()
    [frozen] = await policy.about("model:acme/digits")
    assert (frozen.action, frozen.minute, frozen.left_ratio < 0) == (BudgetAction.FREEZE, START + 19, True)
    again, _ = watcher(policy, rollups, slo())
    await again.run_once()
    rollups.until += 1
    await again.run_once()
    await loop.run_once()
    assert len(await policy.decisions(None, 10)) == 1
    assert await policy.adjust(*adjustment(START + 10, START + 11)) == 1
    rollups.until += 1
    following, memory = watcher(policy, rollups, slo())
    await following.run_once()
    assert memory.kept["digits"].bad == 0
    assert "taken out by human:k1: planned work" in memory.kept["digits"].says[0]
    thawed, before = await policy.decisions("digits", 10)
    assert (thawed.action, before) == (BudgetAction.NONE, frozen)
    assert await policy.about("model:acme/digits") == []


async def test_a_frozen_slo_that_nobody_names_any_more_ends_its_freeze(database: Database) -> None:
    """Its file was taken away."""
    policy, rollups = PostgresBudgetPolicy(database, writer="test"), Rollups()
    rollups.put(START, 1, 1)
    rollups.until = START + 1
    await watcher(policy, rollups, slo())[0].run_once()
    assert await policy.standing() == {SloId("digits"): BudgetAction.FREEZE}
    rollups.until += 1
    await watcher(policy, rollups, dataclasses.replace(slo(), slo_id=SloId("other"), policy=()))[0].run_once()
    assert (await policy.standing())[SloId("digits")] is BudgetAction.NONE


async def test_of_two_who_decide_on_one_ground_one_is_heard(database: Database) -> None:
    """And one whose ground has changed is not."""
    policy = PostgresBudgetPolicy(database, writer="test")
    made = [
        BudgetDecision(SloId("digits"), action, 0.2, Minute(START + number), action.value)
        for number, action in enumerate((BudgetAction.APPROVE, BudgetAction.FREEZE, BudgetAction.SLOW))
    ]
    for one in made[:2]:
        await policy.decide([(one, "model:acme/digits", BudgetAction.NONE)], NOW)
    await policy.decide([(made[2], "model:acme/digits", BudgetAction.FREEZE)], NOW)
    [stands] = await policy.decisions(None, 10)
    assert stands.action is BudgetAction.APPROVE


async def test_an_adjustment_is_there_once_can_be_withdrawn_and_is_audited(database: Database) -> None:
    """Never edited: a withdrawn one stays to be read."""
    policy = PostgresBudgetPolicy(database, writer="test")
    wanted, audit = adjustment(START, START + 60)
    assert await policy.adjust(wanted, audit) == 1
    assert await policy.adjust(wanted, audit) is None
    assert [one.until for one in await policy.in_force(Minute(START + 59))] == [START + 60]
    assert await policy.in_force(Minute(START + 60)) == []
    back = dataclasses.replace(audit, at=NOW + dt.timedelta(hours=1), action="withdraw_adjustment", subject="slo:")
    assert await policy.withdraw(1, back) == "digits"
    assert await policy.withdraw(1, back) is None
    [kept] = await policy.adjustments("digits", 10)
    assert (kept.withdrawn_by, kept.reason) == ("human:k1", "planned work")
    assert await policy.in_force(Minute(0)) == []
    rows = await postgres_audit.read_newest(database, subject="slo:digits")
    assert [row.entry.action for row in rows] == ["withdraw_adjustment", "adjust_slo"]
    assert await postgres_audit.verify(database) == []
