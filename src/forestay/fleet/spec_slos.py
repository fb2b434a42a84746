"""The `slos` section of a model spec as values: what the model's owner promises of it.

It decides nothing; what is good and bad, and what follows, the room of SLOs says, which reads these values. The file's
form is `spec_slos_file`. A spec that promises nothing has the platform's defaults.
"""

import dataclasses
import enum

DEFAULT_WINDOW_MINUTES = 43_200


class Indicator(enum.StrEnum):
    """What of a model's requests can be promised in its spec."""

    AVAILABILITY = "availability"  # requests that ended without a fault of ours
    LATENCY = "latency"  # from accepted to finished
    LATENCY_PER_WORK = "latency_per_work"  # seconds of the model for one unit of work
    QUEUE_WAIT = "queue_wait"
    FIRST_CHUNK = "first_chunk"  # of a stream
    THROUGHPUT = "throughput"  # what was asked for was done in time, or as much as is promised
    GOODPUT = "goodput"  # device time that went into valid outputs
    VALIDITY = "validity"  # outputs that are whole
    SAFETY = "safety"  # releases that were judged
    PROVENANCE = "provenance"  # released files that bear a manifest, where the policy asks for one


TIMED = frozenset({Indicator.LATENCY, Indicator.LATENCY_PER_WORK, Indicator.QUEUE_WAIT, Indicator.FIRST_CHUNK})
"""Indicators that need a threshold in seconds."""


@dataclasses.dataclass(frozen=True, slots=True)
class SloSpec:
    """One promise: so many percent of what happens shall be good within the window."""

    objective: float  # percent
    indicator: Indicator = Indicator.AVAILABILITY
    name: str = ""  # after the model's name in the SLO's id; empty: the indicator's
    threshold_seconds: float | None = None
    window_minutes: int = DEFAULT_WINDOW_MINUTES  # a rolling window
    calendar: str = ""  # day | week | month | quarter | year, in UTC, instead of a rolling window
    description: str = ""
    per_second: float | None = None  # of throughput: the rate that is promised
    page: bool = True  # wake somebody, or only open tickets
