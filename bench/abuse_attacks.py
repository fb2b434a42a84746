"""Seventeen kinds of attack for the abuse bench, each a handful of times, with parameters drawn from stated ranges.

`RANGES` says what tuning may draw. The test draws *outside* of them (`Range.draw(outside=True)`): smaller and larger,
slower and faster, fewer and more networks. An attack names its members (keys, tenants or networks): it counts as found
when a restricting standing is on at least `needs` of them while it lasts, and the calls until then are what it got.
"""

import dataclasses
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from bench.abuse_people import QUOTA, People, Person
from bench.abuse_words import TOPICS, Ids
from bench.abuse_world import (
    ALL_AGENTS,
    CLOUDS,
    COMMON_AGENTS,
    DAY,
    DAYS,
    HOMES,
    HOUR,
    MODELS,
    PROXIES,
    Range,
    Row,
    World,
    network_text,
    sessions,
)
from forestay.abuse.simhash import PromptHasher

RANGES = {
    "resale_networks": Range(6, 30, whole=True), "resale_agents": Range(2, 6, whole=True),
    "resale_calls": Range(150, 700, whole=True), "resale_per_hour": Range(15, 90),
    "drip_per_day": Range(4, 12), "drip_networks": Range(1, 3, whole=True), "drip_days": Range(5, 11, whole=True),
    "cloud_calls": Range(80, 400, whole=True), "cloud_per_hour": Range(8, 50),
    "dormant_calls": Range(40, 250, whole=True), "dormant_per_hour": Range(6, 40),
    "blast_calls": Range(100, 500, whole=True), "blast_per_hour": Range(60, 300),
    "ring_tenants": Range(12, 36, whole=True), "ring_per_day": Range(30, 90), "ring_days": Range(4, 10, whole=True),
    "sibling_tenants": Range(4, 9, whole=True), "sibling_days": Range(4, 9, whole=True),
    "probe_tries": Range(30, 90, whole=True), "probe_refused": Range(0.5, 0.85), "probe_gap": Range(10, 90),
    "campaign_keys": Range(15, 45, whole=True), "campaign_calls": Range(30, 90, whole=True),
    "copy_queries": Range(700, 2000, whole=True), "copy_per_hour": Range(60, 400),
    "copy_seeds": Range(40, 100, whole=True),
    "slow_per_day": Range(40, 90),
    "guess_tries": Range(40, 240, whole=True), "guess_hours": Range(1, 10),
    "spread_networks": Range(25, 80, whole=True),
    "stuffing_networks": Range(4, 14, whole=True), "stuffing_tries": Range(60, 220, whole=True),
}  # fmt: skip
KINDS = (
    "leak_resale", "leak_slow_drip", "leak_same_cloud", "dormant_takeover", "spend_blast", "sybil_ring",
    "sibling_quota", "probing_naive", "probing_paraphrased", "probing_obfuscated", "prompt_campaign",
    "extraction_random", "extraction_adaptive", "extraction_slow", "guessing_one_network", "guessing_distributed",
    "credential_stuffing",
)  # fmt: skip
LEAKS = ("leak_resale", "leak_slow_drip", "leak_same_cloud", "dormant_takeover")
EXTRACTIONS = ("extraction_random", "extraction_adaptive", "extraction_slow")
_LEET = str.maketrans({"a": "@", "e": "3", "i": "1", "o": "0", "s": "$"})
_CYRILLIC = str.maketrans("aeopcx", "\u0430\u0435\u043e\u0440\u0441\u0445")


@dataclasses.dataclass(frozen=True, slots=True)
class Attack:
    """One attack: its members as subjects, and what share of them must be restricted for it to count as found."""

    number: int
    kind: str
    members: frozenset[str]
    begins: float
    ends: float
    needs: float = 0.5


