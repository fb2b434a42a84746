"""A profile run: which inputs tell what a model's features cost, how many requests at a time are best. Pure.

It plans inputs that differ from a usual one in a single field that means work (steps, size, images, ...), and reads
times that were measured elsewhere. How a time grows with a feature is the exponent of a power law, from the logarithms
of the largest and smallest value; beside it stands the most memory that the replica held. The best concurrency is the
least that comes within a tenth of the best throughput.
It sends nothing: `forestay model profile` does.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import cast

from forestay.capacity.features import FeatureReader, input_schema, reader_of
from forestay.capacity.sample_inputs import properties_of

MOST_VARIED = 6  # fields of one endpoint
_SPAN = 2.0  # a number without bounds is tried at half and at twice its usual value
_MOST_TIMES = 4.0  # and never further from the usual than this, whatever its bounds allow
_GOOD_ENOUGH = 0.9


@dataclasses.dataclass(frozen=True, slots=True)
class Variant:
    """One input to measure: the field that differs and the value of its feature; the usual one has neither."""

    field: str
    feature: str
    value: float
    body: Mapping[str, object]


@dataclasses.dataclass(frozen=True, slots=True)
class Growth:
    """How the time grows with one field."""

    field: str
    feature: str
    values: tuple[float, ...]
    seconds: tuple[float, ...]  # median at each value
    exponent: float | None  # 1: in proportion; None: one value alone was measured
    memory_bytes: tuple[int | None, ...] = ()  # the most that the replica held at each value
    device_memory_bytes: tuple[int | None, ...] = ()  # of its devices


def with_memory(
    growth: Sequence[Growth],
    variants: Sequence[Variant],
    usual_features: Mapping[str, float],
    peaks: Sequence[tuple[int | None, int | None]],
) -> list[Growth]:
    """Return how memory grows as well; `peaks` of the variants, the usual one first: of the host and of devices."""
    found: list[Growth] = []
    for item in growth:
        points = {
            variant.value: peak for variant, peak in zip(variants, peaks, strict=False) if variant.field == item.field
        }
        if peaks and usual_features.get(item.feature):
            points.setdefault(usual_features[item.feature], peaks[0])
        known = [points.get(value, (None, None)) for value in item.values]
        host, device = tuple(peak[0] for peak in known), tuple(peak[1] for peak in known)
        found.append(dataclasses.replace(item, memory_bytes=host, device_memory_bytes=device))
    return found


@dataclasses.dataclass(frozen=True, slots=True)
class Level:
    """What was measured with so many requests at a time."""

    at_once: int
    requests: int
    per_second: float
    seconds_p50: float
    seconds_p95: float


def plan_variants(
    document: Mapping[str, object] | None, endpoint: str, usual: Mapping[str, object], scales_with: Sequence[str]
) -> list[Variant]:
    """Return the usual input first, then those that differ from it in one field that means work."""
    schema = input_schema(document, endpoint) if document is not None else None
    variants = [Variant("", "", 0.0, usual)]
    if document is None or schema is None:
        return variants
    reader = reader_of(schema, document, scales_with)
    varied = 0
    for name, node in properties_of(document, schema).items():
        found = list(_of_field(reader, usual, name, node))
        varied += bool(found)
        if varied > MOST_VARIED:
            break
        variants += found
    return variants


def _of_field(
    reader: FeatureReader, usual: Mapping[str, object], name: str, node: Mapping[str, object]
) -> Sequence[Variant]:
    before = reader.read(usual)
    found: dict[float, Variant] = {}
    for value in _values(usual.get(name, node.get("default")), node):
        body = {**usual, name: value}
        after = reader.read(body)
        changed = [feature for feature in after if after[feature] != before.get(feature)]
        if len(changed) == 1:
            found[after[changed[0]]] = Variant(name, changed[0], after[changed[0]], body)
    ordered = sorted(found)
    return [found[value] for value in dict.fromkeys([*ordered[:1], *ordered[-1:]])]


def _values(usual: object, node: Mapping[str, object]) -> list[object]:
    choices = node.get("enum")
    if isinstance(choices, list):
        return cast("list[object]", choices)[:20]
    if node.get("type") not in {"integer", "number"} or isinstance(usual, bool):
        return []
    middle = float(usual) if isinstance(usual, int | float) and usual > 0 else 1.0
    low, high = _bound(node, "inimum", middle / _SPAN), _bound(node, "aximum", middle * _SPAN)
    ends = [max(low, middle / _MOST_TIMES), min(high, middle * _MOST_TIMES)]
    return [math.ceil(ends[0]), math.floor(ends[1])] if node["type"] == "integer" else list(ends)


def _bound(node: Mapping[str, object], word: str, otherwise: float) -> float:
    value = node.get(f"m{word}")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else otherwise


def growth_of(
    variants: Sequence[Variant], usual_features: Mapping[str, float], seconds: Sequence[float]
) -> list[Growth]:
    """Return how time grows with each field; `seconds` are the medians of the variants, the usual one first."""
    found: list[Growth] = []
    for field in dict.fromkeys(item.field for item in variants if item.field):
        feature = next(item.feature for item in variants if item.field == field)
        points = {item.value: time for item, time in zip(variants, seconds, strict=True) if item.field == field}
        if usual_features.get(feature):
            points.setdefault(usual_features[feature], seconds[0])
        values = tuple(sorted(points))
        times = tuple(points[value] for value in values)
        found.append(Growth(field, feature, values, times, _exponent(values, times)))
    return found


def _exponent(values: Sequence[float], seconds: Sequence[float]) -> float | None:
    if len(values) < 2 or values[0] <= 0 or min(seconds[0], seconds[-1]) <= 0:
        return None
    return math.log(seconds[-1] / seconds[0]) / math.log(values[-1] / values[0])


def level_of(at_once: int, seconds: Sequence[float], wall_seconds: float) -> Level:
    """Return what so many at a time gave; `seconds` of the requests that succeeded, at least one."""
    ordered = sorted(seconds)
    rank = max(0, math.ceil(0.95 * len(ordered)) - 1)
    return Level(
        at_once, len(ordered), len(ordered) / max(wall_seconds, 1e-9), statistics.median(ordered), ordered[rank]
    )


def best_level(levels: Sequence[Level]) -> Level:
    """Return the least concurrency that comes within a tenth of the best throughput."""
    most = max(item.per_second for item in levels)
    return min((item for item in levels if item.per_second >= _GOOD_ENOUGH * most), key=lambda item: item.at_once)


def next_level(levels: Sequence[Level], most: int) -> int | None:
    """Return how many to try next: twice as many while that helps, up to `most`; None when it is known."""
    if not levels:
        return 1
    if len(levels) >= 2 and levels[-1].per_second * _GOOD_ENOUGH < levels[-2].per_second:
        return None
    following = levels[-1].at_once * 2
    return following if following <= most else None
