"""What SLOs are carried through, minute by minute, and the way back: so that late facts cost minutes, not days.

It decides nothing of its own: the engine, composites, slices and throughput do, and what they hold is saved here every
few minutes. Windows are not saved: their steps are kept, so they are rewound, and everything they hold is a whole
number. What is carried again from a saved minute on is therefore the same to the last bit. Called by `watching`.
"""

import copy
from collections.abc import Mapping, Sequence

import numpy as np

from forestay.slo.burn_rules import TICKET_EVERY_MINUTES
from forestay.slo.composite import Composites
from forestay.slo.fleet import FleetEngine
from forestay.slo.model import Counts, Minute, Slo, SloId
from forestay.slo.slices import OpenSlices
from forestay.slo.throughput import Flows

SAVED_EVERY_MINUTES, SAVED = 5, 25
REWOUND_MINUTES = SAVED_EVERY_MINUTES * SAVED
"""How far back one may go at most; facts that come later than that are rare, and all is carried anew."""
_NOTHING = Counts()


class Carried:
    """The tests of burning and of throughput, of plain SLOs and of composites, after some minute."""

    def __init__(self, plain: Sequence[Slo], composites: Sequence[Slo]) -> None:
        self._plain = tuple(plain)
        self.engine = FleetEngine(self._plain, REWOUND_MINUTES)
        self.composites = Composites(composites, self.engine)
        self._flows = Flows(self._plain, REWOUND_MINUTES)
        self._slices = OpenSlices()
        self.since: dict[SloId, Minute] = {}
        """Since when each that wakes somebody has done so without a break."""

    def settled(self, seen: Mapping[SloId, Counts], now: Minute) -> Mapping[SloId, Counts]:
        """Return what SLOs count of the minute `now`; each minute comes here, in order and once."""
        return self._flows.settled(seen, now)

    def tick(self, settled: Mapping[SloId, Counts], now: Minute) -> None:
        """Carry the tests of burning over the minute `now`."""
        counts = [self._slices.happened(slo, settled.get(slo.slo_id, _NOTHING), now) for slo in self._plain]
        bad, seen = [one.seen_bad for one in counts], [one.seen for one in counts]
        arrays = np.asarray([bad, seen], dtype=np.float64)
        self.engine.tick(now, arrays)
        self.composites.tick(now, arrays)
        awake = np.flatnonzero(self.engine.paging | self.engine.ticketing)
        names = {self._plain[int(index)].slo_id for index in awake}
        names |= {slo.slo_id for slo in self.composites.awake()}
        self.since = {name: self.since.get(name, now) for name in names}

    def saved(self) -> "Carried":
        """Return a copy without what `rewind` carries back, which both share."""
        shared = (self._plain, *self.engine.fixed(), *self.composites.fixed(), *self._flows.fixed())
        return copy.deepcopy(self, {id(one): one for one in shared})

    def rewind(self, until: Minute, before: Minute) -> None:
        """Carry every window back from before the minute `until` to before the minute `before`; both were ticked."""
        self.engine.minutes.rewind(until - before)
        self.engine.buckets.rewind(until // TICKET_EVERY_MINUTES - before // TICKET_EVERY_MINUTES)
        self._flows.rewind(until - before)
