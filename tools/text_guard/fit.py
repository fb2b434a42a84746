"""Fitting the text detector's heads: the one training code, of the shipped weights and of every cross-validation.

Each register has a head of its own, taught mostly by its own sets and a little by the others. Weights of rows make
harmful and harmless count the same in each source, so that no head gains by telling sources apart. The operating point
of a head is a quantile of harmless rows that inner folds kept away from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits
from tools.text_guard.features import Floats, Matrix
from tools.text_guard.rows import Row

from forestay.safety.taxonomy import Category
from forestay.safety.text.detector import CALM, SURE
from forestay.safety.text.grams import BUCKETS
from forestay.safety.text.model import MODES, Heads, Mode, Register, Weights

Indices = npt.NDArray[np.int64]
REGISTERS = tuple(Register)
INNER_FOLDS = 5
CATEGORY_BUCKETS = 2**13
ROUNDS = 80  # of L-BFGS
STIFF_TOLD = 0.2  # of the ridge on n-grams scaled by what they tell
SMOOTH = 0.3  # rows added to each count
MASS = 100.0  # what harmful rows of a register weigh together, and harmless ones


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one register's head is taught: how much each source weighs (harmful, harmless), and how stiff it is."""

    sources: Mapping[str, tuple[float, float]]
    stiff_dense: float
    flagged: Mapping[str, float]  # at the operating point, of these harmless sources


RECIPES: Mapping[Register, Recipe] = {
    Register.REQUEST: Recipe(
        {"xstest": (1.0, 1.0), "contrast": (1.5, 1.5), "ailuminate": (0.15, 0.0)}, 0.2, {"xstest": 0.14}
    ),
    Register.PROSE: Recipe({"openai": (1.0, 1.0), "i2p": (0.1, 0.0), "diffusiondb": (0.0, 0.1)}, 0.3, {"openai": 0.11}),
    Register.PICTURE: Recipe(
        {
            "i2p": (1.0, 0.0),
            "nibbler": (0.15, 0.0),
            "ring_a_bell": (0.05, 0.0),
            "diffusiondb": (0.0, 1.0),
            "captions": (0.0, 0.1),
            "parti": (0.0, 0.15),
        },
        0.1,
        {"diffusiondb": 0.035},
    ),
}
GATE_SOURCES: Mapping[Register, tuple[str, ...]] = {
    Register.REQUEST: ("xstest", "contrast", "ailuminate"),
    Register.PROSE: ("openai",),
    Register.PICTURE: ("i2p", "nibbler", "diffusiondb", "captions", "parti", "ring_a_bell"),
}


@dataclass(frozen=True, slots=True)
class Linear:
    """One linear function."""

    dense: Floats
    grams: Floats
    bias: float

    def decide(self, dense: Floats, grams: sp.csr_matrix) -> Floats:
        """Return `[n]`."""
        return dense @ self.dense + grams @ self.grams + self.bias


def logistic(dense: Floats, grams: sp.csr_matrix, truth: Floats, weight: Floats, stiff: tuple[float, float]) -> Linear:
    """Fit a weighted logistic regression with a ridge of its own on each part of the features."""
    size, buckets = dense.shape[1], (grams.shape or (0, 0))[1]
    sign = np.where(truth > 0, 1.0, -1.0)
    turned = grams.T.tocsr()

    def loss(point: Floats) -> tuple[float, Floats]:
        on_dense, on_grams = point[:size], point[size:-1]
        margin = sign * (dense @ on_dense + grams @ on_grams + point[-1])
        slope = -weight * sign * np.exp(-np.logaddexp(0.0, margin))
        value = weight @ np.logaddexp(0.0, -margin)
        value += 0.5 * (stiff[0] * on_dense @ on_dense + stiff[1] * on_grams @ on_grams)
        parts = [dense.T @ slope + stiff[0] * on_dense, turned @ slope + stiff[1] * on_grams, [slope.sum()]]
        return float(value), np.concatenate(parts)

    start = np.zeros(size + buckets + 1)
    with threadpool_limits(1):  # threads cost more than they bring on vectors of this size
        best = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": ROUNDS, "maxcor": 8}).x
    return Linear(best[:size], best[size:-1], float(best[-1]))


