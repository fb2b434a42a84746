"""The one door: what becomes of each action, by table and by property."""

import dataclasses
import datetime as dt
import itertools
from random import Random  # noqa: TID251 - only its type: hypothesis owns the source

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.fleet_values import DIGITS, TENANT, place, register, revision_of, route_all, worker_of
from tests.conformance.memory_fleet import EPOCH

from forestay.fleet.actions import Action, Decided, Effect, Freeze, Origin, SetRoutes
from forestay.fleet.apply import (
    ALREADY_SO,
    Brakes,
    Mode,
    Modes,
    Proposal,
    Recent,
    Situation,
    decide_effects,
    subject_of,
)
from forestay.fleet.model import Fleet, ModelEntry, Placement, Revision, Route, WorkerReport
from forestay.fleet.routes import wrong_routes
from forestay.fleet.spec import ResourceSpec
from forestay.ids import BUCKETS, ReplicaId, WorkerId

FIRST, SECOND = revision_of("digits-1"), revision_of("digits-2")
ACT: Modes = {(origin.name.lower(), ""): Mode.ACT for origin in Origin}


def fleet_of(
    workers: list[WorkerReport] | None = None,
    placements: list[Placement] | None = None,
    revisions: tuple[Revision, ...] = (FIRST, SECOND),
) -> Fleet:
    """A fleet with two revisions of one model, the first of them routed."""
    return Fleet(
        version=1,
        now=EPOCH,
        models={DIGITS: ModelEntry(DIGITS, TENANT, "shared", FIRST.spec)},
        revisions={item.revision_id: item for item in revisions},
        routes=(Route(DIGITS, FIRST.revision_id, 0, BUCKETS),),
        placements=tuple(placements or []),
        workers={item.worker_id: item for item in workers or [worker_of("w1"), worker_of("w2")]},
        replicas={},
        demand={},
    )


def situation(
    fleet: Fleet | None = None, *, modes: Modes = ACT, brakes: Brakes | None = None, recent: tuple[Recent, ...] = ()
) -> Situation:
    """A calm situation in which every loop may act, unless told otherwise."""
    return Situation(fleet or fleet_of(), modes, brakes or Brakes(), recent)


def decide(action: Action, origin: Origin, where: Situation | None = None) -> Decided:
    """Decide one action."""
    [decided] = decide_effects([Proposal(action, origin)], where or situation())
    return decided


@pytest.mark.parametrize("origin", list(Origin))
def test_in_calm_everyone_may_act(origin: Origin) -> None:
    """No brake, no conflict: applied, with its reason."""
    assert decide(route_all(SECOND), origin) == Decided(route_all(SECOND), Effect.APPLIED, "test")


@pytest.mark.parametrize(("mode", "effect"), [(Mode.OBSERVE, Effect.OBSERVED), (Mode.ADVISE, Effect.ADVISED)])
def test_modes_hold_loops_and_not_people(mode: Mode, effect: Effect) -> None:
    """A model's own word goes before the word for every model."""
    calm = situation(modes={("rollout", ""): mode, ("human", ""): mode})
    assert decide(route_all(SECOND), Origin.ROLLOUT, calm).effect is effect
    assert decide(route_all(SECOND), Origin.HUMAN, calm).effect is Effect.APPLIED
    own = situation(modes={("rollout", ""): mode, ("rollout", DIGITS): Mode.ACT})
    assert decide(route_all(SECOND), Origin.ROLLOUT, own).effect is Effect.APPLIED


def test_a_loop_that_nobody_switched_on_only_advises() -> None:
    """Placement is the exception: without it nothing would run."""
    assert decide(route_all(SECOND), Origin.SLO, situation(modes={})).effect is Effect.ADVISED
    assert decide(place("w1", FIRST), Origin.CAPACITY, situation(modes={})).effect is Effect.APPLIED


def test_a_freeze_holds_loops_and_only_a_person_ends_it() -> None:
    """A loop may freeze; it may not thaw."""
    frozen = situation(brakes=Brakes(frozen=True, frozen_by="human:k", frozen_why="drill"))
    refused = decide(place("w1", FIRST), Origin.SAFETY, frozen)
    assert (refused.effect, "drill" in refused.why) == (Effect.REFUSED, True)
    assert decide(place("w1", FIRST), Origin.HUMAN, frozen).effect is Effect.APPLIED
    assert decide(Freeze(frozen=False, reason="x"), Origin.INCIDENT, frozen).effect is Effect.REFUSED
    assert decide(Freeze(frozen=False, reason="x"), Origin.HUMAN, frozen).effect is Effect.APPLIED
    assert decide(Freeze(frozen=True, reason="x"), Origin.INCIDENT).effect is Effect.APPLIED


def test_a_freeze_holds_the_rest_of_its_own_batch() -> None:
    """Whoever freezes means now."""
    batch = [
        Proposal(place("w1", FIRST), Origin.CAPACITY),
        Proposal(Freeze(frozen=True, reason="x"), Origin.HUMAN),
    ]
    assert [item.effect for item in decide_effects(batch, situation())] == [Effect.REFUSED, Effect.APPLIED]


