"""Tenants that act as one: the same prompts from the same places, in step, or one going on where another is stopped.

Prompts meet in buckets: four bands of sixteen bits, so that two hashes within three bits always share one (Manku,
Jain, Das Sarma 2007) and those within ten often do; what meets is compared whole. Places are pairs of client and
network. From both each tenant gets *peers*: other tenants with how often they shared a prompt or a place, and moved in
step. A place that very many share (a campus behind one address) says nothing about two of them and is not counted.
Only other tenants count: keys of one tenant may share everything.

Bounded: least recently used first. Pure. Called by `signals`.
"""

import dataclasses
import itertools

from forestay.abuse.calls import LIMIT, Call

NEAR_BITS = 10
BANDS = 4
DAY = 86_400.0
MEMORY_SECONDS = 7 * DAY
STEP_SECONDS = 120.0
HANDOVER_SECONDS = 900.0
ENOUGH_PROMPTS = 3  # shared prompts from which a peer counts
MOST = 2 / 3  # of the peers, whose beginning together is a campaign's
CROWD = 48  # tenants at one place: a carrier's or a campus's, no evidence
MAX_IN_BUCKET = 24
LOOK_BACK = 8  # of a bucket's tenants, the latest
MAX_PEERS = 64
MAX_MEMBERS = 50_000
TOGETHER_SECONDS = 2 * DAY
SETTLED_SECONDS = 3 * DAY  # before that everybody looks new, since nothing was seen before
MAX_BUCKETS = 120_000
MAX_PLACES = 30_000


@dataclasses.dataclass(slots=True)
class Peer:
    """Another tenant, seen from one."""

    since: float
    last_at: float
    places: int = 0
    prompts: int = 0
    in_step: int = 0
    same_agent: int = 0


@dataclasses.dataclass(slots=True)
class Member:
    """One tenant's traits across tenants."""

    first_at: float
    last_at: float = 0.0
    day: int = -1
    calls_today: int = 0
    calls_yesterday: int = 0
    calls: int = 0
    shared_today: int = 0  # calls whose prompt a peer shares
    shared_yesterday: int = 0
    limited_at: float = 0.0
    limited: float = 0.0  # refusals by a limit, of the last days, fading
    handovers: float = 0.0
    shared_since: float = 0.0  # when it began to share prompts, after a week without
    shared_at: float = 0.0
    peers: dict[str, Peer] = dataclasses.field(default_factory=dict[str, Peer])
    facts: list[str] = dataclasses.field(default_factory=list[str])


Seen = dict[str, tuple[float, int, str]]  # tenant -> (at, hash, agent)


