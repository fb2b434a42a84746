"""Queue positions from a sample of each model's queue. Pure.

The gateway reads `queued_ahead` once per refresh for all models it is asked about and answers every poll from it; no
poll counts rows. A position is an estimate: true at the moment of the sample.
"""

import bisect
import datetime as dt
from collections.abc import Sequence


def queue_position(order_times: Sequence[dt.datetime], order_at: dt.datetime) -> int:
    """Return how many sampled requests come before `order_at`; `order_times` is ascending.

    A request behind the end of the sample gets the sample's length: at least that many are ahead.
    """
    return bisect.bisect_left(order_times, order_at)