def telling(grams: sp.csr_matrix, truth: Floats, weight: Floats) -> Floats:
    """Return `[buckets]`: how much each n-gram alone tells harmful from harmless, 0 for those of a single row.

    The logarithm of the ratio of weighted shares, smoothed. A ridge on n-grams so scaled leaves those free that tell
    much and holds the others (Wang, Manning 2012, "Baselines and Bigrams").
    """
    held = sp.csr_matrix((np.ones(grams.nnz), grams.indices, grams.indptr), shape=grams.shape)
    logs: list[Floats] = []
    for wanted in (1.0, 0.0):
        mine = truth == wanted
        share = np.where(mine, weight, 0.0)
        count = held.T @ (share * mine.sum() / max(share.sum(), 1e-12))
        logs.append(np.log((count + SMOOTH) / (mine.sum() + 2 * SMOOTH)))
    return (logs[0] - logs[1]) * (np.asarray(held.sum(axis=0)).ravel() > 1)


_NOBODY = Heads(np.zeros((CATEGORY_BUCKETS, 0)), np.zeros((0, 0)), np.zeros(0))


class Teacher:
    """Rows with their features; fits weights from any part of them."""

    def __init__(self, rows: Sequence[Row], matrix: Matrix) -> None:
        self.rows = rows
        self.matrix = matrix
        self.source = np.array([row.source for row in rows])
        self.truth = np.array([np.nan if row.harmful is None else float(row.harmful) for row in rows])
        self.group = np.array([row.group for row in rows])

    def fit(self, part: Indices, modes: Sequence[str] = MODES, *, seed: int = 0, named: bool = True) -> Weights:
        """Fit everything on some rows; without `named` not the heads of categories, which take the most of the time."""
        fitted = {name: self._mode(part, seed, name, named=named) for name in modes}
        return Weights("", fitted, self.categories(part))

    def folds(self, seed: int, count: int) -> Indices:
        """Return which fold each row is in; a group of near-duplicates is in one."""
        return np.random.default_rng(seed).integers(0, count, self.group.max() + 1)[self.group]

    def categories(self, part: Indices) -> tuple[Category, ...]:
        """Return the categories that have harmful rows."""
        seen = {self.rows[at].category for at in part if self.rows[at].harmful}
        return tuple(category for category in Category if category in seen)

    def _mode(self, part: Indices, seed: int, mode: str, *, named: bool) -> Mode:
        heads, slopes, offsets = [], [], []
        for register in REGISTERS:
            heads.append(self._head(part, register, mode))
            slope, offset = self._scale(part, register, seed, mode)
            slopes.append(slope)
            offsets.append(offset)
        gate = self._gate(part, mode)
        categories = self._categories(part, mode) if named else _NOBODY
        return Mode(gate, _side_by_side(heads), np.array(slopes), np.array(offsets), categories)

    def _head(self, part: Indices, register: Register, mode: str) -> Linear:
        recipe = RECIPES[register]
        weight = self._weights(part, recipe)
        used = part[weight > 0]
        matrix, weight = self.matrix.rows(used), weight[weight > 0]
        told = telling(matrix.grams, self.truth[used], weight)
        stiff = (recipe.stiff_dense, STIFF_TOLD)
        head = logistic(matrix.dense(mode), matrix.grams @ sp.diags(told), self.truth[used], weight, stiff)
        return Linear(head.dense, head.grams * told, head.bias)

    def _weights(self, part: Indices, recipe: Recipe) -> Floats:
        weight = np.zeros(len(part))
        for harmful in (1.0, 0.0):
            for source, shares in recipe.sources.items():
                mine = (self.source[part] == source) & (self.truth[part] == harmful)
                share = shares[0] if harmful else shares[1]
                if mine.any():
                    weight[mine] = MASS * share / mine.sum()
        return weight

    def _scale(self, part: Indices, register: Register, seed: int, mode: str) -> tuple[float, float]:
        """Return slope and offset of a head's score: by rows that inner folds kept away from it (Platt 1999)."""
        recipe = RECIPES[register]
        fold = self.folds(seed + 1_000, INNER_FOLDS)[part]
        mine = np.isin(self.source[part], [name for name in recipe.sources if name != "contrast"])
        value = np.full(len(part), np.nan)
        for number in range(INNER_FOLDS):
            head = self._head(part[fold != number], register, mode)
            kept = np.flatnonzero(mine & (fold == number))
            matrix = self.matrix.rows(part[kept])
            value[kept] = head.decide(matrix.dense(mode), matrix.grams)
        offset = max(
            float(np.quantile(value[(self.source[part] == name) & (self.truth[part] == 0)], 1.0 - share))
            for name, share in recipe.flagged.items()
        )
        return self._slope(part, value, recipe), offset

    def _slope(self, part: Indices, value: Floats, recipe: Recipe) -> float:
        weight = self._weights(part, recipe)
        used = (weight > 0) & ~np.isnan(value)
        flat = sp.csr_matrix((int(used.sum()), 1))
        fitted = logistic(value[used][:, None], flat, self.truth[part][used], weight[used], (1e-3, 1.0))
        return float(max(fitted.dense[0], 0.2))

    def _gate(self, part: Indices, mode: str) -> Heads:
        heads = []
        for register in REGISTERS:
            mine = np.isin(self.source[part], GATE_SOURCES[register])
            weight = np.where(mine, MASS / max(1, mine.sum()), MASS / max(1, (~mine).sum()))
            matrix = self.matrix.rows(part)
            heads.append(logistic(matrix.dense(mode), matrix.grams, mine.astype(float), weight, (0.3, 0.3)))
        return _side_by_side(heads)

    def _categories(self, part: Indices, mode: str) -> Heads:
        named = self.categories(part)
        of = np.array([self.rows[at].category if self.rows[at].harmful else None for at in part], dtype=object)
        used = np.flatnonzero(of != None)  # noqa: E711 - an array is compared
        matrix = self.matrix.rows(part[used])
        grams = folded_grams(matrix.grams)
        heads = []
        for category in named:
            mine = of[used] == category
            weight = np.where(mine, MASS / mine.sum(), MASS / max(1, (~mine).sum()))
            heads.append(logistic(matrix.dense(mode), grams, mine.astype(float), weight, (1.0, 1.0)))
        return _side_by_side(heads)


