"""The crash promises: nothing acknowledged is lost, nothing is published twice, orphans run again in time."""

import asyncio

import pytest
from bench.crash import Outcome, Plan, drill


def check(outcome: Outcome) -> None:
    """Compare the ledger with the promises."""
    assert len(outcome.kills) == outcome.plan.kills
    assert len(outcome.entries) > outcome.plan.kills
    assert not outcome.unfinished
    assert not outcome.changed
    assert not outcome.twice_told
    assert not outcome.failed
    assert not outcome.untold
    assert not outcome.late, sorted(outcome.orphans)[-5:]


@pytest.mark.timeout(180)
def test_twenty_kills_in_turn_lose_nothing_and_publish_nothing_twice() -> None:
    """Gateway, workers, controller, Postgres and Valkey are killed while a client goes on."""
    check(asyncio.run(drill(Plan(kills=20, lease_seconds=2.0))))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kills", "lease_seconds"), [(200, 2.0), (10, 15.0)])
def test_many_kills_lose_nothing_either(kills: int, lease_seconds: float) -> None:
    """The long drill, with the short lease and with the usual one."""
    check(asyncio.run(drill(Plan(kills=kills, lease_seconds=lease_seconds, seed=7))))
