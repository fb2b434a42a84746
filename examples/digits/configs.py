"""Keeps what is of one machine out of the configs that are saved beside weights."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def forget_paths(weights: Path) -> None:
    """Take the folder of this machine out of the configs, where saving what was loaded from it has written it."""
    for file in sorted(weights.rglob("*.json")):
        values = json.loads(file.read_text())
        if isinstance(values, dict) and values.pop("_name_or_path", None) is not None:
            file.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
