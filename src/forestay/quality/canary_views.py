"""What people see of canaries: the state of each golden, pictures beside each other, what an approval takes. Pure.

It decides which looks of a revision become its golden when a person approves it: those that more than half of its
replicas drew alike. Called by the admin routes.
"""

import dataclasses
from collections.abc import Sequence

from forestay.errors import UsageError
from forestay.ids import RevisionId
from forestay.quality.canary import MIN_RERUNS
from forestay.quality.canary_store import PlayedCanary, PlayedRound
from forestay.quality.golden import Baseline, Taught, learned

APPROVED_ROUNDS = 50  # newest of a revision whose looks are approved


@dataclasses.dataclass(frozen=True, slots=True)
class GoldenState:
    """One golden. `state`: learned, learning, or disputed."""

    canary: str
    environment: str
    revision_id: RevisionId  # the baseline that it belongs to
    state: str
    looks: int
    replicas: int  # that drew it
    exact: bool
    band_levels: float
    picture_key: str
    words: str


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """A golden picture, and the newest one of a replica beside it. Keys are empty where there is no picture."""

    canary: str
    environment: str
    standing: str
    levels: float
    band_levels: float
    golden_key: str
    new_key: str
    replica_id: str
    words: str


def states_of(baseline: Baseline, taught: Sequence[Taught], replicas: int, reruns: int) -> list[GoldenState]:
    """Return the state of each golden of a baseline."""
    found: list[GoldenState] = []
    for canary, environment in sorted({(item.canary, item.environment) for item in taught}):
        looks = [item for item in taught if (item.canary, item.environment) == (canary, environment)]
        known = learned(environment, looks, replicas, reruns)
        golden, shown = known.golden, known.of or tuple(looks)
        state = "learned" if golden is not None else "disputed" if known.disputed else "learning"
        found.append(GoldenState(
            canary, environment, baseline.revision_id, state, len(shown), len({item.replica_id for item in shown}),
            golden is not None and golden.exact, golden.band if golden is not None else 0.0, shown[0].picture_key,
            known.words,
        ))  # fmt: skip
    return found


def pairs_of(states: Sequence[GoldenState], rounds: Sequence[PlayedRound], revision_id: RevisionId) -> list[Pair]:
    """Return golden beside new for each canary of a revision, of the replica that differs most among newest rounds."""
    newest: dict[str, PlayedRound] = {}
    for item in rounds:
        if item.revision_id == revision_id:
            newest.setdefault(item.replica_id, item)
    rows = [(row, item.replica_id) for item in newest.values() for row in item.canaries]
    worst: dict[tuple[str, str], tuple[PlayedCanary, str]] = {}
    for row, replica_id in sorted(rows, key=lambda pair: (-pair[0].levels, pair[1])):
        worst.setdefault((row.canary, row.environment), (row, replica_id))
    return [_pair(row, replica_id, states) for _, (row, replica_id) in sorted(worst.items(), key=lambda item: item[0])]


def _pair(row: PlayedCanary, replica_id: str, states: Sequence[GoldenState]) -> Pair:
    own = [item for item in states if item.canary == row.canary]
    known = next((item for item in own if item.environment == row.environment), own[0] if own else None)
    standing = row.standing.value if row.standing is not None else "learning"
    golden_key = known.picture_key if known is not None else ""
    return Pair(row.canary, row.environment, standing, row.levels, row.band, golden_key, row.picture_key, replica_id,
                row.words)  # fmt: skip


def approved_looks(rounds: Sequence[PlayedRound], revision_id: RevisionId) -> list[Taught]:
    """Return the looks of a revision that become its golden; UsageError where there are none, or replicas disagree."""
    drawn = [
        Taught(row.canary, row.environment, item.replica_id, row.look, row.picture_key)
        for item in [item for item in rounds if item.revision_id == revision_id][:APPROVED_ROUNDS]
        for row in item.canaries
        if row.look is not None
    ]
    if not drawn:
        raise UsageError("revision_id", f"no canary of {revision_id} was played yet; `forestay quality canary run` it")
    found: list[Taught] = []
    for canary, environment in sorted({(item.canary, item.environment) for item in drawn}):
        looks = [item for item in drawn if (item.canary, item.environment) == (canary, environment)]
        known = learned(environment, looks, len({item.replica_id for item in looks}), 1)
        if known.disputed:
            raise UsageError("revision_id", f"its replicas do not agree on {canary}: {known.words}")
        of = known.of or tuple(looks[:1])
        found += [dataclasses.replace(item, settled=len(of) >= MIN_RERUNS) for item in of]
    return found
