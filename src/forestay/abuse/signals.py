"""All signals together: every call goes in once, in order of time; what is known of anybody comes out at any time.

Holds the state of keys, tenants, networks and of what they share, each bounded, least recently used first. Pure: no
clock, no I/O; the same calls give the same state. It decides nothing (`decide` does). Called by the abuse loop, by
replay and by the bench.
"""

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping

from forestay.abuse.calls import AUTH, STANDING, Call
from forestay.abuse.clusters import Clusters, Member
from forestay.abuse.counters import Counters
from forestay.abuse.decide import History
from forestay.abuse.extraction import Extraction
from forestay.abuse.guessing import DAY, HOUR, Guessing
from forestay.abuse.habits import Guise, Habits
from forestay.abuse.pace import Pace
from forestay.abuse.probing import Probing
from forestay.abuse.rules import CounterSpec
from forestay.abuse.vocabulary import SIGNALS, Per
from forestay.fleet.standing import Standing
from forestay.telemetry.call_facts import REFUSED_LATER

MAX_KEYS = 50_000
IDLE_MEMORY_SECONDS = DAY  # for so long after a return its idle time still counts


@dataclasses.dataclass(slots=True)
class KeyState:
    """What is known of one key."""

    tenant: str
    first_at: float
    calls: int = 0
    habits: Habits = dataclasses.field(default_factory=Habits)
    pace: Pace = dataclasses.field(default_factory=Pace)
    probing: Probing = dataclasses.field(default_factory=Probing)
    extraction: Extraction = dataclasses.field(default_factory=Extraction)
    models: dict[str, int] = dataclasses.field(default_factory=dict[str, int])  # model -> day it was first called
    new_seconds: float = 0.0  # of this hour, for models that are new
    opened: int = 0
    opened_at: float = 0.0
    returned_at: float = 0.0


Touched = tuple[tuple[Per, str], ...]


