"""Detectors of several homes as one: those that run in this process, and those of the judge.

Decides which home is asked: a detector without weights runs here, where nothing can take it down; all others are the
judge's. Without a judge every check of theirs is trouble. The adapter of `model.Detectors` that guards are given.
"""

from collections.abc import Mapping, Sequence

from forestay.errors import Unavailable
from forestay.safety.model import Content, DetectorInfo, Detectors, Outcome, Trouble, Unscored


class RoutedDetectors:
    """The detectors of this process, and a judge or none."""

    def __init__(self, own: Mapping[str, Detectors], judge: Detectors | None) -> None:
        self._own = own
        self._judge = judge

    async def known(self) -> Sequence[DetectorInfo]:
        """Return what can be asked now; a judge that is silent adds nothing."""
        found = [info for home in dict.fromkeys(self._own.values()) for info in await home.known()]
        if self._judge is not None:
            try:
                found += await self._judge.known()
            except Unavailable:
                if not found:
                    raise
        return found

    async def ask(self, detector_id: str, contents: Sequence[Content], within_seconds: float) -> Sequence[Outcome]:
        """Ask the home of the detector."""
        home = self._own.get(detector_id, self._judge)
        if home is None:
            return [Unscored(detector_id, content.where, Trouble.CRASH) for content in contents]
        return await home.ask(detector_id, contents, within_seconds)
