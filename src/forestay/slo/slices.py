"""Slices of time as events: one good or bad event at the end of each slice that had requests. Pure but for its memory.

It decides when a slice is over; whether it was good, `budget` says. Minutes come in order and each once. Called by
`watching` and `replay`, for SLOs of which slices are counted.
"""

from forestay.slo.budget import slice_is_good
from forestay.slo.model import Counts, Minute, SliKind, Slo, SloId

_NOTHING, _GOOD_SLICE, _BAD_SLICE = Counts(), Counts(good=1), Counts(bad=1)


class OpenSlices:
    """What the slices of time that are not over have held so far."""

    def __init__(self) -> None:
        self._held: dict[SloId, Counts] = {}

    def happened(self, slo: Slo, counts: Counts, now: Minute) -> Counts:
        """Return what an SLO counts of a minute: its requests, or the slice of time that ends with it."""
        if slo.sli.kind is not SliKind.TIME_SLICE:
            return counts
        held = self._held.get(slo.slo_id, _NOTHING) + counts
        if (now + 1) % slo.sli.slice_minutes:
            self._held[slo.slo_id] = held
            return _NOTHING
        self._held.pop(slo.slo_id, None)
        if not held.total:
            return _NOTHING
        return _GOOD_SLICE if slice_is_good(slo.sli, held.total, held.bad) else _BAD_SLICE
