"""The `slos` section of a spec's file: what the model's owner promises of it.

It decides what is a valid section; a file of SLOs of its own (`forestay slo schema`) can say more. Used by `spec_file`.
"""

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from forestay.fleet.spec_fields import Line, Strict, shape
from forestay.fleet.spec_slos import DEFAULT_WINDOW_MINUTES, TIMED, Indicator, SloSpec

_UNITS = {"m": 1, "h": 60, "d": 1440, "w": 7 * 1440}
_CALENDARS = ("day", "week", "month", "quarter", "year")
_SHORTEST_MINUTES, _LONGEST_MINUTES = 60, 366 * 1440


def _window(text: str) -> str:
    if text not in _CALENDARS and not _SHORTEST_MINUTES <= _minutes(text) <= _LONGEST_MINUTES:
        message = "must be from 1h to 366d"
        raise ValueError(message)
    return text


def _minutes(duration: str) -> int:
    return int(duration[:-1]) * _UNITS[duration[-1]]


_Window = Annotated[
    str,
    *shape(
        rf"[1-9][0-9]{{0,5}}[mhdw]|{'|'.join(_CALENDARS)}",
        "write a duration such as 30d, or one of day, week, month, quarter and year",
    ),
    AfterValidator(_window),
]
_Name = Annotated[
    str,
    StringConstraints(max_length=40),
    *shape(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", "use lower-case letters, digits and `-`, no `-` at its ends"),
]


class SloEntryFile(Strict):
    """One promise of the model's owner."""

    objective: Annotated[float, Field(gt=0, lt=100, allow_inf_nan=False)]
    """Percent that shall be good."""
    indicator: Indicator = Indicator.AVAILABILITY
    """What is counted as good or bad."""
    threshold_seconds: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] | None = None
    """latency, latency_per_work, queue_wait, first_chunk: what takes longer is bad; throughput: is overdue."""
    per_second: Annotated[float, Field(ge=1 / 3600, le=1_000_000, allow_inf_nan=False)] | None = None
    """throughput: requests that are promised; what is asked for beyond them is not owed."""
    window: _Window = "30d"
    """So long back from now, such as 30d; or one day, week, month, quarter or year of the calendar, in UTC."""
    name: _Name | None = None
    """What the SLO is called after the model's name; left out: its indicator."""
    description: Line | None = None
    """What is promised, in a sentence."""
    page: bool = True
    """Wake somebody when it burns; false: only tickets."""

    @model_validator(mode="after")
    def _fits(self) -> "SloEntryFile":
        counted = self.indicator is Indicator.THROUGHPUT
        for name, wanted in (("threshold_seconds", counted or self.indicator in TIMED), ("per_second", counted)):
            if wanted != (getattr(self, name) is not None):
                message = f"{self.indicator} {'needs' if wanted else 'has no'} `{name}`"
                raise ValueError(message)
        return self

    def frozen(self) -> SloSpec:
        """Return it as values."""
        calendar = self.window if self.window in _CALENDARS else ""
        return SloSpec(
            objective=self.objective,
            indicator=self.indicator,
            name=self.name or "",
            threshold_seconds=self.threshold_seconds,
            window_minutes=DEFAULT_WINDOW_MINUTES if calendar else _minutes(self.window),
            calendar=calendar,
            description=self.description or "",
            per_second=self.per_second,
            page=self.page,
        )


def names_differ(promises: tuple[SloEntryFile, ...]) -> tuple[SloEntryFile, ...]:
    """Return them; raises ValueError where two would have one name."""
    names = [item.name or item.indicator.value.replace("_", "-") for item in promises]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        message = f"two SLOs are called {twice[0]}; give one of them another `name`"
        raise ValueError(message)
    return promises


SloEntries = Annotated[tuple[SloEntryFile, ...], Field(max_length=20), AfterValidator(names_differ)]
