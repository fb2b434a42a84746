"""Which detectors the judge of this host serves: those whose packages and weights are there.

Decides what counts as there: the package is installed and its weights have the digest that is expected; whatever is
not is left out and told in the log, so that no policy can count on it. Called by `forestay judge`.
"""

import importlib
from collections.abc import Callable, Iterable
from typing import cast

from forestay.errors import ForestayError
from forestay.safety.judge.lanes import Detector
from forestay.settings import Judge
from forestay.telemetry.logs import logger

_LOG = logger("judge")
_BUNDLED = (
    "forestay.safety.classifiers.text",
    "forestay.safety.classifiers.nsfw",
    "forestay.safety.classifiers.drawn_text",
)
_MARKERS = "forestay.safety.classifiers.marker"


def installed(settings: Judge) -> list[Detector]:
    """Return the detectors that can be loaded here, not loaded yet."""
    modules = (*_BUNDLED, _MARKERS) if settings.markers else _BUNDLED
    found: list[Detector] = []
    for module in modules:
        try:
            brought = cast("Callable[[], Iterable[Detector]]", importlib.import_module(module).detectors)
            for detector in brought():  # one after the other: what a module brings before it fails is kept
                found.append(detector)  # noqa: PERF402
        except (ForestayError, ImportError) as error:
            _LOG.warning("judge.detector_left_out", module=module, reason=str(error))
    return found
