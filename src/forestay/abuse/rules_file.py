"""Reading rules from YAML: every fault with file, line, field and mend; no fault passes, nothing is evaluated.

It decides what a valid set of rules is. Beside form (fields, types, bounds) it checks sense, statically: names that
exist and are about the rule's subject, comparisons that can hold, conditions that do not contradict themselves, rules
that some other rule does not always forestall, labels that some rule gives, an end to everything, and that more
evidence never decides less. Called by the abuse loop, the admin API and the command line.
"""

import datetime as dt
import functools
import hashlib
import importlib.resources
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import yaml

from forestay.abuse import rules_sense
from forestay.abuse.rules import (
    All,
    Any,
    Compare,
    Condition,
    CounterSpec,
    GivenLabel,
    Label,
    Not,
    Op,
    Rule,
    Rules,
    Then,
)
from forestay.abuse.vocabulary import Per
from forestay.fleet.spec_yaml import SpecError, line_of, read_yaml
from forestay.fleet.standing import StandingKind

VERSION = 1
MAX_RULES, MAX_COUNTERS, MAX_DEPTH, MAX_LEAVES = 200, 50, 8, 40
LONGEST = dt.timedelta(days=30)  # of what automation sets
_DURATION = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_ID = re.compile(r"[a-z][a-z0-9_-]{0,59}")
_CODE = re.compile(r"[a-z][a-z0-9_]{0,39}")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_FIELDS: Mapping[str, type] = {
    "model": str, "lane": str, "verb": str, "network": str, "agent": str, "category": str, "cause": str,
    "accepted": bool,
}  # fmt: skip
_DISTINCT = ("network", "agent", "model", "prompt", "key")
Place = tuple[int | str, ...]


def read_rules(text: str, file_name: str) -> Rules:
    """Read and check a set of rules; raises SpecError with every fault found."""
    values, node = read_yaml(text, file_name)
    reader = _Reader(node)
    rules = reader.rules(values)
    if not reader.faults and rules is not None:
        for place, fault in rules_sense.faults(rules):
            reader.fault(place, fault)
    if reader.faults or rules is None:
        raise SpecError(file_name, reader.faults)
    return Rules.of(rules.rules, rules.counters, hashlib.sha256(text.encode()).hexdigest()[:16])


def default_text() -> str:
    """Return the YAML of the rules that Forestay brings."""
    return (importlib.resources.files("forestay.abuse") / "default_rules.yaml").read_text(encoding="utf-8")


@functools.cache
def default_rules() -> Rules:
    """Return the rules that Forestay brings."""
    return read_rules(default_text(), "default_rules.yaml")


