"""Offers and pairs for tests of the shadow."""

import datetime as dt
import uuid

from tests.conformance.fleet_values import DIGITS, revision_of
from tests.conformance.memory_fleet import EPOCH

from forestay.ids import RequestId
from forestay.rollouts.shadow.model import Offered, Outcome, Pair

OLD, NEW = revision_of("digits-1"), revision_of("digits-2")


def offered(number: int, stratum: str = "/", seconds: float = 1.0, body: bytes = b'{"seed":1}') -> Offered:
    """A request that the control has answered."""
    at = EPOCH + dt.timedelta(seconds=number)
    name = RequestId(uuid.UUID(int=number + 1))
    return Offered(name, DIGITS, OLD.revision_id, "/", stratum, body, b'{"images":[]}', seconds, at)


def compared(
    number: int, excess: float = 0.0, stratum: str = "/", seconds: float = 2.0, features: float | None = None
) -> Pair:
    """A mirrored request whose candidate is so many levels' tolerances away, the control none."""
    ids = [RequestId(uuid.UUID(int=1_000_000 + 10 * number + part)) for part in range(2)]
    sixteen = tuple(float((number * 7 + part * 3) % 11) for part in range(16))
    moved = sixteen if features is None else tuple(value + features for value in sixteen)
    outcome = Outcome(
        {"level": 0.0, "missing": 0.0}, {"level": excess * 0.0035, "missing": 0.0}, (sixteen, moved), "image"
    )
    name = RequestId(uuid.UUID(int=number + 1))
    return Pair(name, "/", stratum, ids[0], ids[1], b"", b"", EPOCH, outcome, "", seconds)