@pytest.mark.parametrize("lower", list(Origin)[1:])
@pytest.mark.parametrize("turned", [True, False])
def test_the_higher_origin_wins_in_a_batch(lower: Origin, *, turned: bool) -> None:
    """Whatever the order in which two ask for the same thing."""
    higher = Origin(lower - 1)
    batch = [Proposal(route_all(SECOND), higher), Proposal(dataclasses.replace(route_all(SECOND), reason="b"), lower)]
    decided = decide_effects(batch[::-1] if turned else batch, situation())
    assert [item.action.reason for item in decided if item.effect is Effect.APPLIED] == ["test"]
    assert sum(item.effect is Effect.REFUSED for item in decided) == 1


def test_what_a_higher_origin_did_lately_stands() -> None:
    """A person's route is not undone by a loop a second later; a lower origin's is."""
    by_human = Recent(EPOCH, Origin.HUMAN, subject_of(route_all(SECOND)), Effect.APPLIED)
    refused = decide(route_all(SECOND), Origin.ROLLOUT, situation(recent=(by_human,)))
    assert (refused.effect, "human" in refused.why) == (Effect.REFUSED, True)
    by_capacity = dataclasses.replace(by_human, origin=Origin.CAPACITY)
    assert decide(route_all(SECOND), Origin.ROLLOUT, situation(recent=(by_capacity,))).effect is Effect.APPLIED
    only_advised = dataclasses.replace(by_human, effect=Effect.ADVISED)
    assert decide(route_all(SECOND), Origin.ROLLOUT, situation(recent=(only_advised,))).effect is Effect.APPLIED


def test_what_is_so_already_changes_nothing() -> None:
    """Loops may say the same thing each second, even in a freeze."""
    frozen = situation(brakes=Brakes(frozen=True))
    assert decide(route_all(FIRST), Origin.ROLLOUT, frozen) == Decided(route_all(FIRST), Effect.APPLIED, ALREADY_SO)
    assert decide(place("w1", FIRST, 0), Origin.CAPACITY).why == ALREADY_SO


def test_an_end_of_one_replica_is_a_change_though_as_many_are_wanted() -> None:
    """Once it is written down, saying it again changes nothing."""
    bad = ReplicaId("bad")
    wanted = dataclasses.replace(place("w1", FIRST), ending=(bad,))
    here = situation(fleet_of([worker_of("w1")], [Placement(WorkerId("w1"), FIRST.revision_id, 1, "t")]))
    assert decide(wanted, Origin.CAPACITY, here).why != ALREADY_SO
    ended = situation(fleet_of([worker_of("w1")], [Placement(WorkerId("w1"), FIRST.revision_id, 1, "t", (bad,))]))
    assert decide(wanted, Origin.CAPACITY, ended).why == ALREADY_SO
    assert decide(place("w1", FIRST), Origin.CAPACITY, ended).why == ALREADY_SO


# The removal cap ----------------------------------------------------------------------------------------------------
def full(count: int) -> Fleet:
    """A pool of so many workers with one device each, all holding the first revision."""
    workers = [worker_of(f"w{number}") for number in range(count)]
    return fleet_of(workers, [Placement(item.worker_id, FIRST.revision_id, 1, "t") for item in workers])


def take(number: int) -> Proposal:
    """A loop takes a replica away."""
    return Proposal(place(f"w{number}", FIRST, 0), Origin.QUALITY)


def test_automation_takes_at_most_its_share_out_of_a_pool() -> None:
    """Half of ten devices by default; a person may take more."""
    decided = decide_effects([take(number) for number in range(10)], situation(full(10)))
    assert [item.effect for item in decided].count(Effect.APPLIED) == 5
    assert "exceed" in decided[-1].why
    by_human = [Proposal(item.action, Origin.HUMAN) for item in (take(number) for number in range(10))]
    assert {item.effect for item in decide_effects(by_human, situation(full(10)))} == {Effect.APPLIED}


def test_what_was_taken_lately_counts_and_what_was_put_back_repays() -> None:
    """Net, over the window; putting something to use earlier buys nothing."""
    taken = tuple(
        Recent(EPOCH + dt.timedelta(seconds=n), Origin.CAPACITY, f"s{n}", Effect.APPLIED, pool="cpu", removed_devices=1)
        for n in range(5)
    )
    assert decide(take(9).action, Origin.QUALITY, situation(full(10), recent=taken)).effect is Effect.REFUSED
    put = Recent(EPOCH + dt.timedelta(seconds=9), Origin.CAPACITY, "p", Effect.APPLIED, pool="cpu", removed_devices=-1)
    assert decide(take(9).action, Origin.QUALITY, situation(full(10), recent=(*taken, put))).effect is Effect.APPLIED
    early = dataclasses.replace(put, at=EPOCH - dt.timedelta(seconds=1), removed_devices=-50)
    assert decide(take(9).action, Origin.QUALITY, situation(full(10), recent=(early, *taken))).effect is Effect.REFUSED


def test_a_pool_of_one_device_may_still_change_its_model() -> None:
    """One replica may always be swapped."""
    assert decide(take(0).action, Origin.CAPACITY, situation(full(1))).effect is Effect.APPLIED


