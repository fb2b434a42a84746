"""How much a key calls and spends an hour, against the most that it did before.

The current hour is compared with the peak hour of the fourteen days before today. Finished hours feed two e-detectors
(`evidence.mean_bet`): "an hour is on average no more than the former peak hour". Pure; called by `habits`.
"""

import dataclasses

from forestay.abuse.evidence import Evidence, mean_bet

HOUR, DAY = 3600.0, 86_400.0
LEAST_CALLS = 6.0  # a peak below this is taken for it: little history proves little
LEAST_SECONDS = 30.0
_DAYS = 14
_MOST = 8.0  # an hour counts as at most so many times the peak
_STAKE = 0.5


@dataclasses.dataclass(slots=True)
class Pace:
    """Calls and device-seconds by hour."""

    hour: int = -1
    calls: float = 0.0
    seconds: float = 0.0
    day: int = -1
    peaks: list[list[float]] = dataclasses.field(
        default_factory=list[list[float]]
    )  # [day, calls, seconds], oldest first
    peak_calls: float = LEAST_CALLS  # of the days before today
    peak_seconds: float = LEAST_SECONDS
    velocity: Evidence = dataclasses.field(default_factory=Evidence)
    spend: Evidence = dataclasses.field(default_factory=Evidence)

    def count(self, at: float, seconds: float) -> None:
        """Take one call."""
        hour = int(at // HOUR)
        if hour != self.hour:
            self._turn(hour, at)
        self.calls += 1.0
        self.seconds += seconds

    def hasty(self) -> bool:
        """Tell whether this hour is beyond the former peak hour by half, in calls or in device-seconds."""
        return self.calls > 1.5 * self.peak_calls or self.seconds > 1.5 * self.peak_seconds

    @property
    def calls_ratio(self) -> float:
        """Return this hour's calls against the former peak hour."""
        return self.calls / self.peak_calls

    @property
    def seconds_ratio(self) -> float:
        """Return this hour's device-seconds against the former peak hour."""
        return self.seconds / self.peak_seconds

    def _turn(self, hour: int, at: float) -> None:
        """Close the hour: bet on it, keep its peak; the hours without a call between count as zero, one by one."""
        if self.hour >= 0:
            self.velocity.add(mean_bet(self.calls_ratio, at_most=1.0, most=_MOST, stake=_STAKE), at)
            self.spend.add(mean_bet(self.seconds_ratio, at_most=1.0, most=_MOST, stake=_STAKE), at)
            for _ in range(min(hour - self.hour - 1, 24)):
                nothing = mean_bet(0.0, at_most=1.0, most=_MOST, stake=_STAKE)
                self.velocity.add(nothing, at)
                self.spend.add(nothing, at)
            self._keep(int(self.hour * HOUR // DAY))
        day = int(at // DAY)
        if day != self.day:
            self.day = day
            self.peaks = [item for item in self.peaks if day - item[0] <= _DAYS]
            before = [item for item in self.peaks if item[0] < day]
            self.peak_calls = max([item[1] for item in before], default=0.0)
            self.peak_calls = max(self.peak_calls, LEAST_CALLS)
            self.peak_seconds = max(max([item[2] for item in before], default=0.0), LEAST_SECONDS)
        self.hour, self.calls, self.seconds = hour, 0.0, 0.0

    def _keep(self, day: int) -> None:
        if not self.peaks or self.peaks[-1][0] != day:
            self.peaks.append([float(day), 0.0, 0.0])
        peak = self.peaks[-1]
        peak[1], peak[2] = max(peak[1], self.calls), max(peak[2], self.seconds)
