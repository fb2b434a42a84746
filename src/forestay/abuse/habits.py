"""A key's habits, and the guises in which it is used that are not its own.

A call that comes from a far network, or from a client of another kind, is taken aside into the *guise* of its client.
A guise is compared with the owner aspect by aspect: network, client, prompts, models, hours, pace, cost, refusals,
number of places, use beside the owner. Each aspect says by how much more a stranger than this owner would be expected
to look so (a logarithm of likelihoods, the owner's side from the key's own rates). Calls of one guise resemble one
another, so an aspect is the mean of what its calls say, counted twice and bounded: a hundred calls prove little more
than a few. The sum is the guise's score, in nats: a naive Bayes classifier (Maron 1961) with every factor bounded. It
is no anytime-valid test, and the bench measures its errors.

Novelty is counted by session, since all calls of a session share a place and a client. A new colleague differs in
network and client, a new project in model and prompts; a thief differs in both. What looks like the owner is learnt at
once. A guise that stays below suspicion for two weeks becomes the owner's. Bounded: the least recently used go first.
Pure. Called by `signals`.
"""

import dataclasses
import math

from forestay.abuse.calls import CONTENT, Call, wide_network
from forestay.abuse.pace import Pace
from forestay.abuse.recent import RecentHashes

ADOPTED_SECONDS = 14 * 86_400.0
SESSION_GAP_SECONDS, SESSION_SECONDS = 1_800.0, 7_200.0
RIPE_SESSIONS = 6  # sessions after which a key has habits
IDLE_SECONDS = 86_400.0  # a pause that counts as idle
PARALLEL_SECONDS = 600.0
NEAR_BITS = 16  # of two prompts of one person, one in seven or more are as near (docs/explanation/abuse.md)
MAX_GUISES = 6
MAX_FACTS = 12
_MEMORY = 200.0  # sessions over which rates are remembered
_FAR, _BESIDE, _KNOWN = 0.85, 0.09, 0.06  # where a stranger's network lies
# How likely a stranger shows it, and the least and most that the aspect may say. Our judgement, stated here alone.
_STRANGER = {"agent": 0.7, "prompt": 0.9, "model": 0.55, "pace": 0.5, "cost": 0.35, "content": 0.3}
_BOUNDS = {
    "prompt": (-2.0, 2.5),
    "model": (-0.9, 2.5),
    "pace": (-0.7, 2.0),
    "cost": (-0.5, 1.5),
    "content": (-0.3, 1.5),
    "hour": (-0.7, 1.0),
}

_CONDUCT = ("model", "pace", "cost", "content", "hour")


@dataclasses.dataclass(slots=True)
class Rate:
    """How often something happens to this key, forgetting slowly."""

    happened: float = 0.5
    trials: float = 5.0

    @property
    def chance(self) -> float:
        """Return the predictive chance, kept off 0 and 1."""
        return min(max(self.happened / self.trials, 0.02), 0.98)

    def learn(self, *, happened: bool) -> None:
        """Take one more trial."""
        if self.trials >= _MEMORY:
            self.happened *= 1 - 1 / _MEMORY
            self.trials -= 1
        self.happened += happened
        self.trials += 1


@dataclasses.dataclass(slots=True)
class Guise:
    """Use of a key through one kind of client, apart from its owner's."""

    since: float
    last_at: float
    calls: int = 0
    network: float = 0.0  # sum over calls, in nats
    client: float = 0.0
    aspects: dict[str, float] = dataclasses.field(default_factory=dict[str, float])  # sums over `told` calls
    told: dict[str, int] = dataclasses.field(default_factory=dict[str, int])
    networks: dict[str, float] = dataclasses.field(default_factory=dict[str, float])
    places: dict[str, float] = dataclasses.field(default_factory=dict[str, float])  # far wide networks -> last seen
    parallel: int = 0  # hours in which the owner called beside it
    parallel_hour: int = -1
    models: dict[str, float] = dataclasses.field(default_factory=dict[str, float])
    prompts: RecentHashes = dataclasses.field(default_factory=lambda: RecentHashes(16))
    pace: Pace = dataclasses.field(default_factory=Pace)
    facts: list[str] = dataclasses.field(default_factory=list[str])

    def say(self, aspect: str, nats: float) -> None:
        """Let one call speak to an aspect."""
        self.aspects[aspect] = self.aspects.get(aspect, 0.0) + nats
        self.told[aspect] = self.told.get(aspect, 0) + 1

    def recent_places(self) -> int:
        """Return from how many far networks it was used within a day of its last call."""
        return sum(self.last_at - at <= 86_400.0 for at in self.places.values())

    def score(self, usual_places: float) -> float:
        """Return the sum of what every aspect says, in nats; what it does counts as far as it seems somebody else."""
        who = (self.network + self.client) / max(1, self.calls) + self._says("prompt")
        who += min(0.8 * max(0.0, self.recent_places() - max(1.0, usual_places)), 2.4) + min(0.4 * self.parallel, 1.2)
        what = sum(self._says(aspect) for aspect in _CONDUCT)
        return who + min(what, 1.5 + 2.0 * max(0.0, who))

    def _says(self, aspect: str) -> float:
        told = self.told.get(aspect, 0)
        if not told:
            return 0.0
        least, most = _BOUNDS[aspect]
        return min(max(self.aspects[aspect] / told * min(told, 2), least), most)


