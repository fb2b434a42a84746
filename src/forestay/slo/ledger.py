"""The budgets of a whole fleet, in arrays: what each SLO has spent of its window so far, to the minute at its near end.

A rolling window's far end moves by whole hours here, so that an hour's sum is all that is kept of it: 0.14 % of 30
days. `budget` is exact to the minute at both ends. Calendar windows begin anew at their own midnight. It decides
nothing; the loop that watches SLOs and the replay read `spent`. Adjustments and what is missing are `budget`'s.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from forestay.slo.model import Minute, Slo
from forestay.slo.windows import bounds

Floats = npt.NDArray[np.float64]
_HOUR = 60


class BudgetLedger:
    """Bad and all requests of each of n SLOs within its window; every minute must come."""

    def __init__(self, slos: Sequence[Slo], start: Minute) -> None:
        self._slos = tuple(slos)
        self._allowed = np.asarray([slo.budget_ratio for slo in slos])
        rolling = np.asarray([slo.window.calendar is None for slo in slos])
        hours = np.asarray([slo.window.minutes // _HOUR for slo in slos])
        self._rolling, self._hours = np.flatnonzero(rolling), hours[rolling]
        size = int(self._hours.max(initial=1)) + 1
        self._kept = np.zeros((size, 2, len(self._rolling)), dtype=np.uint32)
        self._hour = np.zeros((2, len(slos)))
        self.sums: Floats = np.zeros((2, len(slos)))
        """`[2, n]`: bad and all."""
        self._calendar = {
            index: bounds(slo.window, start)[1] for index, slo in enumerate(slos) if slo.window.calendar is not None
        }
        self._at = 0

    def tick(self, now: Minute, counts: Floats) -> None:
        """Add the minute `now`: `counts` `[2, n]`, bad and all organic requests."""
        if self._calendar:
            self._begin_anew(now)
        self._hour += counts
        self.sums += counts
        if (now + 1) % _HOUR == 0:
            self._close_hour()

    def _close_hour(self) -> None:
        size = len(self._kept)
        self._at = (self._at + 1) % size
        self._kept[self._at] = self._hour[:, self._rolling]
        self._hour[:] = 0
        if len(self._rolling):
            left = (self._at - self._hours) % size  # the hour that has just left each window
            self.sums[:, self._rolling] -= self._kept[left, :, np.arange(len(self._rolling))].T

    def _begin_anew(self, now: Minute) -> None:
        for index in [index for index, end in self._calendar.items() if now >= end]:
            self.sums[:, index] = 0
            self._calendar[index] = bounds(self._slos[index].window, now)[1]

    def spent(self) -> Floats:
        """Return `[n]`: the share of its budget that each SLO has spent; 0 where nothing was counted."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.sums[1] > 0, self.sums[0] / (self._allowed * self.sums[1]), 0.0)
