"""Detectors behind HTTP: the contract, the form of OpenAI's moderation endpoint, and every way to fail."""

import asyncio
import base64
import io
import json
import pathlib
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from forestay.clock import SystemClock
from forestay.errors import UsageError
from forestay.safety.classifiers import provider as provider_module
from forestay.safety.classifiers.openai_moderation import OpenAiModeration
from forestay.safety.classifiers.provider import ProviderDetector, detectors_of
from forestay.safety.classifiers.provider_file import Provider, read_providers
from forestay.safety.model import Content, Outcome, Picture, Scores, Text, Trouble, Unscored
from forestay.safety.taxonomy import Category, Modality

CLOCK = SystemClock()
WORD = Text("prompt", "a harbour at dawn")
RED = Picture("image", 40, 20, bytes((250, 10, 10)) * 800)
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Served:
    """A provider on loopback that answers as the test says; `asked` holds the bodies and headers that came."""

    def __init__(self) -> None:
        self.asked: list[dict[str, object]] = []
        self.keys: list[str] = []
        self.answer: Answer = self.scored
        self.url = ""

    async def take(self, request: web.Request) -> web.StreamResponse:
        """Note and answer."""
        self.asked.append(await request.json())
        self.keys.append(request.headers.get("authorization", ""))
        return await self.answer(request)

    async def scored(self, request: web.Request) -> web.StreamResponse:
        """Score everything by our contract."""
        contents = (await request.json())["contents"]
        return web.json_response({"version": 1, "results": [{"scores": {"hate": 0.25}} for _ in contents]})


@pytest.fixture
async def served() -> AsyncGenerator[Served]:
    """A provider."""
    made = Served()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/score", made.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    made.url = f"http://{host}:{port}/score"
    yield made
    await runner.cleanup()


def detector(served: Served, **changes: object) -> ProviderDetector:
    """Its detector."""
    covers = {Modality.TEXT: frozenset({Category.HATE}), Modality.IMAGE: frozenset({Category.VIOLENCE})}
    given: dict[str, object] = {"detector_id": "theirs@1", "url": served.url, "covers": covers, **changes}
    [made] = detectors_of([Provider(**given)], CLOCK).values()  # pyright: ignore[reportArgumentType] - a test's words
    return made


async def asked(made: ProviderDetector, *contents: Content, within: float = 5.0) -> list[Outcome]:
    """Ask and hang up."""
    try:
        return list(await made.ask("theirs@1", contents, within))
    finally:
        await made.close()


def trouble_of(outcomes: list[Outcome]) -> list[Trouble | None]:
    """What went wrong with each, None for scores."""
    return [outcome.trouble if isinstance(outcome, Unscored) else None for outcome in outcomes]


async def test_contents_travel_in_batches_with_pictures_inside_and_each_has_its_scores(
    served: Served, tmp_path: pathlib.Path
) -> None:
    """Texts as they are, pictures as JPEG in data: URIs; the secret comes from its file."""
    (tmp_path / "key").write_text("sesame\n")
    found = await asked(detector(served, batch=2, secret_file=str(tmp_path / "key")), WORD, RED, Text("other", "x"))
    assert [outcome.where for outcome in found] == ["prompt", "image", "other"]
    assert all(isinstance(outcome, Scores) and outcome.scores == {Category.HATE: 0.25} for outcome in found)
    assert served.keys == ["Bearer sesame"] * 2
    first, second = served.asked
    assert (first["version"], first["detector"]) == (1, "theirs@1")
    assert second["contents"] == [{"where": "other", "kind": "text", "text": "x"}]
    contents = json.loads(json.dumps(first["contents"]))
    image = Image.open(io.BytesIO(base64.b64decode(contents[1]["image"].removeprefix("data:image/jpeg;base64,"))))
    assert (contents[1]["kind"], image.size) == ("image", (40, 20))