Names = dict[str, float]  # name -> last seen, least recently seen first


def note(names: Names, name: str, at: float, most: int) -> None:
    """Remember the name; beyond `most` the least recently seen goes."""
    names.pop(name, None)
    names[name] = at
    if len(names) > most:
        del names[next(iter(names))]


@dataclasses.dataclass(slots=True)
class Session:
    """The owner's calls of an hour or two: what they ask becomes a habit when it is over."""

    began: float = 0.0
    last_at: float = 0.0
    prompts: list[int] = dataclasses.field(default_factory=list[int])


@dataclasses.dataclass(slots=True)
class Habits:
    """One key's habits and its guises."""

    last_at: float = 0.0
    own_at: float = 0.0  # the last call that looked like its owner
    learnt: int = 0
    sessions: int = 0
    idle_seconds: float = 0.0  # how long it was idle before it was used again
    session: Session = dataclasses.field(default_factory=Session)
    networks: Names = dataclasses.field(default_factory=dict[str, float])
    wide: Names = dataclasses.field(default_factory=dict[str, float])
    agents: Names = dataclasses.field(default_factory=dict[str, float])
    models: Names = dataclasses.field(default_factory=dict[str, float])
    hours: list[float] = dataclasses.field(default_factory=lambda: [0.5] * 24)
    rates: dict[str, Rate] = dataclasses.field(default_factory=dict[str, Rate])
    prompts: RecentHashes = dataclasses.field(default_factory=lambda: RecentHashes(48))
    pace: Pace = dataclasses.field(default_factory=Pace)
    dearest: float = 0.0  # device-seconds of the dearest habitual call
    places: Names = dataclasses.field(default_factory=dict[str, float])  # the owner's wide networks of the last day
    usual_places: float = 1.0
    guises: dict[str, Guise] = dataclasses.field(default_factory=dict[str, Guise])

    def observe(self, call: Call) -> None:
        """Take one call: as the owner's, and learn from it; or into a guise, and weigh it."""
        at = call.at
        pause = at - self.last_at if self.last_at else 0.0
        if pause >= IDLE_SECONDS:
            self.idle_seconds = pause
        self.last_at = at
        wide = wide_network(call.network)
        if self.sessions >= RIPE_SESSIONS:
            network, client = self._network(call, wide), self._client(call)
            if network + client > 0.0:
                self._aside(call, wide, network, client)
                return
        self.pace.count(at, call.seconds)
        self.own_at = at
        if call.accepted:
            self._learn(call, wide)

    def worst(self, at: float) -> Guise | None:
        """Return the guise with the highest score among those seen in the last two weeks."""
        if not self.guises:
            return None
        alive = [item for item in self.guises.values() if at - item.last_at < ADOPTED_SECONDS]
        return max(alive, key=lambda item: item.score(self.usual_places), default=None)

    def _network(self, call: Call, wide: str) -> float:
        if not call.network:
            return 0.0
        far, beside = self._rate("far").chance, self._rate("beside").chance
        if call.network in self.networks:
            return math.log(_KNOWN / max(1.0 - far - beside, 0.02))
        return math.log(_BESIDE / beside) if wide in self.wide else math.log(_FAR / far)

    def _client(self, call: Call) -> float:
        return self._weigh("agent", call.agent not in self.agents) if call.agent else 0.0

    def _aside(self, call: Call, wide: str, network: float, client: float) -> None:
        """Weigh a call that is not the owner's, within its guise."""
        at = call.at
        guise = self.guises.pop(call.agent, None)
        if guise is None or at - guise.last_at > ADOPTED_SECONDS:
            guise = Guise(since=at, last_at=at)
        self.guises[call.agent] = guise
        if len(self.guises) > MAX_GUISES:
            del self.guises[next(iter(self.guises))]
        guise.last_at, guise.calls = at, guise.calls + 1
        guise.network += network
        guise.client += client
        guise.pace.count(at, call.seconds)
        guise.facts = [*guise.facts[-(MAX_FACTS - 1) :], call.id]
        if wide and wide not in self.wide:
            note(guise.places, wide, at, 12)
        note(guise.networks, call.network, at, 12)
        note(guise.models, call.model, at, 12)
        self._compare(call, guise)
        if call.prompt is not None:
            guise.prompts.add(call.prompt)
        if at - guise.since > ADOPTED_SECONDS:
            self._adopt(guise, call.agent, at)

    def _compare(self, call: Call, guise: Guise) -> None:
        at, hour = call.at, int(call.at % 86_400.0 // 3600.0)
        if call.prompt is not None:
            guise.say("prompt", self._weigh("prompt", self.prompts.nearest(call.prompt) > NEAR_BITS))
        guise.say("model", self._weigh("model", call.model not in self.models))
        hasty = guise.pace.calls > self.pace.peak_calls or guise.pace.seconds > self.pace.peak_seconds
        guise.say("pace", self._weigh("pace", hasty))
        guise.say("cost", self._weigh("cost", call.seconds > 1.5 * self.dearest))
        guise.say("content", self._weigh("content", call.category == CONTENT))
        if self.learnt >= 100:
            around = self.hours[hour - 1] + 2.0 * self.hours[hour] + self.hours[(hour + 1) % 24]
            guise.say("hour", math.log(sum(self.hours) / 6.0 / around))
        if at - self.own_at < PARALLEL_SECONDS and int(at // 3600.0) != guise.parallel_hour:
            guise.parallel_hour = int(at // 3600.0)
            guise.parallel += 1

    def _weigh(self, aspect: str, shown: bool) -> float:
        theirs, own = _STRANGER[aspect], self._rate(aspect).chance
        return math.log(theirs / own) if shown else math.log((1.0 - theirs) / (1.0 - own))

    def _rate(self, aspect: str) -> Rate:
        rate = self.rates.get(aspect)
        if rate is None:
            rate = self.rates[aspect] = Rate()
        return rate

    def _learn(self, call: Call, wide: str) -> None:
        """Make every aspect of the call a habit, after counting, once a session, how new it was."""
        at, session = call.at, self.session
        self.learnt += 1
        if at - session.last_at > SESSION_GAP_SECONDS or at - session.began > SESSION_SECONDS:
            self._begin(call, wide)
        session.last_at = at
        if call.network:
            note(self.networks, call.network, at, 64)
            note(self.wide, wide, at, 32)
        if call.agent:
            note(self.agents, call.agent, at, 12)
        note(self.models, call.model, at, 24)
        self.hours[int(at % 86_400.0 // 3600.0)] += 1.0
        if self.learnt % 500 == 0:
            self.hours = [count * 0.5 for count in self.hours]
        self.dearest = max(call.seconds, self.dearest * 0.999)
        if call.prompt is not None and len(session.prompts) < 12:
            session.prompts.append(call.prompt)

    def _begin(self, call: Call, wide: str) -> None:
        """Close the session: what it asked is a habit now, and what this call begins with is as new as it is."""
        at, session = call.at, self.session
        for value in session.prompts:
            self.prompts.add(value)
        session.prompts, session.began = [], at
        self.sessions += 1
        if self.sessions == 1:
            return
        if call.network:
            narrow = call.network in self.networks
            self._rate("beside").learn(happened=not narrow and wide in self.wide)
            self._rate("far").learn(happened=wide not in self.wide)
            note(self.places, wide, at, 32)
            for name in [name for name, seen in self.places.items() if at - seen > 86_400.0]:
                del self.places[name]
            self.usual_places = max(self.usual_places * 0.99, float(len(self.places)))
        if call.agent:
            self._rate("agent").learn(happened=call.agent not in self.agents)
        if call.prompt is not None and len(self.prompts):
            self._rate("prompt").learn(happened=self.prompts.nearest(call.prompt) > NEAR_BITS)
        self._rate("model").learn(happened=call.model not in self.models)
        self._rate("pace").learn(happened=self.pace.hasty())
        self._rate("cost").learn(happened=call.seconds > 1.5 * self.dearest)
        self._rate("content").learn(happened=False)

    def _adopt(self, guise: Guise, agent: str, at: float) -> None:
        """Take a guise that was around for two weeks for the owner's own."""
        for name in guise.networks:
            note(self.networks, name, at, 64)
            note(self.wide, wide_network(name), at, 32)
        note(self.agents, agent, at, 12)
        for name in guise.models:
            note(self.models, name, at, 24)
        for value in guise.prompts.values():
            self.prompts.add(value)
        del self.guises[agent]
