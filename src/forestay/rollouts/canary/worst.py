"""Where a mark is worst: the one slice that nearly all of it comes from, told with counts. Pure.

It decides no verdict; `evidence` has given that for all slices together. It answers what a person asks next: is it
everything, or one size, endpoint or tenant? A slice is named where the candidate's rate of marks in it is at least
twice that of its other requests. Called by `canary/decide` and the report.
"""

import dataclasses
from collections.abc import Sequence

from forestay.rollouts.canary.evidence import Finding
from forestay.rollouts.canary.model import WHOLE, Evidence, Stream
from forestay.rollouts.slices import where

_TIMES = 2.0
_LEAST_MARKED = 2  # of the candidate in the slice: one bad answer is nobody's pattern


@dataclasses.dataclass(frozen=True, slots=True)
class Worst:
    """A mark in its worst slice. Pairs are (marked, seen)."""

    mark: str
    slice_name: str
    candidate: tuple[int, int]
    control: tuple[int, int]
    elsewhere: tuple[int, int]  # of the candidate

    def told(self) -> str:
        """Say it in words."""
        here, there = f"{_of(self.candidate)} against {_of(self.control)} of the control", _of(self.elsewhere)
        return f"{self.mark}{where(self.slice_name)}: {here}; elsewhere {there}"


def worst_slice(evidence: Evidence, suspects: Sequence[Finding]) -> Worst | None:
    """Return where the first suspect is worst; None where it is much the same everywhere, or nobody knows."""
    if not suspects:
        return None
    mark = suspects[0].mark
    whole = evidence.streams.get(WHOLE, {}).get(mark)
    found: list[tuple[float, Worst]] = []
    for name, marks in evidence.streams.items():
        inside = marks.get(mark)
        if name == WHOLE or inside is None or whole is None:
            continue
        worst = _worst(mark, name, inside, whole)
        if worst is not None:
            found.append((inside.log_capital, worst))
    return max(found, key=lambda item: item[0])[1] if found else None


def _worst(mark: str, name: str, inside: Stream, whole: Stream) -> Worst | None:
    rest = (whole.marked[1] - inside.marked[1], whole.seen[1] - inside.seen[1])
    if inside.marked[1] < _LEAST_MARKED or rest[1] <= 0:
        return None
    if inside.marked[1] / inside.seen[1] < _TIMES * rest[0] / rest[1]:
        return None
    usual = inside.marked[0] / inside.seen[0] if inside.seen[0] else 0.0
    if inside.marked[1] / inside.seen[1] <= usual:
        return None
    return Worst(mark, name, (inside.marked[1], inside.seen[1]), (inside.marked[0], inside.seen[0]), rest)


def _of(counts: tuple[int, int]) -> str:
    return f"{counts[0]:,} of {counts[1]:,}"
