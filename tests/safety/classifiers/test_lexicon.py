"""The check that stands in for the judge: there when nothing else is, and quick."""

import pytest

from forestay.clock import SystemClock
from forestay.safety.classifiers.lexicon import DETECTOR_ID, LEFT, LONGEST_CHARS, LexiconDetectors
from forestay.safety.model import Outcome, Picture, Scores, Text, Trouble, Unscored
from forestay.safety.routed import RoutedDetectors
from forestay.safety.taxonomy import Category, Modality
from forestay.safety.text import lexicon

GERMAN = "Ein kleiner roter Fuchs sitzt im tiefen Schnee und schaut den Kindern zu, die am Ufer des Sees spielen."


@pytest.fixture
def detectors() -> RoutedDetectors:
    """A process without a judge."""
    return RoutedDetectors({DETECTOR_ID: LexiconDetectors(SystemClock())}, None)


async def one(detectors: RoutedDetectors, text: str, within: float = 5.0) -> Outcome:
    """Ask about one text."""
    [outcome] = await detectors.ask(DETECTOR_ID, [Text("prompt", text)], within)
    return outcome


async def test_it_is_there_without_a_judge_and_says_what_it_covers(detectors: RoutedDetectors) -> None:
    """The categories that have a list, and markers."""
    [info] = await detectors.known()
    assert (info.detector_id, info.costly) == (DETECTOR_ID, False)
    assert {Category.HATE, Category.SEXUAL, Category.MINORS} <= info.covers[Modality.TEXT]
    assert Category.ADVICE not in info.covers[Modality.TEXT]


async def test_a_harmless_text_scores_nothing_and_a_disguised_marker_one(detectors: RoutedDetectors) -> None:
    """It reads the canonical form as the others do."""
    calm = await one(detectors, "a lighthouse on a cliff at dawn, oil painting")
    assert isinstance(calm, Scores)
    assert max(calm.scores.values(), default=0.0) == 0.0
    marked = await one(detectors, "a lighthouse M\u200bARKER-54F3")
    assert isinstance(marked, Scores)
    assert marked.scores[Category.HATE] == 1.0


async def test_more_words_of_a_list_score_higher_and_never_more_than_one(
    detectors: RoutedDetectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One word alone stays below the operating point."""
    found: list[float] = []
    for count in (1, 2, 3, 50):
        monkeypatch.setattr("forestay.safety.classifiers.lexicon.hints", lambda _, count=count: {"hate": count})
        outcome = await one(detectors, "a lighthouse")
        assert isinstance(outcome, Scores)
        found.append(outcome.scores[Category.HATE])
    assert found == sorted(found)
    assert found[0] == pytest.approx(1 - LEFT)
    assert found[0] < 0.5 <= found[1] < 0.75 <= found[2] < found[3] <= 1.0


async def test_what_it_cannot_judge_is_trouble(detectors: RoutedDetectors) -> None:
    """Another language, too long, too late, a picture."""
    found = [
        await one(detectors, GERMAN),
        await one(detectors, "a" * (LONGEST_CHARS + 1)),
        await one(detectors, "a harbour " * 10_000, within=0.0),
        *await detectors.ask(DETECTOR_ID, [Picture("image", 1, 1, b"abc")], 5.0),
    ]
    troubles = [outcome.trouble if isinstance(outcome, Unscored) else None for outcome in found]
    assert troubles == [Trouble.LANGUAGE, Trouble.UNREADABLE, Trouble.TIMEOUT, Trouble.UNREADABLE]


def test_every_list_that_scores_is_named_after_a_category() -> None:
    """A misspelt list would score nothing."""
    names, _ = lexicon._lists()
    assert {name for name in names if not name.startswith("=")} <= {category.value for category in Category}
