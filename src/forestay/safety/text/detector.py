"""The text detector: from strings to scores by category, with what was seen on the way. It decides nothing.

Each text is scored in its folded view, and where that undid a disguise also in its raw view, which counts where it is
sure.
Two detectors share the work: `text-linear@1` needs numpy alone, `text-meaning@1` also the packages of the extra
`safety` and some milliseconds (about 0.2 ms a token on one core with VNNI). It goes no further than it must: where the
cheap heads are sure that a text is harmless, or those over half of the embedding model are, the rest is not asked. A
long text is scored in pieces, so that padding hides nothing. Called by the judge's process,
`forestay safety evaluate` and the benches; weights load once, in `TextGuard.load`.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from forestay.safety.model import DetectorInfo
from forestay.safety.taxonomy import Category, Modality
from forestay.safety.text.canonical import MAX_CHARS, Views, views
from forestay.safety.text.grams import grams_of
from forestay.safety.text.language import language_of
from forestay.safety.text.lexicon import Markers, counts, default_markers, hints
from forestay.safety.text.model import (
    STRIDE_TOKENS,
    WINDOW_TOKENS,
    Features,
    Floats,
    Weights,
    by_category,
    early_of,
    load,
    read_card,
    score,
)
from forestay.sentences import Sentences

OPERATING_POINT = 0.5  # of the overall score
LINEAR, MEANING = "text-linear@1", "text-meaning@1"
MAX_WINDOWS = 12  # of a long text that are embedded, evenly spread
PIECE_CHARS, OVERLAP_CHARS = 2_000, 200  # of a long text that are scored at once
RAW_SURE = 0.9  # from here on a score of the raw view counts: the heads were never taught what a disguise looks like
SURE = 0.003  # up to here the cheap score decides: the embedding model is not asked
CALM = 0.05  # up to here the score over half of the embedding model decides: the other half is not asked


@dataclasses.dataclass(frozen=True, slots=True)
class TextScores:
    """What is known of one text: the highest score is how harmful it is, 0.5 the operating point."""

    scores: Mapping[Category, float]
    language: str  # ISO 639-1; empty when the text is too short or mixed to tell
    disguises: frozenset[str]
    matched: Mapping[str, str]  # what lists saw: how many words of which category, which marker category

    @property
    def overall(self) -> float:
        """Return the highest score."""
        return max(self.scores.values(), default=0.0)


def declared(*, with_embeddings: bool) -> DetectorInfo:
    """Return what the shipped detector declares, without loading its weights."""
    card = read_card()
    return _declared(card.digest, card.categories, dear=with_embeddings)


def _declared(digest: str, categories: Sequence[Category], *, dear: bool) -> DetectorInfo:
    covers = {Modality.TEXT: frozenset(categories) | {Category.MINORS}}  # minors: by marker alone
    return DetectorInfo(MEANING if dear else LINEAR, digest, covers, dear)


@dataclasses.dataclass(frozen=True, slots=True)
class Begun:
    """What half of the model saw of each window: its mean `[384]`, and all of it, from which the other half goes on."""

    windows: Sequence[tuple[Floats, Floats]]

    @property
    def mean(self) -> Floats:
        """Return `[384] float32` of length 1."""
        return early_of(np.mean([mean for mean, _ in self.windows], axis=0))


class Embedding:
    """What a text means, as the heads were taught to read it."""

    def __init__(self) -> None:
        self._sentences = Sentences("safety", integers=True)

    def of(self, folded: str) -> Floats:
        """Return `[4 * 384] float32` of length 2: the mean over at most MAX_WINDOWS windows of the text."""
        return self.finished(self.begun(folded))

    def begun(self, folded: str) -> Begun:
        """Read a text with half of the model."""
        tokens = self._sentences.tokens(folded)
        starts = list(range(0, max(len(tokens) - WINDOW_TOKENS + STRIDE_TOKENS, 1), STRIDE_TOKENS))
        if len(starts) > MAX_WINDOWS:
            starts = [starts[at * (len(starts) - 1) // (MAX_WINDOWS - 1)] for at in range(MAX_WINDOWS)]
        return Begun([self._sentences.begun(tokens[at : at + WINDOW_TOKENS]) for at in starts])

    def finished(self, begun: Begun) -> Floats:
        """Read it with the other half, and return what `of` does."""
        layers = [np.concatenate([mean, self._sentences.finished(state).reshape(-1)]) for mean, state in begun.windows]
        mean = np.mean(layers, axis=0)
        return 2.0 * mean / max(float(np.linalg.norm(mean)), 1e-12)


class TextGuard:
    """Weights, markers and, where it was asked for, the embedding model."""

    def __init__(self, weights: Weights, embedding: Embedding | None, markers: Mapping[str, Category]) -> None:
        self._weights = weights
        self._embedding = embedding
        self._markers = Markers(markers)

    @classmethod
    def load(cls, *, with_embeddings: bool, markers: Mapping[str, Category] | None = None) -> "TextGuard":
        """Load the weights that ship; raises UsageError when a file or a package is not what it should be."""
        embedding = Embedding() if with_embeddings else None
        return cls(load(), embedding, default_markers() if markers is None else markers)

    @property
    def info(self) -> DetectorInfo:
        """Return what this detector declares of itself."""
        return _declared(self._weights.digest, self._weights.categories, dear=self._embedding is not None)

    def score(self, texts: Sequence[str]) -> list[TextScores]:
        """Return what is known of each text; never raises for what a text holds."""
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> TextScores:
        if len(text) > MAX_CHARS:  # of more than that `views` sees the beginning alone
            return _together([self._one(text[at : at + MAX_CHARS]) for at in range(0, len(text), MAX_CHARS)])
        seen = views(text)
        found = dict(self._scores(seen.folded[:PIECE_CHARS]))
        for start in range(PIECE_CHARS - OVERLAP_CHARS, len(seen.folded) - OVERLAP_CHARS, PIECE_CHARS - OVERLAP_CHARS):
            _raise(found, self._scores(seen.folded[start : start + PIECE_CHARS]))
        if seen.disguises:
            raw = self._scores(seen.raw.lower(), cheap=True)
            _raise(found, {category: value for category, value in raw.items() if value >= RAW_SURE})
        marked = self._markers.found(seen)
        found.update(dict.fromkeys(marked, 1.0))
        return TextScores(found, language_of(seen), seen.disguises, _matched(seen, marked))

    def _scores(self, text: str, *, cheap: bool = False) -> dict[Category, float]:
        if not text.strip():
            return dict.fromkeys(self._weights.categories, 0.0)
        features = Features(grams_of(text), counts(text), None)
        mode = self._weights.modes["linear"]
        overall = score(mode, features)
        if self._embedding is not None and not cheap and overall > SURE:
            begun = self._embedding.begun(text)
            mode, features = self._weights.modes["early"], dataclasses.replace(features, meaning=begun.mean)
            overall = score(mode, features)
            if overall > CALM:
                meaning = self._embedding.finished(begun)
                mode, features = self._weights.modes["meaning"], dataclasses.replace(features, meaning=meaning)
                overall = score(mode, features)
        return by_category(self._weights, mode, features, overall)


def _together(parts: Sequence[TextScores]) -> TextScores:
    """Put what is known of the parts of a text together: the highest score of each category counts."""
    scores, matched = dict(parts[0].scores), dict(parts[0].matched)
    for part in parts[1:]:
        _raise(scores, part.scores)
        matched |= part.matched
    return TextScores(scores, parts[0].language, frozenset[str]().union(*(part.disguises for part in parts)), matched)


def _raise(found: dict[Category, float], other: Mapping[Category, float]) -> None:
    for category, value in other.items():
        found[category] = max(found.get(category, 0.0), value)


def _matched(seen: Views, marked: frozenset[Category]) -> dict[str, str]:
    notes = {f"words.{name}": str(count) for name, count in hints(seen.folded).items()}
    return notes | {f"marker.{category}": "1" for category in marked}
