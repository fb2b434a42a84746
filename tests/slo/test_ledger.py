"""The budgets of a fleet in arrays are those of `budget`."""

import numpy as np
import pytest
from tests.slo.objectives import minutes, slo

from forestay.slo.budget import History, budget_of
from forestay.slo.ledger import BudgetLedger
from forestay.slo.model import CalendarUnit, Minute, Window

START = 29_700_000 // 1440 * 1440


def test_the_ledger_agrees_with_the_budget_at_every_full_hour() -> None:
    """Rolling windows of 2 and 5 hours and a day of the calendar, over 30 hours of random minutes."""
    fleet = [
        slo(0.99, Window(minutes=120)),
        slo(0.9, Window(minutes=300)),
        slo(0.99, Window(calendar=CalendarUnit.DAY, time_zone="UTC")),
    ]
    ledger, chance = BudgetLedger(fleet, Minute(START)), np.random.default_rng(2)
    kept: dict[int, tuple[int, int]] = {}
    for minute in range(START, START + 30 * 60):
        bad, good = (int(number) for number in chance.integers(0, 4, 2))
        kept[minute] = (good, bad)
        ledger.tick(Minute(minute), np.array([[float(bad)] * 3, [float(good + bad)] * 3]))
        if (minute + 1) % 60:
            continue
        for index, item in enumerate(fleet):
            found = budget_of(item, History(minutes(kept), Minute(START)), Minute(minute))
            assert ledger.sums[:, index].tolist() == [found.bad, found.events]
            assert ledger.spent()[index] == pytest.approx(found.burn_rate, rel=1e-9)


def test_nothing_counted_is_nothing_spent() -> None:
    """Not a division by zero."""
    assert BudgetLedger([slo()], Minute(START)).spent().tolist() == [0.0]
