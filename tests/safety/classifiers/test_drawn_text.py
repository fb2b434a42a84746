"""The detector of words inside pictures: what it reads and refuses, and that it neither tells nor fetches anything."""

import importlib.metadata
import importlib.util

import pytest
from PIL import Image, ImageDraw, ImageFont

from forestay.chance import SystemChance
from forestay.clock import SystemClock
from forestay.doctor import Health, Patient, examine
from forestay.errors import Refused, Unavailable
from forestay.safety.classifiers import drawn_text, registry
from forestay.safety.coverage import gaps, left_out
from forestay.safety.model import Picture, Scores, Text, Trouble, Unscored
from forestay.safety.policy_file import read_policy
from forestay.safety.taxonomy import Category, Modality
from forestay.settings import Judge, Settings

HERE = importlib.util.find_spec("rapidocr") is not None and importlib.util.find_spec("onnxruntime") is not None
needs_reader = pytest.mark.skipif(not HERE, reason="the extra `ocr` is not installed")
MARKER = "MARKER-52D1"  # violence, see safety/text/data/markers.txt
HARMLESS = "a harbour at dawn with boats"
POLICY = """\
version: 1
deadline: 3s
rules:
  - modality: image
    categories: [violence]
    detectors: [drawn-text@1]
    block_at: 0.5
    trouble: {crash: block, timeout: block, overload: block, language: review, unreadable: review}
"""


def drawn(*lines: str, size: tuple[int, int] = (480, 160), turned: int = 0) -> Picture:
    """Black words on white, in Pillow's own letters, 28 pixels high."""
    image = Image.new("RGB", size, "white")
    pen, letters = ImageDraw.Draw(image), ImageFont.load_default(28)
    for number, line in enumerate(lines):
        pen.text((16, 16 + 40 * number), line, font=letters, fill="black")
    image = image.rotate(turned, expand=True)
    return Picture("images[0].url", image.width, image.height, image.tobytes())


@pytest.fixture(scope="module")
def detector() -> drawn_text.DrawnText:
    """One for all: its models take seconds to load."""
    return drawn_text.DrawnText()


@needs_reader
@pytest.mark.parametrize("turned", [0, 180])
def test_a_marker_drawn_into_a_picture_is_found(detector: drawn_text.DrawnText, turned: int) -> None:
    """Also upside down."""
    outcome = detector.score(drawn("a poster that says", MARKER, turned=turned))
    assert isinstance(outcome, Scores)
    assert outcome.scores[Category.VIOLENCE] == 1.0


@needs_reader
def test_a_harmless_sentence_and_an_empty_picture_are_not_found(detector: drawn_text.DrawnText) -> None:
    """Far below the operating point; without words there are no scores at all."""
    said = detector.score(drawn(HARMLESS))
    assert isinstance(said, Scores)
    assert max(said.scores.values()) < drawn_text.OPERATING_POINT
    empty = detector.score(drawn())
    assert isinstance(empty, Scores)
    assert dict(empty.scores) == {}


@needs_reader
def test_what_was_read_is_told_to_nobody(
    detector: drawn_text.DrawnText, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """How many words, and the highest category: neither notes nor logs nor what is printed hold a word."""
    outcome = detector.score(drawn("harbour", MARKER))
    assert isinstance(outcome, Scores)
    assert dict(outcome.notes) == {"words": "2", "highest": "violence"}
    printed = capfd.readouterr()
    assert "harbour" not in f"{outcome}{printed.out}{printed.err}{caplog.text}".lower()


@needs_reader
def test_a_picture_that_is_not_what_its_size_says_is_unreadable(detector: drawn_text.DrawnText) -> None:
    """And so is a text."""
    for content in (Picture("image", 4, 4, b"\0"), Picture("image", 0, 9, b""), Text("prompt", "a cat")):
        outcome = detector.score(content)
        assert isinstance(outcome, Unscored)
        assert outcome.trouble is Trouble.UNREADABLE


@needs_reader
def test_more_lines_than_are_read_are_trouble_and_not_harmless(
    detector: drawn_text.DrawnText, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page full of words does not hide one of them; what was read of it still blocks."""
    monkeypatch.setattr(drawn_text, "MAX_LINES", 1)
    full = detector.score(drawn(HARMLESS, MARKER))
    assert isinstance(full, Unscored)
    assert full.trouble is Trouble.UNREADABLE
    first = detector.score(drawn(MARKER, HARMLESS))
    assert isinstance(first, Scores)
    assert first.scores[Category.VIOLENCE] == 1.0


@pytest.mark.parametrize("size", [(1, 1), (1, 6_000), (6_000, 1), (5_000, 3_000), (64, 64)])
def test_every_picture_is_read_in_bounds(size: tuple[int, int]) -> None:
    """Neither a narrow strip nor a large one reaches the network in a size that takes its memory."""
    height, width, _ = drawn_text.pixels_of(Picture("image", *size, bytes(size[0] * size[1] * 3))).shape
    assert drawn_text.MIN_SIDE <= min(height, width) <= max(height, width) <= drawn_text.MAX_SIDE


@needs_reader
@pytest.mark.threat("ML06:2023", "AML.T0010")
def test_models_are_never_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's own way to download is not taken; weights of another digest are refused."""
    from rapidocr.utils.download_file import DownloadFile  # noqa: PLC0415 - the package is optional

    def refuse(*_: object) -> None:
        raise AssertionError("it wanted to download")

    monkeypatch.setattr(DownloadFile, "run", refuse)
    assert isinstance(drawn_text.DrawnText().score(drawn("boats")), Scores)
    name, _ = drawn_text._WEIGHTS["Rec"]
    monkeypatch.setattr(drawn_text, "_WEIGHTS", {"Rec": (name, "00" * 32)})
    with pytest.raises(Refused, match="is not the file that is expected here"):
        drawn_text.DrawnText()


@needs_reader
def test_it_covers_what_the_text_detector_covers_in_pictures_and_films(detector: drawn_text.DrawnText) -> None:
    """Nothing of texts and sound."""
    assert set(detector.info.covers) == {Modality.IMAGE, Modality.VIDEO}
    assert {Category.VIOLENCE, Category.HATE} <= detector.info.covers[Modality.IMAGE]
    assert gaps(read_policy(POLICY, "mine", 1), [detector.info]) == []


def test_without_the_extra_it_is_left_out_and_policies_are_told_which_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the judge, in the coverage, and to whoever names it."""
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, package=None: None if name == "rapidocr" else there(name, package)
    )
    with pytest.raises(Unavailable, match=r"install forestay\[ocr\]"):
        drawn_text.DrawnText()
    known = [one.info for one in registry.installed(Judge())]
    assert drawn_text.DETECTOR_ID not in {info.detector_id for info in known}
    assert left_out(known)[drawn_text.DETECTOR_ID] == "ocr"
    [gap] = gaps(read_policy(POLICY, "mine", 1), known)
    assert gap.reason == "drawn-text@1 is not installed here; install forestay[ocr] where the judge runs"


async def test_doctor_says_which_extra_reads_words_inside_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning, since only policies that name the detector need it."""

    def version(package: str) -> str:
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = await examine(Patient(Settings(), None, SystemClock(), SystemChance()))
    finding = next(item for item in found if item.check == "drawn text")
    assert (finding.health, "forestay[ocr]" in finding.mend) == (Health.WARNING, True)
