"""How a setting is declared: its environment variable, its default, and what changes with it.

It decides which numbers can be a setting at all: finite ones that are not negative, ports, shares. Used by `settings`
and by the groups that have a module of their own; it reads nothing.
"""

import dataclasses
from typing import TypeVar

T = TypeVar("T")
_MOST = 10**15  # bytes of a petabyte, seconds of thirty million years: beyond it a digit was typed too often
_LAST_PORT = 65_535


def setting(variable: str, default: T, doc: str) -> T:
    """Declare a field: its environment variable, its default, and what changes with it."""
    return dataclasses.field(default=default, metadata={"variable": variable, "doc": doc})


def number_fault(variable: str, value: object) -> str:
    """Say what is wrong with a number for `variable`; empty where it can be one, or is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if variable.endswith("_PORT"):
        return (
            "" if -1 <= value <= _LAST_PORT else f"is no port; expected 0 to {_LAST_PORT}, or -1 where that disables it"
        )
    most = 1 if variable.endswith("_RATIO") else _MOST
    return "" if 0 <= value <= most else f"is out of range; expected 0 to {most:,}"  # no comparison holds for nan
