"""How a setting is declared: its environment variable, its default, and what changes with it.

Used by `settings` and by the groups that have a module of their own; it reads nothing.
"""

import dataclasses
from typing import TypeVar

T = TypeVar("T")


def setting(variable: str, default: T, doc: str) -> T:
    """Declare a field: its environment variable, its default, and what changes with it."""
    return dataclasses.field(default=default, metadata={"variable": variable, "doc": doc})
