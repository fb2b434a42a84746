"""The gate of safety where a candidate names another policy than its control: what was labelled is judged by both.

It decides nothing (`safety_counts` does): it reads what people found of the model's content lately, takes the scores
that its detectors gave then, and adds the sets of labelled texts that a person has replayed for this rollout. It reads
no content. Answers are kept for a while, since the steering loop asks every second. Called by that loop.
"""

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Protocol

from forestay.fleet.model import Fleet
from forestay.fleet.spec import UNGUARDED
from forestay.ids import ModelId
from forestay.rollouts.model import GateResult, GateVerdict, Replayed, Rollout
from forestay.rollouts.safety_counts import Judged, check_replayed, count_rows
from forestay.safety.policy import Policy
from forestay.safety.policy_file import STANDARD, read_policy, standard_policy
from forestay.safety.records import Point, VerdictRecord
from forestay.safety.replay import judged_anew
from forestay.safety.sealing import PolicySeal
from forestay.safety.store import SafetyStore

TRAFFIC = "labelled content of its traffic"
REREAD = dt.timedelta(seconds=30)
MOST_LABELS = 2_000  # the newest
_PAGE, _MOST_PAGES = 5_000, 40
_UNSAFE = "unsafe"


class FoundLabel(Protocol):
    """What people found of one side of a request."""

    @property
    def request_id(self) -> uuid.UUID: ...  # noqa: D102 - a field
    @property
    def point(self) -> str: ...  # noqa: D102 - as above
    @property
    def label(self) -> str: ...  # noqa: D102 - as above
    @property
    def position(self) -> int: ...  # noqa: D102 - as above


class Labels(Protocol):
    """Where people's findings lie."""

    async def labels(self, after: int, limit: int) -> Sequence[FoundLabel]:
        """Read labels after a position, in order."""
        ...


class Verdicts(Protocol):
    """Where records of judgements lie."""

    async def of_requests(
        self, request_ids: Sequence[uuid.UUID], model_id: ModelId, limit: int
    ) -> Sequence[VerdictRecord]:
        """Read the records of these requests of a model that had effect, in order."""
        ...


class SafetyReplays(Protocol):
    """Who answers for a candidate's policy."""

    async def about(self, rollout: Rollout, fleet: Fleet) -> GateResult | None:
        """Return the gate's answer; None where both are judged by one policy, or either by none."""
        ...


class SafetyGate:
    """The replay by the stores of one process."""

    def __init__(self, policies: SafetyStore, seal: PolicySeal, labels: Labels, verdicts: Verdicts) -> None:
        self._policies = policies
        self._seal = seal
        self._labels = labels
        self._verdicts = verdicts
        self._kept: dict[str, tuple[dt.datetime, Replayed | str]] = {}  # of open rollouts, by id

    async def about(self, rollout: Rollout, fleet: Fleet) -> GateResult | None:
        """Judge what was labelled by both policies."""
        control, candidate = (fleet.revisions.get(name) for name in (rollout.control, rollout.candidate))
        before = UNGUARDED if control is None else control.spec.safety.policy
        after = UNGUARDED if candidate is None else candidate.spec.safety.policy
        if before == after or UNGUARDED in {before, after}:
            return None
        found = await self._traffic(rollout, (before, after), fleet.now)
        if isinstance(found, str):
            return GateResult("safety", GateVerdict.INCONCLUSIVE, found)
        sets = ([found] if found.unsafe + found.safe + found.unknown else []) + list(rollout.safety_sets)
        return check_replayed(before, after, sets)

    async def _traffic(self, rollout: Rollout, names: tuple[str, str], now: dt.datetime) -> Replayed | str:
        """Return what labelled traffic says, or why nobody can tell."""
        kept = self._kept.get(rollout.rollout_id)
        if kept is not None and now - kept[0] < REREAD:
            return kept[1]
        found = await self._read(rollout.model_id, names)
        self._kept = {name: value for name, value in self._kept.items() if now - value[0] < REREAD}
        self._kept[rollout.rollout_id] = (now, found)
        return found

    async def _read(self, model_id: ModelId, names: tuple[str, str]) -> Replayed | str:
        policies: list[Policy] = []
        for name in names:
            policy = await self._in_force(name)
            if policy is None:
                return f"policy {name} is not in force; bring it in force with `forestay safety policy`"
            policies.append(policy)
        labels = await self._newest()
        unsafe = {(item.request_id, item.point): item.label == _UNSAFE for item in labels}
        asked = list(dict.fromkeys(item.request_id for item in labels))
        records: Sequence[VerdictRecord] = []
        if asked:
            records = await self._verdicts.of_requests(asked, model_id, 2 * MOST_LABELS)
        rows: dict[tuple[uuid.UUID, str], Judged] = {}
        for record in records:
            key = (record.request_id, record.point)
            if key in unsafe and record.point != Point.LINES:  # of several attempts the last counts
                judged = [judged_anew(policy, record) for policy in policies]
                before, after = (None if one is None else one.action for one in judged)
                rows[key] = (unsafe[key], before, after)
        return count_rows(TRAFFIC, rows.values())

    async def _in_force(self, name: str) -> Policy | None:
        state = await self._policies.state()
        live = next((stage.live for stage in state.stages if stage.policy_id == name), 0)
        if name == STANDARD and live == 0:
            return standard_policy()
        for stored in state.policies:
            if (stored.policy_id, stored.version) == (name, live):
                holds = self._seal.holds(stored.policy_id, stored.version, stored.text, stored.seal)
                return read_policy(stored.text, stored.policy_id, stored.version) if holds else None
        return None

    async def _newest(self) -> list[FoundLabel]:
        newest: list[FoundLabel] = []
        position = 0
        for _ in range(_MOST_PAGES):
            page = await self._labels.labels(position, _PAGE)
            newest = [*newest, *page][-MOST_LABELS:]
            if len(page) < _PAGE:
                break
            position = page[-1].position
        return newest
