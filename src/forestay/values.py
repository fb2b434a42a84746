"""Small values that the hot paths make by the thousand: frozen to the type checker, plain to the interpreter.

A frozen dataclass sets each field through `object.__setattr__`, which makes building one several times as dear; of a
call that costs 150 us, building its values was 20. Who may change one is decided before the program runs: basedpyright
refuses every assignment. It decides nothing else, and everything outside the paths of a call stays an ordinary frozen
dataclass.
"""

import dataclasses
import types
from collections.abc import Callable
from typing import TypeVar, cast, dataclass_transform

Kind = TypeVar("Kind")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def hot_value(kind: type[Kind]) -> type[Kind]:
    """Make a dataclass with slots, compared and hashed by its fields, that nothing may change once it is built."""
    for default in vars(kind).values():
        if isinstance(default, dataclasses.Field):
            field = cast("dataclasses.Field[object]", default)
            if isinstance(field.default_factory, types.GenericAlias):  # `dict[str, int]()` costs twice a `dict()`
                field.default_factory = cast("Callable[[], object]", field.default_factory.__origin__)
    return dataclasses.dataclass(slots=True, unsafe_hash=True)(kind)
