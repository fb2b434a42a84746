"""What a new revision changes for its callers, read from two OpenAPI documents. Pure.

It decides whether a change is breaking (a call that worked may fail, or an answer may lack what a caller reads) or
additive, and names each place. Inputs may only become wider and outputs only richer: the rule of Liskov and Wing
(1994), ACM TOPLAS 16, as service contracts use it. It reads bodies of POST and the answer 200, JSON alone, which is
what models have; descriptions, titles, examples and defaults say nothing. What a document does not say (no type, a
reference to nothing) it does not compare. The interface gate and `forestay model diff` call it.
"""

import dataclasses
import enum
from collections.abc import Iterator, Mapping
from typing import cast

_DEPTH = 12
_MOST = 100  # changes that are told
_SILENT = frozenset({"title", "description", "examples", "example", "default", "deprecated", "$defs", "ui", "x-fal"})
_LOWER, _UPPER = (
    ("minimum", "exclusiveMinimum", "minLength", "minItems"),
    (
        "maximum",
        "exclusiveMaximum",
        "maxLength",
        "maxItems",
    ),
)
_READ = frozenset(
    {"type", "properties", "required", "items", "enum", "const", "anyOf", "oneOf", "allOf", *_LOWER, *_UPPER}
)
Schema = Mapping[str, object]


class Kind(enum.StrEnum):
    """How a change meets callers."""

    BREAKING = "breaking"
    ADDITIVE = "additive"


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One difference."""

    kind: Kind
    where: str  # "/edit input.image_url"
    what: str

    def told(self) -> str:
        """Say it in words."""
        return f"{self.where}: {self.what}"


def compare_interfaces(before: Schema, after: Schema) -> list[Change]:
    """Return what changed for callers, breaking changes first, at most a hundred; none when nothing did."""
    found: list[Change] = []
    old_paths, new_paths = _object(before.get("paths")), _object(after.get("paths"))
    for path in sorted(old_paths.keys() | new_paths.keys()):
        old, new = _object(_object(old_paths.get(path)).get("post")), _object(_object(new_paths.get(path)).get("post"))
        if old and not new:
            found.append(Change(Kind.BREAKING, path, "the endpoint is gone"))
        elif new and not old:
            found.append(Change(Kind.ADDITIVE, path, "a new endpoint"))
        elif old:
            found += _Comparison(before, after).inputs(_body(old), _body(new), f"{path} input")
            found += _Comparison(before, after).outputs(_answer(old), _answer(new), f"{path} output")
    return sorted(found, key=lambda item: item.kind is not Kind.BREAKING)[:_MOST]


def _object(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}


def _body(operation: Schema) -> object:
    return _json(_object(operation.get("requestBody")))


def _answer(operation: Schema) -> object:
    return _json(_object(_object(operation.get("responses")).get("200")))


def _json(holder: Schema) -> object:
    return _object(_object(holder.get("content")).get("application/json")).get("schema")


class _Comparison:
    """Two documents whose schemas are compared side by side."""

    def __init__(self, before: Schema, after: Schema) -> None:
        self._before = before
        self._after = after

    def inputs(self, old: object, new: object, where: str, depth: int = 0) -> Iterator[Change]:
        """Yield changes of what callers send: a caller's old value must still be taken."""
        a, b = _resolved(old, self._before), _resolved(new, self._after)
        if depth > _DEPTH:
            return
        yield from self._types(a, b, where, widened_is_fine=True)
        yield from _bounds(a, b, where)
        yield from _choices(a, b, where, more_is_fine=True)
        olds, news = _object(a.get("properties")), _object(b.get("properties"))
        needed, was_needed = _names(b.get("required")), _names(a.get("required"))
        for name in sorted(olds.keys() - news.keys()):
            yield Change(Kind.BREAKING, f"{where}.{name}", "the field is no longer read")
        for name in sorted(news.keys() - olds.keys()):
            if name in needed:
                yield Change(Kind.BREAKING, f"{where}.{name}", "a new field must be sent")
            else:
                yield Change(Kind.ADDITIVE, f"{where}.{name}", "a new field may be sent")
        for name in sorted(olds.keys() & news.keys()):
            if name in needed and name not in was_needed:
                yield Change(Kind.BREAKING, f"{where}.{name}", "the field must now be sent")
            yield from self.inputs(olds[name], news[name], f"{where}.{name}", depth + 1)
        if "items" in a and "items" in b:
            yield from self.inputs(a["items"], b["items"], f"{where}[]", depth + 1)
        yield from _unread(a, b, where)

    def outputs(self, old: object, new: object, where: str, depth: int = 0) -> Iterator[Change]:
        """Yield changes of what callers read: an old reader must find what it found."""
        a, b = _resolved(old, self._before), _resolved(new, self._after)
        if depth > _DEPTH:
            return
        yield from self._types(a, b, where, widened_is_fine=False)
        yield from _choices(a, b, where, more_is_fine=False)
        olds, news = _object(a.get("properties")), _object(b.get("properties"))
        given, was_given = _names(b.get("required")), _names(a.get("required"))
        for name in sorted(olds.keys() - news.keys()):
            yield Change(Kind.BREAKING, f"{where}.{name}", "the field is gone from answers")
        for name in sorted(news.keys() - olds.keys()):
            yield Change(Kind.ADDITIVE, f"{where}.{name}", "answers have a new field")
        for name in sorted(olds.keys() & news.keys()):
            if name in was_given and name not in given:
                yield Change(Kind.BREAKING, f"{where}.{name}", "the field may now be missing from answers")
            yield from self.outputs(olds[name], news[name], f"{where}.{name}", depth + 1)
        if "items" in a and "items" in b:
            yield from self.outputs(a["items"], b["items"], f"{where}[]", depth + 1)
        yield from _unread(a, b, where)

    def _types(self, a: Schema, b: Schema, where: str, *, widened_is_fine: bool) -> Iterator[Change]:
        before, after = self._kinds(a, self._before), self._kinds(b, self._after)
        if before == after or not before or not after:
            return
        lost = _lost(before, after) if widened_is_fine else _lost(after, before)
        kind = Kind.BREAKING if lost else Kind.ADDITIVE
        yield Change(kind, where, f"the type was {_or(before)} and is {_or(after)}")

    def _kinds(self, schema: Schema, document: Schema) -> frozenset[str]:
        """Return the JSON types that a schema takes, through `anyOf` and `oneOf`; empty when it does not say."""
        said = schema.get("type")
        kinds = {said} if isinstance(said, str) else {item for item in _list(said) if isinstance(item, str)}
        for choice in (*_list(schema.get("anyOf")), *_list(schema.get("oneOf"))):
            kinds |= {str(item) for item in [_resolved(choice, document).get("type")] if isinstance(item, str)}
        return frozenset(kinds)