class Attackers:
    """Writes attacks into the world, upon the people that live there."""

    def __init__(self, people: People, *, outside: bool, each: int) -> None:
        self.people = people
        self.world: World = people.world
        self.rng = self.world.rng
        self.attacks: list[Attack] = []
        self.victims: set[str] = set()
        self._outside = outside
        self._each = each

    def strike(self) -> list[Attack]:
        """Let every kind of attack happen."""
        for kind in KINDS:
            act: Callable[[], None] = getattr(self, f"_{kind}")
            for _ in range(self._each):
                act()
        return self.attacks

    def _draw(self, name: str) -> float:
        return RANGES[name].draw(self.rng, outside=self._outside)

    def _count(self, name: str) -> int:
        return int(self._draw(name))

    def _begin(self, kind: str, members: Sequence[str], begins: float, ends: float) -> int:
        number = len(self.attacks)
        self.attacks.append(Attack(number, kind, frozenset(members), begins, min(ends, DAYS * DAY)))
        return number

    def _victim(self, kinds: Sequence[str], *, calls: int = 60) -> Person:
        """Somebody with a history: a key that called on five of the first eleven days. Younger ones have no habits."""
        fit = [
            one for one in self.people.people
            if one.kind in kinds and one.calls >= calls and one.key not in self.victims
            and len(one.days & set(range(11))) >= 5
        ]  # fmt: skip
        chosen = fit[int(self.rng.integers(len(fit)))]
        self.victims.add(chosen.key)
        return chosen

    def _dormant(self) -> Person:
        """Somebody who stopped in the second week; made for the purpose when nobody did."""
        one = self.people.person("dormant")
        one.first_day = 0
        self.people.human(one, sessions(self.rng, range(int(self.rng.integers(7, 10))), 1.5, one.hour, 7))
        self.victims.add(one.key)
        return one

    def _agent(self, own: Sequence[int], same: float) -> int:
        """A thief's client: the victim's kind with some chance, else another, popular or rare."""
        if self.rng.random() < same:
            return own[0]
        agent = self.people.agent() if self.rng.random() < 0.6 else int(self.rng.integers(COMMON_AGENTS, ALL_AGENTS))
        return agent if agent not in own else (agent + 1) % ALL_AGENTS

    def _models(self, own: Sequence[int], novel: float) -> list[int]:
        """What a thief calls: with some chance dear models that the victim never called."""
        if self.rng.random() < novel:
            return [int(item) for item in self.rng.integers(MODELS // 2, MODELS, 3)]
        return list(own)

    def _stolen(
        self, victim: Person, kind: str, times: Sequence[float], ways: tuple[list[int], list[int], list[int]]
    ) -> None:
        """Calls with somebody's key: own ideas, from the thief's networks, clients and models."""
        rng, writer = self.rng, self.world.writer
        networks, agents, models = ways
        number = self._begin(kind, [f"key:{victim.key}"], float(times[0]), float(times[-1]) + HOUR)
        interests, prompt, rows = rng.choice(TOPICS, 12).astype(np.int32), None, []
        session, network, agent = -1, networks[0], agents[0]
        for at in times:
            if int(at // 1_200) != session:
                session, network, agent = int(at // 1_200), int(rng.choice(networks)), int(rng.choice(agents))
            prompt = writer.refined(prompt) if prompt is not None and rng.random() < 0.35 else writer.natural(interests)
            model = int(rng.choice(models))
            cause = "content_policy_violation" if rng.random() < 0.04 else ""
            rows.append(
                Row(float(at), network, agent, model, self.world.price(model, 1.2), prompt, int(rng.integers(4)), cause)
            )
        self.world.write(victim.tenant, victim.key, rows, number)

    def _times(self, start: float, count: int, per_hour: float) -> list[float]:
        return (start + np.cumsum(self.rng.exponential(HOUR / per_hour, count))).tolist()

    def _start(self, low: float = 12, high: float = 22) -> float:
        return float(self.rng.uniform(low, high)) * DAY

    # Leaked keys ---------------------------------------------------------------------------------------------------
    def _leak_resale(self) -> None:
        victim = self._victim(("developer", "template_app", "end_user_app", "hobbyist", "nightly_batch"))
        networks = [self.world.network(PROXIES) for _ in range(self._count("resale_networks"))]
        agents = [self._agent(victim.agents, 0.15) for _ in range(self._count("resale_agents"))]
        times = self._times(self._start(), self._count("resale_calls"), self._draw("resale_per_hour"))
        self._stolen(victim, "leak_resale", times, (networks, agents, self._models(victim.models, 0.75)))

    def _leak_slow_drip(self) -> None:
        victim = self._victim(("developer", "template_app", "nightly_batch", "hobbyist"))
        networks = [
            self.world.network(int(self.rng.choice([PROXIES, HOMES]))) for _ in range(self._count("drip_networks"))
        ]
        per_day, start = self._draw("drip_per_day"), int(self._start(11, 15) // DAY)
        times = [
            day * DAY + float(at)
            for day in range(start, min(DAYS, start + self._count("drip_days")))
            for at in np.sort(self.rng.uniform(0, DAY, int(self.rng.poisson(per_day)) + 1))
        ]
        ways = (networks, [self._agent(victim.agents, 0.15)], self._models(victim.models, 0.75))
        self._stolen(victim, "leak_slow_drip", times, ways)

    def _leak_same_cloud(self) -> None:
        victim = self._victim(("template_app", "build_system", "nightly_batch"))
        wides = list({item >> 8 for item in victim.networks})
        networks = [self.world.network(CLOUDS) for _ in range(2)]
        networks.append(int(self.rng.choice(wides)) << 8 | int(self.rng.integers(256)))
        times = self._times(self._start(), self._count("cloud_calls"), self._draw("cloud_per_hour"))
        ways = (networks, [self._agent(victim.agents, 0.15)], self._models(victim.models, 0.8))
        self._stolen(victim, "leak_same_cloud", times, ways)

    def _dormant_takeover(self) -> None:
        victim = self._dormant()
        networks = [self.world.network(PROXIES) for _ in range(2)]
        times = self._times(self._start(24, 28), self._count("dormant_calls"), self._draw("dormant_per_hour"))
        ways = (networks, [self._agent(victim.agents, 0.15)], self._models(victim.models, 0.7))
        self._stolen(victim, "dormant_takeover", times, ways)

    def _spend_blast(self) -> None:
        victim = self._victim(("developer", "hobbyist", "end_user_app"))
        networks = [self.world.network(PROXIES) for _ in range(2)]
        times = self._times(self._start(), self._count("blast_calls"), self._draw("blast_per_hour"))
        dear = [MODELS - 1 - int(self.rng.integers(3))]
        self._stolen(victim, "spend_blast", times, (networks, [self._agent(victim.agents, 0.35)], dear))

    # Many as one ---------------------------------------------------------------------------------------------------
    def _newcomer(self) -> tuple[str, str]:
        key = self.world.new_key()
        return f"t{key}", key

    def _sybil_ring(self) -> None:
        rng, writer = self.rng, self.world.writer
        members = [self._newcomer() for _ in range(self._count("ring_tenants"))]
        pool = [self.world.network(PROXIES) for _ in range(max(3, len(members) // 3))]
        agent, model = int(rng.integers(COMMON_AGENTS, ALL_AGENTS)), int(rng.integers(MODELS // 2))
        interests = rng.choice(TOPICS, 6).astype(np.int32)
        templates = [writer.template(interests) for _ in range(int(rng.integers(2, 6)))]
        per_day, first, days = self._draw("ring_per_day"), int(self._start(3, 18) // DAY), self._count("ring_days")
        number = self._begin(
            "sybil_ring", [f"tenant:{tenant}" for tenant, _ in members], first * DAY, (first + days) * DAY
        )
        for tenant, key in members:
            rows, joins = [], first + int(rng.integers(0, 2))
            for day in range(joins, min(DAYS, first + days)):
                start = day * DAY + rng.uniform(0, 20) * HOUR
                for at in start + np.cumsum(rng.exponential(60.0, int(rng.poisson(per_day)))):
                    prompt = writer.filled(templates[int(rng.integers(len(templates)))], int(rng.integers(1, 3)))
                    rows.append(
                        Row(float(at), int(rng.choice(pool)), agent, model, self.world.price(model, 1), prompt, 9)
                    )
            self.world.write(tenant, key, rows, number)

    def _sibling_quota(self) -> None:
        """A few accounts of one person: each is used until its quota stops it, then the next goes on."""
        rng, writer = self.rng, self.world.writer
        members = [self._newcomer() for _ in range(self._count("sibling_tenants"))]
        network, agent, model = self.world.network(HOMES), self.people.agent(), self.people.model()
        interests = rng.choice(TOPICS, 4).astype(np.int32)
        templates = [writer.template(interests) for _ in range(int(rng.integers(1, 4)))]
        first, days = int(self._start(3, 18) // DAY), self._count("sibling_days")
        number = self._begin(
            "sibling_quota", [f"tenant:{tenant}" for tenant, _ in members], first * DAY, (first + days) * DAY
        )
        rows: dict[str, list[Row]] = {key: [] for _, key in members}
        for day in range(first, min(DAYS, first + days)):
            at = day * DAY + rng.uniform(5, 10) * HOUR
            for _, key in members:
                for count in range(QUOTA + 2):
                    at += float(rng.exponential(12.0))
                    prompt = writer.filled(templates[int(rng.integers(len(templates)))], int(rng.integers(1, 3)))
                    cause = "rate_limit" if count >= QUOTA else ""
                    rows[key].append(Row(at, network, agent, model, self.world.price(model, 1), prompt, 3, cause))
        for tenant, key in members:
            self.world.write(tenant, key, rows[key], number)

    def _prompt_campaign(self) -> None:
        """One text through many keys, some stolen and some new, within two days."""
        rng, writer = self.rng, self.world.writer
        count = self._count("campaign_keys")
        members = [self._newcomer() for _ in range(count)]
        agent, model = int(rng.integers(COMMON_AGENTS, ALL_AGENTS)), int(rng.integers(MODELS))
        text = writer.natural(np.arange(TOPICS, dtype=np.int32), shortest=10, longest=14)
        start = self._start(6, 25)
        number = self._begin("prompt_campaign", [f"tenant:{tenant}" for tenant, _ in members], start, start + 2 * DAY)
        for tenant, key in members:
            networks = [self.world.network(PROXIES) for _ in range(3)]
            rows = [
                Row(
                    start + float(at), int(rng.choice(networks)), agent, model, self.world.price(model, 1),
                    writer.refined(text, int(rng.integers(0, 2))), 4,
                )
                for at in np.sort(rng.uniform(0, 1.6 * DAY, self._count("campaign_calls")))
            ]  # fmt: skip
            self.world.write(tenant, key, rows, number)

    # Probing -------------------------------------------------------------------------------------------------------
    def _prober(self, kind: str, tries: int) -> tuple[Person, int, list[float]]:
        """Somebody with an ordinary past of some days, or a newcomer, who begins to probe."""
        one = self.people.person("prober", models=1)
        one.first_day = 0
        if self.rng.random() < 0.5:
            self.people.human(one, sessions(self.rng, range(8), 0.8, one.hour, 5))
        start, gap = self._start(9, 26), self._draw("probe_gap")
        times = (start + np.cumsum(self.rng.exponential(gap, tries))).tolist()
        self.victims.add(one.key)
        return one, self._begin(kind, [f"key:{one.key}"], times[0], times[-1] + HOUR), times

    def _probe(self, kind: str, vary: Callable[[Ids, Ids], Ids]) -> None:
        one, number, times = self._prober(kind, self._count("probe_tries"))
        rng, refused = self.rng, min(self._draw("probe_refused"), 0.95)
        idea = self.world.writer.natural(one.interests, shortest=6, longest=10)
        prompt, rows = idea, []
        for at in times:
            cause = "content_policy_violation" if rng.random() < refused else ""
            rows.append(Row(at, one.networks[0], one.agents[0], one.models[0], 2.0, prompt, 1, cause))
            prompt = vary(idea, prompt)
        self.world.write(one.tenant, one.key, rows, number)

    def _probing_naive(self) -> None:
        self._probe("probing_naive", lambda idea, _: self.world.writer.refined(idea, int(self.rng.integers(1, 3))))

    def _probing_paraphrased(self) -> None:
        """The same wish in ever other words: nothing in common but that it is refused."""
        writer, topics = self.world.writer, np.arange(TOPICS, dtype=np.int32)
        self._probe("probing_paraphrased", lambda _idea, _before: writer.natural(topics, shortest=5, longest=9))

    def _probing_obfuscated(self) -> None:
        """One text in ever other spellings, hashed as the gateway hashes text."""
        one, number, times = self._prober("probing_obfuscated", self._count("probe_tries"))
        rng, writer, rows = self.rng, self.world.writer, []
        refused = min(self._draw("probe_refused"), 0.95)
        text = writer.text(writer.natural(one.interests, shortest=6, longest=9))
        hasher: PromptHasher = self.world.words.hasher
        for at in times:
            spelt = " ".join(self._respelt(word) for word in text.split())
            cause = "content_policy_violation" if rng.random() < refused else ""
            rows.append(
                Row(
                    at, one.networks[0], one.agents[0], one.models[0], 2.0, None, 1, cause,
                    zlib.crc32(spelt.encode()), text_hash=hasher.hash(spelt) or 0,
                )
            )  # fmt: skip
        self.world.write(one.tenant, one.key, rows, number)

    def _respelt(self, word: str) -> str:
        """Spell a word as somebody does who wants a filter not to see it, or leave it."""
        cut = int(self.rng.integers(1, max(2, len(word) - 1)))
        swapped = f"{word[: cut - 1]}{word[cut : cut + 1]}{word[cut - 1]}{word[cut + 1 :]}"
        spellings = (
            word.translate(_LEET), word.translate(_CYRILLIC), "\u200b".join(word), " ".join(word), ".".join(word),
            swapped, word.upper(), word,
        )  # fmt: skip
        return spellings[int(self.rng.integers(len(spellings)))]

    # Copying models ------------------------------------------------------------------------------------------------
    def _copier(self) -> Person:
        one = self.people.person("copier", network=CLOUDS, models=1)
        one.first_day = 0
        if self.rng.random() < 0.5:
            self.people.human(one, sessions(self.rng, range(8), 0.8, one.hour, 5))
        self.victims.add(one.key)
        return one

    def _copy(self, kind: str, times: list[float], queries: list[Ids]) -> None:
        one = self._copier()
        number = self._begin(kind, [f"key:{one.key}"], times[0], times[-1] + HOUR)
        seconds = self.world.price(one.models[0], 1.0)
        rows = [
            Row(at, one.networks[0], one.agents[0], one.models[0], seconds, query, 11)
            for at, query in zip(times, queries, strict=True)
        ]
        self.world.write(one.tenant, one.key, rows, number)

    def _extraction_random(self) -> None:
        count = self._count("copy_queries")
        times = self._times(self._start(9, 24), count, self._draw("copy_per_hour"))
        self._copy("extraction_random", times, [self.world.writer.soup() for _ in range(count)])

    def _extraction_slow(self) -> None:
        per_day, first = self._draw("slow_per_day"), int(self._start(9, 12) // DAY)
        times = [
            day * DAY + float(at)
            for day in range(first, DAYS)
            for at in np.sort(self.rng.uniform(0, DAY, int(self.rng.poisson(per_day))))
        ]
        self._copy("extraction_slow", times, [self.world.writer.soup() for _ in times])

    def _extraction_adaptive(self) -> None:
        """Seeds, then rounds of small steps from each, in turn (Papernot et al. 2017), one word a step."""
        rng, writer = self.rng, self.world.writer
        count, topics = self._count("copy_queries"), np.arange(TOPICS, dtype=np.int32)
        heads = [writer.natural(topics) for _ in range(self._count("copy_seeds"))]
        queries = list(heads)
        while len(queries) < count:
            for index in rng.permutation(len(heads)).tolist():
                heads[index] = writer.refined(heads[index] if rng.random() < 0.4 else queries[index])
                queries.append(heads[index])
        times = self._times(self._start(9, 24), count, self._draw("copy_per_hour"))
        self._copy("extraction_adaptive", times, queries[:count])

    # Credentials ---------------------------------------------------------------------------------------------------
    def _guesses(self, kind: str, networks: list[int], times: Sequence[float], agent: int) -> int:
        number = self._begin(
            kind, [f"network:{network_text(item)}" for item in networks], float(times[0]), float(times[-1]) + HOUR
        )
        rows = [
            Row(
                float(at), networks[index % len(networks)], agent, 0, 0.0, None,
                cause="unknown" if self.rng.random() < 0.8 else "wrong_secret", claimed=int(self.rng.integers(1 << 40)),
            )
            for index, at in enumerate(times)
        ]  # fmt: skip
        self.world.write("", "", rows, number)
        return number

    def _guessing_one_network(self) -> None:
        start, tries = self._start(2, 27), self._count("guess_tries")
        times = np.sort(start + self.rng.uniform(0, self._draw("guess_hours") * HOUR, tries)).tolist()
        self._guesses("guessing_one_network", [self.world.network(PROXIES)], times, self.people.agent())

    def _guessing_distributed(self) -> None:
        networks = [self.world.network(PROXIES) for _ in range(self._count("spread_networks"))]
        start, tries = self._start(2, 27), len(networks) * int(self.rng.integers(2, 4))
        times = np.sort(start + self.rng.uniform(0, 12 * HOUR, tries)).tolist()
        self._guesses("guessing_distributed", networks, times, int(self.rng.integers(COMMON_AGENTS, ALL_AGENTS)))

    def _credential_stuffing(self) -> None:
        """A list of stolen credentials is tried; the few that are good are used at once, from the same networks."""
        networks = [self.world.network(PROXIES) for _ in range(self._count("stuffing_networks"))]
        start, tries = self._start(12, 24), self._count("stuffing_tries")
        agent = int(self.rng.integers(COMMON_AGENTS, ALL_AGENTS))
        times = np.sort(start + self.rng.uniform(0, 3 * HOUR, tries)).tolist()
        self._guesses("credential_stuffing", networks, times, agent)
        for _ in range(2):
            victim = self._victim(("developer", "hobbyist", "template_app"))
            used = self._times(start + 1.5 * HOUR, int(self.rng.integers(20, 60)), 30.0)
            self._stolen(victim, "credential_stuffing", used, (networks, [agent], self._models(victim.models, 0.6)))
