"""What is wrong with an SLO that can be read: objectives out of reach, rules that can't fire, windows nobody keeps.

It decides sense, not form. What it can't know unless told (traffic, how long data is kept, the buckets of a histogram)
it is told by the caller, and leaves out otherwise. Called by `forestay slo lint`.
"""

import collections
import dataclasses
import enum
import re
from collections.abc import Iterator, Mapping, Sequence

from forestay.slo.burn_rules import Severity
from forestay.slo.decide import pairs_of
from forestay.slo.model import TIMED, SliKind, Slo, SloId, SubjectKind
from forestay.slo.windows import longest_minutes, words_of_window

_LE = re.compile(r'\ble="([^"]+)"')


class Level(enum.StrEnum):
    """How bad it is."""

    ERROR = "error"  # it can't work as written
    WARNING = "warning"  # it works, and not as one would think


@dataclasses.dataclass(frozen=True, slots=True)
class Flaw:
    """One thing that is wrong, and its mend."""

    slo_id: SloId
    level: Level
    check: str
    says: str


@dataclasses.dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known beside the file; None is not known."""

    requests_per_hour: float | None = None
    retention_minutes: int | None = None
    histogram_buckets_seconds: tuple[float, ...] | None = None


def lint_slos(slos: Sequence[Slo], known: Surroundings = Surroundings()) -> tuple[Flaw, ...]:
    """Return every flaw of every SLO, in the order of the file."""
    checks = (_of_the_objective, _of_rules, _of_data)
    named = {slo.slo_id: slo for slo in slos}
    return tuple(
        flaw
        for slo in slos
        for found in (*(check(slo, known) for check in checks), _of_parts(slo, named))
        for flaw in found
    )


def _of_the_objective(slo: Slo, known: Surroundings) -> Iterator[Flaw]:
    window = longest_minutes(slo.window)
    if slo.sli.kind is SliKind.TIME_SLICE and slo.subject.kind is not SubjectKind.COMPOSITE:
        slices = window / slo.sli.slice_minutes
        if slo.budget_ratio * slices < 1.0:
            yield Flaw(
                slo.slo_id, Level.ERROR, "unreachable",
                f"its window has {slices:.0f} slices, so one bad slice overdraws the budget; "
                f"shorten the slice or lower the objective to {100 * (1 - 1 / slices):.4g} %",
            )  # fmt: skip
        return
    if known.requests_per_hour is None or slo.subject.kind is SubjectKind.COMPOSITE:
        return
    events = known.requests_per_hour * window / 60
    allowed = slo.budget_ratio * events
    if allowed < 1.0:
        reach = f"lower the objective to {100 * (1 - 1 / events):.4g} % or" if events > 1 else "count more requests, or"
        yield Flaw(
            slo.slo_id, Level.ERROR, "unreachable",
            f"at {known.requests_per_hour:g} requests an hour its window has {events:.0f}, so one bad request is "
            f"more than the budget; {reach} widen the window",
        )  # fmt: skip


def _of_rules(slo: Slo, known: Surroundings) -> Iterator[Flaw]:
    if not slo.alerting.page and not slo.alerting.ticket:
        yield Flaw(slo.slo_id, Level.WARNING, "silent", "neither pages nor opens tickets: set `alerting`")
    pairs = pairs_of(slo)
    if not any(pair.severity is Severity.PAGE for pair in pairs):
        yield Flaw(
            slo.slo_id, Level.WARNING, "short_window",
            "its window is too short for the workbook's rules: evidence alone speaks; 1d and longer has the fast rule",
        )  # fmt: skip
    for pair in pairs:
        if pair.capped:
            yield Flaw(
                slo.slo_id, Level.WARNING, "capped",
                f"the rule `{pair.name}` would ask for more bad requests than there are; it asks for "
                f"{pair.threshold:.0%}, {pair.factor:.3g} times the pace",
            )  # fmt: skip
        hourly = pair.speaks_from / pair.traffic_minutes * 60
        if known.requests_per_hour is not None and known.requests_per_hour < hourly:
            yield Flaw(
                slo.slo_id, Level.WARNING, "held",
                f"at {known.requests_per_hour:g} requests an hour the rule `{pair.name}` is held (it speaks from "
                f"{hourly:.0f} on); evidence decides, sooner with probes",
            )  # fmt: skip


def _of_data(slo: Slo, known: Surroundings) -> Iterator[Flaw]:
    window = longest_minutes(slo.window)
    if known.retention_minutes is not None and known.retention_minutes < window:
        yield Flaw(
            slo.slo_id, Level.ERROR, "retention",
            f"its window has {window / 1440:.4g} days, and {known.retention_minutes / 1440:.4g} are kept; "
            "shorten the window or keep more",
        )  # fmt: skip
    threshold = slo.sli.threshold_seconds if slo.sli.measure in TIMED else None
    buckets = known.histogram_buckets_seconds
    if threshold is not None and buckets is not None and threshold not in buckets:
        near = min(buckets, key=lambda edge: abs(edge - threshold), default=None)
        mend = "add it" if near is None else f"add it, or take {near:g}"
        yield Flaw(
            slo.slo_id, Level.ERROR, "no_bucket", f"the histogram has no bucket at {threshold:g} s: {mend}"
        )  # fmt: skip
    edges = _LE.findall(slo.sli.series.good) if slo.sli.series is not None and threshold is not None else []
    if threshold is not None and edges and not any(_seconds(edge) == threshold for edge in edges):
        yield Flaw(
            slo.slo_id, Level.ERROR, "other_bucket",
            f"`series.good` reads the bucket le={edges[0]}, and the threshold is {threshold:g} s",
        )  # fmt: skip


def _of_parts(slo: Slo, named: Mapping[SloId, Slo]) -> Iterator[Flaw]:
    """Look at a composite: its budget is the mean over its parts' own windows, whatever window it has itself."""
    counted = collections.Counter(part.slo_id for part in slo.parts)
    for name in (name for name, times in counted.items() if times > 1):
        yield Flaw(
            slo.slo_id, Level.WARNING, "twice",
            f"the part {name} is there {counted[name]} times; name it once, with the weight that it shall have",
        )  # fmt: skip
    for name in counted:
        part = named.get(name)
        if part is not None and part.window != slo.window:
            yield Flaw(
                slo.slo_id, Level.WARNING, "other_window",
                f"its window is {words_of_window(slo.window)}, and that of the part {name} "
                f"{words_of_window(part.window)}: each part counts over its own; give all of them the same",
            )  # fmt: skip


def _seconds(edge: str) -> float:
    try:
        return float(edge)
    except ValueError:
        return float("nan")
