"""Who uses the fleet honestly in the abuse bench: twenty ways of being unlike one another, and of looking suspicious.

Hobbyists, developers at the office and on the road, apps with templates, libraries of templates and end users, apps
that call from their users' devices, nightly batches, build systems on rotating cloud addresses, start-ups that grow and
launch, people who come back after weeks (some with a new machine or from a new home), a campus and two classes behind
one address, agencies with a tenant for each client, users of one plug-in, artists who are often refused and try again,
teams that take in a colleague, researchers who evaluate on a benchmark, two fashions that everybody follows for a day,
and clients that were configured wrongly and never told. How many of each: `POPULATION`.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from bench.abuse_words import TOPICS, Ids
from bench.abuse_world import (
    CLOUDS,
    COMMON_AGENTS,
    DAY,
    DAYS,
    HOMES,
    HOUR,
    MODELS,
    OFFICES,
    Row,
    Times,
    World,
    sessions,
    steady,
)

POPULATION = {
    "hobbyist": 760,
    "developer": 420,
    "traveller": 80,
    "template_app": 220,
    "template_library": 30,
    "end_user_app": 90,
    "device_app": 40,
    "nightly_batch": 110,
    "build_system": 80,
    "start_up": 80,
    "returning": 120,
    "campus": 110,
    "agency": 40,
    "plug_in": 80,
    "artist": 60,
    "colleague": 60,
    "evaluation": 24,
}
QUOTA = 120  # calls a day of a free tenant


@dataclasses.dataclass(slots=True)
class Person:
    """One key with its ways."""

    kind: str
    tenant: str
    key: str
    hour: float
    interests: Ids
    networks: list[int]
    agents: list[int]
    models: list[int]
    shapes: list[int]
    refused: float = 0.0  # chance that a new idea is refused for its content
    refine: float = 0.45  # chance that a prompt refines the one before
    first_day: int = 0
    last_call: float = 0.0
    calls: int = 0
    days: set[int] = dataclasses.field(default_factory=set[int])  # on which it called


class People:
    """Writes everybody's calls into the world."""

    def __init__(self, world: World, scale: float) -> None:
        self.world = world
        self.rng = world.rng
        self.people: list[Person] = []
        self._scale = scale

    def live(self) -> list[Person]:
        """Let everybody live their month."""
        ways: dict[str, Callable[[int], None]] = {
            "hobbyist": self._hobbyist, "developer": self._developer, "traveller": self._traveller,
            "template_app": self._template_app, "template_library": self._template_library,
            "end_user_app": self._end_user_app, "device_app": self._device_app, "nightly_batch": self._nightly_batch,
            "build_system": self._build_system, "start_up": self._start_up, "returning": self._returning,
            "campus": self._campus, "agency": self._agency, "plug_in": self._plug_in, "artist": self._artist,
            "colleague": self._colleague, "evaluation": self._evaluation,
        }  # fmt: skip
        for kind, count in POPULATION.items():
            for number in range(max(2, round(count * self._scale))):
                ways[kind](number)
        self._fashions()
        self._forgetful()
        return self.people

    # Making someone ------------------------------------------------------------------------------------------------
    def person(self, kind: str, *, network: int = HOMES, tenant: str = "", models: int = 2) -> Person:
        """Make somebody with a key of their own."""
        rng, world = self.rng, self.world
        key = world.new_key()
        first = 0 if rng.random() < 0.7 else int(rng.integers(1, 20))
        interests = rng.choice(TOPICS, int(rng.integers(3, 25))).astype(np.int32)
        made = Person(
            kind, tenant or f"t{key}", key, float(rng.uniform(0, 24)), interests,
            [world.network(network)], [self.agent()], [self.model() for _ in range(models)],
            [int(item) for item in rng.integers(1, 1 << 30, int(rng.integers(1, 5)))], first_day=first,
        )  # fmt: skip
        self.people.append(made)
        return made

    def agent(self) -> int:
        """A kind of client: mostly a popular one."""
        rng = self.rng
        return int(rng.zipf(1.6)) % COMMON_AGENTS if rng.random() < 0.75 else int(rng.integers(COMMON_AGENTS, 400))

    def model(self) -> int:
        """A model: the cheap ones are the popular ones."""
        return min(int(self.rng.exponential(6.0)), MODELS - 1)

    # Writing calls -------------------------------------------------------------------------------------------------
    def human(
        self, one: Person, groups: Sequence[Times], *, networks: Sequence[int] = (), agents: Sequence[int] = ()
    ) -> None:
        """Sessions of somebody who has ideas and refines them; refused ideas are retried, or reworded a few times."""
        rng, writer, rows = self.rng, self.world.writer, []
        for times in groups:
            network = int(rng.choice(networks or one.networks))
            agent = int(rng.choice(agents or one.agents))
            model, shape = int(rng.choice(one.models)), int(rng.choice(one.shapes))
            prompt = writer.natural(one.interests)
            refused = rng.random() < one.refused
            for number, at in enumerate(times):
                if number:
                    kind = rng.random()
                    if kind < 0.07:
                        pass  # the very same again
                    elif kind < 0.07 + one.refine or (refused and kind < 0.8):
                        prompt = writer.refined(prompt, int(rng.integers(1, 3)))
                        refused = refused and rng.random() < 0.5
                    else:
                        prompt, refused = writer.natural(one.interests), rng.random() < one.refused
                cause = "content_policy_violation" if refused else ""
                seconds = self.world.price(model, 0.6 + 0.2 * (shape % 5))
                rows.append(Row(float(at), network, agent, model, seconds, prompt, shape, cause))
        self._done(one, rows)

    def machine(self, one: Person, times: Times, prompts: Callable[[], Ids], *, fixed: bool = True) -> None:
        """A program's calls: its networks and shapes, prompts from a function."""
        rng, rows = self.rng, []
        for at in times:
            model = one.models[0] if fixed or rng.random() < 0.8 else int(rng.choice(one.models))
            shape = one.shapes[0] if fixed else int(rng.choice(one.shapes))
            seconds = self.world.price(model, 0.6 + 0.2 * (shape % 5))
            rows.append(Row(float(at), int(rng.choice(one.networks)), one.agents[0], model, seconds, prompts(), shape))
        self._done(one, rows)

    def _done(self, one: Person, rows: list[Row]) -> None:
        rows.sort(key=lambda row: row.at)
        today, count = -1, 0
        for row in rows:  # free tenants meet their quota
            day = int(row.at // DAY)
            today, count = (day, count + 1) if day == today else (day, 1)
            if one.kind in {"hobbyist", "campus", "returning"} and count > QUOTA:
                row.cause = "rate_limit"
        one.last_call = max([one.last_call, *(row.at for row in rows)])
        one.calls += len(rows)
        one.days |= {int(row.at // DAY) for row in rows}
        self.world.write(one.tenant, one.key, rows)

    def days(self, one: Person, share: float, *, until: int = DAYS) -> list[int]:
        """The days on which somebody is there."""
        return [day for day in range(one.first_day, until) if self.rng.random() < share]

    # Ways of living ------------------------------------------------------------------------------------------------
    def _hobbyist(self, _: int) -> None:
        one = self.person("hobbyist", models=int(self.rng.integers(1, 4)))
        wide = one.networks[0] >> 8
        one.networks += [
            wide << 8 | int(item) for item in self.rng.integers(0, 256, 2)
        ]  # a provider's dynamic addresses
        if self.rng.random() < 0.4:
            one.networks.append(self.world.network(HOMES))  # the telephone
            one.agents.append(self.agent())
        self.human(
            one, sessions(self.rng, self.days(one, self.rng.uniform(0.1, 0.7)), 0.9, one.hour, self.rng.uniform(2, 10))
        )

    def _work_days(self, one: Person) -> list[int]:
        return [day for day in self.days(one, 0.85) if day % 7 < 5]

    def _developer(self, _: int) -> None:
        one = self.person("developer", network=OFFICES, models=int(self.rng.integers(2, 6)))
        one.networks.append(self.world.network(HOMES))
        one.agents.append(self.agent())
        self.human(
            one, sessions(self.rng, self._work_days(one), self.rng.uniform(0.5, 2.5), one.hour, self.rng.uniform(3, 12))
        )

    def _traveller(self, _: int) -> None:
        rng = self.rng
        one = self.person("traveller", network=OFFICES, models=int(rng.integers(2, 6)))
        one.networks.append(self.world.network(HOMES))
        days, away = self._work_days(one), set()
        for _trip in range(int(rng.integers(1, 4))):
            start = int(rng.integers(4, DAYS))
            away |= set(range(start, start + int(rng.integers(2, 6))))
        self.human(one, sessions(rng, [day for day in days if day not in away], 1.6, one.hour, 7))
        for day in sorted(away & set(days)):
            networks = [self.world.network(HOMES) for _ in range(int(rng.integers(1, 4)))]  # hotel, airport, customer
            self.human(one, sessions(rng, [day], 1.6, one.hour, 7), networks=networks)

    def _template_app(self, _: int) -> None:
        rng, writer = self.rng, self.world.writer
        one = self.person("template_app", network=CLOUDS)
        one.networks = [self.world.network(CLOUDS) for _ in range(int(rng.integers(1, 4)))]
        templates = [writer.template(one.interests) for _ in range(int(rng.integers(1, 9)))]
        times = steady(rng, self.days(one, 0.98), rng.lognormal(3.2, 0.6), rng.uniform(0.2, 0.9), one.hour)
        self.machine(
            one, times, lambda: writer.filled(templates[int(rng.integers(len(templates)))], int(rng.integers(1, 6)))
        )

    def _template_library(self, _: int) -> None:
        rng, writer = self.rng, self.world.writer
        one = self.person("template_library", network=CLOUDS, models=3)
        templates = [writer.template(one.interests) for _ in range(int(rng.integers(30, 100)))]
        chances = 1.0 / np.arange(1, len(templates) + 1) ** rng.uniform(0.7, 1.2)
        times = steady(rng, self.days(one, 0.98), rng.uniform(30, 110), 0.7, one.hour)
        pick = lambda: templates[int(rng.choice(len(templates), p=chances / chances.sum()))]  # noqa: E731
        self.machine(one, times, lambda: writer.filled(pick(), int(rng.integers(2, 6))), fixed=False)

    def _users(self, one: Person) -> Callable[[], Ids]:
        """Prompts of an app's many users, several at work at once, each refining their own."""
        rng, writer = self.rng, self.world.writer
        interests = rng.choice(TOPICS, int(rng.integers(20, 120))).astype(np.int32)
        open_ideas = [writer.natural(interests) for _ in range(int(rng.integers(3, 12)))]
        refine = rng.uniform(0.15, 0.6)

        def prompt() -> Ids:
            slot = int(rng.integers(len(open_ideas)))
            new = rng.random() > refine
            open_ideas[slot] = writer.natural(interests) if new else writer.refined(open_ideas[slot])
            return open_ideas[slot]

        del one
        return prompt

    def _end_user_app(self, _: int) -> None:
        rng = self.rng
        one = self.person("end_user_app", network=CLOUDS, models=3)
        one.networks.append(self.world.network(CLOUDS))
        times = steady(rng, self.days(one, 1.0), rng.lognormal(4.1, 0.5), rng.uniform(0.4, 0.95), one.hour)
        self.machine(one, times, self._users(one), fixed=False)

    def _device_app(self, _: int) -> None:
        rng, prompts, rows = self.rng, None, []
        one = self.person("device_app", models=2)
        agents = [self.agent() for _ in range(6)]
        prompts = self._users(one)
        for at in steady(rng, self.days(one, 1.0), rng.lognormal(3.6, 0.5), 0.8, one.hour):
            model, shape = int(rng.choice(one.models)), int(rng.choice(one.shapes))
            rows.append(
                Row(
                    float(at),
                    self.world.network(HOMES),
                    int(rng.choice(agents)),
                    model,
                    self.world.price(model, 1),
                    prompts(),
                    shape,
                )
            )
        self._done(one, rows)

    def _nightly_batch(self, _: int) -> None:
        rng, writer = self.rng, self.world.writer
        one = self.person("nightly_batch", network=CLOUDS)
        templates = [writer.template(one.interests) for _ in range(int(rng.integers(1, 5)))]
        size, hour = rng.uniform(10, 70), rng.uniform(0, 24)
        times = [
            day * DAY
            + hour * HOUR
            + np.cumsum(rng.exponential(6.0, int(rng.poisson(size * rng.uniform(0.4, 1.6)) + 1)))
            for day in self.days(one, rng.choice([0.14, 0.7, 0.97]))
        ]
        if times:
            pick = lambda: templates[int(rng.integers(len(templates)))]  # noqa: E731
            self.machine(one, np.concatenate(times), lambda: writer.filled(pick(), int(rng.integers(1, 5))))

    def _build_system(self, _: int) -> None:
        rng, writer = self.rng, self.world.writer
        one = self.person("build_system", network=CLOUDS)
        wides = rng.choice(24, int(rng.integers(2, 9)), replace=False)
        fixed = [writer.natural(one.interests) for _ in range(int(rng.integers(2, 9)))]
        rows = []
        for day in self.days(one, 0.95):
            for _run in range(int(rng.poisson(rng.uniform(1, 6)))):
                network = self.world.network(CLOUDS, int(rng.choice(wides)))
                start = day * DAY + rng.uniform(6, 22) * HOUR
                for number, prompt in enumerate(fixed):
                    seconds = self.world.price(one.models[0], 1.0)
                    rows.append(
                        Row(start + number * 4.0, network, one.agents[0], one.models[0], seconds, prompt, one.shapes[0])
                    )
        self._done(one, rows)

    def _start_up(self, _: int) -> None:
        rng = self.rng
        one = self.person("start_up", network=CLOUDS, models=3)
        growth, launch = rng.uniform(1.02, 1.12), int(rng.integers(5, DAYS)) if rng.random() < 0.6 else DAYS
        rate, times = rng.uniform(4, 20), []
        moved = int(rng.integers(8, DAYS)) if rng.random() < 0.3 else DAYS
        for day in range(one.first_day, DAYS):
            rate *= growth * (rng.uniform(3, 9) if day == launch else 1.0)
            rate = min(rate, 350.0)
            times.append(steady(rng, [day], rate, 0.7, one.hour))
        prompts, later = self._users(one), self.world.network(CLOUDS)
        early = np.concatenate(times)
        self.machine(one, early[early < moved * DAY], prompts, fixed=False)
        one.networks = [later]
        self.machine(one, early[early >= moved * DAY], prompts, fixed=False)

    def _returning(self, _: int) -> None:
        rng = self.rng
        one = self.person("returning", models=2)
        one.first_day = 0
        left, back = int(rng.integers(4, 9)), int(rng.integers(19, 28))
        one.networks += [one.networks[0] >> 8 << 8 | int(item) for item in rng.integers(0, 256, 2)]
        self.human(one, sessions(rng, range(left), 1.4, one.hour, 6))
        networks, agents = list(one.networks), list(one.agents)
        if rng.random() < 0.25:
            networks = [self.world.network(HOMES)]
        if rng.random() < 0.2:
            agents = [self.agent()]
        if rng.random() < 0.3:
            one.models.append(self.model())
        one.interests = np.concatenate([one.interests, rng.choice(TOPICS, 4).astype(np.int32)])
        self.human(one, sessions(rng, range(back, DAYS), 1.2, one.hour, 6), networks=networks, agents=agents)

    def _campus(self, number: int) -> None:
        rng, writer = self.rng, self.world.writer
        one = self.person("campus", models=1)
        one.networks = [0x40 << 8 | number % 3] if number % 3 else [0x41 << 8 | 7]
        one.agents = [number % 2]
        if number % 5 == 0:  # a class: the same exercise, on the same afternoons
            exercise = [writer.template(np.arange(3, dtype=np.int32)) for _ in range(4)]
            rows = []
            for day in range(3 + number % 2, DAYS, 7):
                at = day * DAY + 13 * HOUR
                for step in range(int(rng.integers(4, 16))):
                    at += rng.exponential(200.0)
                    prompt = exercise[step % 4] if rng.random() < 0.6 else writer.refined(exercise[step % 4], 2)
                    rows.append(Row(at, one.networks[0], one.agents[0], 1, 2.0, prompt, 5))
            self._done(one, rows)
        self.human(one, sessions(rng, self.days(one, 0.3), 0.8, one.hour, 5))

    def _agency(self, number: int) -> None:
        rng, writer, house = self.rng, self.world.writer, number // 7
        one = self.person("agency", network=OFFICES)
        shared = np.random.default_rng(house + 1_000)
        one.networks, one.agents = [(450 + house) << 8 | 1], [300 + house]
        one.models, one.shapes = [int(shared.integers(MODELS))], [house + 1]
        templates = [self.world.words.topics[int(shared.integers(TOPICS))][:14] for _ in range(6)]
        times = steady(rng, [day for day in self.days(one, 0.9) if day % 7 < 5], rng.lognormal(3.0, 0.7), 0.95, 12)
        self.machine(one, times, lambda: writer.filled(templates[int(rng.integers(6))], int(rng.integers(1, 4))))

    def _plug_in(self, _: int) -> None:
        rng, writer = self.rng, self.world.writer
        one = self.person("plug_in", models=1)
        one.agents, one.models, one.shapes = [399], [2], [77]
        shared = [self.world.words.topics[item][:14] for item in range(5)]
        times = np.concatenate([*sessions(rng, self.days(one, 0.5), 0.8, one.hour, 9), np.zeros(0)])
        self.machine(one, times, lambda: writer.filled(shared[int(rng.integers(5))], int(rng.integers(1, 4))))

    def _artist(self, _: int) -> None:
        rng = self.rng
        one = self.person("artist", models=2)
        one.refused = rng.uniform(0.03, 0.11)
        self.human(one, sessions(rng, self.days(one, 0.7), 1.0, one.hour, 9))

    def _colleague(self, _: int) -> None:
        rng = self.rng
        one = self.person("colleague", network=OFFICES, models=int(rng.integers(2, 5)))
        self.human(one, sessions(rng, self._work_days(one), 1.4, one.hour, 8))
        joins = int(rng.integers(8, 24))
        networks = one.networks if rng.random() < 0.6 else [self.world.network(HOMES)]
        agents = one.agents if rng.random() < 0.6 else [self.agent()]
        models = one.models
        if rng.random() < 0.15:
            one.models = [*models, self.model()]
        if rng.random() < 0.5:
            one.interests = rng.choice(TOPICS, 12).astype(np.int32)
        self.human(
            one,
            sessions(rng, [day for day in range(joins, DAYS) if day % 7 < 5], 1.2, one.hour + 1, 7),
            networks=networks,
            agents=agents,
        )

    def _evaluation(self, _: int) -> None:
        rng, writer = self.rng, self.world.writer
        one = self.person("evaluation", network=CLOUDS, models=4)
        self.human(one, sessions(rng, self.days(one, 0.4), 1.0, one.hour, 5))
        benchmark = [writer.natural(np.arange(TOPICS, dtype=np.int32)) for _ in range(int(rng.integers(200, 900)))]
        for _run in range(int(rng.integers(1, 3))):
            start = rng.uniform(max(2, one.first_day), DAYS - 1) * DAY
            times = start + np.cumsum(rng.exponential(5.0, len(benchmark)))
            prompts = iter(benchmark)
            self.machine(one, times, lambda prompts=prompts: next(prompts))

    # What happens to many at once ----------------------------------------------------------------------------------
    def _fashions(self) -> None:
        rng, writer = self.rng, self.world.writer
        for _ in range(2):
            day, idea = (
                int(rng.integers(6, DAYS - 1)),
                writer.natural(np.arange(TOPICS, dtype=np.int32), shortest=10, longest=12),
            )
            followers = [
                one for one in self.people if one.kind in {"hobbyist", "developer", "artist"} and one.first_day < day
            ]
            for one in rng.choice(
                np.array(followers, dtype=object), min(len(followers), round(120 * self._scale) + 5), replace=False
            ):
                start, rows = day * DAY + rng.uniform(0, 24) * HOUR, []
                for step in range(int(rng.integers(1, 9))):
                    prompt = writer.refined(idea, int(rng.integers(0, 2)))
                    rows.append(
                        Row(
                            start + 60.0 * step,
                            one.networks[0],
                            one.agents[0],
                            one.models[0],
                            2.0,
                            prompt,
                            one.shapes[0],
                        )
                    )
                self._done(one, rows)

    def _forgetful(self) -> None:
        """Clients that go on with an expired key, or with a mistyped one, until somebody looks."""
        rng = self.rng
        for number in range(max(4, round(60 * self._scale))):
            network, agent = self.world.network(int(rng.choice([HOMES, OFFICES, CLOUDS]))), self.agent()
            cause = str(rng.choice(["expired", "revoked", "unknown", "wrong_secret"]))
            tried = [1_000_000 + number * 10 + item for item in range(int(rng.integers(1, 4)))]
            times = steady(rng, range(int(rng.integers(DAYS)), DAYS), rng.uniform(1, 40), 0.3, 12)[:400]
            rows = [
                Row(float(at), network, agent, 0, 0.0, None, cause=cause, claimed=int(rng.choice(tried)))
                for at in times
            ]
            self.world.write("", "", rows)
