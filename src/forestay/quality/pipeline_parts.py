"""What of a pipeline is another than it was when a golden was drawn, and which row of the catalogue that is. Pure.

Parts are told by the model's process (`worker/hosts/probe.py`): the class of each, a digest of its settings and of its
live weights, its precision, and the settings of a scheduler one by one. They are bounded here, and nothing else is
believed of them. It decides no canary: `canary` says whether one differs; this says why. Called by
`worker/canary_round`.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from forestay.quality.probes import Report

Parts = Mapping[str, Mapping[str, str]]  # part -> what is told of it -> its value
CHANGED, ROUNDED = 12, 8  # rows of the catalogue: the same seed draws something else; weights were rounded
MAX_PARTS, MAX_TOLD, MAX_CHARS = 16, 40, 64
SCHEDULER, SETTING = "scheduler", "setting."
_TOLD = ("class", "dtype", "weights", "config")  # in the order in which they explain a difference
_ROWS: Mapping[str, int] = {  # rows of the catalogue by what has changed
    "scheduler.class": 13,
    "scheduler.setting.prediction_type": 9,
    "scheduler.setting.rescale_betas_zero_snr": 11,
    "scheduler.setting.beta_start": 10,
    "scheduler.setting.beta_end": 10,
    "scheduler.setting.beta_schedule": 10,
    "scheduler.setting.trained_betas": 10,
    "scheduler.setting.num_train_timesteps": 10,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One thing that is another than before. `before` and `after` are digests where it is weights or settings."""

    part: str
    what: str
    before: str
    after: str

    @property
    def name(self) -> str:
        """Return what it is called: a part and its setting, `scheduler.beta_end`."""
        return f"{self.part}.{self.what.removeprefix(SETTING)}"


def parts_of(report: Report) -> Parts:
    """Return the parts of the pipeline that was called; empty where they are not told."""
    called = report.calls[0].pipeline if report.calls else ""
    told = [item.get("parts") for item in report.prints if item.get("pipeline") == called]
    parts = _mapping(told[0] if told else None)
    found = {_plain(name): dict(_values(part)) for name, part in list(parts.items())[:MAX_PARTS]}
    settings = list(report.settings.get(called, {}).items())[:MAX_TOLD]
    if SCHEDULER in found:
        found[SCHEDULER] |= {f"{SETTING}{_plain(name)}": _plain(value) for name, value in settings}
    return found


def _values(part: object) -> Iterator[tuple[str, str]]:
    told = _mapping(part)
    for name in _TOLD:
        if told.get(name):
            yield name, _plain(told[name])


def _mapping(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}


def changes_between(before: Parts, after: Parts) -> tuple[Change, ...]:
    """Return what is another; empty where either is not told. Settings by name stand for the digest of them all."""
    if not before or not after:
        return ()
    found: list[Change] = []
    for part in sorted({*before, *after}):
        one, two = before.get(part, {}), after.get(part, {})
        other = [name for name in {**one, **two} if one.get(name, "") != two.get(name, "")]
        if "config" in other and any(name.startswith(SETTING) for name in other):
            other.remove("config")
        found += [Change(part, name, one.get(name, ""), two.get(name, "")) for name in sorted(other, key=_order)]
    return tuple(found)


def row_of(changes: Sequence[Change]) -> int:
    """Return the row of the catalogue that all changes speak for; where they do not agree, that something changed."""
    rows = {_row(item) for item in changes}
    return rows.pop() if len(rows) == 1 else CHANGED


def words_of(changes: Sequence[Change], most: int = 3) -> str:
    """Return them in words: `scheduler.beta_end 0.012, now 0.004`; empty where there are none."""
    told = [_words(item) for item in changes[:most]]
    more = [f"{len(changes) - most} more"] if len(changes) > most else []
    return "; ".join([*told, *more])


def numbers_of(changes: Sequence[Change]) -> dict[str, float]:
    """Return settings that are numbers, before and after, as evidence."""
    found: dict[str, float] = {}
    for item in changes:
        if item.what.startswith(SETTING):
            for when, value in (("before", item.before), ("now", item.after)):
                try:
                    found[f"{item.name}_{when}"] = float(value)
                except ValueError:
                    continue
    return found


def _row(change: Change) -> int:
    if change.what == "dtype":
        return ROUNDED
    return _ROWS.get(f"{change.part}.{change.what}", CHANGED)


def _words(change: Change) -> str:
    match change.what:
        case "weights":
            return f"the weights of {change.part} are others"
        case "config":
            return f"the settings of {change.part} are others"
        case _:
            return f"{change.name} {change.before or 'unset'}, now {change.after or 'unset'}"


def _order(name: str) -> tuple[int, str]:
    return (_TOLD.index(name) if name in _TOLD else len(_TOLD)), name


def _plain(value: object) -> str:
    """Return what a model's process says as it may stand in records: short, printable."""
    return "".join(char for char in str(value)[:MAX_CHARS] if char.isprintable() and char not in "<>\"'`")
