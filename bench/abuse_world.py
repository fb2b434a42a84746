"""The ground of the abuse bench: time, networks, clients, models, and the columns into which everybody writes calls.

A month from a Monday at midnight UTC. Networks are /24s inside /16s of kinds (homes, offices, clouds, proxies); clients
are digests; models have a price in device-seconds. Rows are kept as columns, sorted once, and handed out as `Call`s.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from bench.abuse_words import Ids, Words, Writer
from forestay.abuse.calls import Call, category_of

DAY, HOUR, DAYS = 86_400.0, 3600.0, 30
START = 1_893_456_000.0  # 2030-01-01T00:00:00Z
Times = npt.NDArray[np.float64]
HOMES, OFFICES, CLOUDS, PROXIES = range(4)  # kinds of networks: how many /16s each has
_WIDE = {HOMES: 400, OFFICES: 200, CLOUDS: 24, PROXIES: 90}
COMMON_AGENTS, ALL_AGENTS = 12, 400  # digests 0.. are the popular clients
MODELS = 24


@dataclasses.dataclass(slots=True)
class Row:
    """One call while it is made up."""

    at: float
    network: int
    agent: int
    model: int
    seconds: float
    prompt: Ids | None
    shape: int = 0
    cause: str = ""
    raw: int = 0
    claimed: int = 0
    text_hash: int = 0  # a hash that was worked out from text


_Written = tuple[float, str, str, Row, int | None, int]  # at, tenant, key, the row, the prompt's hash, the attack


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """A parameter's range. Tests draw outside what tuning draws inside."""

    low: float
    high: float
    whole: bool = False

    def draw(self, rng: np.random.Generator, *, outside: bool) -> float:
        """Return a value inside; or just outside, on either side, as far away as half of what is inside."""
        if outside:
            width = (self.high - self.low) / 2
            low = rng.random() < 0.5 and self.low > 0
            value = self.low - rng.random() * min(width, self.low * 0.5) if low else self.high + rng.random() * width
        else:
            value = self.low + rng.random() * (self.high - self.low)
        return max(1.0, round(value)) if self.whole else value


class World:
    """Everybody's calls, written by people and attackers, read in order of time."""

    def __init__(self, words: Words, rng: np.random.Generator) -> None:
        self.words = words
        self.rng = rng
        self.writer = Writer(words, rng)
        self.prices = np.sort(rng.lognormal(1.2, 1.1, MODELS)).clip(0.3, 90.0)
        self._rows: list[_Written] = []
        self._keys = 0

    def new_key(self) -> str:
        """Return a fresh key id."""
        self._keys += 1
        return f"{self._keys:016x}"

    def network(self, kind: int, wide: int | None = None) -> int:
        """Return a network of this kind, within a given /16 or any."""
        wide = int(self.rng.integers(_WIDE[kind])) if wide is None else wide
        return (sum(_WIDE[item] for item in range(kind)) + wide) << 8 | int(self.rng.integers(256))

    def price(self, model: int, factor: float) -> float:
        """Return the device-seconds of one request of the model."""
        return float(self.prices[model]) * factor

    def write(self, tenant: str, key: str, rows: Sequence[Row], attack: int = -1) -> None:
        """Add an actor's rows, hashing their prompts at once."""
        hashes = iter(self.writer.hashes([row.prompt for row in rows if row.prompt is not None]).tolist())
        for row in rows:
            prompt = next(hashes) if row.prompt is not None else (row.text_hash or None)
            self._rows.append((row.at, tenant, key, row, prompt, attack))
            row.prompt = None  # the words are not needed any more

    def __len__(self) -> int:
        return len(self._rows)

    def calls(self) -> Iterator[tuple[Call, int]]:
        """Yield every call of the month in order, with the number of the attack that it belongs to (-1: none)."""
        self._rows.sort(key=lambda written: written[0])
        networks = {row.network: network_text(row.network) for _, _, _, row, _, _ in self._rows}
        for number, (at, tenant, key, row, prompt, attack) in enumerate(self._rows):
            yield (
                Call(
                    id=f"{number:x}",
                    at=START + at,
                    tenant=tenant,
                    key=key,
                    model=f"acme/model-{row.model}",
                    network=networks[row.network],
                    agent=f"{row.agent:016x}",
                    accepted=not row.cause,
                    cause=row.cause,
                    category=category_of(row.cause),
                    seconds=row.seconds,
                    prompt=prompt,
                    raw=row.raw,
                    shape=row.shape,
                    tried=row.claimed,
                ),
                attack,
            )


def network_text(number: int) -> str:
    """Return a network as facts write it."""
    wide, narrow = number >> 8, number & 0xFF
    return f"{20 + wide // 250}.{wide % 250}.{narrow}.0/24"


def sessions(rng: np.random.Generator, days: Sequence[int], per_day: float, hour: float, size: float) -> list[Times]:
    """Return the times of each session: about `per_day` a day around `hour` (UTC), of about `size` calls each."""
    found: list[Times] = []
    for day in days:
        for _ in range(int(rng.poisson(per_day))):
            start = day * DAY + (rng.normal(hour, 2.2) % 24) * HOUR
            count = int(rng.geometric(1.0 / size))
            found.append(start + np.cumsum(rng.exponential(rng.uniform(20.0, 120.0), count)))
    return found


def steady(rng: np.random.Generator, days: Sequence[int], per_day: float, swing: float, peak: float) -> Times:
    """Return times of steady traffic whose rate swings by `swing` (0..1) over the day, highest at `peak` o'clock."""
    found: list[Times] = []
    for day in days:
        count = int(rng.poisson(per_day))
        hours = rng.random(count * 3) * 24
        chance = (1 + swing * np.cos((hours - peak) / 24 * 2 * np.pi)) / (1 + swing)
        found.append(day * DAY + hours[rng.random(len(hours)) < chance][:count] * HOUR)
    return np.sort(np.concatenate(found)) if found else np.zeros(0)