@pytest.mark.parametrize(
    ("status", "body", "trouble"),
    [
        (500, "{}", Trouble.CRASH),
        (302, "{}", Trouble.CRASH),
        (401, "{}", Trouble.CRASH),
        (429, "{}", Trouble.OVERLOAD),
        (503, "{}", Trouble.OVERLOAD),
        (504, "{}", Trouble.TIMEOUT),
        (413, "{}", Trouble.UNREADABLE),
        (200, "no JSON", Trouble.CRASH),
        (200, "[]", Trouble.CRASH),
        (200, '{"version": 2, "results": [{"scores": {"hate": 0.1}}]}', Trouble.CRASH),
        (200, '{"version": 1, "results": []}', Trouble.CRASH),
        (200, '{"version": 1, "results": [{"scores": {"unheard-of": 0.1}}]}', Trouble.CRASH),
        (200, '{"version": 1, "results": [{"scores": {"hate": "high"}}]}', Trouble.CRASH),
        (200, '{"version": 1, "results": [{"scores": {"hate": 1.5}}]}', Trouble.CRASH),
        (200, '{"version": 1, "results": [{"scores": {"hate": NaN}}]}', Trouble.CRASH),
        (200, '{"version": 1, "results": [{"scores": {}}]}' + " " * 1_100_000, Trouble.CRASH),
    ],
)
@pytest.mark.threat("API10:2023")
async def test_an_answer_that_is_none_is_trouble_and_never_a_score(
    served: Served, status: int, body: str, trouble: Trouble
) -> None:
    """Statuses, shapes, numbers, sizes."""

    async def answer(request: web.Request) -> web.StreamResponse:
        del request
        return web.Response(status=status, text=body, headers={"location": "/score"} if status == 302 else {})

    served.answer = answer
    assert trouble_of(await asked(detector(served), WORD)) == [trouble]
    assert len(served.asked) == 1


async def test_a_provider_that_is_slow_is_a_timeout_on_the_dot(served: Served) -> None:
    """By the time that was given, or by the provider's own limit, whichever is less."""
    released = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        await released.wait()
        return await served.scored(request)

    served.answer = hang
    started = CLOCK.monotonic()
    assert trouble_of(await asked(detector(served), WORD, within=0.1)) == [Trouble.TIMEOUT]
    assert trouble_of(await asked(detector(served, timeout_seconds=0.1), WORD)) == [Trouble.TIMEOUT]
    assert trouble_of(await asked(detector(served), WORD, within=0.0)) == [Trouble.TIMEOUT]
    assert CLOCK.monotonic() - started < 4.0  # without the limits it would be 5 s and more
    released.set()


async def test_a_provider_that_is_not_there_or_has_no_secret_is_a_crash(served: Served) -> None:
    """Nothing is raised."""
    assert trouble_of(await asked(detector(served, url="http://127.0.0.1:9/"), WORD)) == [Trouble.CRASH]
    assert trouble_of(await asked(detector(served, secret_file="/no/such/file"), WORD)) == [Trouble.CRASH]
    assert served.asked == []


