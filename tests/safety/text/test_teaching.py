"""The teaching code: what it fits is what the detector reads, and nothing that tests is taught."""

import pathlib

import numpy as np
import pytest

pytest.importorskip("scipy")

from tools.text_guard import features, fit
from tools.text_guard.rows import SETS, Row, contrast_rows, read_rows

from forestay.errors import UsageError
from forestay.safety.taxonomy import Category
from forestay.safety.text import model
from forestay.safety.text.canonical import views
from forestay.safety.text.grams import grams_of
from forestay.safety.text.lexicon import counts
from forestay.safety.text.measure import auroc, measured

HARM = ("a storm wrecks the tower", "the tower falls in flames", "smash the old tower")
PEACE = ("a lamp by the window", "the window lets in light", "wash the old window")


def made_rows() -> list[Row]:
    """Return some rows of every set, made up here."""
    rows: list[Row] = []
    for name, kind in SETS.items():
        for number in range(8):
            harmful = number % 2 == 0
            text = f"{(HARM if harmful else PEACE)[number % 3]} {name} {number}"
            category = (Category.VIOLENCE, Category.HATE)[number % 4 // 2] if harmful else None
            rows.append(Row(text, name, kind.register, harmful, category, len(rows)))
    return rows


def teacher_of(rows: list[Row]) -> fit.Teacher:
    """Return a teacher of rows, without embeddings."""
    folded = [views(row.text).folded for row in rows]
    grams = features._grams(folded)
    matrix = features.Matrix(np.array([counts(text) for text in folded], float), np.zeros((len(rows), 0)), grams)
    return fit.Teacher(rows, matrix)


def test_scores_of_many_rows_at_once_are_those_of_the_detector_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that go through the file score as they did while they were taught, and tell harm from peace."""
    monkeypatch.setattr(fit, "ROUNDS", 6)
    monkeypatch.setattr(fit, "INNER_FOLDS", 2)
    rows = made_rows()
    teacher = teacher_of(rows)
    weights = teacher.fit(np.arange(len(rows)), ("linear",))
    together = fit.scores(weights, "linear", teacher.matrix)
    for row, score in zip(rows[:12], together, strict=False):
        text = views(row.text).folded
        one = model.Features(grams_of(text), counts(text), None)
        assert model.score(weights.modes["linear"], one) == pytest.approx(score, abs=1e-4)
    assert auroc(together, teacher.truth == 1) > 0.95
    assert weights.categories == (Category.VIOLENCE, Category.HATE)


def test_what_is_measured_goes_only_as_deep_as_the_detector_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to SURE the cheap score counts, up to CALM that of half of the model, else the whole one's."""
    said = {"linear": [0.001, 0.5, 0.5, 0.5], "early": [0.9, 0.01, 0.2, 0.9], "meaning": [0.7, 0.7, 0.7, 0.01]}
    monkeypatch.setattr(fit, "scores", lambda _weights, mode, _matrix: np.array(said[mode]))
    matrix = features.Matrix(np.zeros((4, 0)), np.zeros((4, 0)), fit.sp.csr_matrix((4, 1)))
    weights = model.Weights("", {}, ())
    assert list(fit.scores_of(weights, "meaning", matrix)) == [0.001, 0.01, 0.7, 0.01]
    assert list(fit.scores_of(weights, "linear", matrix)) == said["linear"]


def test_an_ngram_tells_by_the_kind_of_rows_that_hold_it_and_one_of_a_single_row_tells_nothing() -> None:
    """Positive where harmful rows have it, negative for harmless ones, whatever rows weigh."""
    held = np.array([[1, 0, 1, 0], [1, 0, 1, 1], [0, 1, 1, 0], [0, 1, 1, 0]], dtype=float)
    truth = np.array([1.0, 1.0, 0.0, 0.0])
    told = fit.telling(fit.sp.csr_matrix(held), truth, np.array([5.0, 5.0, 1.0, 1.0]))
    assert told[0] > 0 > told[1]
    assert told[0] == pytest.approx(-told[1])
    assert told[2] == pytest.approx(0)
    assert told[3] == 0


def test_near_duplicates_are_never_split_between_teaching_and_testing() -> None:
    """A group is in one fold, whatever the seed."""
    rows = [Row(f"text {at}", "openai", next(iter(model.Register)), None, None, at // 3) for at in range(60)]
    teacher = teacher_of(rows)
    for seed in range(4):
        fold = teacher.folds(seed, 5)
        assert all(len(set(fold[at : at + 3])) == 1 for at in range(0, 60, 3))


def test_the_lines_of_our_own_are_many_of_both_kinds_and_the_same_every_time() -> None:
    """The contrast file is well formed: every list it names is there."""
    first, again = contrast_rows({}), contrast_rows({})
    assert [row.text for row in first] == [row.text for row in again]
    assert sum(bool(row.harmful) for row in first) > 500
    assert sum(not row.harmful for row in first) > 500
    assert not any("{" in row.text for row in first)


def test_a_missing_set_is_told_by_its_file(tmp_path: pathlib.Path) -> None:
    """Not taught from half of the sets."""
    with pytest.raises(UsageError, match="openai_moderation"):
        read_rows(tmp_path)


def test_auroc_counts_ties_half_and_an_interval_holds_its_value() -> None:
    """By hand: three of four pairs are in order, one is a tie."""
    score, harmful = np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False])
    assert auroc(score, harmful) == pytest.approx(3.5 / 4)
    assert np.isnan(auroc(score, np.array([True] * 4)))
    found = measured(np.arange(4), lambda rows: float(score[rows].mean()))
    assert found.low <= found.value <= found.high
