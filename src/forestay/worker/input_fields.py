"""Where in a request's body files are named: the fields that its spec declares, in all shapes that callers write.

Pure. Decides what counts as the name of a file (http(s) URLs, our own media, data: URIs), which other names are refused
because they mean something on the machine that reads them (other schemes, paths), and finds URLs in fields that no spec
declares. What is neither, such as the name of a built-in style, is the model's own business. Called by `inputs`.
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import Literal, cast

from forestay.fleet.spec import EndpointSpec
from forestay.media.urls import SCHEME

InputKind = Literal["any", "image", "video", "audio", "weights", "file"]
Location = tuple[str | int, ...]
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):")
_NAMED = frozenset({"http", "https", "data", SCHEME.removesuffix("://")})
_PATH = ("/", "\\", "~")
_MAX_DEPTH = 3  # field, item of its list, `url` of the item
_MAX_SEARCHED = 64  # levels of an undeclared field that are looked through; JSON deeper than that is refused as well


@dataclasses.dataclass(frozen=True, slots=True)
class Slot:
    """A place in the body that holds the name of a file."""

    holder: dict[str, object] | list[object]
    key: str | int
    location: Location
    text: str
    kind: InputKind

    @property
    def readable(self) -> bool:
        """Whether the name is of a kind that is fetched; otherwise it is refused."""
        found = _SCHEME.match(self.text)
        return found is not None and found[1].lower() in _NAMED

    def put(self, text: str) -> None:
        """Write what the model gets instead."""
        if isinstance(self.holder, dict):
            self.holder[str(self.key)] = text
        else:
            self.holder[int(self.key)] = text


def find_slots(body: dict[str, object], endpoint: EndpointSpec) -> list[Slot]:
    """Return every name of a file in the declared fields, in the order of the fields."""
    found: list[Slot] = []
    for field in endpoint.media_inputs:
        kind = cast("InputKind", endpoint.media_kinds.get(field, "any"))
        found += _collect(body, field, (field,), kind)
    return found


def _collect(
    holder: dict[str, object] | list[object], key: str | int, location: Location, kind: InputKind
) -> Iterator[Slot]:
    """Find names at `holder[key]`: a text, an object with `url` (weights: or `path`), or a list of either."""
    value = holder.get(str(key)) if isinstance(holder, dict) else holder[int(key)]
    if isinstance(value, str):
        if _SCHEME.match(value) or value.lstrip().startswith(_PATH):
            yield Slot(holder, key, location, value, kind)
    elif isinstance(value, list) and len(location) < _MAX_DEPTH:
        items = cast("list[object]", value)
        for index in range(len(items)):
            yield from _collect(items, index, (*location, index), kind)
    elif isinstance(value, dict):
        inner = cast("dict[str, object]", value)
        for name in ("url", "path") if kind == "weights" else ("url",):
            if name in inner:
                yield from _collect(inner, name, (*location, name), kind)


def find_undeclared_url(body: dict[str, object], endpoint: EndpointSpec) -> Location | None:
    """Return where an undeclared field holds a URL (and nothing else), None when none does."""
    declared = set(endpoint.media_inputs)
    for field, value in body.items():
        if field not in declared and (found := _search(value, (field,))) is not None:
            return found
    return None


def _search(value: object, location: Location) -> Location | None:
    if isinstance(value, str):
        text = value.strip()
        return location if text.lower().startswith(("http://", "https://")) and not re.search(r"\s", text) else None
    if len(location) > _MAX_SEARCHED:
        return location
    if isinstance(value, dict):
        pairs: Iterator[tuple[str | int, object]] = iter(cast("dict[str | int, object]", value).items())
    elif isinstance(value, list):
        pairs = iter(enumerate(cast("list[object]", value)))
    else:
        return None
    return next((found for key, inner in pairs if (found := _search(inner, (*location, key))) is not None), None)
