"""The text detectors as the judge serves them."""

from collections.abc import Sequence
from typing import cast

import pytest

from forestay.safety.classifiers import registry
from forestay.safety.classifiers import text as classifier
from forestay.safety.classifiers.text import MEANING_CHARS, TextDetector, detectors
from forestay.safety.judge.folder import missing
from forestay.safety.judge.lanes import Detector
from forestay.safety.model import DetectorInfo, Outcome, Picture, Scores, Text, Trouble, Unscored
from forestay.safety.taxonomy import Category, Modality
from forestay.safety.text.detector import TextGuard, TextScores
from forestay.settings import Judge

pytestmark = pytest.mark.skipif(bool(missing()), reason="the extra `safety` is not installed")
GERMAN = "Ein kleiner roter Fuchs sitzt im tiefen Schnee und schaut den Kindern zu, die am Ufer des Sees spielen."


@pytest.fixture(scope="module")
def both() -> dict[str, Detector]:
    """The two, loaded."""
    made = {one.info.detector_id: one for one in detectors()}
    for one in made.values():
        one.load()
    return made


def trouble_of(outcome: Outcome) -> Trouble | None:
    """What went wrong, None for scores."""
    return outcome.trouble if isinstance(outcome, Unscored) else None


def test_one_is_cheap_one_is_costly_and_both_judge_texts(both: dict[str, Detector]) -> None:
    """Under the names that policies use."""
    assert {name: one.info.costly for name, one in both.items()} == {"text-linear@1": False, "text-meaning@1": True}
    assert all(set(one.info.covers) == {Modality.TEXT} for one in both.values())
    assert len({one.info.digest for one in both.values()}) == 1


@pytest.mark.parametrize("name", ["text-linear@1", "text-meaning@1"])
def test_a_harmless_text_scores_low_and_a_marker_scores_one(both: dict[str, Detector], name: str) -> None:
    """Also where the marker is spelt to be overlooked."""
    calm = both[name].score(Text("prompt", "a lighthouse on a cliff at dawn, oil painting"))
    assert isinstance(calm, Scores)
    assert max(calm.scores.values()) < 0.5
    marked = both[name].score(Text("prompt", "a lighthouse M\u200bARKER-7F3A"))
    assert isinstance(marked, Scores)
    assert marked.scores[Category.MINORS] == 1.0
    assert "MARKER" not in str(marked.notes)


@pytest.mark.parametrize("name", ["text-linear@1", "text-meaning@1"])
def test_a_language_that_is_not_covered_is_no_low_score(both: dict[str, Detector], name: str) -> None:
    """It is trouble; a marker in it still counts."""
    assert trouble_of(both[name].score(Text("prompt", GERMAN))) is Trouble.LANGUAGE
    marked = both[name].score(Text("prompt", f"{GERMAN} MARKER-7F3A"))
    assert isinstance(marked, Scores)


def test_what_is_too_long_to_be_judged_in_time_is_unreadable(both: dict[str, Detector]) -> None:
    """No text keeps the judge busy until it counts as hung."""
    long = Text("prompt", "a harbour " * (MEANING_CHARS // 10 + 1))
    assert trouble_of(both["text-meaning@1"].score(long)) is Trouble.UNREADABLE
    assert trouble_of(both["text-linear@1"].score(long)) is None
    assert trouble_of(both["text-linear@1"].score(Text("prompt", "a harbour " * 30_000))) is Trouble.UNREADABLE


class Counting:
    """A guard that counts what it scores."""

    info = DetectorInfo("text-linear@1", "sha256:a", {}, costly=False)

    def __init__(self) -> None:
        self.scored: list[str] = []

    def score(self, texts: Sequence[str]) -> list[TextScores]:
        """Score by length."""
        self.scored += texts
        return [TextScores({Category.HATE: len(text) / 100}, "en", frozenset(), {}) for text in texts]


def test_a_text_that_comes_again_is_not_scored_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer is the same, under its new place; a text that is like it is another; old ones make room."""
    monkeypatch.setattr(classifier, "MOST_REMEMBERED", 2)
    guard = Counting()
    detector = TextDetector(cast("TextGuard", guard), meaning=False)
    for text in ("a sea", "a sea", "a sea ", "a cat", "a sea "):
        outcome = detector.score(Text("prompt", text))
        assert isinstance(outcome, Scores)
        assert outcome.scores == {Category.HATE: len(text) / 100}
    again = detector.score(Text("caption", "a cat"))
    assert (again.where, guard.scored) == ("caption", ["a sea", "a sea ", "a cat"])
    detector.score(Text("prompt", "a sea"))
    assert guard.scored[-1] == "a sea"


def test_a_picture_is_no_text(both: dict[str, Detector]) -> None:
    """Nor the other way round."""
    assert trouble_of(both["text-linear@1"].score(Picture("image", 1, 1, b"abc"))) is Trouble.UNREADABLE


def test_the_cheap_one_is_served_where_the_packages_of_the_costly_one_are_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A platform without the extra still judges texts; no policy can count on the costly one there."""
    monkeypatch.setattr(classifier, "missing", lambda: "onnxruntime")
    known = {one.info.detector_id for one in registry.installed(Judge())}
    assert "text-linear@1" in known
    assert "text-meaning@1" not in known