def _resolved(schema: object, document: Schema) -> Schema:
    """Follow references inside the document; one that leads nowhere is an empty schema."""
    found = _object(schema)
    for _ in range(_DEPTH):
        reference = found.get("$ref")
        if not isinstance(reference, str):
            break
        target: object = document
        for part in reference.removeprefix("#/").split("/"):
            target = _object(target).get(part.replace("~1", "/").replace("~0", "~"))
        found = _object(target)
    parts = _list(found.get("allOf"))
    return _resolved(parts[0], document) if len(parts) == 1 else found


def _lost(before: frozenset[str], after: frozenset[str]) -> bool:
    """Tell whether something that was a value is none any more; every integer is a number."""
    held = after | {"integer"} if "number" in after else after
    return not before <= held


def _bounds(a: Schema, b: Schema, where: str) -> Iterator[Change]:
    for names, narrower in ((_LOWER, 1), (_UPPER, -1)):
        for name in names:
            old, new = _bound(a.get(name)), _bound(b.get(name))
            if old is new or (old == new and isinstance(old, bool) == isinstance(new, bool)):
                continue
            yield Change(
                Kind.BREAKING if _narrowed(old, new, narrower) else Kind.ADDITIVE,
                where,
                f"{name} was {old} and is {new}",
            )


def _bound(value: object) -> float | None:
    """Return a bound; in OpenAPI 3.0 `exclusiveMinimum` is true or false. What is neither bounds nothing."""
    return value if isinstance(value, int | float) else None


def _narrowed(old: float | None, new: float | None, narrower: int) -> bool:
    if isinstance(old, bool) or isinstance(new, bool):
        return new is not None and new is not False
    return new is not None and (old is None or (new - old) * narrower > 0)


def _choices(a: Schema, b: Schema, where: str, *, more_is_fine: bool) -> Iterator[Change]:
    old, new = _values(a), _values(b)
    if old == new:
        return
    if more_is_fine:
        kept = new is None or (old is not None and old <= new)
    else:
        kept = old is None or (new is not None and new <= old)
    names = sorted((old or set()) ^ (new or set()))
    yield Change(
        Kind.ADDITIVE if kept else Kind.BREAKING, where, f"the values it may have changed by {_or(names[:10])}"
    )


def _values(schema: Schema) -> set[str] | None:
    if "const" in schema:
        return {repr(schema["const"])}
    return {repr(item) for item in _list(schema["enum"])} if "enum" in schema else None


def _unread(a: Schema, b: Schema, where: str) -> Iterator[Change]:
    """Yield a change of what no rule here reads (a pattern, a format): it may refuse what was taken."""
    for name in sorted((a.keys() | b.keys()) - _READ - _SILENT - {"$ref"}):
        if a.get(name) != b.get(name) and name in b:
            yield Change(Kind.BREAKING, where, f"{name} was {a.get(name)!r:.60} and is {b[name]!r:.60}")


def _names(value: object) -> frozenset[str]:
    return frozenset(item for item in _list(value) if isinstance(item, str))


def _list(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []


def _or(names: object) -> str:
    return " or ".join(sorted(str(name) for name in cast("frozenset[str]", names)))
