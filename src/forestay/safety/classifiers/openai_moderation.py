"""The wire format of the OpenAI moderation endpoint (omni-moderation), which several servers speak.

A list of texts has one result for each; a list of typed parts is one input and has one result, so that pictures are
asked about one at a time. Format: https://platform.openai.com/docs/api-reference/moderations. Their categories become
ours by `taxonomy.CODES`; where several of theirs belong to one of ours (`hate` and `hate/threatening`) the highest
counts. A score is kept for the categories that the provider was declared to cover in the modality that was asked, and
only where they say that it applied to that kind of input. Decides nothing else.
"""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from forestay.safety.classifiers.provider import modality_of
from forestay.safety.classifiers.provider_file import Provider
from forestay.safety.model import Content, Text
from forestay.safety.taxonomy import CODES, Category

DEFAULT_MODEL = "omni-moderation-latest"


class _Result(msgspec.Struct):
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[str]] | None = None  # older models do not say


class _Answer(msgspec.Struct):
    results: list[_Result]


def _names() -> Mapping[str, tuple[Category, ...]]:
    """Return which of our categories each of their names speaks for."""
    found: dict[str, tuple[Category, ...]] = {}
    for category, codes in CODES.items():
        if codes.openai:
            found[codes.openai] = (*found.get(codes.openai, ()), category)
    return found


_OURS = _names()


class OpenAiModeration:
    """The form of requests and answers."""

    def batches(self, provider: Provider, contents: Sequence[Content]) -> Iterator[Sequence[Content]]:
        """Yield neighbouring texts together and each picture alone."""
        held: list[Content] = []
        for content in contents:
            if isinstance(content, Text) and len(held) < provider.batch:
                held.append(content)
                continue
            if held:
                yield held
            held = [content] if isinstance(content, Text) else []
            if not held:
                yield [content]
        if held:
            yield held

    def request(self, provider: Provider, contents: Sequence[Content], images: Sequence[str]) -> dict[str, object]:
        """Return model and input."""
        asked: list[object] = [
            content.text if isinstance(content, Text) else {"type": "image_url", "image_url": {"url": image}}
            for content, image in zip(contents, images, strict=True)
        ]
        return {"model": provider.model or DEFAULT_MODEL, "input": asked}

    def results(self, provider: Provider, contents: Sequence[Content], body: bytes) -> list[dict[Category, float]]:
        """Read the scores."""
        answer = msgspec.json.decode(body, type=_Answer)
        if len(answer.results) != len(contents):
            raise ValueError("not one result for each input")
        return [
            _ours(result, "text" if isinstance(content, Text) else "image", _covered(provider, content))
            for result, content in zip(answer.results, contents, strict=True)
        ]


def _covered(provider: Provider, content: Content) -> frozenset[Category]:
    """Return what the provider was declared to cover in this kind of content."""
    asked = modality_of(content)
    return frozenset(name for modality, names in provider.covers.items() if modality in asked for name in names)


def _ours(result: _Result, kind: str, covered: frozenset[Category]) -> dict[Category, float]:
    """Return their scores under our names; ValueError when a covered category is not among them, or did not apply."""
    applied = result.category_applied_input_types
    found: dict[Category, float] = {}
    for name, score in result.category_scores.items():
        if applied is not None and kind not in applied.get(name, ()):
            continue
        base = name if name in _OURS else name.partition("/")[0]
        for category in _OURS.get(base, ()):
            if category in covered:
                found[category] = max(found.get(category, 0.0), score)
    if covered - set(found):
        raise ValueError("a category that was to be scored is not in the answer")
    return found
