"""Poll facts: how many status polls and result reads one gateway answered in one minute, well and badly.

A poll is too small for a row of its own. Gateways count in memory and write a row a minute; a crash loses the minute
that is being counted. It decides nothing about what is good (that is `gateway.poll_counts`). Written by gateways,
added up by `rollups`.
"""

import dataclasses
import datetime as dt
import uuid


@dataclasses.dataclass(frozen=True, slots=True)
class PollMinute:
    """What one gateway counted in one minute."""

    finished_at: dt.datetime  # when the minute began
    count_id: uuid.UUID
    gateway_id: str
    good: int
    bad: int
