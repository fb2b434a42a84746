"""Inputs that a model would take, made from the interface that it declares. Pure.

It decides what is sent where nobody has said anything: examples of the schema first, then defaults, then the least
that fits. Prompts are harmless and differ, as do seeds, so that no two outputs need be alike. Media are small pictures
and sounds drawn here; a film is asked of the person. It sends nothing: `forestay model profile` and `onboard` do.
"""

import base64
import io
import math
import struct
import wave
import zlib
from collections.abc import Mapping, Sequence
from typing import cast

from forestay.capacity.features import input_schema
from forestay.errors import UsageError

PROMPTS = (
    "a small red boat on a calm lake",
    "a bowl of oranges on a wooden table",
    "a lighthouse above a rocky coast",
    "a green bicycle leaning on a brick wall",
    "a snowy mountain under a clear sky",
    "a field of yellow tulips in the morning",
    "a wooden bridge across a narrow river",
)
_DEEPEST = 8
_PICTURE_SIDE = 64
_SOUND_RATE, _SOUND_SECONDS = 16_000, 1.0
_NUMBERS = {"integer", "number"}
_FORMATS = {
    "uri": "https://example.com/",
    "email": "someone@example.com",
    "uuid": "00000000-0000-4000-8000-000000000001",
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00",
}

Node = Mapping[str, object]


class _Maker:
    """Makes values of one document; `number` tells inputs apart."""

    def __init__(self, document: Node, media: Mapping[str, str], number: int) -> None:
        self._document = document
        self._media = media
        self._number = number

    def whole(self, schema: Node, depth: int = _DEEPEST) -> dict[str, object]:
        """Return an object with what is required, a seed, and the media that the spec names."""
        schema = self.resolved(schema, depth)
        required = set(cast("list[str]", schema.get("required") or []))
        made: dict[str, object] = {}
        for name, node in _properties(schema).items():
            if name in required or _is_seed(name):
                made[name] = self.value(name, self.resolved(node, depth), depth - 1)
        return made

    def value(self, name: str, node: Node, depth: int) -> object:
        """Return a value of one field."""
        if depth <= 0:
            return None
        if name in self._media:
            one = _medium(name, self._media[name])
            return [one] if node.get("type") == "array" else one
        if _is_seed(name):
            return self._number
        if node.get("type") == "string" and _says_prompt(name):
            return self._text(node)
        found = _said(node)
        return self._made(name, node, depth) if found is None else found

    def _made(self, name: str, node: Node, depth: int) -> object:
        kind = node.get("type")
        if kind == "object":
            return self.whole(node, depth)
        if kind == "array" and isinstance(node.get("prefixItems"), list):
            places = cast("list[Node]", node["prefixItems"])
            return [self.value(name, self.resolved(item, depth), depth - 1) for item in places]
        if kind == "array":
            item = self.resolved(cast("Node", node.get("items") or {}), depth)
            return [self.value(name, item, depth - 1) for _ in range(int(_number(node.get("minItems"), 0)))]
        if kind in _NUMBERS:
            return _number_within(node, whole=kind == "integer")
        return False if kind == "boolean" else self._text(node)

    def _text(self, node: Node) -> str:
        if node.get("format") in _FORMATS:
            return _FORMATS[str(node["format"])]
        text = PROMPTS[self._number % len(PROMPTS)]
        longest, shortest = _number(node.get("maxLength"), len(text)), _number(node.get("minLength"), 0)
        return text.ljust(int(shortest), ".")[: int(longest)]

    def resolved(self, node: Node, depth: int) -> Node:
        """Follow references, and take the first choice that is not null."""
        reference = node.get("$ref")
        if isinstance(reference, str) and depth > 0:
            found: object = self._document
            for step in reference.removeprefix("#/").split("/"):
                found = _mapping(found).get(step)
            return self.resolved(_mapping(found), depth - 1)
        for word in ("allOf", "anyOf", "oneOf"):
            choices = [item for item in cast("list[Node]", node.get(word) or []) if item.get("type") != "null"]
            if choices and depth > 0:
                return {**self.resolved(choices[0], depth - 1), **{k: v for k, v in node.items() if k != word}}
        return node


