"""The rules that ours are measured against, written from what their makers publish; counts in, alert minutes out.

- The workbook: "The Site Reliability Workbook", chapter 5, "Multiwindow, Multi-Burn-Rate Alerts", with the parameters
  that it recommends for 30 days: page at 14.4 in 1 h and 5 min or 6 in 6 h and 30 min; ticket at 3 in 1 d and 2 h or 1
  in 3 d and 6 h.
- Pyrra (Apache-2.0): factors 14, 7, 2, 1 on windows scaled from 28 days and rounded to minutes, each with a `for` of
  half the short window and more; the first two are critical, the others warnings. A minute counts once its `for` has
  passed.

Both are judged on exact counts each minute, which is kinder than `rate()` over scrapes.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, slots=True)
class WindowRule:
    """Both windows must burn at `factor`, for `for_minutes`."""

    long_minutes: int
    short_minutes: int
    factor: float
    for_minutes: int
    pages: bool


WORKBOOK = (
    WindowRule(60, 5, 14.4, 0, pages=True),
    WindowRule(360, 30, 6.0, 0, pages=True),
    WindowRule(1440, 120, 3.0, 0, pages=False),
    WindowRule(4320, 360, 1.0, 0, pages=False),
)


def pyrra(window_minutes: int) -> tuple[WindowRule, ...]:
    """Return Pyrra's rules for a window, scaled from 28 days and rounded to minutes."""

    def scaled(minutes: float) -> int:
        return round(minutes * window_minutes / (28 * 1440))

    return (
        WindowRule(scaled(60), scaled(5), 14.0, scaled(2), pages=True),
        WindowRule(scaled(360), scaled(30), 7.0, scaled(15), pages=True),
        WindowRule(scaled(1440), scaled(120), 2.0, scaled(60), pages=False),
        WindowRule(scaled(4 * 1440), scaled(360), 1.0, scaled(180), pages=False),
    )


def alerting(
    rules: tuple[WindowRule, ...],
    bad: npt.NDArray[np.integer[npt.NBitBase]],
    total: npt.NDArray[np.integer[npt.NBitBase]],
    budget_ratio: float,
    *,
    pages_only: bool = True,
) -> Flags:
    """Return `[minutes, n]`: an alert fires. `bad` of `total` `[minutes, n]` each minute."""
    sums = tuple(
        np.vstack([np.zeros((1, total.shape[1]), dtype=np.int64), item.cumsum(axis=0, dtype=np.int64)])
        for item in (bad, total)
    )
    firing = np.zeros(total.shape, dtype=np.bool_)
    for rule in rules:
        if pages_only and not rule.pages:
            continue
        burns = _burns(sums, rule.long_minutes, rule.factor * budget_ratio)
        burns &= _burns(sums, rule.short_minutes, rule.factor * budget_ratio)
        firing |= _held(burns, rule.for_minutes)
    return firing


def _burns(sums: tuple[Ints, ...], minutes: int, threshold: float) -> Flags:
    ends = np.arange(1, len(sums[0]))
    starts = np.maximum(ends - minutes, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (sums[0][ends] - sums[0][starts]) / (sums[1][ends] - sums[1][starts]) > threshold


def _held(burns: Flags, minutes: int) -> Flags:
    """Keep the minutes at which `burns` has held for `minutes` before."""
    if minutes == 0:
        return burns
    run = burns.cumsum(axis=0)
    held = burns.copy()
    held[:minutes] = False
    held[minutes:] &= run[minutes:] - run[:-minutes] == minutes
    return held


def starts(firing: Flags) -> Ints:
    """Return `[n]`: how often an alert began."""
    began = firing.copy()
    began[1:] &= ~firing[:-1]
    return began.sum(axis=0)


def first_minutes(firing: Flags) -> npt.NDArray[np.float64]:
    """Return `[n]`: minutes until the first alert, 1 for the first minute; infinite where there is none."""
    return np.where(firing.any(axis=0), firing.argmax(axis=0) + 1.0, np.inf)