class _Reader:
    """Reads plain values into rules, noting each fault with its line."""

    def __init__(self, node: yaml.Node | None) -> None:
        self._node = node
        self.faults: list[str] = []

    def fault(self, place: Place, words: str) -> None:
        """Note a fault at a place in the file."""
        name = ".".join(str(part) for part in place)
        self.faults.append(f"{line_of(self._node, place)}: {name}: {words}" if name else f"1: {words}")

    def rules(self, values: object) -> Rules | None:
        """Read the whole file."""
        top = self._mapping((), values, needed=("version", "rules"), allowed=("version", "counters", "rules"))
        if top is None:
            return None
        if top.get("version") != VERSION:
            self.fault(("version",), f"must be {VERSION}")
        counters = [
            made
            for place, item in self._items(("counters",), top.get("counters", []), MAX_COUNTERS)
            if (made := self._counter(place, item)) is not None
        ]
        rules = [
            made
            for place, item in self._items(("rules",), top.get("rules", []), MAX_RULES)
            if (made := self._rule(place, item)) is not None
        ]
        return Rules(VERSION, tuple(rules), tuple(counters))

    def _counter(self, place: Place, value: object) -> CounterSpec | None:
        allowed = ("id", "per", "count", "sum", "distinct", "window", "where")
        found = self._mapping(place, value, needed=("id", "per", "window"), allowed=allowed)
        if found is None:
            return None
        measures = [name for name in ("count", "sum", "distinct") if name in found]
        if len(measures) != 1:
            self.fault(place, "needs exactly one of `count: calls`, `sum: seconds` and `distinct: <field>`")
            return None
        [measure] = measures
        fits = {"count": ("calls",), "sum": ("seconds",), "distinct": _DISTINCT}[measure]
        of = self._one_of((*place, measure), found[measure], fits)
        window = self._duration((*place, "window"), found["window"], dt.timedelta(days=7))
        identity, per = self._id((*place, "id"), found["id"], _ID), self._per((*place, "per"), found["per"])
        where = self._where((*place, "where"), found.get("where", {}))
        if of is None or window is None or identity is None or per is None:
            return None
        measured = "distinct" if measure == "distinct" else of
        return CounterSpec(identity, per, measured, of, window.total_seconds(), where)

    def _where(self, place: Place, value: object) -> dict[str, str | bool]:
        found = self._mapping(place, value, needed=(), allowed=tuple(_FIELDS)) or {}
        kept: dict[str, str | bool] = {}
        for name, wanted in found.items():
            if type(wanted) is not _FIELDS[name]:
                self.fault((*place, name), f"must be {'true or false' if _FIELDS[name] is bool else 'text'}")
            elif isinstance(wanted, str | bool):
                kept[name] = wanted
        return kept

    def _rule(self, place: Place, value: object) -> Rule | None:
        needed = ("id", "code", "per", "when", "then")
        found = self._mapping(place, value, needed=needed, allowed=needed)
        if found is None:
            return None
        identity = self._id((*place, "id"), found["id"], _ID)
        code = self._id((*place, "code"), found["code"], _CODE)
        per = self._per((*place, "per"), found["per"])
        when = self._condition((*place, "when"), found["when"], 0)
        then = self._then((*place, "then"), found["then"])
        if identity is None or code is None or per is None or when is None or then is None:
            return None
        return Rule(identity, code, per, when, then)

    def _then(self, place: Place, value: object) -> Then | None:
        allowed = ("standing", "for", "factor", "freeze_results", "label", "reason")
        found = self._mapping(place, value, needed=("reason",), allowed=allowed)
        if found is None:
            return None
        kind, lasting = None, dt.timedelta(0)
        if "standing" in found:
            name = self._one_of((*place, "standing"), found["standing"], tuple(kind.value for kind in StandingKind))
            kind = None if name is None else StandingKind(name)
            if "for" not in found:
                self.fault(place, "a standing needs an end: add `for`, such as 24h")
        if "for" in found:
            lasting = self._duration((*place, "for"), found["for"], LONGEST) or lasting
        if "standing" not in found and "label" not in found:
            self.fault(place, "must give a `standing`, a `label`, or both")
        reason = found["reason"]
        if not isinstance(reason, str) or not 0 < len(reason) <= 300 or "\n" in reason:
            self.fault((*place, "reason"), "must be one line of 1 to 300 characters")
            return None
        return Then(
            kind,
            lasting,
            reason,
            self._factor(place, found, kind),
            self._freeze(place, found, kind),
            self._label(place, found),
        )

    def _factor(self, place: Place, found: Mapping[str, object], kind: StandingKind | None) -> float:
        if kind is StandingKind.THROTTLE:
            value = found.get("factor")
            if isinstance(value, int | float) and not isinstance(value, bool) and 0.0 < value <= 1.0:
                return float(value)
            self.fault((*place, "factor"), "a throttle needs a `factor` above 0 and at most 1")
        elif "factor" in found:
            self.fault((*place, "factor"), "belongs to `standing: throttle` alone; leave it out")
        return 1.0

    def _freeze(self, place: Place, found: Mapping[str, object], kind: StandingKind | None) -> bool:
        value = found.get("freeze_results", False)
        if not isinstance(value, bool):
            self.fault((*place, "freeze_results"), "must be true or false")
        elif value and kind is not StandingKind.SUSPEND:
            self.fault((*place, "freeze_results"), "belongs to `standing: suspend` alone; leave it out")
        return value is True

    def _label(self, place: Place, found: Mapping[str, object]) -> GivenLabel | None:
        if "label" not in found:
            return None
        label = self._mapping((*place, "label"), found["label"], needed=("name", "for"), allowed=("name", "for"))
        if label is None:
            return None
        name = self._id((*place, "label", "name"), label["name"], _ID)
        lasting = self._duration((*place, "label", "for"), label["for"], dt.timedelta(days=366))
        return None if name is None or lasting is None else GivenLabel(name, lasting)

    def _condition(  # noqa: PLR0911 - one kind of condition after the other
        self, place: Place, value: object, depth: int
    ) -> Condition | None:
        if depth >= MAX_DEPTH:
            self.fault(place, f"conditions nest at most {MAX_DEPTH} deep")
            return None
        keys = ("all", "any", "not", "signal", "counter", "label", *(op.value for op in Op))
        found = self._mapping(place, value, needed=(), allowed=keys)
        if found is None:
            return None
        kinds = [name for name in ("all", "any", "not", "signal", "counter", "label") if name in found]
        if len(kinds) != 1:
            self.fault(place, "needs exactly one of all, any, not, signal, counter and label")
            return None
        [kind] = kinds
        if kind in {"signal", "counter"}:
            return self._compare(place, found, kind)
        if len(found) > 1:
            self.fault(place, f"`{kind}` stands alone; move the rest out")
            return None
        if kind == "label":
            name = self._id((*place, "label"), found["label"], _ID)
            return None if name is None else Label(name)
        if kind == "not":
            inner = self._condition((*place, "not"), found["not"], depth + 1)
            return None if inner is None else Not(inner)
        parts = [
            self._condition(where, item, depth + 1)
            for where, item in self._items((*place, kind), found[kind], MAX_LEAVES, empty=False)
        ]
        good = tuple(part for part in parts if part is not None)
        if len(good) != len(parts) or not good:
            return None
        return All(good) if kind == "all" else Any(good)

    def _compare(self, place: Place, found: Mapping[str, object], kind: str) -> Condition | None:
        name = found[kind]
        ops = [op for op in Op if op.value in found]
        if not isinstance(name, str):
            self.fault((*place, kind), "must be a name")
            return None
        if len(ops) != 1 or len(found) != 2:
            self.fault(place, f"needs exactly one comparison: {', '.join(op.value for op in Op)}")
            return None
        value = found[ops[0].value]
        if isinstance(value, bool) or not isinstance(value, int | float) or not -1e12 <= value <= 1e12:
            self.fault((*place, ops[0].value), "must be a number")
            return None
        return Compare(name, ops[0], float(value), counter=kind == "counter")

    # Small readers -------------------------------------------------------------------------------------------------
    def _mapping(
        self, place: Place, value: object, *, needed: Sequence[str], allowed: Sequence[str]
    ) -> Mapping[str, object] | None:
        if not isinstance(value, dict):
            self.fault(place, "must be a mapping of fields")
            return None
        found = {str(name): item for name, item in cast("dict[object, object]", value).items()}
        for name in found:
            if name not in allowed:
                self.fault((*place, name), f"is no field here; use {', '.join(allowed)}")
        missing = [name for name in needed if name not in found]
        for name in missing:
            self.fault(place, f"lacks the field `{name}`")
        return None if missing else found

    def _items(self, place: Place, value: object, most: int, *, empty: bool = True) -> Iterator[tuple[Place, object]]:
        if not isinstance(value, list):
            self.fault(place, "must be a list")
            return
        items = cast("list[object]", value)
        if len(items) > most or (not items and not empty):
            self.fault(place, f"must have {'at most' if empty else '1 to'} {most} items")
            return
        for number, item in enumerate(items):
            yield (*place, number), item

    def _one_of(self, place: Place, value: object, allowed: Sequence[str]) -> str | None:
        if value in allowed:
            return str(value)
        self.fault(place, f"must be one of {', '.join(allowed)}")
        return None

    def _per(self, place: Place, value: object) -> Per | None:
        name = self._one_of(place, value, tuple(per.value for per in Per))
        return None if name is None else Per(name)

    def _id(self, place: Place, value: object, pattern: re.Pattern[str]) -> str | None:
        if isinstance(value, str) and pattern.fullmatch(value):
            return value
        self.fault(place, "must be lower-case letters, digits, `_` and `-`, beginning with a letter")
        return None

    def _duration(self, place: Place, value: object, most: dt.timedelta) -> dt.timedelta | None:
        match = _DURATION.fullmatch(value) if isinstance(value, str) else None
        lasting = dt.timedelta(seconds=int(match[1]) * _UNITS[match[2]]) if match else dt.timedelta(0)
        if dt.timedelta(0) < lasting <= most:
            return lasting
        self.fault(place, f"must be a duration such as 24h or 7d, at most {most.days}d")
        return None


def placeholders(reason: str) -> list[str]:
    """Return the names in braces of a reason."""
    return _PLACEHOLDER.findall(reason)
