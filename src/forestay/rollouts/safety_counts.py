"""Is content judged under a candidate's policy at least as it was? Two policies over the same labelled content. Pure.

Each row of content is judged by both; only rows that they judge differently say anything. Two bettors watch, so that
the answer may be asked for as often as rows arrive (Ville, 1939):

- harm: of the rows on which the two differ, those where the candidate is the worse one are more than half;
- no harm: of all rows, those where the candidate is the worse one are fewer than MARGIN. That share is at least the
  difference of the two rates, so what holds for it holds for the difference.

Both are asked twice: of unsafe content that passes, and of safe content that is stopped. Whatever is neither proved
harmful nor proved harmless is inconclusive, and the gate says how many labelled rows are missing. Called by
`safety_gate`; `forestay rollout replay-safety` counts.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

from forestay.rollouts.model import GateResult, GateVerdict, Replayed
from forestay.safety.policy import Action

MARGIN = 0.05
"""Share of labelled rows that the candidate may judge worse than the control does."""
LEVEL = 0.05
"""Chance to pass a policy that is worse by the margin, and to fail one that is no worse, at whatever look."""
_RATES = (0.001, MARGIN / 4, MARGIN / 2)  # bets of "fewer than the margin"
_ODDS = (0.7, 0.98)  # bets of "more often worse than better"
_MOST_NEEDED = 100_000

Judged = tuple[bool, Action | None, Action | None]
"""Whether content is unsafe, and what each policy does with it, the control's first; None where nobody can say."""


def count_rows(source: str, rows: Iterable[Judged]) -> Replayed:
    """Count labelled content that two policies have judged; REVIEW and BLOCK stop it."""
    unsafe, safe, unknown = [0, 0, 0], [0, 0, 0], 0  # rows, newly stopped, newly let through
    for is_unsafe, before, after in rows:
        if before is None or after is None:
            unknown += 1
            continue
        was, now = stops(before), stops(after)
        side = unsafe if is_unsafe else safe
        side[0] += 1
        side[1] += now and not was
        side[2] += was and not now
    return Replayed(
        source,
        unsafe=unsafe[0],
        newly_stopped=unsafe[1],
        newly_passed=unsafe[2],
        safe=safe[0],
        newly_blocked=safe[1],
        newly_freed=safe[2],
        unknown=unknown,
    )


def stops(action: Action) -> bool:
    """Tell whether content does not come through: not at once, or never."""
    return action.severity >= Action.REVIEW.severity


def check_replayed(before: str, after: str, sets: Sequence[Replayed]) -> GateResult:
    """Return the gate's answer from all sets together; inconclusive without enough labelled rows."""
    sides = (
        _Side(
            "unsafe",
            "passes",
            worse=sum(item.newly_passed for item in sets),
            better=sum(item.newly_stopped for item in sets),
            of=sum(item.unsafe for item in sets),
        ),
        _Side(
            "safe",
            "stops",
            worse=sum(item.newly_blocked for item in sets),
            better=sum(item.newly_freed for item in sets),
            of=sum(item.safe for item in sets),
        ),
    )
    told = f"{after} for {before}: {'; '.join(side.told(after, before) for side in sides)} ({_sources(sets)})"
    if any(is_proved(log_more_worse(side.worse, side.better)) for side in sides):
        return GateResult("safety", GateVerdict.FAIL, f"judged worse: {told}")
    missing = [f"{needed} more labelled {side.what}" for side in sides if (needed := rows_needed(side.worse, side.of))]
    if not missing:
        return GateResult("safety", GateVerdict.PASS, f"no worse than the margin of {MARGIN:.0%}: {told}")
    mend = (
        "label what was stopped in reviews, or `forestay rollout replay-safety ROLLOUT --dataset FILE --label COLUMN`"
    )
    return GateResult("safety", GateVerdict.INCONCLUSIVE, f"{' and '.join(missing)} rows are needed: {told}; {mend}")


@dataclasses.dataclass(frozen=True, slots=True)
class _Side:
    what: str
    does: str
    worse: int
    better: int
    of: int

    def told(self, after: str, before: str) -> str:
        also = f", {self.better} the other way round" if self.better else ""
        return f"{after} {self.does} {self.worse} of {self.of} {self.what} rows that {before} does not{also}"


def _sources(sets: Sequence[Replayed]) -> str:
    unknown = sum(item.unknown for item in sets)
    named = ", ".join(f"{item.unsafe + item.safe} of {item.source}" for item in sets) or "no labelled row"
    return f"{named}, {unknown} that nobody can judge anew" if unknown else named


def log_fewer(worse: int, of: int) -> float:
    """Return what the bettor on "fewer than MARGIN" has, as a logarithm: an e-value after any number of rows."""
    won = [worse * math.log(rate / MARGIN) + (of - worse) * math.log((1 - rate) / (1 - MARGIN)) for rate in _RATES]
    return _log_mean(won)


def log_more_worse(worse: int, better: int) -> float:
    """Return what the bettor on "more often worse than better" has, as a logarithm."""
    return _log_mean([worse * math.log(2 * odds) + better * math.log(2 * (1 - odds)) for odds in _ODDS])


def is_proved(log_capital: float) -> bool:
    """Tell whether a bettor has enough for its case."""
    return log_capital >= -math.log(LEVEL)


def rows_needed(worse: int, of: int) -> int:
    """Return how many further rows without a worse one would prove that fewer than MARGIN are; 0 where it is proved."""
    target = -math.log(LEVEL)
    if log_fewer(worse, of) >= target:
        return 0
    low, high = 0, 1
    while log_fewer(worse, of + high) < target and high < _MOST_NEEDED:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if log_fewer(worse, of + middle) < target else (low, middle)
    return high


def _log_mean(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values) / len(values))