async def test_too_many_questions_at_once_are_an_overload(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is bounded on our side."""
    monkeypatch.setattr(provider_module, "MAX_IN_FLIGHT", 2)
    made = detector(served)
    found = await asyncio.gather(*(made.ask("theirs@1", [WORD], 5.0) for _ in range(5)))
    await made.close()
    assert (
        sorted(str(one) for outcomes in found for one in trouble_of(list(outcomes))) == ["None"] * 2 + ["overload"] * 3
    )


async def test_a_picture_is_not_shown_to_one_who_reads_texts(served: Served) -> None:
    """It is unreadable to them."""
    made = detector(served, covers={Modality.TEXT: frozenset({Category.HATE})})
    assert trouble_of(await asked(made, RED)) == [Trouble.UNREADABLE]
    assert served.asked == []


def moderation(**scores: float) -> dict[str, object]:
    """One result of the moderation endpoint, with every category that it has."""
    names = ["harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent"]
    names += ["self-harm", "self-harm/intent", "self-harm/instructions", "sexual", "sexual/minors", "violence"]
    names += ["violence/graphic"]
    given = {name.replace("__", "/").replace("_", "-"): score for name, score in scores.items()}
    pictures = {"violence", "violence/graphic", "self-harm", "self-harm/intent", "self-harm/instructions", "sexual"}
    return {
        "flagged": False,
        "categories": dict.fromkeys(names, False),
        "category_scores": {name: given.get(name, 0.01) for name in names},
        "category_applied_input_types": {name: ["text", *(["image"] if name in pictures else [])] for name in names},
    }


async def test_the_moderation_endpoint_is_asked_in_its_own_form_and_its_words_become_ours(served: Served) -> None:
    """Texts together, each picture alone; of several of their categories the highest counts."""

    async def answer(request: web.Request) -> web.StreamResponse:
        asked_for = (await request.json())["input"]
        texts = isinstance(asked_for[0], str)
        results = [moderation(hate=0.2, hate__threatening=0.6, violence__graphic=0.3) for _ in asked_for]
        return web.json_response({"id": "modr-1", "model": "m", "results": results if texts else results[:1]})

    served.answer = answer
    covers = {
        Modality.TEXT: frozenset({Category.HATE, Category.VIOLENCE, Category.WEAPONS}),
        Modality.IMAGE: frozenset({Category.VIOLENCE, Category.GRAPHIC_VIOLENCE}),
    }
    made = detector(served, wire="openai", covers=covers)
    found = await asked(made, WORD, Text("other", "x"), RED, RED)
    assert [one["model"] for one in served.asked] == ["omni-moderation-latest"] * 3
    assert served.asked[0]["input"] == ["a harbour at dawn", "x"]
    picture = json.loads(json.dumps(served.asked[1]["input"]))
    assert picture[0]["type"] == "image_url"
    assert picture[0]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    scores = [outcome.scores for outcome in found if isinstance(outcome, Scores)]
    assert scores[0] == {Category.HATE: 0.6, Category.VIOLENCE: 0.01, Category.WEAPONS: 0.01}
    assert scores[2] == {Category.VIOLENCE: 0.01, Category.GRAPHIC_VIOLENCE: 0.3}


async def test_a_category_that_did_not_apply_to_a_picture_is_no_low_score(served: Served) -> None:
    """Their hate score of a picture is 0 since they do not look for it: that is trouble, not harmless."""

    async def answer(request: web.Request) -> web.StreamResponse:
        del request
        return web.json_response({"results": [moderation()]})

    served.answer = answer
    made = detector(served, wire="openai", covers={Modality.IMAGE: frozenset({Category.HATE})})
    assert trouble_of(await asked(made, RED)) == [Trouble.CRASH]


@given(st.lists(st.booleans(), max_size=20), st.integers(1, 4))
def test_batches_hold_everything_once_in_order(kinds: list[bool], size: int) -> None:
    """Whatever the mixture."""
    contents: list[Content] = [WORD if text else RED for text in kinds]
    asked_with = Provider("theirs@1", "https://example.org", {}, "openai", batch=size)
    batches = list(OpenAiModeration().batches(asked_with, contents))
    assert [one for batch in batches for one in batch] == contents
    assert all(1 <= len(batch) <= size for batch in batches)
    assert all(len(batch) == 1 for batch in batches if RED in batch)


def written(folder: pathlib.Path, text: str) -> str:
    """A file of providers."""
    path = folder / "providers.yaml"
    path.write_text(text)
    return str(path)


def test_a_file_of_providers_is_read(tmp_path: pathlib.Path) -> None:
    """With what is left out at its default."""
    text = "providers:\n- {id: shield@2, url: 'https://shield.internal/score', covers: {image: [sexual, violence]}}\n"
    [found] = read_providers(written(tmp_path, text))
    assert found == Provider(
        "shield@2",
        "https://shield.internal/score",
        {Modality.IMAGE: frozenset({Category.SEXUAL, Category.VIOLENCE})},
    )
    assert read_providers("") == []


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{id: shield, url: 'https://x', covers: {image: [sexual]}}", r"providers\[0\].id: 'shield' is no id"),
        ("{id: a@1, url: 'ftp://x', covers: {image: [sexual]}}", r"url: 'ftp://x' is no address"),
        ("{id: a@1, url: 'https://x', covers: {}}", "covers: is empty"),
        ("{id: a@1, url: 'https://x', covers: {image: [nice]}}", "nice"),
        ("{id: a@1, url: 'https://x', covers: {smell: [hate]}}", "smell"),
        ("{id: a@1, url: 'https://x', covers: {text: [hate]}, key: abc}", "key"),
        ("{id: a@1, url: 'https://x', covers: {text: [hate]}, batch: 0}", "batch: 0; expected 1 to 64"),
        ("{id: a@1, url: 'https://x', covers: {text: [hate]}, timeout_seconds: 0}", "timeout_seconds"),
        ("{id: a@1, url: 'https://x', covers: {text: [minors]}, wire: openai}", "minors is matched by hash"),
        ("{id: a@1, url: 'https://x', covers: {text: [hate]}}\n- {id: a@1, url: 'https://y', covers: {text: [hate]}}",
         "two providers are called a@1"),
        ("[", "while parsing"),
    ],
)  # fmt: skip
def test_a_fault_in_the_file_is_told_with_its_place_and_the_mend(tmp_path: pathlib.Path, entry: str, said: str) -> None:
    """At start, not at the first question."""
    with pytest.raises(UsageError, match=said) as raised:
        read_providers(written(tmp_path, f"providers:\n- {entry}\n"))
    assert raised.value.field == "FORESTAY_SAFETY_PROVIDERS"


def test_a_file_that_is_not_there_is_told(tmp_path: pathlib.Path) -> None:
    """By its path."""
    with pytest.raises(UsageError, match="cannot be read"):
        read_providers(str(tmp_path / "none.yaml"))
