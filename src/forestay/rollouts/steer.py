"""The loop that steers rollouts: read what happened, decide, record, then move the routes.

It has no rules of its own (`rollouts/decide`, `canary`, `gates` have). Everything that it has to do follows from what
is stored, so a controller killed at any step is followed by another that goes on; of two at once, one's write is
refused. A verdict of harm and the routes without the candidate are one run. The controller runs it under a leader's
lease.
"""

import dataclasses
from collections.abc import Sequence
from typing import assert_never

from forestay.fleet.actions import Effect, Origin, ShiftRoutes
from forestay.fleet.model import Fleet
from forestay.fleet.routes import awaited, is_up, routes_of
from forestay.fleet.store import FleetStore
from forestay.quality.canary_store import CanaryStore, PlayedRound
from forestay.rollouts.budget_hold import NO_DEMAND, Demand, demand_of
from forestay.rollouts.decide import Record, Reroute, RolloutAction, Sight, decide_rollout
from forestay.rollouts.gates import check_gates
from forestay.rollouts.golden_gates import decide_round
from forestay.rollouts.load_gate import LoadAnswers
from forestay.rollouts.model import TERMINAL, GateResult, JournalEntry, Rollout, Stage
from forestay.rollouts.observe import learn
from forestay.rollouts.readiness_gate import Readiness
from forestay.rollouts.safety_gate import SafetyReplays
from forestay.rollouts.shadow.store import ShadowStore
from forestay.rollouts.store import RolloutFacts, RolloutStore
from forestay.slo.policy_store import BudgetDemands
from forestay.telemetry.logs import logger

ACTOR = "loop:rollout"
CHANNEL = "forestay:rollouts"  # a person has given an order
MOST_ROUNDS = 100  # of golden canaries that gates look at, the newest
MOST_FACTS = 5_000  # a run; more wait for the next, which follows at once
_log = logger("rollouts")


@dataclasses.dataclass(frozen=True, slots=True)
class GateSources:
    """Whom gates ask beside the fleet: error budgets, the readiness review, golden canaries, labelled content."""

    budgets: BudgetDemands | None = None
    readiness: Readiness | None = None
    canaries: CanaryStore | None = None
    safety: SafetyReplays | None = None
    load: LoadAnswers | None = None


class SteeringLoop:
    """One controller's steering loop."""

    def __init__(
        self,
        rollouts: RolloutStore,
        facts: RolloutFacts,
        fleet: FleetStore,
        shadow: ShadowStore | None = None,
        asked: GateSources | None = None,
    ) -> None:
        """Without `shadow` nothing is mirrored; whoever is not among `asked` holds no rollout."""
        self._rollouts = rollouts
        self._facts = facts
        self._fleet = fleet
        self._shadow = shadow
        self._asked = asked or GateSources()

    async def run_once(self) -> int:
        """Take every open rollout one step on; returns the most facts read of one."""
        running = await self._rollouts.open()
        if not running:
            return 0
        fleet = await self._fleet.load()
        return max([await self._step(rollout, fleet) for rollout in running])

    async def _step(self, stored: Rollout, fleet: Fleet) -> int:
        rollout, read = stored, 0
        if rollout.stage not in TERMINAL:
            facts = await self._facts.after(rollout.model_id, rollout.cursor, MOST_FACTS)
            rollout, read = learn(rollout, facts, fleet.now), len(facts)
        sight = await self._sight(rollout, fleet)
        if rollout.stage is Stage.SHADOW and self._shadow is not None:
            sight = dataclasses.replace(sight, pairs=tuple(await self._shadow.pairs(rollout.rollout_id)))
        actions = decide_rollout(sight, fleet.now)
        version = stored.version
        for action in with_evidence(stored, rollout, actions):
            if isinstance(action, Record):
                version = action.rollout.version
            if not await self._act(action, rollout, version, fleet):
                break  # somebody else went on: look again at the next run
        return read

    async def _sight(self, rollout: Rollout, fleet: Fleet) -> Sight:
        asked, gates = self._asked, rollout.stage is Stage.GATES
        decided = () if asked.budgets is None else await asked.budgets.about(f"model:{rollout.model_id}")
        rounds: list[PlayedRound] | None = None
        if gates and asked.canaries is not None:
            rounds = await asked.canaries.rounds(rollout.model_id, MOST_ROUNDS)
            ask = decide_round(rollout, fleet, rounds, await asked.canaries.asks(rollout.started_at), fleet.now)
            if ask is not None:
                await asked.canaries.ask(ask)
                _log.info("rollout.round_asked", rollout=rollout.rollout_id, revision=rollout.candidate)
        sight = see(rollout, fleet, demand_of(decided), rounds)
        return dataclasses.replace(sight, gates=await self._further(sight, fleet)) if gates else sight

    async def _further(self, sight: Sight, fleet: Fleet) -> tuple[GateResult, ...]:
        """Return the gates with those that ask somebody else; a replay of content goes before the names of policies."""
        asked, found = self._asked, list(sight.gates)
        replayed = None if asked.safety is None else await asked.safety.about(sight.rollout, fleet)
        if replayed is not None:
            found = [gate for gate in found if gate.gate != replayed.gate] + [replayed]
        loaded = None if asked.load is None else await asked.load.about(sight.rollout, fleet)
        if loaded is not None:
            found.append(loaded)
        ready = None if asked.readiness is None else await asked.readiness.about(sight.rollout, fleet)
        return (*found, *([ready] if ready is not None else []))

    async def _act(self, action: RolloutAction, rollout: Rollout, version: int, fleet: Fleet) -> bool:
        match action:
            case Record(rollout=after, journalled=journalled, reason=reason):
                entry = JournalEntry(after.version, fleet.now, ACTOR, after.stage, after.weight, reason)
                saved = await self._rollouts.save(after, entry if journalled else None)
                if saved and journalled:
                    _log.info("rollout.step", rollout=after.rollout_id, stage=after.stage, weight=after.weight)
                return saved
            case Reroute(routes=routes, seen=seen, reason=reason):
                shift = ShiftRoutes(rollout.model_id, routes, seen, (rollout.rollout_id, version), reason)
                [decided] = await self._fleet.apply([shift], origin=Origin.ROLLOUT, actor=ACTOR)
                if decided.effect is not Effect.APPLIED:
                    _log.warning("rollout.refused", rollout=rollout.rollout_id, reason=decided.why)
                return decided.effect is Effect.APPLIED
            case _:
                assert_never(action)


def see(
    rollout: Rollout, fleet: Fleet, demand: Demand = NO_DEMAND, rounds: Sequence[PlayedRound] | None = None
) -> Sight:
    """Return what the fleet shows of a rollout."""
    plan = awaited(fleet, rollout.candidate)
    return Sight(
        rollout=rollout,
        routes=tuple(routes_of(fleet, rollout.model_id)),
        planned=plan is not None and plan.held,
        candidate_up=is_up(fleet, rollout.candidate),
        control_up=is_up(fleet, rollout.control),
        gates=check_gates(rollout, fleet, fleet.now, demand, rounds),
        demand=demand,
    )


def with_evidence(stored: Rollout, learned: Rollout, actions: list[RolloutAction]) -> list[RolloutAction]:
    """Return the actions with what was learned recorded, also where nothing was decided."""
    if learned == stored or any(isinstance(item, Record) for item in actions):
        return actions
    kept = dataclasses.replace(learned, version=stored.version + 1)
    return [Record(kept, journalled=False, reason=kept.reason), *actions]
