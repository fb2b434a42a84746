"""Made-up prompts for the abuse bench: a vocabulary with topics, and prompts hashed as the gateway hashes them.

Words are made of letters, frequencies follow Zipf's law, and a prompt is some common words and some of one or two
topics. `tests/abuse/test_bench_world.py` holds it to what was measured on public sets of prompts: how near the prompts
of a stream lie to those before them.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

from forestay.abuse.simhash import PromptHasher

Ids = npt.NDArray[np.int32]
COMMON, TOPICS, TOPIC_WORDS, FRAMES = 60, 160, 70, 30
_LETTERS = "etaoinshrdlucmfwypvbgkjqxz"
_LETTER_CHANCES = np.array(
    [12, 9, 8, 7.5, 7, 6.7, 6.3, 6, 6, 4.2, 4, 2.8, 2.8, 2.4, 2.2, 2.2, 2, 1.9, 1, 1.5, 2, 0.8, 0.2, 0.1, 0.2, 0.1]
)


@dataclasses.dataclass(frozen=True, slots=True)
class Words:
    """The vocabulary: words, what each adds to a hash, and which belong to which topic."""

    texts: tuple[str, ...]
    vectors: npt.NDArray[np.int16]  # [words, 64]
    frames: Ids  # [FRAMES, 4] common words that go together: "a photo of a"
    frame_chances: npt.NDArray[np.float64]
    topics: Ids  # [TOPICS, TOPIC_WORDS] word ids
    topic_chances: npt.NDArray[np.float64]
    hasher: PromptHasher


def make_words(seed: int = 7) -> Words:
    """Make the vocabulary; the same for tuning and test, as language is."""
    rng = np.random.default_rng(seed)
    texts: dict[str, None] = {}
    while len(texts) < COMMON:
        texts[_word(rng, 2, 5)] = None
    while len(texts) < COMMON + TOPICS * TOPIC_WORDS // 2:
        texts[_word(rng, 4, 9)] = None
    hasher = PromptHasher(b"the bench")
    vectors = np.stack([hasher.vector(text) for text in texts])
    content = np.arange(COMMON, len(texts), dtype=np.int32)
    topics = np.stack([rng.choice(content, TOPIC_WORDS, replace=False) for _ in range(TOPICS)])
    frames = rng.choice(COMMON, (FRAMES, 4), p=_zipf(COMMON, 1.0)).astype(np.int32)
    return Words(tuple(texts), vectors, frames, _zipf(FRAMES, 1.0), topics, _zipf(TOPIC_WORDS, 1.0), hasher)


class Writer:
    """Writes prompts as arrays of word ids, and hashes many at once."""

    def __init__(self, words: Words, rng: np.random.Generator) -> None:
        self.words = words
        self.rng = rng

    def natural(self, interests: Ids, *, shortest: int = 3, longest: int = 9) -> Ids:
        """One idea of a person: common phrases, and words of one or two topics."""
        rng, words = self.rng, self.words
        count = int(rng.integers(shortest, longest + 1))
        topic = words.topics[interests[int(rng.integers(len(interests)))]]
        content = rng.choice(topic, count, p=words.topic_chances)
        if rng.random() < 0.4:
            other = words.topics[int(rng.integers(TOPICS))]
            content[: count // 3] = rng.choice(other, count // 3, p=words.topic_chances)
        frames = rng.choice(FRAMES, 1 + int(rng.random() < 0.35), p=words.frame_chances)
        return np.concatenate([words.frames[frames].ravel(), content])

    def refined(self, prompt: Ids, changes: int = 1) -> Ids:
        """The same idea with some words changed or added."""
        changed = prompt.copy()
        for _ in range(changes):
            changed[int(self.rng.integers(len(changed)))] = self.any_word()
        return changed

    def any_word(self) -> int:
        """Any content word, each as likely."""
        return int(self.rng.integers(COMMON, len(self.words.texts)))

    def soup(self, shortest: int = 6, longest: int = 14) -> Ids:
        """A made-up query: words drawn evenly, no language."""
        count = int(self.rng.integers(shortest, longest + 1))
        made_up = self.rng.integers(COMMON, len(self.words.texts), count).astype(np.int32)
        made_up[:2] = self.rng.integers(0, 4, 2)
        return made_up

    def template(self, interests: Ids, size: int = 12) -> Ids:
        """The fixed part of an app's prompts."""
        return self.natural(interests, shortest=size, longest=size)

    def filled(self, template: Ids, slots: int) -> Ids:
        """A template with its slots filled."""
        return np.concatenate([template, self.rng.integers(COMMON, len(self.words.texts), slots).astype(np.int32)])

    def hashes(self, prompts: list[Ids]) -> npt.NDArray[np.uint64]:
        """Hash them as `simhash.PromptHasher` does: signs of the sums over distinct words."""
        if not prompts:
            return np.zeros(0, dtype=np.uint64)
        distinct = [np.unique(prompt) for prompt in prompts]
        starts = np.concatenate([[0], np.cumsum([len(item) for item in distinct])[:-1]])
        sums = np.add.reduceat(self.words.vectors[np.concatenate(distinct)].astype(np.int32), starts, axis=0)
        return np.packbits(sums > 0, axis=1).view(">u8").astype(np.uint64).ravel()

    def text(self, prompt: Ids) -> str:
        """Write a prompt out."""
        return " ".join(self.words.texts[item] for item in prompt)


def _word(rng: np.random.Generator, shortest: int, longest: int) -> str:
    letters = rng.choice(
        list(_LETTERS), int(rng.integers(shortest, longest + 1)), p=_LETTER_CHANCES / _LETTER_CHANCES.sum()
    )
    return "".join(letters)


def _zipf(count: int, power: float) -> npt.NDArray[np.float64]:
    weights = 1.0 / np.arange(1, count + 1) ** power
    return weights / weights.sum()
