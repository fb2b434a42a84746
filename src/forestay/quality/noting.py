"""What is kept of an output for those who follow many: its numbers, in which stratum it lies, keyed digests. Pure.

It decides what two outputs must share to be compared: the kind of medium, size, steps, adapters, and the cluster of
their prompts: the signs of sums of keyed hashes of words (M. Charikar, "Similarity estimation techniques from rounding
algorithms", 2002), so few that they tell nothing of the words. Nothing here can be turned back into content without the
deployment's key. Called by the worker after the contract.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from forestay.media.measures import FILM_FEATURES, PICTURE_FEATURES, SOUND_FEATURES, Measured
from forestay.quality.asked import asked_of
from forestay.quality.contracts import File, Row

CLUSTER_BITS = 5
MAX_WORDS = 256
MAX_PROMPT_CHARS = 10_000  # that a scorer is told
MAX_FEATURE = 1e9
_LEAST_WORD = 3  # letters; shorter words stand in every prompt
_PROMPTS = ("prompt", "text", "lyrics", "caption", "description", "query")
_ADAPTERS = ("loras", "lora", "adapters", "lora_url", "lora_path", "embeddings")
_NEITHER = frozenset({
    *_ADAPTERS, "seed", "num_inference_steps", "num_steps", "steps", "image_size", "size", "width", "height",
    "num_images", "num_outputs", "num_samples", "output_format", "format", "sync_mode", "enable_safety_checker",
})  # fmt: skip
_WORD = re.compile(r"\w+")
NAMES: Mapping[str, tuple[str, ...]] = {"image": PICTURE_FEATURES, "video": FILM_FEATURES, "audio": SOUND_FEATURES}


@dataclasses.dataclass(frozen=True, slots=True)
class Noted:
    """One file, as `telemetry/output_facts` keeps it."""

    place: int
    kind: str
    parameters: str
    cluster: int
    failed: str
    features: tuple[float, ...]
    likeness: int
    content: int
    prompt: int
    seed: int


def note_outputs(said: object, files: Sequence[File], rows: Sequence[Row], key: bytes) -> list[Noted]:
    """Return what is kept of an answer's files; of one that does not open, that it failed."""
    words, body = _words(said), _mapping(said)
    cluster, prompt = cluster_of(words, key), digest(" ".join(words), key) if words else 0
    seed = body.get("seed")
    seeded = digest(f"seed {seed}", key) if isinstance(seed, int | str) and not isinstance(seed, bool) else 0
    failed = {row.where: row.check.value for row in reversed(rows) if row.failed}
    of_all = failed.get("", "")
    found: list[Noted] = []
    for place, file in enumerate(files):
        kind, features = _numbers(file.measured)
        picture = file.measured.picture if file.measured is not None else None
        alike = digest(picture.hash, key) if picture is not None and picture.hash and kind == "image" else 0
        found.append(Noted(
            place, kind, _parameters(body, file.measured, key), cluster, failed.get(file.where, of_all), features,
            alike, file.content, prompt, seeded,
        ))  # fmt: skip
    return found


def prompt_of(said: object) -> str:
    """Return the words that an input asks with, as they were written; empty where it has none."""
    body = _mapping(said)
    prompts = [value for name in _PROMPTS if isinstance(value := body.get(name), str) and value]
    return "\n".join(prompts)[:MAX_PROMPT_CHARS]


def cluster_of(words: Sequence[str], key: bytes) -> int:
    """Return the cluster of a prompt, -1 without words."""
    sums = [0] * CLUSTER_BITS
    for word in [word for word in words if len(word) >= _LEAST_WORD] or words:
        drawn = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=CLUSTER_BITS, key=key).digest()
        sums = [total + 2 * byte - 255 for total, byte in zip(sums, drawn, strict=True)]
    return sum((total > 0) << place for place, total in enumerate(sums)) if words else -1


def digest(text: str, key: bytes) -> int:
    """Return 63 bits of a text under the key, never 0."""
    return _number(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=key).digest())


def content_digest(data: bytes) -> int:
    """Return 63 bits, never 0, of the 8 bytes of a keyed digest of a file."""
    return _number(data)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big") >> 1 or 1


def _numbers(measured: Measured | None) -> tuple[str, tuple[float, ...]]:
    """Return the kind of a file and its features, finite numbers."""
    if measured is None:
        return "", ()
    if measured.film is not None:
        kind, features = "video", measured.film.features
    elif measured.picture is not None:
        kind, features = "image", measured.picture.features
    else:
        kind, features = "audio", measured.sound.features if measured.sound is not None else ()
    return kind, tuple(min(MAX_FEATURE, max(-MAX_FEATURE, value)) if value == value else MAX_FEATURE  # noqa: PLR0124
                       for value in features)  # fmt: skip


def _parameters(body: Mapping[str, object], measured: Measured | None, key: bytes) -> str:
    parts: list[str] = []
    if measured is not None and measured.picture is not None:
        parts.append(f"{measured.picture.width}x{measured.picture.height}")
    steps = asked_of(body).steps
    if steps is not None:
        parts.append(f"{steps} steps")
    adapters = [body[name] for name in _ADAPTERS if body.get(name)]
    if adapters:
        said = json.dumps(adapters, sort_keys=True, default=str)
        parts.append(f"adapters {digest(said, key) & 0xFFFF:04x}")
    return " ".join(parts)


def _mapping(said: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", said) if isinstance(said, dict) else {}


def _words(said: object) -> list[str]:
    """Return the words of the prompt; of an input without one, those of all its texts and its other values."""
    body = _mapping(said)
    prompts = [value for name in _PROMPTS if isinstance(value := body.get(name), str) and value]
    if prompts:
        return [word.lower() for text in prompts for word in _WORD.findall(text)][:MAX_WORDS]
    return [word for name, value in sorted(body.items()) if name not in _NEITHER for word in _of(name, value)][
        :MAX_WORDS
    ]


def _of(name: str, value: object) -> Iterator[str]:
    if isinstance(value, str) and len(value) <= 2_000 and "://" not in value and not value.startswith("data:"):
        yield from (word.lower() for word in _WORD.findall(value))
    elif isinstance(value, int | float):
        yield f"{name}={value}"
