"""Durations as people type them: 90s, 30m, 12h, 7d."""

import re

from forestay.errors import UsageError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds_of(option: str, text: str) -> int:
    """Return the seconds that `text` means; raises UsageError naming the option."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if match is None:
        raise UsageError(option, f"{text!r} is not a number with s, m, h or d, for example 30d")
    return int(match[1]) * _UNITS[match[2]]