class Signals:
    """The state of everybody."""

    def __init__(self, counters: tuple[CounterSpec, ...] = ()) -> None:
        self.keys: dict[str, KeyState] = {}
        self.clusters = Clusters()
        self.guessing = Guessing()
        self.counters = Counters(counters)

    def count(self, counters: tuple[CounterSpec, ...]) -> None:
        """Keep these counters from now on, from nothing."""
        self.counters = Counters(counters)

    def observe(self, call: Call) -> Touched:
        """Take one call; returns about whom something is new. A call that a standing refused teaches nothing."""
        subjects: dict[Per, str] = {}
        if call.category == AUTH:
            if call.network:
                subjects[Per.NETWORK] = f"network:{call.network}"
            self.guessing.refused(call)
        elif call.verb == REFUSED_LATER:
            state = self.keys.get(call.key)
            if state is not None:
                subjects[Per.KEY], subjects[Per.TENANT] = f"key:{call.key}", f"tenant:{call.tenant}"
                state.probing.refused_later(call)
        elif call.category != STANDING and call.key:
            subjects[Per.KEY], subjects[Per.TENANT] = f"key:{call.key}", f"tenant:{call.tenant}"
            self._proven(call)
        if subjects:
            self.counters.observe(call, subjects)
        return tuple(subjects.items())

    def history(self, per: Per, subject: str, at: float, known: "Known | None" = None) -> History:
        """Return what is known of a subject at a moment; signals are worked out when they are asked for."""
        known = known or _NOTHING
        return History(
            subject,
            per,
            self.of(per, subject, at),
            self.counters.values(subject, at),
            known.labels,
            known.standing,
            lambda: self.facts(per, subject, at),
        )

    def of(self, per: Per, subject: str, at: float) -> Mapping[str, float]:
        """Return the signals of one subject, each worked out when it is first asked for; 0 for a stranger."""
        _, _, identity = subject.partition(":")
        if per is Per.NETWORK:
            return _Network(self.guessing, identity, at)
        state = self.keys.get(identity) if per is Per.KEY else None
        tenant = identity if per is Per.TENANT else (state.tenant if state is not None else "")
        return _Caller(state, self.clusters, tenant, at)

    def facts(self, per: Per, subject: str, at: float) -> tuple[str, ...]:
        """Return ids of the facts behind what is most telling of a subject."""
        _, _, identity = subject.partition(":")
        if per is Per.NETWORK:
            tries = self.guessing.networks.get(identity)
            return tuple(tries.facts) if tries is not None else ()
        if per is Per.TENANT:
            member = self.clusters.members.get(identity)
            return tuple(member.facts) if member is not None else ()
        state = self.keys.get(identity)
        if state is None:
            return ()
        guise = state.habits.worst(at)
        found = [*(guise.facts if guise else ()), *state.probing.facts(), *state.extraction.fresh.facts]
        return tuple(dict.fromkeys(found[:24]))

    def _proven(self, call: Call) -> None:
        state = self.keys.pop(call.key, None) or KeyState(call.tenant, call.at)
        self.keys[call.key] = state
        if len(self.keys) > MAX_KEYS:
            del self.keys[next(iter(self.keys))]
        last_at = state.habits.last_at
        if last_at and call.at - last_at >= DAY:
            state.returned_at = call.at
        state.tenant, state.calls = call.tenant, state.calls + 1
        stranger_here = call.network not in state.habits.networks
        state.habits.observe(call)
        self._spend(state, call)
        state.probing.observe(call)
        if call.accepted:
            state.extraction.observe(call)
        opened = self.guessing.proven(call)
        if opened and stranger_here:
            state.opened, state.opened_at = max(opened, state.opened), call.at
        self.clusters.observe(call)

    @staticmethod
    def _spend(state: KeyState, call: Call) -> None:
        """Count the call's pace and spend, and what of it goes to models that are new today."""
        hour, day = state.pace.hour, int(call.at // DAY)
        state.pace.count(call.at, call.seconds if call.accepted else 0.0)
        if state.pace.hour != hour:
            state.new_seconds = 0.0
        since = state.models.pop(call.model, day)
        state.models[call.model] = since
        if len(state.models) > 48:
            del state.models[next(iter(state.models))]
        if since >= day - 1 and call.accepted and state.first_at < call.at - 3 * DAY:
            state.new_seconds += call.seconds


@dataclasses.dataclass(frozen=True, slots=True)
class Known:
    """What is known of a subject beside its calls."""

    labels: Mapping[str, dt.datetime] = dataclasses.field(default_factory=dict[str, dt.datetime])
    standing: Standing | None = None


_NOTHING = Known()


class _Caller(dict[str, float]):
    """Signals of a key and its tenant, or of a tenant alone, at one moment."""

    def __init__(self, state: KeyState | None, clusters: Clusters, tenant: str, at: float) -> None:
        super().__init__()
        self._state, self._clusters, self._tenant, self._at = state, clusters, tenant, at

    def __missing__(self, name: str) -> float:
        read = _OF_KEYS.get(name)
        if read is None:
            value = float(_OF_TENANTS[name](self._clusters, self._tenant, self._at))
        else:
            value = 0.0 if self._state is None else float(read(self._state, self._at))
        self[name] = value
        return value


class _Network(dict[str, float]):
    """Signals of a network at one moment."""

    def __init__(self, guessing: Guessing, network: str, at: float) -> None:
        super().__init__()
        self._guessing, self._network, self._at = guessing, network, at

    def __missing__(self, name: str) -> float:
        value = self[name] = float(_OF_NETWORKS[name](self._guessing, self._network, self._at))
        return value


def shown(signals: Mapping[str, float], per: Per) -> dict[str, float]:
    """Return every signal that a subject of this kind has, worked out."""
    return {name: signals[name] for name, signal in SIGNALS.items() if per in signal.per}


def _of_guise(read: Callable[[Guise, Habits], float]) -> Callable[[KeyState, float], float]:
    def of(state: KeyState, at: float) -> float:
        guise = state.habits.worst(at)
        return 0.0 if guise is None else read(guise, state.habits)

    return of


def _idle_days(state: KeyState, at: float) -> float:
    return state.habits.idle_seconds / DAY if at - state.returned_at <= IDLE_MEMORY_SECONDS else 0.0


def _new_models(state: KeyState, at: float) -> float:
    del at
    return state.new_seconds / state.pace.seconds if state.pace.seconds else 0.0


def _of_member(read: Callable[[Member, float], float]) -> Callable[[Clusters, str, float], float]:
    def of(clusters: Clusters, tenant: str, at: float) -> float:
        member = clusters.members.get(tenant)
        return 0.0 if member is None else read(member, at)

    return of


def _calls_day(member: Member, at: float) -> float:
    return 0.0 if int(at // DAY) - member.day > 1 else max(member.calls_today, member.calls_yesterday)


def _cluster_share(member: Member, at: float) -> float:
    shared, calls = member.shared_today + member.shared_yesterday, member.calls_today + member.calls_yesterday
    return shared / calls if calls >= 5 and int(at // DAY) == member.day else 0.0


def _tried(seconds: float) -> Callable[[Guessing, str, float], float]:
    def of(guessing: Guessing, network: str, at: float) -> float:
        tries = guessing.networks.get(network)
        return 0.0 if tries is None else tries.within(seconds, at)

    return of


def _good(guessing: Guessing, network: str, at: float) -> float:
    tries = guessing.networks.get(network)
    return 0.0 if tries is None or at - tries.good_at > DAY else tries.good


_OF_KEYS: Mapping[str, Callable[[KeyState, float], float]] = {
    "key.calls": lambda state, _at: state.calls,
    "key.age_days": lambda state, at: (at - state.first_at) / DAY,
    "key.idle_days": _idle_days,
    "stranger.score": _of_guise(lambda guise, habits: max(0.0, guise.score(habits.usual_places))),
    "stranger.calls": _of_guise(lambda guise, _habits: guise.calls),
    "stranger.places": _of_guise(lambda guise, _habits: guise.recent_places()),
    "stranger.parallel": _of_guise(lambda guise, _habits: guise.parallel),
    "stranger.hasty": _of_guise(lambda guise, habits: guise.pace.calls / habits.pace.peak_calls),
    "velocity.ratio": lambda state, _at: state.pace.calls_ratio,
    "velocity.nats": lambda state, _at: state.pace.velocity.nats,
    "spend.ratio": lambda state, _at: state.pace.seconds_ratio,
    "spend.nats": lambda state, _at: state.pace.spend.nats,
    "spend.hour_seconds": lambda state, _at: state.pace.seconds,
    "spend.new_models": _new_models,
    "probing.variants": lambda state, at: state.probing.variants(at),
    "probing.meanings": lambda state, at: state.probing.meanings(at),
    "probing.refused": lambda state, at: state.probing.refused(at),
    "probing.nats": lambda state, _at: state.probing.nats(),
    "extraction.queries": lambda state, _at: state.extraction.queries,
    "extraction.fresh_nats": lambda state, _at: state.extraction.fresh.nats,
    "extraction.families": lambda state, _at: state.extraction.effective_families(),
    "extraction.rounds_nats": lambda state, _at: state.extraction.rounds.nats,
    "extraction.returns": lambda state, _at: state.extraction.return_share(),
    "extraction.leap": lambda state, _at: state.extraction.leap,
    "extraction.repeats": lambda state, _at: state.extraction.repeat_share(),
    "extraction.same_shape": lambda state, _at: state.extraction.same_shape(),
    "extraction.coverage": lambda state, _at: state.extraction.coverage(),
    "guessing.opened": lambda state, at: state.opened if at - state.opened_at <= DAY else 0,
}
_OF_TENANTS: Mapping[str, Callable[[Clusters, str, float], float]] = {
    "tenant.age_days": _of_member(lambda member, at: (at - member.first_at) / DAY),
    "tenant.calls_day": _of_member(_calls_day),
    "tenant.limited": _of_member(lambda member, _at: member.limited),
    "sibling.tenants": lambda clusters, tenant, at: clusters.siblings(tenant, at),
    "sibling.in_step": lambda clusters, tenant, at: clusters.in_step(tenant, at),
    "sibling.handovers": _of_member(lambda member, _at: member.handovers),
    "sibling.born_together": lambda clusters, tenant, at: clusters.born_together(tenant, at),
    "cluster.tenants": lambda clusters, tenant, at: clusters.cluster(tenant, at),
    "cluster.share": _of_member(_cluster_share),
    "campaign.tenants": lambda clusters, tenant, at: clusters.campaign(tenant, at),
}
_OF_NETWORKS: Mapping[str, Callable[[Guessing, str, float], float]] = {
    "guessing.hour": _tried(HOUR),
    "guessing.day": _tried(DAY),
    "guessing.networks": lambda guessing, network, at: guessing.spread(network, at),
    "guessing.good": _good,
}
