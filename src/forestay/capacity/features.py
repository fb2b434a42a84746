"""What an input says of the work that it asks for: steps, pixels, frames, seconds, images, LoRAs. Pure.

It decides which fields of an input mean work and reads them within bounds, so that no value of a caller can overflow
or vanish; what the work costs is `capacity/predict`'s. One reader is made for a revision's endpoint, from the schema
that the model declares (a field that the model does not know means nothing, whatever it is called) and from its spec
(`capacity.scales_with`); without a schema every field of a usual name is read. Where two fields say the same thing,
the larger counts. Called by the gateway for each call, and by the admin API.
"""

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

MAX_FEATURES = 8
_MAX_FIELDS = 100  # of an input without a schema, how many are looked at
_MAX_TEXT = 64
_MAX_CUSTOM = 1e9
_MAX_REFERENCES = 8

_Parser = Callable[[object], float | None]
_SIZES = {  # fal's names of image sizes, in pixels
    "square_hd": 1024 * 1024,
    "square": 512 * 512,
    "portrait_4_3": 768 * 1024,
    "portrait_16_9": 576 * 1024,
    "landscape_4_3": 1024 * 768,
    "landscape_16_9": 1024 * 576,
}
_RESOLUTIONS = {
    "240p": 426 * 240,
    "360p": 640 * 360,
    "480p": 854 * 480,
    "540p": 960 * 540,
    "580p": 1032 * 580,
    "720p": 1280 * 720,
    "1080p": 1920 * 1080,
    "1440p": 2560 * 1440,
    "2160p": 3840 * 2160,
    "0.5k": 512 * 512,
    "1k": 1024 * 1024,
    "2k": 2048 * 2048,
    "4k": 3840 * 2160,
}
_BY_SIDES = re.compile(r"\s*(\d{1,6})\s*[xX*\u00d7]\s*(\d{1,6})\s*")
_AMOUNT = re.compile(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*(?:s|sec|secs|seconds?)?\s*", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, slots=True)
class Feature:
    """One kind of work: its bounds, and what stands for "as usual" where nothing else is known."""

    name: str
    least: float
    most: float
    usual: float
    fields: tuple[str, ...]  # names of input fields, without case, `_` and `-`


FEATURES: Mapping[str, Feature] = {
    item.name: item
    for item in (
        Feature(
            "steps",
            1.0,
            10_000.0,
            30.0,
            ("numinferencesteps", "steps", "inferencesteps", "numsteps", "samplingsteps", "samplesteps", "ddimsteps"),
        ),
        Feature(
            "pixels", 1.0, 2.0**30, 1024.0 * 1024.0, ("imagesize", "size", "videosize", "outputsize", "resolution")
        ),
        Feature("frames", 1.0, 1e6, 81.0, ("numframes", "frames", "framecount", "videoframes", "videolength")),
        Feature(
            "seconds",
            0.01,
            86_400.0,
            5.0,
            (
                "duration",
                "seconds",
                "durationseconds",
                "videoduration",
                "audioduration",
                "secondstotal",
                "lengthseconds",
            ),
        ),
        Feature(
            "images", 1.0, 10_000.0, 1.0, ("numimages", "n", "batchsize", "numoutputs", "numsamples", "numberofimages")
        ),
        Feature("loras", 0.0, 1_000.0, 0.0, ("loras", "lora", "loraweights", "lorapaths", "loraurl", "loraurls")),
        Feature("characters", 0.0, 1e7, 200.0, ("text", "gentext", "script", "input", "prompt")),
    )
}
_OPTIONAL = frozenset({"characters"})  # says little of most models: read only where the spec names it
_BY_FIELD = {name: item for item in FEATURES.values() for name in item.fields}
_SIDES = {"width": 0, "height": 1, "imagewidth": 0, "imageheight": 1, "videowidth": 0, "videoheight": 1}


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    """How one field of the input is read."""

    feature: Feature
    parse: _Parser
    side: int = -1  # 0: width, 1: height, of pixels; -1: the whole feature


class FeatureReader:
    """Reads inputs of one endpoint. `defaults` are the values of fields that an input leaves out."""

    def __init__(
        self, fields: Mapping[str, _Field] | None, defaults: Mapping[str, object], wanted: Sequence[str]
    ) -> None:
        self._fields = fields  # None: whatever an input names
        self._wanted = frozenset(wanted)
        self._sides = (_number(defaults.get("width")), _number(defaults.get("height")))
        self._defaults: Mapping[str, float] = {}
        self._defaults = self.read(defaults)

    @property
    def defaults(self) -> Mapping[str, float]:
        """Return the features of an input that leaves everything out."""
        return self._defaults

    @property
    def usual(self) -> dict[str, float]:
        """Return what is usual of each feature that may be read: the schema's default, else what is usual anywhere."""
        named = self._wanted if self._fields is None else {field.feature.name for field in self._fields.values()}
        ordered = [name for name in FEATURES if name in named] + sorted(named - FEATURES.keys())
        return {name: self._defaults.get(name) or usual_of(name) for name in ordered[:MAX_FEATURES]}

    def read(self, body: object) -> dict[str, float]:
        """Return the features of a parsed input, each within its bounds; empty when it says nothing of work."""
        if not isinstance(body, dict) or (self._fields is not None and not self._fields):
            return dict(self._defaults)
        said = cast("dict[str, object]", body)
        found: dict[str, float] = {}
        sides: list[float | None] = [None, None]
        for field, value in self._named(said):
            amount = None if value is None else field.parse(value)
            if amount is None:
                continue
            if field.side >= 0:
                sides[field.side] = amount
                continue
            feature = field.feature
            bounded = float(min(max(amount, feature.least), feature.most))
            found[feature.name] = max(bounded, found.get(feature.name, bounded))
        if sides[0] is not None or sides[1] is not None:
            found["pixels"] = max(self._area(sides), found.get("pixels", 0.0))
        return {**self._defaults, **found}

    def _named(self, said: Mapping[str, object]) -> Iterator[tuple[_Field, object]]:
        if self._fields is not None:
            for name, field in self._fields.items():
                if name in said:
                    yield field, said[name]
            return
        for name, value in itertools.islice(said.items(), _MAX_FIELDS):
            if len(name) > _MAX_TEXT:
                continue
            field = _field_of(name, self._wanted)
            if field is not None:
                yield field, value

    def _area(self, sides: Sequence[float | None]) -> float:
        """Multiply the sides; one that is left out is its default, or as long as the other."""
        width, height = (side if side is not None else self._sides[n] for n, side in enumerate(sides))
        pixels = FEATURES["pixels"]
        return min(max((width or height or 1.0) * (height or width or 1.0), pixels.least), pixels.most)


def input_schema(document: Mapping[str, object], endpoint: str) -> Mapping[str, object] | None:
    """Return the schema of an endpoint's JSON input in an OpenAPI document; None where it is not declared."""
    paths = _mapping(document.get("paths"))
    declared = paths.get(endpoint)
    if declared is None:
        pieces = endpoint.split("/")
        declared = next((node for path, node in paths.items() if "{" in path and _matches(path, pieces)), None)
    body = _mapping(_mapping(_mapping(declared).get("post")).get("requestBody"))
    media = _mapping(_mapping(body.get("content")).get("application/json"))
    return _mapping(media["schema"]) if "schema" in media else None


def _matches(path: str, pieces: Sequence[str]) -> bool:
    declared = path.split("/")
    return len(declared) == len(pieces) and all(
        one == other or (one.startswith("{") and one.endswith("}") and other)
        for one, other in zip(declared, pieces, strict=True)
    )


def reader_of(
    schema: Mapping[str, object] | None, document: Mapping[str, object], scales_with: Sequence[str]
) -> FeatureReader:
    """Make a reader from the schema of an endpoint's input (None: not declared) within its OpenAPI document."""
    wanted = tuple(scales_with)[:MAX_FEATURES] or tuple(name for name in FEATURES if name not in _OPTIONAL)
    if schema is None:
        return FeatureReader(None, {}, wanted)
    properties = dict(_properties(schema, document, _MAX_REFERENCES))
    fields: dict[str, _Field] = {}
    defaults: dict[str, object] = {}
    for name, node in properties.items():
        field = _field_of(name, frozenset(wanted))
        if field is not None:
            fields[name] = field
            default = node.get("default")
            if default is not None:
                defaults[name] = default
    return FeatureReader(fields, defaults, wanted)


def _properties(
    schema: Mapping[str, object], document: Mapping[str, object], depth: int
) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield the properties of an object's schema, through references and `allOf`."""
    if depth <= 0:
        return
    reference = schema.get("$ref")
    if isinstance(reference, str):
        yield from _properties(_resolve(reference, document), document, depth - 1)
    for part in cast("list[object]", schema.get("allOf") or []):
        yield from _properties(_mapping(part), document, depth - 1)
    for name, node in _mapping(schema.get("properties")).items():
        yield name, _mapping(node)


def _resolve(reference: str, document: Mapping[str, object]) -> Mapping[str, object]:
    node: object = document
    for step in reference.removeprefix("#/").split("/"):
        node = _mapping(node).get(step)
    return _mapping(node)


def _mapping(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}


@functools.lru_cache(maxsize=2_000)
def _field_of(name: str, wanted: frozenset[str]) -> _Field | None:
    """Return how a field of this name is read; None when it says nothing of the wanted kinds of work."""
    plain = name.replace("_", "").replace("-", "").lower()
    if name in wanted and name not in FEATURES:
        return _Field(Feature(name, 0.0, _MAX_CUSTOM, 0.0, (plain,)), _number)
    if plain in _SIDES and "pixels" in wanted:
        return _Field(FEATURES["pixels"], _number, _SIDES[plain])
    feature = _BY_FIELD.get(plain)
    if feature is None or feature.name not in wanted:
        return None
    return _Field(feature, _PARSERS.get(feature.name, _number))


def _number(value: object) -> float | None:
    """Read an amount: a number, or a text such as `5`, `5s` or `5 seconds`."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return _finite(value)
    if isinstance(value, str) and len(value) <= _MAX_TEXT:
        found = _AMOUNT.fullmatch(value)
        return float(found[1]) if found else None
    return None


def _finite(value: float) -> float | None:
    if value > _MAX_CUSTOM * 1e6:  # compared before it is converted: a whole number may be longer than any float
        return _MAX_CUSTOM * 1e6
    if not value >= 0.0:
        return 0.0 if value < 0.0 else None
    return float(value)


def _area(value: object) -> float | None:
    """Read a size: one of fal's names, `1024x768`, `720p`, `{"width": ..., "height": ...}` or a pair."""
    if isinstance(value, str):
        if len(value) > _MAX_TEXT:
            return None
        sides = _BY_SIDES.fullmatch(value)
        if sides:
            return float(sides[1]) * float(sides[2])
        name = value.strip().lower()
        return _SIZES.get(name) or _RESOLUTIONS.get(name)
    if isinstance(value, dict):
        pair = cast("dict[str, object]", value)
        sides = [_number(pair.get("width")), _number(pair.get("height"))]
    elif isinstance(value, list):
        sides = [_number(side) for side in cast("list[object]", value)[:3]]
    else:
        sides = [_number(value)] * 2  # one number is the length of a side
    width, height = sides if len(sides) == 2 else (None, None)
    return None if width is None or height is None else width * height


def _how_many(value: object) -> float | None:
    """Count: the length of a list, one for anything that is named at all."""
    if isinstance(value, list | dict):
        return float(len(cast("list[object]", value)))
    if isinstance(value, str):
        return 1.0 if value else 0.0
    return _number(value)


def _length(value: object) -> float | None:
    return float(len(value)) if isinstance(value, str) else None


_PARSERS: Mapping[str, _Parser] = {"pixels": _area, "loras": _how_many, "characters": _length}


def scaled(name: str, value: float, usual: float) -> float:
    """Return how much more work than usual a value is, as a logarithm: 0 for the usual, monotone, never infinite."""
    offset = 0.0 if name in FEATURES and FEATURES[name].least > 0.0 else 1.0  # what may be 0 is counted from 1
    return math.log((value + offset) / (usual + offset))


def usual_of(name: str) -> float:
    """Return the value of a feature that stands for "as usual" where the schema has no default."""
    return FEATURES[name].usual if name in FEATURES else 0.0