# Sense --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "ranges",
    [
        [],
        [(0, 5_000)],
        [(0, 6_000), (5_000, BUCKETS)],
        [(1, BUCKETS)],
        [(0, BUCKETS), (0, BUCKETS)],
        [(0, BUCKETS + 1)],
    ],
)
def test_routes_must_cover_every_bucket_exactly_once(ranges: list[tuple[int, int]]) -> None:
    """A hole or an overlap is refused, whoever asks."""
    routes = tuple(Route(DIGITS, FIRST.revision_id, low, high) for low, high in ranges)
    assert decide(SetRoutes(DIGITS, routes, "x"), Origin.HUMAN).effect is Effect.REFUSED


@given(st.lists(st.integers(1, BUCKETS - 1), unique=True, max_size=8), st.randoms(use_true_random=False))
def test_any_partition_of_the_buckets_is_a_route(cuts: list[int], random: Random) -> None:
    """In whatever order the ranges are written; one moved bound makes it wrong."""
    bounds = [0, *sorted(cuts), BUCKETS]
    known = {FIRST.revision_id: FIRST}
    routes = [Route(DIGITS, FIRST.revision_id, low, high) for low, high in itertools.pairwise(bounds)]
    random.shuffle(routes)
    assert wrong_routes(DIGITS, routes, known) == ""
    moved = dataclasses.replace(routes[0], bucket_to=routes[0].bucket_to - 1)
    assert wrong_routes(DIGITS, [moved, *routes[1:]], known) != ""


def test_routes_lead_to_known_revisions_of_the_same_model() -> None:
    """A route to a revision of the same batch is fine; to a stranger it is not."""
    new = revision_of("digits-3")
    batch = [Proposal(register(new), Origin.HUMAN), Proposal(route_all(new), Origin.HUMAN)]
    assert [item.effect for item in decide_effects(batch, situation())] == [Effect.APPLIED, Effect.APPLIED]
    assert decide(route_all(new), Origin.HUMAN).effect is Effect.REFUSED


def test_a_revision_never_changes_its_content() -> None:
    """The same id with another digest is refused."""
    other = dataclasses.replace(FIRST, digest="another")
    assert decide(register(other), Origin.HUMAN).effect is Effect.REFUSED


@pytest.mark.parametrize(
    ("resources", "replicas", "worker"),
    [
        (ResourceSpec("gpu", 1, 10), 1, "w1"),
        (ResourceSpec("cpu", 2, 10), 1, "w1"),
        (ResourceSpec("cpu", 1, 10), 65, "w1"),
        (ResourceSpec("cpu", 1, 10), -1, "w1"),
        (ResourceSpec("cpu", 1, 10), 1, "w9"),
    ],
)
def test_a_placement_that_cannot_be_is_refused(resources: ResourceSpec, replicas: int, worker: str) -> None:
    """Another pool, too many devices, an unknown worker: refused whoever asks."""
    revision = revision_of("digits-1", resources=resources)
    where = situation(fleet_of(revisions=(revision,)))
    assert decide(place(worker, revision, replicas), Origin.HUMAN, where).effect is Effect.REFUSED


def test_taking_away_from_a_worker_that_is_gone_is_fine() -> None:
    """Nothing can be hurt by it, and it does not count against the cap."""
    gone = Placement(WorkerId("gone"), FIRST.revision_id, 1, "t")
    where = situation(fleet_of(placements=[gone]), brakes=Brakes(removal_cap=0.0))
    assert decide(place("gone", FIRST, 0), Origin.CAPACITY, where).effect is Effect.APPLIED


_ACTIONS = st.sampled_from(
    [
        route_all(FIRST),
        route_all(SECOND),
        register(FIRST),
        place("w1", FIRST),
        place("w1", FIRST, 0),
        place("w2", SECOND, 2),
        Freeze(frozen=True, reason="f"),
        Freeze(frozen=False, reason="f"),
    ]
)


@given(
    st.lists(st.builds(Proposal, _ACTIONS, st.sampled_from(list(Origin))), max_size=6),
    st.booleans(),
    st.dictionaries(st.tuples(st.sampled_from(["capacity", "rollout"]), st.just("")), st.sampled_from(list(Mode))),
)
def test_every_batch_is_answered_in_order_and_frozen_loops_change_nothing(
    batch: list[Proposal],
    frozen: bool,
    modes: dict[tuple[str, str], Mode],
) -> None:
    """One answer each; deciding twice gives the same; in a freeze no loop's change is applied."""
    where = situation(modes=modes, brakes=Brakes(frozen=frozen))
    decided = decide_effects(batch, where)
    assert [item.action for item in decided] == [item.action for item in batch]
    assert decide_effects(batch, where) == decided
    for proposal, item in zip(batch, decided, strict=True):
        changed = item.effect is Effect.APPLIED and item.why != ALREADY_SO
        if frozen and proposal.origin is not Origin.HUMAN and changed:
            assert isinstance(proposal.action, Freeze)
            assert proposal.action.frozen