def folded_grams(grams: sp.csr_matrix) -> sp.csr_matrix:
    """Return n-grams in the fewer buckets of the heads of categories."""
    fold = sp.csr_matrix((np.ones(BUCKETS), (np.arange(BUCKETS), np.arange(BUCKETS) % CATEGORY_BUCKETS)))
    return sp.csr_matrix(grams @ fold)


def _side_by_side(heads: Sequence[Linear]) -> Heads:
    return Heads(
        np.stack([head.grams for head in heads], axis=1),
        np.stack([head.dense for head in heads], axis=1),
        np.array([head.bias for head in heads]),
    )


def scores(weights: Weights, mode: str, matrix: Matrix) -> Floats:
    """Return the overall score of many rows at once: what `model.score` returns for each."""
    heads = weights.modes[mode]
    share = _all(heads.gate, matrix, mode)
    share = np.exp(share - share.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    value = heads.slope * (_all(heads.registers, matrix, mode) - heads.offset)
    return (share / (1.0 + np.exp(-np.clip(value, -30, 30)))).sum(axis=1)


def scores_of(weights: Weights, detector: str, matrix: Matrix) -> Floats:
    """Return what a detector says of many rows: each goes only as deep as `text-meaning@1` lets it."""
    cheap = scores(weights, "linear", matrix)
    if detector == "linear":
        return cheap
    early, whole = scores(weights, "early", matrix), scores(weights, "meaning", matrix)
    return np.where(cheap <= SURE, cheap, np.where(early <= CALM, early, whole))


def _all(heads: Heads, matrix: Matrix, mode: str) -> Floats:
    return matrix.dense(mode) @ heads.dense + matrix.grams @ heads.grams + heads.bias
