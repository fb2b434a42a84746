"""`forestay slo adjust`, `adjustments`, `withdraw`, `decisions`, `status --check`, through HTTP to a real database."""

import json
from collections.abc import Awaitable, Callable

import pytest
from tests.cli.conftest import Platform, Ran
from tests.cli.test_slo import burnt

from forestay.slo.budget_policy import BudgetDecision
from forestay.slo.model import BudgetAction, Minute, SloId

Forestay = Callable[..., Awaitable[Ran]]
SPAN = ("--from", "2026-11-25T14:00", "--until", "2026-11-25T15:00:30")


async def test_minutes_are_taken_out_of_a_budget_with_a_reason_and_put_back(
    forestay: Forestay, platform: Platform
) -> None:
    """Whole minutes; once; by whom and why stays to be read, also in the audit log."""
    await burnt(platform)
    done = await forestay("slo", "adjust", "digits", *SPAN, "--reason", "planned work")
    assert "61 minutes are out of the budget of digits" in done.out
    again = await forestay("slo", "adjust", "digits", *SPAN, "--reason", "planned work")
    assert (again.status, "are out of the budget of digits already" in again.err) == (1, True)
    assert "planned work" in (await forestay("slo", "adjustments", "--slo", "digits")).out
    assert (await forestay("slo", "withdraw", "1", "--reason", "it was not")).status == 0
    [kept] = json.loads((await forestay("slo", "adjustments", "--json")).out)
    assert kept["withdrawn_by"] == kept["by"]
    assert "no adjustment '1' is in force" in (await forestay("slo", "withdraw", "1", "--reason", "twice")).err
    audit = (await forestay("audit", "list", "--json")).out
    assert "adjust_slo" in audit
    assert "withdraw_adjustment" in audit


async def test_bad_events_are_given_back_by_number_and_counted_again_when_that_is_withdrawn(
    forestay: Forestay, platform: Platform
) -> None:
    """Once a minute; listed with who and why; in the audit log; a number and a reason are needed."""
    await burnt(platform)
    done = await forestay("slo", "give-back", "digits", "200", "--reason", "a load test")
    assert "adjustment 1: 200 bad events are given back to digits" in done.out
    [kept] = json.loads((await forestay("slo", "adjustments", "--json")).out)
    assert (kept["forgiven"], kept["reason"]) == (200, "a load test")
    assert "200" in (await forestay("slo", "adjustments")).out
    in_force = await platform.ports.admin.budgets.in_force(Minute(0))
    assert [(item.slo_id, item.forgiven) for item in in_force] == [("digits", 200)]
    assert (await forestay("slo", "withdraw", "1", "--reason", "it was not agreed")).status == 0
    assert await platform.ports.admin.budgets.in_force(Minute(0)) == []
    assert "give_back_slo" in (await forestay("audit", "list", "--json")).out
    assert (
        "events: must be a number" in (await forestay("slo", "give-back", "digits", "2000000000", "--reason", "x")).err
    )
    assert "are watched" in (await forestay("slo", "give-back", "nothing", "2", "--reason", "x")).err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("digits", "--from", "yesterday", "--until", "2026-11-25T15:00"), "--from: 'yesterday' is no time"),
        (("digits", "--from", "2026-11-25T15:00", "--until", "2026-11-25T14:00"), "until: must lie after `first`"),
        (("digits", "--from", "2099-11-25T15:00", "--until", "2099-11-25T16:00"), "at most 31 days ahead"),
        (("nothing", *SPAN), "`forestay slo status` lists those that are watched"),
    ],
)
async def test_what_cannot_be_adjusted_is_told_by_its_field(
    forestay: Forestay, platform: Platform, words: tuple[str, ...], told: str
) -> None:
    """Times, their order, how far ahead, and an SLO that is not there."""
    await burnt(platform)
    refused = await forestay("slo", "adjust", *words, "--reason", "planned work")
    assert refused.status != 0
    assert told in refused.err


async def test_what_budgets_demand_is_listed_with_its_reason(forestay: Forestay, platform: Platform) -> None:
    """Newest first."""
    assert "no budget demands anything" in (await forestay("slo", "decisions")).out
    made = BudgetDecision(SloId("digits"), BudgetAction.FREEZE, -1.0, Minute(29_000_000), "the error budget is spent")
    now = platform.ports.clock.now()
    await platform.ports.admin.budgets.decide([(made, "model:acme/digits", BudgetAction.NONE)], now)
    shown = (await forestay("slo", "decisions")).out
    assert "freeze" in shown
    assert "the error budget is spent" in shown
    assert json.loads((await forestay("slo", "decisions", "--slo", "other", "--json")).out) == []


async def test_a_check_is_one_line_and_fails_only_while_something_pages(forestay: Forestay, platform: Platform) -> None:
    """For scripts and health checks."""
    assert (await forestay("slo", "status", "--check")).out == "no SLO is watched yet\n"
    await burnt(platform)
    paging = await forestay("slo", "status", "--check")
    assert (paging.status, paging.out) == (1, "1 page, 5 no_data: digits\n")
    assert (await forestay("slo", "status", "--check", "--json")).json()["paging"] == ["digits"]