@dataclasses.dataclass(slots=True)
class Clusters:
    """Everything that tenants share."""

    began: float = 0.0  # the first call ever seen
    members: dict[str, Member] = dataclasses.field(default_factory=dict[str, Member])
    buckets: dict[int, Seen] = dataclasses.field(default_factory=dict[int, Seen])
    places: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict[str, dict[str, float]])

    def observe(self, call: Call) -> None:
        """Take one proven call."""
        member = self._member(call)
        if call.category == LIMIT:
            member.limited_at = call.at
            member.limited += 1
            return
        if call.network and call.agent:
            self._meet_at_place(call)
        if call.prompt is not None:
            self._meet_by_prompt(call, member, call.prompt)
        member.last_at = call.at

    def siblings(self, tenant: str, at: float) -> int:
        """Return how many other tenants share places and prompts with this one."""
        return sum(item.places > 0 and item.prompts >= ENOUGH_PROMPTS for item in self._peers(tenant, at))

    def cluster(self, tenant: str, at: float) -> int:
        """Return how many other tenants share prompts with this one."""
        return sum(item.prompts >= ENOUGH_PROMPTS for item in self._peers(tenant, at))

    def born_together(self, tenant: str, at: float) -> int:
        """Return how many siblings were first seen within two days of this one; 0 while nothing is old yet."""
        member = self.members.get(tenant)
        if member is None or member.first_at < self.began + SETTLED_SECONDS:
            return 0
        return sum(
            other.first_at >= self.began + SETTLED_SECONDS
            and abs(other.first_at - member.first_at) <= TOGETHER_SECONDS
            and peer.places > 0
            and peer.prompts >= ENOUGH_PROMPTS
            for peer, other in self._acquainted(member, at)
        )

    def campaign(self, tenant: str, at: float) -> int:
        """Return how many peers with the same kind of client began to share prompts, with anybody, when this one did.

        0 unless they are most of those that share its prompts by this client: a campaign's text is new to everybody.
        Users of one plug-in may join several in a day, but what they share was shared before, by the others.
        """
        member = self.members.get(tenant)
        if member is None or not self._began_lately(member, at):
            return 0
        alike = [
            other
            for peer, other in self._acquainted(member, at)
            if peer.prompts >= ENOUGH_PROMPTS and peer.same_agent * 2 > peer.prompts
        ]
        lately = sum(self._began_lately(other, at) for other in alike)
        return lately if lately >= MOST * len(alike) else 0

    def _began_lately(self, member: Member, at: float) -> bool:
        settled = member.shared_since >= self.began + SETTLED_SECONDS
        return settled and at - member.shared_since <= TOGETHER_SECONDS

    def _acquainted(self, member: Member, at: float) -> list[tuple[Peer, Member]]:
        """Return the peers of the last week with what is known of each."""
        return [
            (peer, self.members[name])
            for name, peer in member.peers.items()
            if at - peer.last_at <= MEMORY_SECONDS and name in self.members
        ]

    def in_step(self, tenant: str, at: float) -> float:
        """Return the share of shared prompts that came within two minutes of the other's."""
        peers = [item for item in self._peers(tenant, at) if item.prompts >= ENOUGH_PROMPTS]
        return sum(item.in_step for item in peers) / max(1, sum(item.prompts for item in peers))

    def _peers(self, tenant: str, at: float) -> list[Peer]:
        member = self.members.get(tenant)
        if member is None:
            return []
        return [item for item in member.peers.values() if at - item.last_at <= MEMORY_SECONDS]

    def _member(self, call: Call) -> Member:
        member = self.members.pop(call.tenant, None) or Member(first_at=call.at)
        self.members[call.tenant] = member
        if len(self.members) > MAX_MEMBERS:
            del self.members[next(iter(self.members))]
        self.began = self.began or call.at
        day = int(call.at // DAY)
        if day != member.day:
            fresh = day - member.day == 1
            member.calls_yesterday = member.calls_today if fresh else 0
            member.shared_yesterday = member.shared_today if fresh else 0
            member.day, member.calls_today, member.shared_today = day, 0, 0
            member.limited *= 0.7
            member.handovers *= 0.9
        member.calls += 1
        member.calls_today += 1
        return member

    def _meet_at_place(self, call: Call) -> None:
        place = f"{call.agent} {call.network}"
        seen = self.places.pop(place, None) or {}
        self.places[place] = seen
        if len(self.places) > MAX_PLACES:
            del self.places[next(iter(self.places))]
        before = seen.get(call.tenant)
        seen[call.tenant] = call.at
        if (before is not None and call.at - before < DAY / 4) or len(seen) > CROWD:
            return
        for other in [name for name, at in seen.items() if call.at - at > MEMORY_SECONDS]:
            del seen[other]
        for other in seen:
            if other != call.tenant:
                for peer in self._both(call.tenant, other, call.at):
                    peer.places += 1

    def _meet_by_prompt(self, call: Call, member: Member, prompt: int) -> None:
        shared = False
        for other, (at, _, agent) in self._met(call, prompt).items():
            if call.at - at > 2 * DAY:
                continue
            shared = True
            for peer in self._both(call.tenant, other, call.at):
                peer.prompts += 1
                peer.in_step += call.at - at <= STEP_SECONDS
                peer.same_agent += agent == call.agent
        if shared:
            if call.at - member.shared_at > MEMORY_SECONDS:
                member.shared_since = call.at
            member.shared_at = call.at
            member.shared_today += 1
            member.facts = [*member.facts[-11:], call.id]
            self._hand_over(call, member)

    def _met(self, call: Call, prompt: int) -> Seen:
        """Put the prompt into its buckets; return the other tenants there whose latest prompt is near."""
        met: Seen = {}
        for band in range(BANDS):
            bucket = (prompt >> (16 * band) & 0xFFFF) << 2 | band
            seen = self.buckets.pop(bucket, None)
            if seen is None:
                seen = {}
                if len(self.buckets) >= MAX_BUCKETS:
                    del self.buckets[next(iter(self.buckets))]
            self.buckets[bucket] = seen
            for other, item in itertools.islice(reversed(seen.items()), LOOK_BACK):
                if other not in met and other != call.tenant and (item[1] ^ prompt).bit_count() <= NEAR_BITS:
                    met[other] = item
            seen.pop(call.tenant, None)
            seen[call.tenant] = (call.at, prompt, call.agent)
            if len(seen) > MAX_IN_BUCKET:
                del seen[next(iter(seen))]
        return met

    def _hand_over(self, call: Call, member: Member) -> None:
        """Count a turn: a peer was stopped by its limit, and this tenant, idle until now, goes on with the same."""
        if call.at - member.last_at < HANDOVER_SECONDS:
            return
        for name, peer in member.peers.items():
            other = self.members.get(name)
            stopped = other is not None and 0.0 <= call.at - other.limited_at <= HANDOVER_SECONDS
            if stopped and peer.prompts >= ENOUGH_PROMPTS:
                member.handovers += 1
                return

    def _both(self, one: str, other: str, at: float) -> tuple[Peer, ...]:
        """Return each seen from the other, made where missing."""
        found: list[Peer] = []
        for mine, theirs in ((one, other), (other, one)):
            member = self.members.get(mine)
            if member is None:
                continue
            peer = member.peers.pop(theirs, None) or Peer(since=at, last_at=at)
            if at - peer.last_at > MEMORY_SECONDS:
                peer = Peer(since=at, last_at=at)
            peer.last_at = at
            member.peers[theirs] = peer
            if len(member.peers) > MAX_PEERS:
                del member.peers[next(iter(member.peers))]
            found.append(peer)
        return tuple(found)
