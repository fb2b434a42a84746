"""What is said in recordings: the transcriber's contract over HTTP, and every way not to know what is said."""

import asyncio
import pathlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

import pytest
from aiohttp import web
from tests.ingress import good
from tests.safety.doubles import guard_world
from tests.safety.media.test_frames import file_of
from tests.safety.test_guard import subject

from forestay.chance import SeededChance
from forestay.clock import SystemClock
from forestay.errors import UsageError
from forestay.media.decode import Decoder
from forestay.safety.classifiers import transcriber as transcriber_module
from forestay.safety.classifiers.lexicon import LexiconDetectors
from forestay.safety.classifiers.provider_file import TranscriberAt, heard_bytes, read_providers, read_transcriber
from forestay.safety.classifiers.spoken_text import DETECTOR_ID, PIECE_CHARS, SpokenText
from forestay.safety.classifiers.transcriber import HttpTranscriber, behind_http
from forestay.safety.coverage import gaps
from forestay.safety.decide import Place
from forestay.safety.guard import Guard, GuardPorts, Item
from forestay.safety.judge.client import JudgeClient
from forestay.safety.model import Content, Detectors, Outcome, Picture, Scores, Sound, Text, Trouble, Unscored
from forestay.safety.policy_file import read_policy
from forestay.safety.routed import RoutedDetectors
from forestay.safety.taxonomy import Category, Modality
from forestay.safety.text.detector import MEANING
from forestay.verdicts import Verdict
from forestay.worker.looks import Looks

CLOCK = SystemClock()
SOUND = Sound("audio.url", "audio/wav", b"RIFF of a voice")
MARKER = "MARKER-52D1"  # violence, see safety/text/data/markers.txt
POLICY = """\
version: 1
deadline: 3s
rules:
  - modality: audio
    categories: [violence]
    detectors: [spoken-text@1]
    block_at: 0.5
    trouble: {crash: review, timeout: review, overload: review, language: review, unreadable: block}
"""
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Served:
    """A transcriber on loopback that answers as the test says; `asked` holds what came."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, dict[str, str]]] = []
        self.answer: Answer = self.says("a harbour at dawn")
        self.url = ""

    def says(self, text: str, status: int = 200) -> Answer:
        """Answer by the contract."""

        async def answer(_: web.Request) -> web.StreamResponse:
            return web.json_response({"version": 1, "text": text}, status=status)

        return answer

    def replies(self, status: int, body: str) -> Answer:
        """Answer with this body."""

        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(status=status, text=body)

        return answer

    async def take(self, request: web.Request) -> web.StreamResponse:
        """Note and answer."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append((await request.read(), headers))
        return await self.answer(request)


