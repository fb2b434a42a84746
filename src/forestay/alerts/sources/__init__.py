"""What the platform knows of itself, as conditions. The port of every source; adapters are its neighbours.

A source gives everything that holds now, each time that it is asked. One that raises is silent: nobody then takes its
conditions for ended. Thresholds are its own business; how long, how often and whom to tell are not.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Protocol

from forestay.alerts.model import Condition


class Source(Protocol):
    """Something that sees conditions."""

    @property
    def name(self) -> str:
        """Return the `source` of all its conditions."""
        ...

    async def conditions(self, now: dt.datetime) -> Sequence[Condition]:
        """Return what holds now; raises when it cannot tell."""
        ...
