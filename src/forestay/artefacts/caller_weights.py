"""Weights that a caller sends or names (a LoRA): may they reach the model?

It decides by the same readers as admission, without waivers: a stranger's pickle is never taken. Called by the worker
for each such input; the time grows with the header only.
"""

import pathlib
from collections.abc import Collection

from forestay.artefacts.examine import examine
from forestay.artefacts.findings import FlawKind
from forestay.artefacts.source import BytesSource, Source, open_file


def check_weights(path_or_bytes: pathlib.Path | bytes, kinds: Collection[str] = ("safetensors",)) -> str | None:
    """Return why weights may not be used, in words for their sender; None when they are whole and of one of `kinds`.

    `kinds` are values of `formats.Format`. OSError when a path cannot be read.
    """
    if isinstance(path_or_bytes, bytes):
        return _check(BytesSource(path_or_bytes), kinds)
    with open_file(path_or_bytes) as source:
        return _check(source, kinds)


def _check(source: Source, kinds: Collection[str]) -> str | None:
    result = examine("", source)
    wanted = " or ".join(kinds)
    serious = next((flaw for flaw in result.flaws if flaw.kind is not FlawKind.UNKNOWN), None)
    if result.format not in kinds:
        return f"weights must be {wanted}; these bytes are {result.format}"
    if result.external:
        return "weights must be one file; these name others"
    return f"these weights are broken: {serious.where}: {serious.what}" if serious else None