def sample_input(
    document: Node | None, endpoint: str, media: Mapping[str, str] | None = None, number: int = 0
) -> dict[str, object]:
    """Return the `number`th input of an endpoint; `media` maps its media fields to their kinds.

    Raises UsageError where it cannot be made: nothing is declared, or a film or weights are needed.
    """
    schema = input_schema(document, endpoint) if document is not None else None
    if document is None or schema is None:
        raise UsageError("--input", f"{endpoint} declares no input; give one as JSON, or as @FILE")
    return _Maker(document, media or {}, number).whole(schema)


def sample_inputs(
    document: Node | None, endpoint: str, media: Mapping[str, str] | None, count: int
) -> Sequence[dict[str, object]]:
    """Return `count` inputs that differ in prompt and seed."""
    return [sample_input(document, endpoint, media, number) for number in range(count)]


def properties_of(document: Node, schema: Node) -> Mapping[str, Node]:
    """Return the fields of an input's schema by name, with references followed and choices made."""
    maker = _Maker(document, {}, 0)
    return {
        name: maker.resolved(node, _DEEPEST) for name, node in _properties(maker.resolved(schema, _DEEPEST)).items()
    }


def _mapping(value: object) -> Node:
    return cast("Node", value) if isinstance(value, Mapping) else {}


def _properties(schema: Node) -> Mapping[str, Node]:
    found = schema.get("properties")
    return cast("Mapping[str, Node]", found) if isinstance(found, Mapping) else {}


def _said(node: Node) -> object:
    """Return what the schema itself offers: an example, the default, the only or the first choice."""
    examples = node.get("examples")
    if isinstance(examples, list) and examples:
        return cast("list[object]", examples)[0]
    for word in ("example", "default", "const"):
        if node.get(word) is not None:
            return node[word]
    choices = node.get("enum")
    return cast("list[object]", choices)[0] if isinstance(choices, list) and choices else None


def _is_seed(name: str) -> bool:
    return name.lower() in {"seed", "random_seed", "noise_seed"}


def _says_prompt(name: str) -> bool:
    return "prompt" in name.lower() or name.lower() in {"text", "gen_text", "script", "caption"}


def _number(value: object, otherwise: float) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else otherwise


def _number_within(node: Node, *, whole: bool) -> float:
    """Return 1, or the number nearest to it that a field takes: within its bounds, a multiple of what it says."""
    step = _number(node.get("multipleOf"), 1.0 if whole else 0.0)
    least, above = _number(node.get("minimum"), -math.inf), _number(node.get("exclusiveMinimum"), -math.inf)
    most, below = _number(node.get("maximum"), math.inf), _number(node.get("exclusiveMaximum"), math.inf)
    if step <= 0:
        found = min(max(1.0, least), most)
        low, high = max(least, above), min(most, below)
        inside = low + 1 if high == math.inf else high - 1 if low == -math.inf else (low + high) / 2
        return found if above < found < below else inside
    lowest = max(math.ceil(least / step) if least > -math.inf else -math.inf, _after(above, step))
    highest = min(math.floor(most / step) if most < math.inf else math.inf, -_after(-below, step))
    found = max(lowest, min(math.ceil(1.0 / step), highest)) * step
    return round(found) if whole else found


def _after(bound: float, step: float) -> float:
    """Return the first count of steps that is beyond a bound."""
    return math.floor(bound / step) + 1 if math.isfinite(bound) else bound


def _medium(field: str, kind: str) -> str:
    if kind == "audio":
        return _url("audio/wav", sound())
    if kind in {"video", "weights", "file"}:
        raise UsageError(
            "--input", f"{field} needs a {kind}, which is not made here; give an input as JSON, or as @FILE"
        )
    return _url("image/png", picture())


def _url(media_type: str, body: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(body).decode()}"


def picture() -> bytes:
    """Return a small PNG: a slope of colours, `[64, 64, 3] uint8` (PNG, third edition, sections 9 and 11)."""
    side = _PICTURE_SIDE
    rows = b"".join(
        b"\x00" + bytes(value for x in range(side) for value in (4 * x, 4 * y, 255 - 2 * (x + y))) for y in range(side)
    )
    pieces = (
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, body) for name, body in pieces)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def sound() -> bytes:
    """Return a WAV: one second of a tone of 440 Hz, `[16000] int16`."""
    count = int(_SOUND_RATE * _SOUND_SECONDS)
    values = [round(8_000 * math.sin(2 * math.pi * 440 * n / _SOUND_RATE)) for n in range(count)]
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_SOUND_RATE)
        file.writeframes(struct.pack(f"<{count}h", *values))
    return target.getvalue()
