"""`slo_corpus`: alert episodes against labelled incidents, on 240 simulated months of ten kinds.

An incident is found if a page is open between its beginning and its end, or opens within an hour after; a page that
touches no incident is a false one. Precision is over episodes (joined where less than an hour lies between), recall
over incidents, F1 their harmonic mean; the interval of the difference comes from 2,000 bootstraps over months, paired.
All rules see the same counts, but for bad outputs with status 200: the others read the status, as they do in the
field, and ours counts what the check of outputs says. A row without that kind shows what of it is the rule's own.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bench.slo_rules import WORKBOOK, WindowRule, alerting, pyrra
from bench.slo_traces import BUDGET, paging
from bench.slo_world import KINDS, MONTH, Month, month
from bench.table import Row

MONTHS_A_KIND = 24
SEED = 20_261_126
GRACE = 60
BOOTSTRAPS = 2_000
Flags = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """Of each month: episodes that touch the incident, others, and whether it was found and how late."""

    true: npt.NDArray[np.int64]
    false: npt.NDArray[np.int64]
    found: npt.NDArray[np.int64]
    late: npt.NDArray[np.float64]

    def f1(self, which: npt.NDArray[np.intp]) -> float:
        """Return F1 over some months."""
        true, false, found = self.true[which].sum(), self.false[which].sum(), self.found[which].sum()
        precision = true / (true + false) if true + false else 0.0
        recall = found / len(which)
        return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def run(rounds: int) -> list[Row]:
    """Judge every month by every rule; the seed is fixed, so `rounds` changes nothing."""
    del rounds
    months = [month(kind, SEED + number) for kind in KINDS for number in range(MONTHS_A_KIND)]
    status, total = (np.stack(counts, axis=1) for counts in zip(*((m.bad, m.total) for m in months), strict=True))
    checked = np.stack([m.checked_bad for m in months], axis=1)
    scores = {
        "ours": _score(paging(checked, total), months),
        "the workbook's": _score(_in_parts(WORKBOOK, status, total), months),
        "Pyrra's": _score(_in_parts(pyrra(MONTH), status, total), months),
    }
    every = np.arange(len(months))
    honest = np.array([index for index, item in enumerate(months) if item.kind != "bad outputs"])
    rows = _compare("all kinds", scores, every) + _compare("without bad outputs", scores, honest, target=False)
    for kind in KINDS:
        which = np.array([index for index, item in enumerate(months) if item.kind == kind])
        words = [f"{name} {score.f1(which):.2f} ({_late(score, which)})" for name, score in scores.items()]
        rows.append(Row(f"{kind}: F1", scores["ours"].f1(which), "", note="; ".join(words[1:]) + f"; {words[0]}"))
    return rows


def _compare(name: str, scores: dict[str, Score], which: npt.NDArray[np.intp], *, target: bool = True) -> list[Row]:
    ours = scores["ours"]
    chance = np.random.default_rng(1)
    draws = [which[chance.integers(0, len(which), len(which))] for _ in range(BOOTSTRAPS)]
    rows = [Row(f"{name}: F1 of ours", ours.f1(which), "", note=_words(ours, which))]
    for other, score in scores.items():
        if other == "ours":
            continue
        low, high = np.quantile([ours.f1(draw) - score.f1(draw) for draw in draws], [0.025, 0.975])
        rows.append(Row(f"{name}: F1 of {other}", score.f1(which), "", note=_words(score, which)))
        more = ours.f1(which) - score.f1(which)
        note = f"95 % interval {low:.3f} to {high:.3f}"
        least = 1e-6 if target else None  # higher at all
        rows.append(Row(f"{name}: ours above {other}", more, "", least, note=note))
    return rows


def _words(score: Score, which: npt.NDArray[np.intp]) -> str:
    return (
        f"{score.found[which].sum()} of {len(which)} found, {score.false[which].sum()} false episodes, "
        f"{_late(score, which)}"
    )


def _late(score: Score, which: npt.NDArray[np.intp]) -> str:
    late = score.late[which]
    late = late[np.isfinite(late)]
    return f"median {np.median(late):.0f} min" if len(late) else "none found"


def _in_parts(rules: tuple[WindowRule, ...], bad: npt.NDArray[np.int64], total: npt.NDArray[np.int64]) -> Flags:
    """Return pages, a few months at a time: sums of all at once would take gigabytes."""
    parts = [alerting(rules, bad[:, at : at + 40], total[:, at : at + 40], BUDGET) for at in range(0, bad.shape[1], 40)]
    return np.hstack(parts)


def _score(firing: Flags, months: Sequence[Month]) -> Score:
    marks = [_marks(firing[:, index], item) for index, item in enumerate(months)]
    true, false, found, late = zip(*marks, strict=True)
    return Score(np.array(true), np.array(false), np.array(found), np.array(late))


def _marks(firing: Flags, item: Month) -> tuple[int, int, int, float]:
    true = false = 0
    late = np.inf
    for start, end in _episodes(firing):
        if end > item.first and start < item.until + GRACE:
            true += 1
            late = min(late, max(0.0, float(start - item.first)) + 1.0)
        else:
            false += 1
    return true, false, int(true > 0), late


def _episodes(firing: Flags) -> list[tuple[int, int]]:
    """Return (first, first after) of each episode; what lies less than an hour apart is one."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], firing.astype(np.int8), [0]])))
    joined: list[tuple[int, int]] = []
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if joined and start - joined[-1][1] < GRACE:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
