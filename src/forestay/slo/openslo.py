"""OpenSLO v1 in: documents of the open format become SLOs of ours, with a list of what could not be said.

It decides what a document means here. What OpenSLO has no word for (whom it is about, what is measured, who owns it) is
read from annotations `forestay.dev/...`; where they lack, a stated guess is made. A fault is told with file, line,
field and mend; nothing is left out in silence. Source: OpenSLO v1 specification (github.com/OpenSLO/OpenSLO,
2025-09). Called by the command line.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import cast

import yaml

from forestay.fleet.spec_yaml import SpecError, line_of, read_yaml
from forestay.slo.model import Slo
from forestay.slo.slo_file import from_values

API_VERSION = "openslo/v1"
PREFIX = "forestay.dev/"
OWN_SOURCE = "Forestay"
"""Type of a source that is our own facts: no counter of anybody's Prometheus."""
KINDS = ("SLO", "SLI", "AlertPolicy", "AlertCondition", "AlertNotificationTarget", "DataSource", "Service")
_CALENDARS = {"d": "day", "w": "week", "M": "month", "Q": "quarter", "Y": "year"}
_ROLLING_DAYS = {"M": 30, "Q": 90, "Y": 365}
_DURATION = re.compile(r"([1-9][0-9]{0,5})([mhdwMQY])")
_SELECTOR = re.compile(r"(?:sum\()?([a-zA-Z_:][a-zA-Z0-9_:]*(?:\{[^{}\n]*\})?)\)?")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
Values = dict[str, object]
Place = tuple[int | str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Loss:
    """Something that one format says and the other can't, or that had to be guessed."""

    slo: str
    field: str
    says: str


@dataclasses.dataclass(frozen=True, slots=True)
class Imported:
    """What was read."""

    slos: tuple[Slo, ...]
    losses: tuple[Loss, ...]


def import_openslo(text: str, file_name: str) -> Imported:
    """Read a file of OpenSLO v1 documents; raises SpecError with every fault, or when there is no SLO among them."""
    reader = _Reader(file_name)
    for document in _documents(text, file_name):
        reader.take(document)
    values = list(reader.slos())
    if reader.faults:
        raise SpecError(file_name, reader.faults)
    if not values:
        raise SpecError(file_name, [f"1: no document of kind SLO with apiVersion {API_VERSION}"])
    return Imported(from_values({"version": 1, "slos": values}, file_name), tuple(reader.losses))


@dataclasses.dataclass(frozen=True, slots=True)
class _Document:
    kind: str
    name: str
    body: Values
    node: yaml.Node | None


def _documents(text: str, file_name: str) -> Iterator[_Document]:
    lines = text.splitlines()
    starts = [0, *(number + 1 for number, line in enumerate(lines) if re.fullmatch(r"---\s*", line))]
    for start, end in zip(starts, [*(number - 1 for number in starts[1:]), len(lines)], strict=True):
        part = "\n" * start + "\n".join(lines[start:end])  # lines keep their numbers
        values, node = read_yaml(part, file_name)
        if values is None:
            continue
        body = cast("Values", values) if isinstance(values, dict) else {}
        kind, version = body.get("kind"), body.get("apiVersion")
        if kind not in KINDS or version != API_VERSION:
            line = line_of(node, ("kind" if version == API_VERSION else "apiVersion",))
            raise SpecError(file_name, [f"{line}: needs `apiVersion: {API_VERSION}` and a kind of {', '.join(KINDS)}"])
        name = _mapping(body.get("metadata")).get("name")
        if not isinstance(name, str) or not name:
            raise SpecError(file_name, [f"{line_of(node, ('metadata', 'name'))}: metadata.name: is missing; add it"])
        yield _Document(str(kind), name, body, node)


class _Reader:
    """Collects documents by kind, then turns each SLO into values of our file."""

    def __init__(self, file_name: str) -> None:
        self._file_name = file_name
        self._known: dict[tuple[str, str], _Document] = {}
        self.faults: list[str] = []
        self.losses: list[Loss] = []

    def take(self, document: _Document) -> None:
        """Keep a document."""
        if (document.kind, document.name) in self._known:
            self._fault(document, ("metadata", "name"), f"{document.kind} {document.name} is written twice; keep one")
        self._known[document.kind, document.name] = document
        if document.kind in {"DataSource", "AlertNotificationTarget"}:
            self._lose(document.name, document.kind, "is not taken over: counts come from facts, notices go to owners")

    def slos(self) -> Iterator[Values]:
        """Yield the values of every SLO; one with several objectives becomes several."""
        for document in [item for (kind, _), item in self._known.items() if kind == "SLO"]:
            spec = _mapping(document.body.get("spec"))
            objectives = spec.get("objectives")
            if not isinstance(objectives, list) or not objectives:
                self._fault(document, ("spec", "objectives"), "needs at least one objective")
                continue
            many = cast("list[object]", objectives)
            for number, objective in enumerate(many):
                name = document.name if len(many) == 1 else f"{document.name}-{number + 1}"
                yield self._slo(document, name, ("spec", "objectives", number), _mapping(objective))
            self._say_the_rest(document, spec)

    def _slo(self, document: _Document, name: str, place: Place, objective: Values) -> Values:
        metadata, spec = _mapping(document.body.get("metadata")), _mapping(document.body.get("spec"))
        notes = {str(key): str(value) for key, value in _mapping(metadata.get("annotations")).items()}
        values: Values = {"id": name, "objective": self._target(document, place, objective)}
        description = spec.get("description") or objective.get("displayName") or metadata.get("displayName")
        if description:
            values["description"] = " ".join(str(description).split())[:200]
        values["subject"] = self._subject(name, spec, notes)
        values["sli"] = self._sli(document, (name, place), objective, notes)
        values["window"] = self._window(document, name, spec)
        team = notes.get(f"{PREFIX}owner-team", "")
        if not team:
            team = str(spec.get("service") or name)
            self._lose(name, "owner", f"OpenSLO has no owner; `{team}` is taken, from the service")
        contact = notes.get(f"{PREFIX}owner-contact")
        values["owner"] = {"team": team, **({"contact": contact} if contact else {})}
        for field in ("policy", "alerting", "credits"):
            if f"{PREFIX}{field}" in notes:
                values[field] = self._json(document, f"{PREFIX}{field}", notes[f"{PREFIX}{field}"])
        labels = self._labels(name, _mapping(metadata.get("labels")))
        return {**values, **({"labels": labels} if labels else {})}

    def _target(self, document: _Document, place: Place, objective: Values) -> float:
        target, percent = objective.get("target"), objective.get("targetPercent")
        if (target is None) == (percent is None):
            self._fault(document, place, "give `target` or `targetPercent`, one of them")
            return 99.0
        value = percent if target is None else target
        most = 100 if target is None else 1
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < most:
            field = "targetPercent" if target is None else "target"
            self._fault(document, (*place, field), f"must be above 0 and below {most}")
            return 99.0
        return float(value) if target is None else round(float(value) * 100, 12)

    def _subject(self, name: str, spec: Values, notes: Mapping[str, str]) -> Values:
        kind, _, whom = notes.get(f"{PREFIX}subject", "").partition(":")
        if kind == "platform":
            return {"platform": True}
        if kind in {"model", "tenant"} and whom:
            return {kind: whom}
        service = str(spec.get("service") or name)
        self._lose(name, "service", f"taken as the model `{service}`; annotate {PREFIX}subject: model:OWNER/ALIAS")
        return {"model": service}

    def _sli(
        self, document: _Document, named: tuple[str, Place], objective: Values, notes: Mapping[str, str]
    ) -> Values | None:
        name, place = named
        spec = _mapping(document.body.get("spec"))
        indicator = self._indicator(document, spec)
        if indicator is None:
            return None
        ratio, threshold = indicator.get("ratioMetric"), indicator.get("thresholdMetric")
        if (ratio is None) == (threshold is None):
            self._fault(document, ("spec", "indicator"), "needs `ratioMetric` or `thresholdMetric`, one of them")
            return None
        sliced = spec.get("budgetingMethod") == "Timeslices"
        if spec.get("budgetingMethod") not in {"Occurrences", "Timeslices"}:
            self._fault(document, ("spec", "budgetingMethod"), "must be Occurrences or Timeslices")
        measure = notes.get(f"{PREFIX}measure", "availability" if threshold is None else "latency")
        if f"{PREFIX}measure" not in notes:
            self._lose(name, "indicator", f"what is measured is taken as `{measure}`; annotate {PREFIX}measure")
        values: Values = {"kind": "ratio" if threshold is None else "threshold", "measure": measure}
        seconds = notes.get(f"{PREFIX}threshold-seconds")
        if threshold is not None:
            values["threshold_seconds"] = self._threshold(document, place, objective)
        elif seconds is not None:
            values |= {"kind": "threshold", "threshold_seconds": _number(seconds)}
        if sliced:
            values |= {"kind": "time_slice", **self._slices(document, place, objective)}
        if f"{PREFIX}per-second" in notes:
            values["per_second"] = _number(notes[f"{PREFIX}per-second"])
        if isinstance(ratio, dict):
            series = self._series(name, cast("Values", ratio), notes)
            values |= {"series": series} if series else {}
        return values

    def _indicator(self, document: _Document, spec: Values) -> Values | None:
        if isinstance(spec.get("indicator"), dict):
            return _mapping(_mapping(spec["indicator"]).get("spec"))
        reference = spec.get("indicatorRef")
        found = self._known.get(("SLI", str(reference)))
        if found is None:
            words = (
                f"names {reference}, which is not in this file" if reference else "needs `indicator` or `indicatorRef`"
            )
            self._fault(document, ("spec", "indicatorRef"), words)
            return None
        return _mapping(found.body.get("spec"))

    def _threshold(self, document: _Document, place: Place, objective: Values) -> object:
        if objective.get("op") not in {"lt", "lte"}:
            words = "only lt and lte can be taken over: what is slower than `value` seconds is bad"
            self._fault(document, (*place, "op"), words)
        if objective.get("value") is None:
            self._fault(document, (*place, "value"), "is missing; add the threshold in seconds")
            return 1.0
        return objective["value"]

    def _slices(self, document: _Document, place: Place, objective: Values) -> Values:
        window, target = objective.get("timeSliceWindow"), objective.get("timeSliceTarget")
        text = f"{window}m" if isinstance(window, int) else str(window)
        if _DURATION.fullmatch(text) is None or text[-1] in "MQY":
            self._fault(document, (*place, "timeSliceWindow"), "must be minutes, or a duration such as 5m")
            text = "5m"
        if isinstance(target, bool) or not isinstance(target, int | float) or not 0 < target <= 1:
            self._fault(document, (*place, "timeSliceTarget"), "must be above 0 and at most 1")
            target = 1.0
        share = round(float(target) * 100, 12)
        return {"slice": text, "slice_objective": 100 if share == 100 else share}

    def _series(self, name: str, ratio: Values, notes: Mapping[str, str]) -> Values:
        found: Values = {}
        for part in ("total", "good", "bad"):
            source = _mapping(_mapping(ratio.get(part)).get("metricSource"))
            query = _mapping(source.get("spec")).get("query")
            match = _SELECTOR.fullmatch(str(query or "").strip())
            if source.get("type") == OWN_SOURCE:
                continue
            if match:
                found[part] = match[1]
            elif query:
                self._lose(name, f"ratioMetric.{part}", "its query is no plain counter, so it is not taken over")
        if "raw" in ratio:
            self._lose(name, "ratioMetric.raw", "a ratio that is stored as such has no counts: not taken over")
        if "total" not in found or ("good" in found) == ("bad" in found):
            return {}
        for part in ("probes_total", "probes_bad"):
            if f"{PREFIX}{part.replace('_', '-')}" in notes:
                found[part] = notes[f"{PREFIX}{part.replace('_', '-')}"]
        return found

    def _window(self, document: _Document, name: str, spec: Values) -> Values:
        windows = spec.get("timeWindow")
        if windows is None:
            self._lose(name, "timeWindow", "none is given; 30d rolling is taken")
            return {"rolling": "30d"}
        place: Place = ("spec", "timeWindow", 0)
        listed = cast("list[object]", windows) if isinstance(windows, list) else []
        window = _mapping(listed[0]) if len(listed) == 1 else {}
        match = _DURATION.fullmatch(str(window.get("duration")))
        if match is None:
            self._fault(document, place, "needs exactly one window with a `duration` such as 30d or 1M")
            return {"rolling": "30d"}
        number, unit = int(match[1]), match[2]
        calendar = window.get("calendar")
        if calendar is None:
            if unit in _ROLLING_DAYS:
                self._lose(name, "timeWindow", f"{match[0]} is taken as {number * _ROLLING_DAYS[unit]} days")
                return {"rolling": f"{number * _ROLLING_DAYS[unit]}d"}
            return {"rolling": match[0]}
        if number != 1 or unit not in _CALENDARS:
            self._fault(document, (*place, "duration"), "a calendar window must be 1d, 1w, 1M, 1Q or 1Y")
            return {"rolling": "30d"}
        zone = str(_mapping(calendar).get("timeZone") or "UTC")
        self._lose(name, "timeWindow.calendar.startTime", f"windows begin with the {_CALENDARS[unit]}, at midnight")
        return {"calendar": _CALENDARS[unit], "time_zone": zone}

    def _labels(self, name: str, labels: Values) -> Values:
        kept: Values = {}
        for key, value in labels.items():
            text = (
                ",".join(str(item) for item in cast("list[object]", value)) if isinstance(value, list) else str(value)
            )
            if _LABEL.fullmatch(key) and 0 < len(text) <= 200:
                kept[key] = text
            else:
                self._lose(name, f"labels.{key}", "our labels are of lower-case letters, digits and `-`: left out")
        return kept

    def _say_the_rest(self, document: _Document, spec: Values) -> None:
        policies = spec.get("alertPolicies")
        annotations = _mapping(_mapping(document.body.get("metadata")).get("annotations"))
        if policies and f"{PREFIX}alerting" not in annotations:
            words = "thresholds are not taken over: rules are derived from the objective, see `forestay slo lint`"
            self._lose(document.name, "alertPolicies", words)

    def _json(self, document: _Document, key: str, text: str) -> object:
        try:
            return json.loads(text)
        except ValueError:
            self._fault(document, ("metadata", "annotations", key), "is no JSON; take it away, or write it anew")
            return {}

    def _lose(self, slo: str, field: str, says: str) -> None:
        self.losses.append(Loss(slo, field, says))

    def _fault(self, document: _Document, place: Place, words: str) -> None:
        name = ".".join(str(part) for part in place)
        self.faults.append(f"{line_of(document.node, place)}: {name}: {words}")


def _mapping(value: object) -> Values:
    return {str(key): item for key, item in cast("Values", value).items()} if isinstance(value, dict) else {}


def _number(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text  # the file's own check says what is wrong with it
