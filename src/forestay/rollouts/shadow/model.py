"""The words of the shadow stage: what is offered, what is mirrored, what came of it. Pure values."""

import dataclasses
import datetime as dt
import enum
from collections.abc import Mapping

from forestay.diffs.noise import Compared
from forestay.ids import ModelId, RequestId, RevisionId


class Expect(enum.StrEnum):
    """What the person who ships expects of the candidate's outputs."""

    SAME = "same"  # the same seed gives the same output: code, driver, precision, settings have changed
    ALIKE = "alike"  # outputs of the same kind: retrained weights
    CHANGED = "changed"  # anything: only answers that fail or are missing count


@dataclasses.dataclass(frozen=True, slots=True)
class ShadowPolicy:
    """How a shadow goes. `requests` 0: there is none."""

    requests: int = 0  # compared, until the candidate counts as the same
    budget_seconds: float = 600.0  # device-seconds that copies may take, of both revisions together
    expect: Expect = Expect.SAME
    alpha: float = 0.01  # chance of stopping a candidate that is the same, at whatever look
    deadline_seconds: float = 3_600.0  # then a person has to look
    at_a_time: int = 2  # requests whose copies run


@dataclasses.dataclass(frozen=True, slots=True)
class Offered:
    """A request that the control has answered, with everything that is needed to ask again."""

    request_id: RequestId
    model_id: ModelId
    revision_id: RevisionId
    endpoint: str
    stratum: str  # endpoint and size
    body: bytes
    answer: bytes  # as stored: media by their ids
    device_seconds: float
    at: dt.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What the comparison of one request's answers gave."""

    floor: Mapping[str, float]  # distances of the control's second answer from its first; empty where there is none
    found: Mapping[str, float]  # of the candidate's
    features: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())  # of the control's second and the candidate's
    kind: str = ""  # of the first file: image, video, audio
    sheet_key: str = ""  # where the picture of the comparison lies


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """One mirrored request: copies under way, or compared, or given up (`skipped` says why)."""

    request_id: RequestId
    endpoint: str
    stratum: str
    again_id: RequestId  # the control's second answer; asked for later, or never, unless `asks_first`
    candidate_id: RequestId
    body: bytes  # as sent to both
    answer: bytes
    begun_at: dt.datetime
    outcome: Outcome | None = None
    skipped: str = ""
    device_seconds: float = 0.0
    asks_first: bool = True  # the control is asked again whatever the candidate answers

    @property
    def open(self) -> bool:
        """Tell whether its copies are still under way."""
        return self.outcome is None and not self.skipped

    def compared(self) -> Compared:
        """Return what it says; only of one that was compared."""
        outcome = self.outcome or Outcome({}, {})
        return Compared(str(self.request_id), self.stratum, outcome.floor, outcome.found, self.asks_first)
