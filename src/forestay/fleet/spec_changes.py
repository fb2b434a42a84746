"""What differs between two specs, field by field. Pure. Called by `model diff` and by rollouts' reports."""

from collections.abc import Iterator
from typing import cast


def spec_changes(old: object, new: object, field: str = "") -> Iterator[tuple[str, object, object]]:
    """Yield the dotted name of each field of two specs (as plain values) that differs, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        olds, news = cast("dict[str, object]", old), cast("dict[str, object]", new)
        for key in sorted(olds.keys() | news.keys()):
            yield from spec_changes(olds.get(key), news.get(key), f"{field}.{key}" if field else key)
    elif old != new:
        yield field, old, new
