"""What jsonschema-rs found, said as pydantic says it: `type`, `msg`, `loc`, `input` and `ctx` of its 422.

Clients and people know pydantic's words (https://docs.pydantic.dev/latest/errors/validation_errors/), so an input that
the gateway refuses reads the same as one that the model refuses. Pure; called by `validation`.
"""

from collections.abc import Iterator, Mapping
from typing import cast

import jsonschema_rs

from forestay.gateway.protocol import FieldError

Kind = jsonschema_rs.ValidationErrorKind
Location = list[str | int]

# declared type -> (type and message for a value that is no such thing, type and message for one that does not parse)
_TYPE_WORDS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "integer": (
        ("int_type", "Input should be a valid integer"),
        ("int_parsing", "Input should be a valid integer, unable to parse string as an integer"),
    ),
    "number": (
        ("float_type", "Input should be a valid number"),
        ("float_parsing", "Input should be a valid number, unable to parse string as a number"),
    ),
    "boolean": (
        ("bool_type", "Input should be a valid boolean"),
        ("bool_parsing", "Input should be a valid boolean, unable to interpret input"),
    ),
    "string": (("string_type", "Input should be a valid string"),) * 2,
    "array": (("list_type", "Input should be a valid list"),) * 2,
    "object": (("model_attributes_type", "Input should be a valid dictionary or object to extract fields from"),) * 2,
    "null": (("none_required", "Input should be None"),) * 2,
}
_FROM_FLOAT = ("int_from_float", "Input should be a valid integer, got a number with a fractional part")

# kind -> (pydantic's type, its words, its key in ctx)
_BOUND_WORDS: Mapping[type, tuple[str, str, str]] = {
    Kind.Minimum: ("greater_than_equal", "greater than or equal to", "ge"),
    Kind.Maximum: ("less_than_equal", "less than or equal to", "le"),
    Kind.ExclusiveMinimum: ("greater_than", "greater than", "gt"),
    Kind.ExclusiveMaximum: ("less_than", "less than", "lt"),
}
_SIZE_WORDS: Mapping[type, tuple[str, str, str]] = {
    Kind.MinLength: ("string_too_short", "at least", "min_length"),
    Kind.MaxLength: ("string_too_long", "at most", "max_length"),
    Kind.MinItems: ("too_short", "at least", "min_length"),
    Kind.MaxItems: ("too_long", "at most", "max_length"),
    Kind.MinProperties: ("too_short", "at least", "min_length"),
    Kind.MaxProperties: ("too_long", "at most", "max_length"),
}


def translate(error: jsonschema_rs.ValidationError, declared: str) -> Iterator[FieldError]:
    """Say one error in pydantic's words; `declared` is the leaf's type before it was loosened, or empty."""
    kind = error.kind
    loc: Location = ["body", *error.instance_path]
    value = cast("object", error.instance)
    if isinstance(kind, Kind.Required):
        yield FieldError([*loc, kind.property], "Field required", "missing", value)
    elif isinstance(kind, Kind.AdditionalProperties):
        fields = cast("Mapping[str, object]", value)
        for name in kind.unexpected:
            yield FieldError([*loc, name], "Extra inputs are not permitted", "extra_forbidden", fields.get(name))
    elif isinstance(kind, Kind.Type) or declared == "boolean" or (declared and isinstance(kind, Kind.Pattern)):
        types = kind.types if isinstance(kind, Kind.Type) else []
        yield _type_error(loc, value, declared or next((name for name in types if name != "null"), "null"))
    elif isinstance(kind, Kind.Enum | Kind.Constant):
        options = kind.options if isinstance(kind, Kind.Enum) else [kind.expected_value]
        expected = _either([repr(option) for option in options])
        yield FieldError(loc, f"Input should be {expected}", "literal_error", value, {"expected": expected})
    else:
        yield _limit_error(error, loc, value)


def _type_error(loc: Location, value: object, declared: str) -> FieldError:
    wrong, unparsed = _TYPE_WORDS.get(declared, _TYPE_WORDS["null"])
    if declared == "integer" and isinstance(value, float):
        name, message = _FROM_FLOAT
    elif isinstance(value, str) or (declared == "boolean" and isinstance(value, int | float)):
        name, message = unparsed
    else:
        name, message = wrong
    return FieldError(loc, message, name, value)


def _limit_error(error: jsonschema_rs.ValidationError, loc: Location, value: object) -> FieldError:
    """Say which limit a value of the right type breaks."""
    kind = error.kind
    if type(kind) in _BOUND_WORDS:
        name, words, key = _BOUND_WORDS[type(kind)]
        limit = _number(kind.value)
        return FieldError(loc, f"Input should be {words} {limit}", name, value, {key: limit})
    if type(kind) in _SIZE_WORDS:
        return _size_error(kind, loc, value)
    if isinstance(kind, Kind.MultipleOf):
        limit = _number(kind.multiple_of)
        message = f"Input should be a multiple of {limit}"
        return FieldError(loc, message, "multiple_of", value, {"multiple_of": limit})
    if isinstance(kind, Kind.Pattern):
        message = f"String should match pattern '{kind.pattern}'"
        return FieldError(loc, message, "string_pattern_mismatch", value, {"pattern": kind.pattern})
    return FieldError(loc, error.message[:500], "value_error", value, {"error": kind.name})


def _size_error(kind: Kind, loc: Location, value: object) -> FieldError:
    name, words, key = _SIZE_WORDS[type(kind)]
    limit = int(_number(kind.value))
    plural = "" if limit == 1 else "s"
    if isinstance(value, str):
        message = f"String should have {words} {limit} character{plural}"
        return FieldError(loc, message, name, value, {key: limit})
    items = cast("list[object] | dict[str, object]", value)
    what, size = "List" if isinstance(items, list) else "Dictionary", len(items)
    message = f"{what} should have {words} {limit} item{plural} after validation, not {size}"
    ctx: dict[str, object] = {"field_type": what, key: limit, "actual_length": size}
    return FieldError(loc, message, name, items, ctx)


def _number(value: object) -> int | float:
    return value if isinstance(value, int | float) else float(str(value))


def _either(options: list[str]) -> str:
    return options[0] if len(options) == 1 else f"{', '.join(options[:-1])} or {options[-1]}"