@pytest.fixture
async def served() -> AsyncGenerator[Served]:
    """A transcriber."""
    made = Served()
    app = web.Application()
    app.router.add_post("/transcribe", made.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    made.url = f"http://{host}:{port}/transcribe"
    yield made
    await runner.cleanup()


async def asked(
    at: TranscriberAt, content: Content = SOUND, within: float = 5.0, texts: Detectors | None = None
) -> Outcome:
    """Ask once and hang up; word lists and markers stand for the text detector of the judge."""
    detector = SpokenText(HttpTranscriber(at), at.url, texts or LexiconDetectors(CLOCK), CLOCK)
    try:
        [outcome] = await detector.ask(DETECTOR_ID, [content], within)
    finally:
        await detector.close()
    return outcome


async def test_what_is_said_is_scored_as_text_and_told_to_nobody(
    served: Served, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The recording travels as it is; the score stands at its place, without a word of it."""
    (tmp_path / "key").write_text("sesame\n")
    served.answer = served.says(f"and then he said {MARKER}")
    outcome = await asked(TranscriberAt(served.url, secret_file=str(tmp_path / "key")))
    assert isinstance(outcome, Scores)
    assert (outcome.detector_id, outcome.where, outcome.scores[Category.VIOLENCE]) == (DETECTOR_ID, "audio.url", 1.0)
    [(body, headers)] = served.asked
    assert body == SOUND.data
    assert (headers["content-type"], headers["x-forestay-transcript"]) == ("audio/wav", "1")
    assert headers["authorization"] == "Bearer sesame"
    assert MARKER not in f"{outcome}{caplog.text}"


async def test_harmless_words_and_silence_score_nothing(served: Served) -> None:
    """An empty text is an answer: nothing is said."""
    for text in ("a harbour at dawn", ""):
        served.answer = served.says(text)
        outcome = await asked(TranscriberAt(served.url))
        assert isinstance(outcome, Scores)
        assert max(outcome.scores.values(), default=0.0) == 0.0


async def test_a_long_transcript_is_scored_to_its_end(served: Served) -> None:
    """In pieces, so that no length hides what is said last."""
    served.answer = served.says("waves and wind " * (3 * PIECE_CHARS // 15) + MARKER)
    outcome = await asked(TranscriberAt(served.url))
    assert isinstance(outcome, Scores)
    assert outcome.scores[Category.VIOLENCE] == 1.0


@pytest.mark.parametrize(
    ("status", "body", "trouble"),
    [
        (500, "{}", Trouble.CRASH),
        (302, "{}", Trouble.CRASH),
        (429, "{}", Trouble.OVERLOAD),
        (503, "{}", Trouble.OVERLOAD),
        (504, "{}", Trouble.TIMEOUT),
        (413, "{}", Trouble.UNREADABLE),
        (200, "no JSON", Trouble.CRASH),
        (200, '{"version": 2, "text": "x"}', Trouble.CRASH),
        (200, '{"version": 1}', Trouble.CRASH),
        (200, '{"version": 1, "text": null}', Trouble.CRASH),
        (200, '{"version": 1, "text": "x"}' + " " * 1_100_000, Trouble.CRASH),
    ],
)
async def test_an_answer_that_is_none_is_trouble_and_never_silence(
    served: Served, status: int, body: str, trouble: Trouble
) -> None:
    """Whatever the transcriber does wrong."""
    served.answer = served.replies(status, body)
    outcome = await asked(TranscriberAt(served.url))
    assert isinstance(outcome, Unscored)
    assert (outcome.trouble, outcome.where) == (trouble, "audio.url")


async def test_nobody_there_too_late_and_too_much_are_trouble(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each at once or within the time that was given."""
    hung = asyncio.Event()

    async def hang(_: web.Request) -> web.StreamResponse:
        await hung.wait()
        return web.Response()

    served.answer = hang
    late = await asked(TranscriberAt(served.url), within=0.05)
    hung.set()
    gone = await asked(TranscriberAt("http://127.0.0.1:9/transcribe"))
    large = await asked(TranscriberAt(served.url, max_bytes=4))
    monkeypatch.setattr(transcriber_module, "MAX_IN_FLIGHT", 0)
    full = await asked(TranscriberAt(served.url))
    troubles = [outcome.trouble for outcome in (late, gone, large, full) if isinstance(outcome, Unscored)]
    assert troubles == [Trouble.TIMEOUT, Trouble.CRASH, Trouble.UNREADABLE, Trouble.OVERLOAD]


async def test_a_judge_that_is_away_is_trouble(served: Served, tmp_path: pathlib.Path) -> None:
    """What is said is known then, and scored by nobody."""
    judge = JudgeClient(tmp_path / "no.sock", CLOCK)
    outcome = await asked(TranscriberAt(served.url), texts=judge)
    assert isinstance(outcome, Unscored)
    assert outcome.trouble is Trouble.CRASH


async def test_sound_is_heard_by_the_transcriber_alone(served: Served, tmp_path: pathlib.Path) -> None:
    """It covers the text detector's categories in sound; texts and pictures it does not score, nor the judge sound."""
    for content in (Text("prompt", "x"), Picture("image", 1, 1, b"\0\0\0")):
        assert isinstance(await asked(TranscriberAt(served.url), content), Unscored)
    assert served.asked == []
    [info] = await SpokenText(HttpTranscriber(TranscriberAt("http://x")), "", LexiconDetectors(CLOCK), CLOCK).known()
    assert set(info.covers) == {Modality.AUDIO}
    assert Category.HATE in info.covers[Modality.AUDIO]
    [outcome] = await JudgeClient(tmp_path / "no.sock", CLOCK).ask(MEANING, [SOUND], 1.0)
    assert isinstance(outcome, Unscored)
    assert outcome.trouble is Trouble.UNREADABLE


async def test_a_policy_for_sound_blocks_releases_and_withholds_by_what_is_said(served: Served) -> None:
    """From the guard's end: words decide, and a transcriber that is down withholds, as the policy says."""
    detector = SpokenText(HttpTranscriber(TranscriberAt(served.url)), served.url, LexiconDetectors(CLOCK), CLOCK)
    detectors, world = RoutedDetectors({DETECTOR_ID: detector}, None), await guard_world()
    assert gaps(read_policy(POLICY, "strict", 1), await detectors.known()) == []
    world.store.put("strict", POLICY)
    await world.policies.refresh()
    guard = Guard(GuardPorts(detectors, world.policies, world.verdicts, CLOCK, SeededChance(1), world.metrics))
    item, verdicts = Item(Place("audio.url", Modality.AUDIO), (SOUND,)), list[Verdict]()
    said = (served.says("a harbour at dawn"), served.says(MARKER), served.replies(500, ""))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(guard.run())
        for answer in said:
            served.answer = answer
            verdicts.append((await guard.judge(subject(), [item], ["sha256:ab"])).verdict)
        running.cancel()
    await detector.close()
    assert verdicts == [Verdict.ALLOW, Verdict.BLOCK, Verdict.INCONCLUSIVE]


@pytest.mark.parametrize("bound", [0, 10, 1024 * 1024])
async def test_a_recording_is_carried_to_who_hears_it_within_the_bound(bound: int) -> None:
    """Without a transcriber, or beyond its bound, its place has no look, and the policy says what that means."""
    built = next(file for file in good.files() if file.kind == "audio").build()
    decoder = Decoder()
    with file_of(built) as file:
        [item] = await Looks(decoder, bound).look(file, "audio.url", 0.0)
    await decoder.close()
    assert item.place.modality is Modality.AUDIO
    heard: Sequence[Content] = item.looks
    if bound < len(built):
        assert heard == ()
    else:
        [sound] = heard
        assert isinstance(sound, Sound)
        assert (sound.where, sound.data, sound.content_type.startswith("audio/")) == ("audio.url", built, True)


def test_the_transcriber_stands_in_the_file_of_providers(tmp_path: pathlib.Path) -> None:
    """Beside them or alone; what is wrong is told with its place."""
    path = tmp_path / "providers.yaml"
    path.write_text("transcriber: {url: 'https://speech.internal/', max_bytes: 1000}\n")
    assert read_providers(str(path)) == []
    assert read_transcriber(str(path)) == TranscriberAt("https://speech.internal/", max_bytes=1000)
    assert (heard_bytes(str(path)), heard_bytes("")) == (1000, 0)
    assert list(behind_http(str(path), LexiconDetectors(CLOCK), CLOCK)) == [DETECTOR_ID]
    assert behind_http(str(path), None, CLOCK) == {}
    for wrong, said in (
        ("{url: speech}", r"transcriber\.url: 'speech' is no address"),
        ("{url: 'http://x', max_bytes: 0}", r"transcriber\.max_bytes: 0; expected 1 to"),
        ("{url: 'http://x', timeout_seconds: 90}", r"transcriber\.timeout_seconds: 90; expected"),
        ("{url: 'http://x', batch: 1}", "batch"),
    ):
        path.write_text(f"transcriber: {wrong}\n")
        with pytest.raises(UsageError, match=said):
            read_transcriber(str(path))
