"""When a golden is learned, which one a revision is held against, and when canaries are due. Pure.

It decides that healthy looks agree before they are believed: where a revision has several replicas, two must have drawn
alike, and those that agree must be more than half of those that drew. One ill replica therefore never teaches alone. A
golden belongs to a model from the revision that drew it on: later revisions are held against it until a person approves
one of them. An environment without a golden may teach one only if it draws much like another environment does.
`worker/canaries` plays; `canary` compares.
"""

import dataclasses
import datetime as dt
import enum
from collections.abc import Mapping, Sequence

from forestay.fleet.spec_quality import CanarySpec
from forestay.ids import ModelId, ReplicaId, RevisionId
from forestay.quality.canary import LEAST_LEVELS, Compared, Golden, Look, Standing, distance, learn

TEACHERS = 2  # replicas that must agree, where there are so many
ACROSS_LEVELS = 8.0  # of 255: environments draw a canary no further apart
ADAPTER_PAUSE = dt.timedelta(seconds=60)  # between two rounds because of adapters
SUSPICION_PAUSE = dt.timedelta(seconds=60)


class Cause(enum.StrEnum):
    """Why a round is played, the most urgent first."""

    START = "start"
    PERSON = "person"
    SUSPICION = "suspicion"
    ADAPTER = "adapter"
    SCHEDULE = "schedule"
    SELF_TEST = "self_test"  # of a replica that serves nobody


@dataclasses.dataclass(frozen=True, slots=True)
class Baseline:
    """From which revision on a golden holds. `approved_by` is empty where it was the first to be deployed."""

    model_id: ModelId
    revision_id: RevisionId
    revision_at: dt.datetime  # when the revision was made
    since: dt.datetime
    approved_by: str = ""
    reason: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Taught:
    """One look that a golden is learned of, or consists of when `settled`."""

    canary: str  # spec_quality.CanaryInput.key
    environment: str
    replica_id: ReplicaId
    look: Look
    picture_key: str  # in the object store; empty: no picture
    settled: bool = False
    look_id: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Learned:
    """What is known of one canary in one environment. Without a golden, `words` say what is missing."""

    golden: Golden | None
    of: tuple[Taught, ...]  # the looks that it consists of
    words: str = ""
    disputed: bool = False  # replicas that drew enough do not agree


def choose_baseline(baselines: Sequence[Baseline], revision_at: dt.datetime) -> Baseline | None:
    """Return the newest baseline of a model that is no younger than a revision; of an older one, the oldest."""
    known = sorted(baselines, key=lambda item: item.revision_at)
    before = [item for item in known if item.revision_at <= revision_at]
    return before[-1] if before else (known[0] if known else None)


def learned(environment: str, taught: Sequence[Taught], replicas: int, reruns: int) -> Learned:
    """Return the golden of a canary's looks in one environment; `replicas`: how many the revision has."""
    settled = [item for item in taught if item.settled]
    if settled:
        return Learned(learn(environment, [item.look for item in settled]), tuple(settled))
    drawn = {name: [item for item in taught if item.replica_id == name] for name in {i.replica_id for i in taught}}
    enough = {name: items for name, items in drawn.items() if len(items) >= reruns}
    wanted = min(TEACHERS, max(1, replicas))
    groups = _agreeing(enough)
    largest = max(groups, key=len) if groups else []
    if len(enough) < wanted:
        return Learned(None, (), f"{len(enough)} of {wanted} replicas have drawn it {reruns} times")
    if len(largest) < wanted or 2 * len(largest) <= len(enough):
        return Learned(None, (), f"{len(enough)} replicas have drawn it, and no more than half agree", disputed=True)
    looks = tuple(item for name in sorted(largest) for item in enough[name])
    golden = learn(environment, [item.look for item in looks])
    return Learned(golden, looks if golden is not None else (), "" if golden else "its pictures differ in size")


def _agreeing(drawn: Mapping[ReplicaId, Sequence[Taught]]) -> list[list[ReplicaId]]:
    """Group replicas that draw alike: within what the reruns of either differ by."""
    groups: list[list[ReplicaId]] = []
    for name in sorted(drawn):
        alike = next((group for group in groups if _alike(drawn[group[0]], drawn[name])), None)
        if alike is None:
            groups.append([name])
        else:
            alike.append(name)
    return groups


def _alike(one: Sequence[Taught], two: Sequence[Taught]) -> bool:
    goldens = [learn("", [item.look for item in items]) for items in (one, two)]
    band = max((golden.band for golden in goldens if golden is not None), default=0.0)
    nearest = min(distance(a.look, b.look) for a in one for b in two)
    return nearest <= max(band, LEAST_LEVELS)


def compare_across(canary: str, look: Look | None, others: Sequence[Golden]) -> Compared | None:
    """Hold a look against goldens of other environments, loosely; None where there are none."""
    if not others:
        return None
    if look is None:
        return Compared(canary, Standing.MISSING, 255.0, ACROSS_LEVELS)
    levels = min(distance(look, known) for golden in others for known in golden.looks)
    standing = Standing.WITHIN if levels <= ACROSS_LEVELS else Standing.DIFFERS
    return Compared(canary, standing, levels, ACROSS_LEVELS)


@dataclasses.dataclass(frozen=True, slots=True)
class Times:
    """What is known of one replica that decides about its next round. None: never."""

    ready_at: dt.datetime
    played_at: dt.datetime | None = None  # its last round began
    adapter_at: dt.datetime | None = None  # a request with an adapter ended
    asked_at: dt.datetime | None = None  # by a person
    suspected_at: dt.datetime | None = None  # something else was found of it, first
    spent_seconds: float = 0.0  # device-seconds of canaries within the last hour


def decide_due(times: Times, spec: CanarySpec, now: dt.datetime) -> Cause | None:
    """Return why a round is due now; None: none is, or the budget is spent. What a person asks for is not held back."""
    played = times.played_at
    if not spec.inputs:
        return None
    if _is_since(times.asked_at, played or times.ready_at):
        return Cause.PERSON
    if times.spent_seconds >= spec.budget_seconds_per_hour:
        return None
    return Cause.START if played is None else _due_again(times, played, now, spec.every_seconds)


def _due_again(times: Times, played: dt.datetime, now: dt.datetime, every_seconds: float) -> Cause | None:
    pause = now - played
    if _is_since(times.suspected_at, played) and pause >= SUSPICION_PAUSE:
        return Cause.SUSPICION
    if _is_since(times.adapter_at, played) and pause >= ADAPTER_PAUSE:
        return Cause.ADAPTER
    return Cause.SCHEDULE if pause >= dt.timedelta(seconds=every_seconds) else None


def _is_since(at: dt.datetime | None, then: dt.datetime) -> bool:
    return at is not None and at > then
