"""Counters that rules declare: calls, device-seconds or distinct values in a sliding window, for each subject.

A window is twelve slots; the oldest goes as time moves on, so a count is exact to a twelfth of its window. Distinct
values are kept whole up to a bound and count as the bound beyond it. Pure. Called by `signals`.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from forestay.abuse.calls import Call
from forestay.abuse.rules import CounterSpec
from forestay.abuse.vocabulary import Per

SLOTS = 12
MAX_DISTINCT = 512
MAX_SUBJECTS = 100_000


@dataclasses.dataclass(slots=True)
class Window:
    """One counter of one subject."""

    slot: int = 0
    sums: list[float] = dataclasses.field(default_factory=lambda: [0.0] * SLOTS)
    distinct: dict[str, int] = dataclasses.field(default_factory=dict[str, int])  # value -> slot it was last seen in

    def turn(self, slot: int) -> None:
        """Move on to `slot`, emptying what is too old."""
        for passed in range(self.slot + 1, min(slot, self.slot + SLOTS) + 1):
            self.sums[passed % SLOTS] = 0.0
        self.slot = max(self.slot, slot)

    def value(self, slot: int) -> float:
        """Return the count as of `slot`."""
        self.turn(slot)
        if self.distinct:
            for name in [name for name, seen in self.distinct.items() if seen <= slot - SLOTS]:
                del self.distinct[name]
            return float(len(self.distinct))
        return sum(self.sums)


class Counters:
    """Every declared counter of every subject."""

    def __init__(self, specs: Sequence[CounterSpec]) -> None:
        self.specs = tuple(specs)
        self.windows: dict[str, dict[str, Window]] = {}  # subject -> counter -> window

    def observe(self, call: Call, subjects: Mapping[Per, str]) -> None:
        """Count one call for whom it is about."""
        for spec in self.specs:
            subject = subjects.get(spec.per, "")
            if not subject or not _counts(spec, call):
                continue
            window = self._window(subject, spec.id)
            slot = _slot(spec, call.at)
            window.turn(slot)
            if spec.measure == "distinct":
                if len(window.distinct) < MAX_DISTINCT:
                    window.distinct[str(_field(call, spec.of))] = slot
            else:
                window.sums[slot % SLOTS] += 1.0 if spec.measure == "calls" else call.seconds

    def values(self, subject: str, at: float) -> Mapping[str, float]:
        """Return every counter of the subject as of `at`."""
        if not self.specs:
            return {}
        windows = self.windows.get(subject, {})
        return {spec.id: windows[spec.id].value(_slot(spec, at)) if spec.id in windows else 0.0 for spec in self.specs}

    def _window(self, subject: str, name: str) -> Window:
        windows = self.windows.pop(subject, None) or {}
        self.windows[subject] = windows
        if len(self.windows) > MAX_SUBJECTS:
            del self.windows[next(iter(self.windows))]
        return windows.setdefault(name, Window())


def _slot(spec: CounterSpec, at: float) -> int:
    return int(at // (spec.window_seconds / SLOTS))


def _counts(spec: CounterSpec, call: Call) -> bool:
    return all(_field(call, name) == value for name, value in spec.where.items())


def _field(call: Call, name: str) -> object:
    return getattr(call, name)
