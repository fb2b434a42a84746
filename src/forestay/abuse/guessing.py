"""Credentials that are tried rather than known: by network, by kind of client across networks, and what they opened.

A guess is a refused credential whose key does not exist or whose secret is wrong; one that has expired or was revoked
is somebody's forgotten configuration. Counted are distinct credentials, so that one client that repeats its mistake
for days counts once. Bounded. Pure. Called by `signals`.
"""

import dataclasses

from forestay.abuse.calls import GUESSES, Call

HOUR, DAY = 3600.0, 86_400.0
MAX_TRIED = 256
MAX_NETWORKS = 512


@dataclasses.dataclass(slots=True)
class Tries:
    """Distinct refused credentials of the last day: digest -> when first tried."""

    first_at: dict[int, float] = dataclasses.field(default_factory=dict[int, float])
    good: int = 0  # proven calls of the last day, fading
    good_at: float = 0.0
    facts: list[str] = dataclasses.field(default_factory=list[str])

    def tried(self, call: Call) -> None:
        """Take a refused credential."""
        if call.tried not in self.first_at:
            if len(self.first_at) >= MAX_TRIED:
                del self.first_at[next(iter(self.first_at))]
            self.first_at[call.tried] = call.at
            self.facts = [*self.facts[-11:], call.id]

    def proven(self, at: float) -> None:
        """Take a call whose key was good."""
        if at - self.good_at > DAY:
            self.good = 0
        self.good += 1
        self.good_at = at

    def within(self, seconds: float, at: float) -> int:
        """Return how many distinct credentials were first tried within the last `seconds`."""
        return sum(at - moment <= seconds for moment in self.first_at.values())


@dataclasses.dataclass(slots=True)
class Crowd:
    """One kind of client across networks: in how many it was refused today, and usually."""

    day: int = -1
    networks: dict[str, float] = dataclasses.field(default_factory=dict[str, float])
    usual: float = 0.0  # networks a day, of the days before

    def turn(self, at: float) -> None:
        """Close the day; days without a refusal count as such, up to a week of them."""
        day = int(at // DAY)
        if self.day >= 0 and day > self.day:
            self.usual += (len(self.networks) - self.usual) / 5.0
            self.usual *= 0.8 ** min(day - self.day - 1, 7)
            self.networks = {name: moment for name, moment in self.networks.items() if at - moment <= DAY / 2}
        self.day = day


@dataclasses.dataclass(slots=True)
class Guessing:
    """Tries by network and by client."""

    networks: dict[str, Tries] = dataclasses.field(default_factory=dict[str, Tries])
    agents: dict[str, Crowd] = dataclasses.field(default_factory=dict[str, Crowd])
    last_agent: dict[str, str] = dataclasses.field(
        default_factory=dict[str, str]
    )  # network -> client of its last guess

    def refused(self, call: Call) -> None:
        """Take a refused credential."""
        if call.cause not in GUESSES or not call.network:
            return
        tries = self.networks.pop(call.network, None) or Tries()
        self.networks[call.network] = tries
        if len(self.networks) > 20_000:
            gone = next(iter(self.networks))
            del self.networks[gone]
            self.last_agent.pop(gone, None)
        tries.tried(call)
        self.last_agent[call.network] = call.agent
        crowd = self._crowd(call)
        crowd.networks[call.network] = call.at
        if len(crowd.networks) > MAX_NETWORKS:
            del crowd.networks[next(iter(crowd.networks))]

    def proven(self, call: Call) -> int:
        """Take a call whose key was good; returns how many other credentials its network tried within a day."""
        tries = self.networks.get(call.network)
        if tries is None:
            return 0
        tries.proven(call.at)
        return tries.within(DAY, call.at)

    def spread(self, network: str, at: float) -> int:
        """Return in how many networks the kind of client that guessed here is refused today, beyond four usual days.

        A client that everybody uses is refused somewhere every day.
        """
        crowd = self.agents.get(self.last_agent.get(network, ""))
        if crowd is None:
            return 0
        today = sum(at - moment <= DAY for moment in crowd.networks.values())
        return max(0, today - int(4.0 * crowd.usual))

    def _crowd(self, call: Call) -> Crowd:
        crowd = self.agents.pop(call.agent, None) or Crowd()
        self.agents[call.agent] = crowd
        if len(self.agents) > 5_000:
            del self.agents[next(iter(self.agents))]
        crowd.turn(call.at)
        return crowd
